/* Files and processes: one system call each. */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include "libc.h"

ssize_t read(int fd, void *to, size_t count) { return CALL3(read, fd, to, count); }
ssize_t write(int fd, const void *from, size_t count) { return CALL3(write, fd, from, count); }
ssize_t pread(int fd, void *to, size_t count, off_t offset) { return CALL5(extpread, fd, to, count, 0, offset); }
ssize_t pwrite(int fd, const void *from, size_t count, off_t offset) {
    return CALL5(extpwrite, fd, from, count, 0, offset);
}
ssize_t readv(int fd, const struct iovec *vector, int count) { return CALL3(readv, fd, vector, count); }
ssize_t writev(int fd, const struct iovec *vector, int count) { return CALL3(writev, fd, vector, count); }
int close(int fd) { return (int)CALL1(close, fd); }
off_t lseek(int fd, off_t offset, int whence) { return CALL4(lseek, fd, 0, offset, whence); }
int dup(int fd) { return (int)CALL1(dup, fd); }
int dup2(int from, int to) { return (int)CALL2(dup2, from, to); }
int fsync(int fd) { return (int)CALL1(fsync, fd); }
void sync(void) { CALL0(sync); }
int ftruncate(int fd, off_t length) { return (int)CALL3(ftruncate, fd, 0, length); }
int truncate(const char *path, off_t length) { return (int)CALL3(truncate, path, 0, length); }
int access(const char *path, int mode) { return (int)CALL2(access, path, mode); }
int link(const char *from, const char *to) { return (int)CALL2(link, from, to); }
int symlink(const char *target, const char *path) { return (int)CALL2(symlink, target, path); }
ssize_t readlink(const char *path, char *to, size_t size) { return CALL3(readlink, path, to, size); }
int unlink(const char *path) { return (int)CALL1(unlink, path); }
int rename(const char *from, const char *to) { return (int)CALL2(rename, from, to); }
int mkdir(const char *path, mode_t mode) { return (int)CALL2(mkdir, path, mode); }
int mkfifo(const char *path, mode_t mode) { return (int)CALL2(mkfifo, path, mode); }
int rmdir(const char *path) { return (int)CALL1(rmdir, path); }
int chdir(const char *path) { return (int)CALL1(chdir, path); }
int fchdir(int fd) { return (int)CALL1(fchdir, fd); }
int chmod(const char *path, mode_t mode) { return (int)CALL2(chmod, path, mode); }
int fchmod(int fd, mode_t mode) { return (int)CALL2(fchmod, fd, mode); }
int chown(const char *path, uid_t uid, gid_t gid) { return (int)CALL3(chown, path, uid, gid); }
int chroot(const char *path) { return (int)CALL1(chroot, path); }
mode_t umask(mode_t mask) { return (mode_t)CALL1(umask, mask); }
int stat(const char *path, struct stat *to) { return (int)CALL2(stat, path, to); }
int lstat(const char *path, struct stat *to) { return (int)CALL2(lstat, path, to); }
int fstat(int fd, struct stat *to) { return (int)CALL2(fstat, fd, to); }
int fstatat(int at, const char *path, struct stat *to, int flags) { return (int)CALL4(fstatat, at, path, to, flags); }

int open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    int mode = flags & O_CREAT ? va_arg(arguments, int) : 0;
    va_end(arguments);
    return (int)CALL3(open, path, flags, mode);
}

int openat(int at, const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    int mode = flags & O_CREAT ? va_arg(arguments, int) : 0;
    va_end(arguments);
    return (int)CALL4(openat, at, path, flags, mode);
}

int creat(const char *path, mode_t mode) { return open(path, O_WRONLY | O_CREAT | O_TRUNC, mode); }

int fcntl(int fd, int command, ...) {
    va_list arguments;
    va_start(arguments, command);
    long argument = va_arg(arguments, long);
    va_end(arguments);
    return (int)CALL3(fcntl, fd, command, argument);
}

int pipe(int fds[2]) {
    long second;
    long first = syscall_pair(SYS_pipe, &second);
    if (first < 0) return -1;
    fds[0] = (int)first;
    fds[1] = (int)second;
    return 0;
}

pid_t fork(void) { return (pid_t)CALL0(fork); }
pid_t rfork(int flags) { return (pid_t)CALL1(rfork, flags); }
int execve(const char *path, char *const argv[], char *const envp[]) { return (int)CALL3(execve, path, argv, envp); }
pid_t getpid(void) { return (pid_t)CALL0(getpid); }
pid_t getppid(void) { return (pid_t)CALL0(getppid); }
pid_t getpgrp(void) { return (pid_t)CALL0(getpgrp); }
pid_t getpgid(pid_t pid) { return (pid_t)CALL1(getpgid, pid); }
pid_t getsid(pid_t pid) { return (pid_t)CALL1(getsid, pid); }
int setpgid(pid_t pid, pid_t group) { return (int)CALL2(setpgid, pid, group); }
pid_t setsid(void) { return (pid_t)CALL0(setsid); }
uid_t getuid(void) { return (uid_t)CALL0(getuid); }
uid_t geteuid(void) { return (uid_t)CALL0(geteuid); }
gid_t getgid(void) { return (gid_t)CALL0(getgid); }
gid_t getegid(void) { return (gid_t)CALL0(getegid); }
int setuid(uid_t uid) { return (int)CALL1(setuid, uid); }
int setgid(gid_t gid) { return (int)CALL1(setgid, gid); }
int sched_yield(void) { return (int)CALL0(sched_yield); }

void _exit(int status) {
    for (;;) CALL1(exit, status);
}
