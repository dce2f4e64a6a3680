/* The true name of a path, and files with new names. */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "libc.h"

char *realpath(const char *path, char *to) {
    char rest[PATH_MAX], done[PATH_MAX] = "";
    int links = 0;
    if (*path != '/' && !getcwd(done, sizeof done)) return NULL;
    if (strlcpy(rest, path, sizeof rest) >= sizeof rest) goto too_long;
    if (strcmp(done, "/") == 0) *done = '\0';
    char *at = rest;
    while (*at) {
        while (*at == '/') at++;
        size_t length = strcspn(at, "/");
        if (length == 0) break;
        char *next = at + length;
        if (length == 2 && at[0] == '.' && at[1] == '.') {
            char *slash = strrchr(done, '/');
            if (slash) *slash = '\0';
        } else if (!(length == 1 && *at == '.')) {
            size_t old = strlen(done);
            if (old + length + 2 > sizeof done) goto too_long;
            done[old] = '/';
            memcpy(done + old + 1, at, length);
            done[old + 1 + length] = '\0';
            struct stat st;
            if (lstat(done, &st) < 0) return NULL;
            if (S_ISLNK(st.st_mode)) {
                char target[PATH_MAX];
                ssize_t n = readlink(done, target, sizeof target - 1);
                if (n < 0) return NULL;
                target[n] = '\0';
                if (++links > 32) {
                    errno = ELOOP;
                    return NULL;
                }
                if ((size_t)n + strlen(next) + 1 > sizeof rest) goto too_long;
                strcat(target, next);
                strcpy(rest, target);
                next = rest;
                if (*rest == '/') *done = '\0';
                else done[old] = '\0';
            }
        }
        at = next;
    }
    if (!*done) strcpy(done, "/");
    return to ? strcpy(to, done) : strdup(done);
too_long:
    errno = ENAMETOOLONG;
    return NULL;
}

int mkstemp(char *template) {
    static unsigned counter;
    char *xs = template + strlen(template);
    while (xs > template && xs[-1] == 'X') xs--;
    size_t room = strlen(xs);
    for (int i = 0; room >= 6 && i < 1000; i++) {
        char digits[16];
        snprintf(digits, sizeof digits, "%06u", ((unsigned)getpid() * 1000 + counter++) % 1000000);
        memcpy(xs, digits, 6);
        int fd = open(template, O_RDWR | O_CREAT | O_EXCL, 0600);
        if (fd >= 0 || errno != EEXIST) return fd;
    }
    errno = EINVAL;
    return -1;
}
