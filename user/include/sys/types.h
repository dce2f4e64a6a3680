/* Types of the system's interface, DragonFly's widths. */
#ifndef _SYS_TYPES_H
#define _SYS_TYPES_H

#include <stddef.h>
#include <stdint.h>

typedef long ssize_t;
typedef int pid_t;
typedef int lwpid_t;
typedef unsigned uid_t, gid_t, dev_t, nlink_t;
typedef unsigned short mode_t;
typedef unsigned long ino_t;
typedef long off_t, time_t, suseconds_t, segsz_t;
typedef unsigned long clockid_t;
typedef int clock_t;
typedef unsigned useconds_t;
typedef unsigned char u_char;
typedef unsigned short u_short;
typedef unsigned u_int;
typedef unsigned long u_long;

struct __lwp;

#endif
