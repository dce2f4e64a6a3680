/* Processes, made of several system calls: exec by name, exit handlers, sleeping, the working directory. */
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sysctl.h>
#include <sys/time.h>
#include <sys/times.h>
#include <sys/wait.h>
#include <unistd.h>
#include "libc.h"

enum { ARGUMENTS_MOST = 128, HANDLERS_MOST = 32 };

static void (*handlers[HANDLERS_MOST])(void);
static int handler_count;

int atexit(void (*function)(void)) {
    if (handler_count == HANDLERS_MOST) return -1;
    handlers[handler_count++] = function;
    return 0;
}

void exit(int status) {
    while (handler_count > 0) handlers[--handler_count]();
    __flush_all();
    _exit(status);
}

void _Exit(int status) { _exit(status); }

void abort(void) {
    signal(SIGABRT, SIG_DFL);
    raise(SIGABRT);
    _exit(127);
}

void __assert_failed(const char *claim, const char *file, int line) {
    dprintf(2, "Assertion failed: %s, %s:%d\n", claim, file, line);
    abort();
}

int execv(const char *path, char *const argv[]) { return execve(path, argv, environ); }

/* A file that the system cannot run by itself is a script of the shell. */
static int exec_or_shell(const char *path, char *const argv[]) {
    execve(path, argv, environ);
    if (errno != ENOEXEC) return -1;
    int count = 0;
    while (argv[count]) count++;
    char *shell_argv[count + 2];
    shell_argv[0] = "sh";
    shell_argv[1] = (char *)path;
    for (int i = 1; i <= count; i++) shell_argv[i + 1] = argv[i];
    return execve("/bin/sh", shell_argv, environ);
}

int execvp(const char *file, char *const argv[]) {
    if (strchr(file, '/')) return exec_or_shell(file, argv);
    const char *path = getenv("PATH");
    if (!path) path = "/bin:/sbin:/usr/bin";
    int seen = ENOENT;
    for (;;) {
        const char *end = strchr(path, ':');
        size_t length = end ? (size_t)(end - path) : strlen(path);
        char full[PATH_MAX];
        if (length + strlen(file) + 2 <= sizeof full) {
            memcpy(full, path, length);
            if (length > 0) full[length++] = '/';
            strcpy(full + length, file);
            exec_or_shell(full, argv);
            if (errno == EACCES) seen = EACCES;
            else if (errno != ENOENT && errno != ENOTDIR) return -1;
        }
        if (!end) break;
        path = end + 1;
    }
    errno = seen;
    return -1;
}

int execl(const char *path, const char *arg, ...) {
    char *argv[ARGUMENTS_MOST] = {(char *)arg};
    va_list arguments;
    va_start(arguments, arg);
    for (int i = 1; i < ARGUMENTS_MOST && argv[i - 1]; i++) argv[i] = va_arg(arguments, char *);
    va_end(arguments);
    argv[ARGUMENTS_MOST - 1] = NULL;
    return execv(path, argv);
}

int execlp(const char *file, const char *arg, ...) {
    char *argv[ARGUMENTS_MOST] = {(char *)arg};
    va_list arguments;
    va_start(arguments, arg);
    for (int i = 1; i < ARGUMENTS_MOST && argv[i - 1]; i++) argv[i] = va_arg(arguments, char *);
    va_end(arguments);
    argv[ARGUMENTS_MOST - 1] = NULL;
    return execvp(file, argv);
}

int system(const char *command) {
    pid_t pid = fork();
    if (pid < 0) return -1;
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", command, NULL);
        _exit(127);
    }
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) return -1;
    return status;
}

unsigned sleep(unsigned seconds) {
    struct timespec wanted = {seconds, 0}, remaining = {0, 0};
    return nanosleep(&wanted, &remaining) < 0 ? (unsigned)remaining.tv_sec + (remaining.tv_nsec > 0) : 0;
}

int usleep(unsigned microseconds) {
    struct timespec wanted = {microseconds / 1000000, microseconds % 1000000 * 1000L};
    return nanosleep(&wanted, NULL);
}

unsigned alarm(unsigned seconds) {
    struct itimerval value = {{0, 0}, {seconds, 0}}, old = {{0, 0}, {0, 0}};
    if (setitimer(ITIMER_REAL, &value, &old) < 0) return 0;
    return (unsigned)old.it_value.tv_sec + (old.it_value.tv_usec > 0);
}

int pause(void) {
    sigset_t mask;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    return sigsuspend(&mask);
}

int nice(int increment) {
    errno = 0;
    int now = getpriority(PRIO_PROCESS, 0);
    if (now == -1 && errno) return -1;
    return setpriority(PRIO_PROCESS, 0, now + increment) < 0 ? -1 : now + increment;
}

char *getcwd(char *to, size_t size) {
    char *made = to ? NULL : malloc(size = PATH_MAX);
    if (!to && !made) return NULL;
    if (CALL2(__getcwd, to ? to : made, size) >= 0) return to ? to : made;
    free(made);
    return NULL;
}

clock_t times(struct tms *to) {
    struct rusage self, children;
    struct timespec now;
    if (getrusage(RUSAGE_SELF, &self) < 0 || getrusage(RUSAGE_CHILDREN, &children) < 0) return -1;
    to->tms_utime = (clock_t)(self.ru_utime.tv_sec * 100 + self.ru_utime.tv_usec / 10000);
    to->tms_stime = (clock_t)(self.ru_stime.tv_sec * 100 + self.ru_stime.tv_usec / 10000);
    to->tms_cutime = (clock_t)(children.ru_utime.tv_sec * 100 + children.ru_utime.tv_usec / 10000);
    to->tms_cstime = (clock_t)(children.ru_stime.tv_sec * 100 + children.ru_stime.tv_usec / 10000);
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (clock_t)(now.tv_sec * 100 + now.tv_nsec / 10000000);
}

int getpagesize(void) { return 4096; }

long sysconf(int name) {
    int value;
    size_t size = sizeof value;
    switch (name) {
    case _SC_PAGESIZE: return 4096;
    case _SC_CLK_TCK: return 100;
    case _SC_NPROCESSORS_ONLN: return sysctlbyname("hw.ncpu", &value, &size, NULL, 0) < 0 ? 1 : value;
    }
    errno = EINVAL;
    return -1;
}

int gethostname(char *to, size_t size) { return sysctlbyname("kern.hostname", to, &size, NULL, 0); }
