/* Signals. The kernel puts the code that returns from a handler on the user's stack page, as DragonFly does. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "libc.h"

int sigaction(int signal, const struct sigaction *action, struct sigaction *old) {
    return (int)CALL3(sigaction, signal, action, old);
}
int sigprocmask(int how, const sigset_t *set, sigset_t *old) { return (int)CALL3(sigprocmask, how, set, old); }
int sigsuspend(const sigset_t *mask) { return (int)CALL1(sigsuspend, mask); }
int sigpending(sigset_t *set) { return (int)CALL1(sigpending, set); }
int sigaltstack(const stack_t *stack, stack_t *old) { return (int)CALL2(sigaltstack, stack, old); }
int kill(pid_t pid, int signal) { return (int)CALL2(kill, pid, signal); }

int killpg(pid_t group, int signal) {
    if (group <= 1) {
        errno = ESRCH;
        return -1;
    }
    return kill(-group, signal);
}

int raise(int signal) { return kill(getpid(), signal); }

void (*signal(int signal, void (*handler)(int)))(int) {
    struct sigaction action = {{handler}, SA_RESTART, {{0}}}, old;
    return sigaction(signal, &action, &old) < 0 ? SIG_ERR : old.sa_handler;
}

int sigemptyset(sigset_t *set) {
    memset(set, 0, sizeof *set);
    return 0;
}

int sigfillset(sigset_t *set) {
    memset(set, 0xff, sizeof *set);
    return 0;
}

static int valid(int signal) {
    if (signal > 0 && signal <= 128) return 1;
    errno = EINVAL;
    return 0;
}

int sigaddset(sigset_t *set, int signal) {
    if (!valid(signal)) return -1;
    set->__bits[(signal - 1) / 32] |= 1U << ((signal - 1) % 32);
    return 0;
}

int sigdelset(sigset_t *set, int signal) {
    if (!valid(signal)) return -1;
    set->__bits[(signal - 1) / 32] &= ~(1U << ((signal - 1) % 32));
    return 0;
}

int sigismember(const sigset_t *set, int signal) {
    if (!valid(signal)) return -1;
    return (set->__bits[(signal - 1) / 32] >> ((signal - 1) % 32)) & 1;
}
