/* Parameters of the system. */
#ifndef _SYS_PARAM_H
#define _SYS_PARAM_H

#include <limits.h>
#include <sys/types.h>

#define PAGE_SIZE 4096
#define MAXPATHLEN PATH_MAX
#define MAXCOMLEN 16
#define MAXLOGNAME 17
#define NGROUPS 16

#endif
