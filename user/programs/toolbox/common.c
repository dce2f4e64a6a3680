/* What several commands need. */
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/kinfo.h>
#include <sys/stat.h>
#include <sys/sysctl.h>
#include <unistd.h>
#include "toolbox.h"

void usage(const char *text) {
    fprintf(stderr, "usage: %s %s\n", getprogname(), text);
    exit(2);
}

int each_file(int argc, char **argv, int (*run)(FILE *file, const char *name)) {
    int status = 0;
    if (argc == 0) return run(stdin, "standard input");
    for (int i = 0; i < argc; i++) {
        int is_input = strcmp(argv[i], "-") == 0;
        FILE *file = is_input ? stdin : fopen(argv[i], "r");
        if (!file) {
            warn("%s", argv[i]);
            status = 1;
            continue;
        }
        int one = run(file, argv[i]);
        if (ferror(file)) {
            warn("%s", argv[i]);
            one = 1;
        }
        if (one > status) status = one;
        if (!is_input) fclose(file);
    }
    return status;
}

long sysctl_number(const char *name, long otherwise) {
    union {
        int i;
        long l;
        char bytes[16];
    } value;
    size_t size = sizeof value;
    memset(&value, 0, sizeof value);
    if (sysctlbyname(name, &value, &size, NULL, 0) < 0) return otherwise;
    return size == sizeof(int) ? value.i : value.l;
}

struct kinfo_proc *processes(int *count) {
    static const int NAME[] = {CTL_KERN, KERN_PROC, KERN_PROC_ALL};
    for (size_t room = 64;; room *= 2) {
        size_t size = room * sizeof(struct kinfo_proc);
        struct kinfo_proc *list = malloc(size);
        if (!list) err(1, "memory");
        if (sysctl(NAME, 3, list, &size, NULL, 0) == 0) {
            *count = (int)(size / sizeof *list);
            return list;
        }
        free(list);
        if (errno != ENOMEM) err(1, "kern.proc.all");
    }
}

long size_argument(const char *text) {
    char *end;
    long value = strtol(text, &end, 0);
    switch (*end) {
    case 'k': case 'K': value <<= 10; end++; break;
    case 'm': case 'M': value <<= 20; end++; break;
    case 'g': case 'G': value <<= 30; end++; break;
    }
    return *end || end == text ? -1 : value;
}

const char *human(long bytes) {
    static char texts[4][16];
    static int next;
    char *text = texts[next++ % 4];
    const char *units = "BKMGTP";
    long tenths = bytes * 10;
    while (tenths >= 10240 && units[1]) tenths /= 1024, units++;
    if (*units == 'B' || tenths >= 1000) snprintf(text, sizeof texts[0], "%ld%c", tenths / 10, *units);
    else snprintf(text, sizeof texts[0], "%ld.%ld%c", tenths / 10, tenths % 10, *units);
    return text;
}

void mode_text(mode_t mode, char to[11]) {
    strcpy(to, S_ISDIR(mode)    ? "d---------"
               : S_ISLNK(mode)  ? "l---------"
               : S_ISCHR(mode)  ? "c---------"
               : S_ISBLK(mode)  ? "b---------"
               : S_ISFIFO(mode) ? "p---------"
                                : "----------");
    for (int i = 0; i < 9; i++)
        if (mode & (0400 >> i)) to[1 + i] = "rwx"[i % 3];
    if (mode & S_ISUID) to[3] = mode & 0100 ? 's' : 'S';
    if (mode & S_ISGID) to[6] = mode & 0010 ? 's' : 'S';
    if (mode & S_ISVTX) to[9] = mode & 0001 ? 't' : 'T';
}

int copy_bytes(int from, int to) {
    static char buffer[16384];
    for (;;) {
        ssize_t n = read(from, buffer, sizeof buffer);
        if (n == 0) return 0;
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        for (ssize_t done = 0; done < n;) {
            ssize_t written = write(to, buffer + done, (size_t)(n - done));
            if (written < 0 && errno != EINTR) return -1;
            if (written > 0) done += written;
        }
    }
}

char *join_path(const char *folder, const char *name) {
    size_t length = strlen(folder);
    char *path = malloc(length + strlen(name) + 2);
    if (!path) err(1, "memory");
    strcpy(path, folder);
    if (length > 0 && folder[length - 1] != '/') path[length++] = '/';
    strcpy(path + length, name);
    return path;
}
