/* A command at the other end of a pipe. */
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
#include "libc.h"
#include "file.h"

FILE *popen(const char *command, const char *mode) {
    int fds[2], ours = *mode == 'r' ? 0 : 1;
    if (pipe(fds) < 0) return NULL;
    pid_t child = fork();
    if (child == 0) {
        dup2(fds[!ours], !ours);
        close(fds[0]);
        close(fds[1]);
        execl("/bin/sh", "sh", "-c", command, NULL);
        _exit(127);
    }
    close(fds[!ours]);
    FILE *file = child < 0 ? NULL : fdopen(fds[ours], mode);
    if (!file) {
        close(fds[ours]);
        return NULL;
    }
    file->child = child;
    return file;
}

int pclose(FILE *file) {
    pid_t child = file->child;
    int status;
    fclose(file);
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) return -1;
    return status;
}
