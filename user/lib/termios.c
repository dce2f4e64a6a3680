/* Terminals. */
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include "libc.h"

int tcgetattr(int fd, struct termios *to) { return ioctl(fd, TIOCGETA, to); }

int tcsetattr(int fd, int when, const struct termios *from) {
    static const unsigned long COMMANDS[] = {TIOCSETA, TIOCSETAW, TIOCSETAF};
    if (when < 0 || when > TCSAFLUSH) {
        errno = EINVAL;
        return -1;
    }
    return ioctl(fd, COMMANDS[when], from);
}

pid_t tcgetpgrp(int fd) {
    int group;
    return ioctl(fd, TIOCGPGRP, &group) < 0 ? -1 : group;
}

int tcsetpgrp(int fd, pid_t group) { return ioctl(fd, TIOCSPGRP, &group); }

int isatty(int fd) {
    struct termios t;
    return tcgetattr(fd, &t) == 0;
}

char *ttyname(int fd) { return isatty(fd) ? "/dev/console" : NULL; }
