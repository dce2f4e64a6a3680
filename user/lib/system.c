/* The rest of the system calls: memory, time, limits, terminals, file systems, threads. */
#include <dirent.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/lwp.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sysctl.h>
#include <sys/tls.h>
#include <sys/umtx.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>
#include "libc.h"

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    return (void *)syscall7(SYS_mmap, (long)address, (long)length, protection, flags, fd, 0, offset);
}
int munmap(void *address, size_t length) { return (int)CALL2(munmap, address, length); }
int mprotect(void *address, size_t length, int protection) {
    return (int)CALL3(mprotect, address, length, protection);
}
int madvise(void *address, size_t length, int advice) { return (int)CALL3(madvise, address, length, advice); }
int mincore(const void *address, size_t length, char *to) { return (int)CALL3(mincore, address, length, to); }
int msync(void *address, size_t length, int flags) { return (int)CALL3(msync, address, length, flags); }
int mlock(const void *address, size_t length) { return (int)CALL2(mlock, address, length); }
int munlock(const void *address, size_t length) { return (int)CALL2(munlock, address, length); }
int mlockall(int how) { return (int)CALL1(mlockall, how); }
int munlockall(void) { return (int)CALL0(munlockall); }
int minherit(void *address, size_t length, int inherit) { return (int)CALL3(minherit, address, length, inherit); }

int gettimeofday(struct timeval *tv, void *zone) { return (int)CALL2(gettimeofday, tv, zone); }
int setitimer(int which, const struct itimerval *value, struct itimerval *old) {
    return (int)CALL3(setitimer, which, value, old);
}
int getitimer(int which, struct itimerval *value) { return (int)CALL2(getitimer, which, value); }
int utimes(const char *path, const struct timeval *times) { return (int)CALL2(utimes, path, times); }
int clock_gettime(clockid_t clock, struct timespec *ts) { return (int)CALL2(clock_gettime, clock, ts); }
int clock_getres(clockid_t clock, struct timespec *ts) { return (int)CALL2(clock_getres, clock, ts); }
int nanosleep(const struct timespec *wanted, struct timespec *remaining) {
    return (int)CALL2(nanosleep, wanted, remaining);
}

int getrusage(int who, struct rusage *to) { return (int)CALL2(getrusage, who, to); }
int getrlimit(int which, struct rlimit *to) { return (int)CALL2(getrlimit, which, to); }
int setrlimit(int which, const struct rlimit *from) { return (int)CALL2(setrlimit, which, from); }
int getpriority(int which, int who) { return (int)CALL2(getpriority, which, who); }
int setpriority(int which, int who, int priority) { return (int)CALL3(setpriority, which, who, priority); }

pid_t wait4(pid_t pid, int *status, int options, struct rusage *usage) {
    return (pid_t)CALL4(wait4, pid, status, options, usage);
}
pid_t waitpid(pid_t pid, int *status, int options) { return wait4(pid, status, options, NULL); }
pid_t wait(int *status) { return wait4(WAIT_ANY, status, 0, NULL); }

int ioctl(int fd, unsigned long command, ...) {
    va_list arguments;
    va_start(arguments, command);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    return (int)CALL3(ioctl, fd, command, argument);
}
int poll(struct pollfd *fds, nfds_t count, int milliseconds) { return (int)CALL3(poll, fds, count, milliseconds); }
int select(int count, fd_set *reading, fd_set *writing, fd_set *exceptional, struct timeval *timeout) {
    return (int)CALL5(select, count, reading, writing, exceptional, timeout);
}
int getdirentries(int fd, char *buffer, int count, long *base) {
    return (int)CALL4(getdirentries, fd, buffer, count, base);
}
int getdents(int fd, char *buffer, size_t count) { return (int)CALL3(getdents, fd, buffer, count); }

int statfs(const char *path, struct statfs *to) { return (int)CALL2(statfs, path, to); }
int fstatfs(int fd, struct statfs *to) { return (int)CALL2(fstatfs, fd, to); }
int getfsstat(struct statfs *to, long size, int flags) { return (int)CALL3(getfsstat, to, size, flags); }
int mount(const char *type, const char *path, int flags, void *data) {
    return (int)CALL4(mount, type, path, flags, data);
}
int unmount(const char *path, int flags) { return (int)CALL2(unmount, path, flags); }
int reboot(int how) { return (int)CALL1(reboot, how); }
int uname(struct utsname *to) { return (int)CALL1(uname, to); }
int sysctl(const int *name, u_int length, void *old, size_t *old_size, const void *new, size_t new_size) {
    return (int)CALL6(__sysctl, name, length, old, old_size, new, new_size);
}

int umtx_sleep(volatile const int *word, int value, int timeout) {
    return (int)CALL3(umtx_sleep, word, value, timeout);
}
int umtx_wakeup(volatile const int *word, int count) { return (int)CALL2(umtx_wakeup, word, count); }
int lwp_create(struct lwp_params *params) { return (int)CALL1(lwp_create, params); }
lwpid_t lwp_gettid(void) { return (lwpid_t)CALL0(lwp_gettid); }
int lwp_kill(pid_t pid, lwpid_t tid, int signal) { return (int)CALL3(lwp_kill, pid, tid, signal); }
void extexit(int how, int status, void *address) { CALL3(extexit, how, status, address); }
int set_tls_area(int which, struct tls_info *info, size_t size) {
    return (int)CALL3(set_tls_area, which, info, size);
}
int get_tls_area(int which, struct tls_info *info, size_t size) {
    return (int)CALL3(get_tls_area, which, info, size);
}
