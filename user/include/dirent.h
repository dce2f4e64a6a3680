/* Reading directories. */
#ifndef _DIRENT_H
#define _DIRENT_H

#include <stdint.h>
#include <sys/types.h>

struct dirent {
    ino_t d_ino;
    uint16_t d_namlen;
    uint8_t d_type;
    uint8_t d_unused1;
    uint32_t d_unused2;
    char d_name[256];
};
#define d_fileno d_ino

/* A record in what getdirentries() gives: the name with its NUL, filled up to 8 bytes. */
#define _DIRENT_RECLEN(namlen) ((16 + (namlen) + 1 + 7) & ~7)

#define DT_UNKNOWN 0
#define DT_FIFO 1
#define DT_CHR 2
#define DT_DIR 4
#define DT_BLK 6
#define DT_REG 8
#define DT_LNK 10
#define DT_SOCK 12

typedef struct __dir DIR;

DIR *opendir(const char *path);
struct dirent *readdir(DIR *dir);
int closedir(DIR *dir);
void rewinddir(DIR *dir);
int dirfd(DIR *dir);
int getdirentries(int fd, char *buffer, int count, long *base);
int getdents(int fd, char *buffer, size_t count);

#endif
