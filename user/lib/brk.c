/* The program's break: the end of its data. */
#include <unistd.h>
#include "libc.h"

extern char _end[];
static char *current;

int brk(void *end) {
    if (CALL1(break, end) < 0) return -1;
    current = end;
    return 0;
}

void *sbrk(intptr_t increment) {
    if (!current) current = (char *)(((uintptr_t)_end + 15) & ~(uintptr_t)15);
    char *old = current;
    if (increment != 0 && brk(old + increment) < 0) return (void *)-1;
    return old;
}
