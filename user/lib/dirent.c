/* Reading directories. */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

struct __dir {
    int descriptor;
    int at, end;
    long base;
    _Alignas(8) char buffer[4096];
};

DIR *opendir(const char *path) {
    int descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) return NULL;
    DIR *dir = malloc(sizeof *dir);
    if (!dir) {
        close(descriptor);
        return NULL;
    }
    dir->descriptor = descriptor;
    dir->at = dir->end = 0;
    return dir;
}

struct dirent *readdir(DIR *dir) {
    for (;;) {
        if (dir->at >= dir->end) {
            int got = getdirentries(dir->descriptor, dir->buffer, sizeof dir->buffer, &dir->base);
            if (got <= 0) return NULL;
            dir->at = 0;
            dir->end = got;
        }
        struct dirent *entry = (struct dirent *)(dir->buffer + dir->at);
        dir->at += _DIRENT_RECLEN(entry->d_namlen);
        if (entry->d_ino != 0) return entry;
    }
}

void rewinddir(DIR *dir) {
    lseek(dir->descriptor, 0, SEEK_SET);
    dir->at = dir->end = 0;
}

int dirfd(DIR *dir) { return dir->descriptor; }

int closedir(DIR *dir) {
    int result = close(dir->descriptor);
    free(dir);
    return result;
}
