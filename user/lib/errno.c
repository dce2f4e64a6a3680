/* Each thread's errno, and what the numbers mean. */
#include <stdio.h>
#include <string.h>
#include "libc.h"

static int main_error;

int *__errno_location(void) {
    if (!__tls_ready) return &main_error;
    return &pthread_self()->error;
}

static const char *const TEXTS[] = {
    [0] = "No error",
    [EPERM] = "Operation not permitted",
    [ENOENT] = "No such file or directory",
    [ESRCH] = "No such process",
    [EINTR] = "Interrupted system call",
    [EIO] = "Input/output error",
    [ENXIO] = "Device not configured",
    [E2BIG] = "Argument list too long",
    [ENOEXEC] = "Exec format error",
    [EBADF] = "Bad file descriptor",
    [ECHILD] = "No child processes",
    [EDEADLK] = "Resource deadlock avoided",
    [ENOMEM] = "Cannot allocate memory",
    [EACCES] = "Permission denied",
    [EFAULT] = "Bad address",
    [ENOTBLK] = "Block device required",
    [EBUSY] = "Device busy",
    [EEXIST] = "File exists",
    [EXDEV] = "Cross-device link",
    [ENODEV] = "Operation not supported by device",
    [ENOTDIR] = "Not a directory",
    [EISDIR] = "Is a directory",
    [EINVAL] = "Invalid argument",
    [ENFILE] = "Too many open files in system",
    [EMFILE] = "Too many open files",
    [ENOTTY] = "Inappropriate ioctl for device",
    [ETXTBSY] = "Text file busy",
    [EFBIG] = "File too large",
    [ENOSPC] = "No space left on device",
    [ESPIPE] = "Illegal seek",
    [EROFS] = "Read-only file system",
    [EMLINK] = "Too many links",
    [EPIPE] = "Broken pipe",
    [EDOM] = "Numerical argument out of domain",
    [ERANGE] = "Result too large",
    [EAGAIN] = "Resource temporarily unavailable",
    [EINPROGRESS] = "Operation now in progress",
    [EOPNOTSUPP] = "Operation not supported",
    [ETIMEDOUT] = "Operation timed out",
    [ELOOP] = "Too many levels of symbolic links",
    [ENAMETOOLONG] = "File name too long",
    [ENOTEMPTY] = "Directory not empty",
    [EDQUOT] = "Disc quota exceeded",
    [ENOLCK] = "No locks available",
    [ENOSYS] = "Function not " "implemented",
    [EOVERFLOW] = "Value too large to be stored in data type",
    [ECANCELED] = "Operation canceled",
    [EILSEQ] = "Illegal byte sequence",
};

char *strerror(int number) {
    static char unknown[32];
    if (number >= 0 && number < (int)(sizeof TEXTS / sizeof *TEXTS) && TEXTS[number]) return (char *)TEXTS[number];
    snprintf(unknown, sizeof unknown, "Unknown error: %d", number);
    return unknown;
}
