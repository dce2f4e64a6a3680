/* File names that match a pattern. */
#include <dirent.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "sh.h"

struct found {
    char **names;
    int count, room;
};

static void add(struct found *f, const char *name) {
    if (f->count == f->room) {
        f->room = f->room ? f->room * 2 : 32;
        char **grown = make((size_t)f->room * sizeof *grown);
        if (f->count) memcpy(grown, f->names, (size_t)f->count * sizeof *grown);
        f->names = grown;
    }
    f->names[f->count++] = make_text(name, strlen(name));
}

static int has_magic(const char *s, size_t length) {
    for (size_t i = 0; i < length; i++) {
        if (s[i] == '\\') i++;
        else if (strchr("*?[", s[i])) return 1;
    }
    return 0;
}

static char *join(const char *path, const char *name, const char *tail) {
    char *joined = make(strlen(path) + strlen(name) + strlen(tail) + 1);
    strcpy(stpcpy(stpcpy(joined, path), name), tail);
    return joined;
}

/* path is what has been matched, with its slash; pattern is what is left. */
static void search(struct found *f, const char *path, const char *pattern) {
    size_t length = strcspn(pattern, "/");
    const char *rest = pattern + length;
    size_t slashes = strspn(rest, "/");
    char *tail = make_text(rest, slashes), *part = make_text(pattern, length);
    struct stat st;
    rest += slashes;
    if (!has_magic(pattern, length)) {
        char *plain = make(length + 1);
        size_t n = 0;
        for (const char *s = part; *s; s++) {
            if (*s == '\\' && s[1]) s++;
            plain[n++] = *s;
        }
        plain[n] = '\0';
        char *whole = join(path, plain, tail);
        if (*rest) search(f, whole, rest);
        else if (lstat(whole, &st) == 0) add(f, whole);
        return;
    }
    DIR *dir = opendir(*path ? path : ".");
    if (!dir) return;
    struct found here = {0};
    for (struct dirent *entry; (entry = readdir(dir));)
        if (fnmatch(part, entry->d_name, FNM_PERIOD) == 0) add(&here, entry->d_name);
    closedir(dir);
    for (int i = 0; i < here.count; i++) {
        char *whole = join(path, here.names[i], tail);
        if (!*tail) add(f, whole);
        else if (stat(whole, &st) == 0 && S_ISDIR(st.st_mode)) {
            if (*rest) search(f, whole, rest);
            else add(f, whole);
        }
    }
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

int glob(const char *pattern, char ***names) {
    struct found f = {0};
    size_t slashes = strspn(pattern, "/");
    search(&f, make_text(pattern, slashes), pattern + slashes);
    if (f.count > 1) qsort(f.names, (size_t)f.count, sizeof *f.names, by_name);
    *names = f.names;
    return f.count;
}
