/* What the files of the library share. */
#ifndef LIBC_H
#define LIBC_H

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>

/* A call with two results: the second one comes in RDX. */
long syscall_pair(long number, long *second);

#define CALL0(n) syscall6(SYS_##n, 0, 0, 0, 0, 0, 0)
#define CALL1(n, a) syscall6(SYS_##n, (long)(a), 0, 0, 0, 0, 0)
#define CALL2(n, a, b) syscall6(SYS_##n, (long)(a), (long)(b), 0, 0, 0, 0)
#define CALL3(n, a, b, c) syscall6(SYS_##n, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define CALL4(n, a, b, c, d) syscall6(SYS_##n, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define CALL5(n, a, b, c, d, e) syscall6(SYS_##n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)
#define CALL6(n, a, b, c, d, e, f) syscall6(SYS_##n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

/* A thread's control block. FS points at it; thread-local variables lie right below (TLS variant 2). */
struct __lwp {
    struct __lwp *self;
    int error;
    volatile int state;
    volatile int gone;
    int detached;
    lwpid_t tid, tid2;
    void *(*function)(void *);
    void *argument, *result;
    /* Stack and TLS of a thread that pthread_create made. */
    void *area;
    size_t area_size;
    struct __lwp *next;
    const void *specific[PTHREAD_KEYS_MAX];
};

/* Nonzero once FS points at a control block. */
extern int __tls_ready;

/* Auxiliary vector's entry, or 0. */
unsigned long getauxval(unsigned long type);
void __start_auxv(unsigned long *auxv);
/* Sets up the main thread's control block if the program has thread-local variables. */
void __start_tls(void);
/* The same in any case, before the first thread is made. */
void __make_tls(void);
/* Size below the control block, and its filling. */
size_t __tls_size(void);
void __tls_fill(struct __lwp *thread);

/* Locks of the library itself; free of cost while there is one thread. */
void __lock(pthread_mutex_t *mutex);
void __unlock(pthread_mutex_t *mutex);
extern int __threaded;

/* Writes what files still hold; runs at exit. */
void __flush_all(void);

/* Writes digits of a double: used by printf. Returns the length. */
int __format_double(char *to, size_t size, double value, char conversion, int precision, int alternate);

#endif
