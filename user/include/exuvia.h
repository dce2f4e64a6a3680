/* The headers that small programs need, and any system call by its number. */
#ifndef EXUVIA_H
#define EXUVIA_H

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#endif
