/* A buffered file. */
#ifndef FILE_H
#define FILE_H

#include <pthread.h>
#include <stddef.h>

enum { MODE_UNKNOWN = -1 };

struct __file {
    int descriptor;
    int mode;
    char readable, writable, ended, failed, own_buffer, own_file;
    char *buffer;
    size_t size;
    /* Bytes read ahead: [at, end). */
    size_t at, end;
    /* Bytes to be written: [0, pending). */
    size_t pending;
    pthread_mutex_t lock;
    struct __file *next;
    /* Of popen. */
    int child;
};

#endif
