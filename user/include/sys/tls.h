/* The base of FS (0) or GS (1). */
#ifndef _SYS_TLS_H
#define _SYS_TLS_H

#include <stddef.h>

struct tls_info {
    void *base;
    int size;
};

int set_tls_area(int which, struct tls_info *info, size_t size);
int get_tls_area(int which, struct tls_info *info, size_t size);

#endif
