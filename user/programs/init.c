/*
 * Process 1: runs /etc/rc once, keeps a shell on the console, waits for everybody's orphans. With arguments it runs those
 * instead of the shell and ends the machine with their status.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <unistd.h>

static void open_console(void) {
    int fd = open("/dev/console", O_RDWR);
    if (fd < 0) return;
    if (fd > 2) {
        for (int i = 0; i < 3; i++) dup2(fd, i);
        close(fd);
    } else {
        while (fd < 2) fd = dup(fd);
    }
}

static pid_t start(const char *path, char **argv) {
    pid_t pid = fork();
    if (pid != 0) return pid;
    setsid();
    ioctl(0, TIOCSCTTY, 0);
    execvp(path, argv);
    warn("%s", path);
    _exit(127);
}

/* Waits for one child; whoever else ends meanwhile is buried. */
static int wait_for(pid_t pid) {
    for (;;) {
        int status;
        pid_t got = wait(&status);
        if (got == pid) return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        if (got < 0 && errno == ECHILD) return 127;
    }
}

int main(int argc, char **argv) {
    static char *rc[] = {"sh", "/etc/rc", NULL}, *shell[] = {"-sh", NULL};
    if (getpid() != 1) errx(1, "I am process 1, or nobody");
    open_console();
    setenv("PATH", "/bin:/sbin:/usr/bin", 0);
    setenv("HOME", "/root", 0);
    setenv("TERM", "dumb", 0);
    signal(SIGINT, SIG_IGN);
    /* The console is not ours but the shell's session's. */
    ioctl(0, TIOCNOTTY, 0);
    if (access("/etc/rc", R_OK) == 0) wait_for(start("/bin/sh", rc));
    int status;
    if (argc > 1) {
        status = wait_for(start(argv[1], argv + 1));
    } else {
        /* A shell that ends with "exit" ends the machine's run; one that was killed is started again. */
        do status = wait_for(start("/bin/sh", shell));
        while (status > 128);
    }
    sync();
    _exit(status);
}
