/* Ending the machine's run. */
#ifndef _SYS_REBOOT_H
#define _SYS_REBOOT_H

#define RB_AUTOBOOT 0
#define RB_HALT 0x8
#define RB_POWEROFF 0x4000

int reboot(int how);

#endif
