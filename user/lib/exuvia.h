/* The C library of the programs in user/: what they need and no more. */
#ifndef EXUVIA_H
#define EXUVIA_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

extern char **environ;
extern int errno;

#define EBADF 9
#define EFAULT 14
#define EINVAL 22
#define ENOSYS 78

/* Any system call, by number; -1 and errno on error. */
long syscall6(long number, long a, long b, long c, long d, long e, long f);

long write(int descriptor, const void *bytes, size_t count);
int getpid(void);
void exit(int status) __attribute__((noreturn));

void *memcpy(void *to, const void *from, size_t count);
void *memmove(void *to, const void *from, size_t count);
void *memset(void *to, int byte, size_t count);
int memcmp(const void *a, const void *b, size_t count);
size_t strlen(const char *s);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t count);
char *strchr(const char *s, int c);
char *getenv(const char *name);
long strtol(const char *s, char **end, int base);

/* %d %u %x %p %c %s %% with l, ll and z, a width, a zero fill, a left fill. */
int printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
int vsnprintf(char *to, size_t size, const char *format, va_list arguments);
int snprintf(char *to, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
int puts(const char *s);
int putchar(int c);

#endif
