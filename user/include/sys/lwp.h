/* Light weight processes: the threads of a process. */
#ifndef _SYS_LWP_H
#define _SYS_LWP_H

#include <sys/types.h>

struct lwp_params {
    void (*lwp_func)(void *);
    void *lwp_arg;
    void *lwp_stack;
    lwpid_t *lwp_tid1, *lwp_tid2;
};

#define EXTEXIT_SIMPLE 0
#define EXTEXIT_SETINT 1
#define EXTEXIT_PROC 0
#define EXTEXIT_LWP (1 << 16)

int lwp_create(struct lwp_params *params);
lwpid_t lwp_gettid(void);
int lwp_kill(pid_t pid, lwpid_t tid, int signal);
void extexit(int how, int status, void *address);

#endif
