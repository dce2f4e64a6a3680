/* Commands of devices: direction, size of the argument, group, number. */
#ifndef _SYS_IOCTL_H
#define _SYS_IOCTL_H

#define _IO(group, number) (0x20000000UL | (group) << 8 | (number))
#define _IOR(group, number, type) (0x40000000UL | sizeof(type) << 16 | (group) << 8 | (number))
#define _IOW(group, number, type) (0x80000000UL | sizeof(type) << 16 | (group) << 8 | (number))

struct winsize {
    unsigned short ws_row, ws_col, ws_xpixel, ws_ypixel;
};
#define TIOCGETA _IOR('t', 19, struct termios)
#define TIOCSETA _IOW('t', 20, struct termios)
#define TIOCSETAW _IOW('t', 21, struct termios)
#define TIOCSETAF _IOW('t', 22, struct termios)
#define TIOCSCTTY _IO('t', 97)
#define TIOCSWINSZ _IOW('t', 103, struct winsize)
#define TIOCGWINSZ _IOR('t', 104, struct winsize)
#define TIOCNOTTY _IO('t', 113)
#define TIOCSPGRP _IOW('t', 118, int)
#define TIOCGPGRP _IOR('t', 119, int)
#define FIONREAD _IOR('f', 127, int)

int ioctl(int fd, unsigned long command, ...);

#endif
