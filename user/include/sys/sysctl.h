/* The kernel's variables. */
#ifndef _SYS_SYSCTL_H
#define _SYS_SYSCTL_H

#include <sys/types.h>

#define CTL_MAXNAME 12
#define CTLTYPE 0xf
#define CTLTYPE_NODE 1
#define CTLTYPE_INT 2
#define CTLTYPE_STRING 3
#define CTLTYPE_QUAD 4
#define CTLTYPE_OPAQUE 5
#define CTLTYPE_UINT 6
#define CTLTYPE_LONG 7
#define CTLTYPE_ULONG 8
#define CTLTYPE_UQUAD 9
#define CTL_KERN 1
#define CTL_VM 2
#define CTL_VFS 3
#define CTL_HW 6
#define KERN_HOSTNAME 10
#define KERN_PROC 14
#define KERN_PROC_ALL 0
#define KERN_PROC_PID 1
#define KERN_PROC_ARGS 7
#define HW_NCPU 3
#define HW_PHYSMEM 5
#define HW_PAGESIZE 7

int sysctl(const int *name, u_int length, void *old, size_t *old_size, const void *new, size_t new_size);
int sysctlbyname(const char *name, void *old, size_t *old_size, const void *new, size_t new_size);
int sysctlnametomib(const char *name, int *mib, size_t *length);

#endif
