/*
 * Buffered files. A file's buffer holds either bytes read ahead or bytes not written yet. Standard output is buffered by
 * lines unless it is surely a file or a pipe; standard error is not buffered.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "libc.h"
#include "file.h"

static char in_buffer[BUFSIZ], out_buffer[BUFSIZ];
static FILE in_file = {.descriptor = 0, .readable = 1, .buffer = in_buffer, .size = BUFSIZ, .mode = _IOFBF};
static FILE out_file = {.descriptor = 1, .writable = 1, .buffer = out_buffer, .size = BUFSIZ, .mode = MODE_UNKNOWN};
static FILE err_file = {.descriptor = 2, .writable = 1, .mode = _IONBF};
FILE *stdin = &in_file, *stdout = &out_file, *stderr = &err_file;

static FILE *opened;
static pthread_mutex_t opened_lock;

/* Writes what the buffer holds. */
static int drain(FILE *file) {
    size_t done = 0;
    while (done < file->pending) {
        ssize_t n = write(file->descriptor, file->buffer + done, file->pending - done);
        if (n < 0) {
            if (errno == EINTR) continue;
            file->failed = 1;
            file->pending = 0;
            return EOF;
        }
        done += (size_t)n;
    }
    file->pending = 0;
    return 0;
}

/* Forgets what was read ahead: the descriptor's offset is again where the reader is. */
static void forget(FILE *file) {
    if (file->end > file->at) lseek(file->descriptor, -(off_t)(file->end - file->at), SEEK_CUR);
    file->at = file->end = 0;
}

static int flush_one(FILE *file) {
    __lock(&file->lock);
    int result = file->pending ? drain(file) : 0;
    __unlock(&file->lock);
    return result;
}

void __flush_all(void) {
    flush_one(stdout);
    for (FILE *file = opened; file; file = file->next) flush_one(file);
    if (in_file.end > in_file.at) forget(&in_file);
}

int fflush(FILE *file) {
    if (file) return flush_one(file);
    __flush_all();
    return 0;
}

static int parse_mode(const char *mode, FILE *file) {
    int plus = strchr(mode, '+') != NULL;
    int flags = strchr(mode, 'e') ? O_CLOEXEC : 0;
    file->readable = *mode == 'r' || plus;
    file->writable = *mode != 'r' || plus;
    flags |= plus ? O_RDWR : *mode == 'r' ? O_RDONLY : O_WRONLY;
    if (*mode == 'w') flags |= O_CREAT | O_TRUNC;
    if (*mode == 'a') flags |= O_CREAT | O_APPEND;
    if (*mode == 'r' || *mode == 'w' || *mode == 'a') return flags;
    errno = EINVAL;
    return -1;
}

FILE *fdopen(int descriptor, const char *mode) {
    FILE *file = calloc(1, sizeof *file);
    if (!file) return NULL;
    if (parse_mode(mode, file) < 0 || !(file->buffer = malloc(BUFSIZ))) {
        free(file);
        return NULL;
    }
    file->descriptor = descriptor;
    file->size = BUFSIZ;
    file->own_buffer = file->own_file = 1;
    file->mode = _IOFBF;
    __lock(&opened_lock);
    file->next = opened;
    opened = file;
    __unlock(&opened_lock);
    return file;
}

FILE *fopen(const char *path, const char *mode) {
    FILE probe;
    int flags = parse_mode(mode, &probe);
    int descriptor = flags < 0 ? -1 : open(path, flags, 0666);
    if (descriptor < 0) return NULL;
    FILE *file = fdopen(descriptor, mode);
    if (!file) close(descriptor);
    return file;
}

FILE *freopen(const char *path, const char *mode, FILE *file) {
    flush_one(file);
    close(file->descriptor);
    int flags = parse_mode(mode, file);
    int descriptor = flags < 0 ? -1 : open(path, flags, 0666);
    if (descriptor < 0) return NULL;
    file->descriptor = descriptor;
    file->at = file->end = file->pending = 0;
    file->ended = file->failed = 0;
    return file;
}

int fclose(FILE *file) {
    int result = flush_one(file);
    if (file->readable && file->end > file->at) forget(file);
    if (close(file->descriptor) < 0) result = EOF;
    if (file->own_buffer) free(file->buffer);
    if (!file->own_file) return result;
    __lock(&opened_lock);
    for (FILE **link = &opened; *link; link = &(*link)->next)
        if (*link == file) {
            *link = file->next;
            break;
        }
    __unlock(&opened_lock);
    free(file);
    return result;
}

int fileno(FILE *file) { return file->descriptor; }
int feof(FILE *file) { return file->ended; }
int ferror(FILE *file) { return file->failed; }
void clearerr(FILE *file) { file->ended = file->failed = 0; }

int setvbuf(FILE *file, char *buffer, int mode, size_t size) {
    flush_one(file);
    file->mode = mode;
    if (mode != _IONBF && buffer && size > 0) {
        if (file->own_buffer) free(file->buffer);
        file->buffer = buffer;
        file->size = size;
        file->own_buffer = 0;
    }
    return 0;
}

void setbuf(FILE *file, char *buffer) { setvbuf(file, buffer, buffer ? _IOFBF : _IONBF, BUFSIZ); }
void setlinebuf(FILE *file) { setvbuf(file, NULL, _IOLBF, 0); }

/* Fills the empty buffer; 0 at the end. */
static size_t fill(FILE *file) {
    if (!file->readable) {
        errno = EBADF;
        file->failed = 1;
        return 0;
    }
    if (file->pending) drain(file);
    /* A question without its newline must be seen before the answer is waited for. */
    if (file->descriptor == 0 && out_file.pending) drain(&out_file);
    ssize_t n;
    do n = read(file->descriptor, file->buffer, file->size);
    while (n < 0 && errno == EINTR);
    if (n < 0) file->failed = 1;
    if (n == 0) file->ended = 1;
    file->at = 0;
    file->end = n > 0 ? (size_t)n : 0;
    return file->end;
}

static int get(FILE *file) {
    if (file->at >= file->end && !fill(file)) return EOF;
    return (unsigned char)file->buffer[file->at++];
}

int fgetc(FILE *file) {
    __lock(&file->lock);
    int c = get(file);
    __unlock(&file->lock);
    return c;
}

int getc(FILE *file) { return fgetc(file); }
int getchar(void) { return fgetc(stdin); }

int ungetc(int c, FILE *file) {
    if (c == EOF || (file->at == 0 && file->end == file->size)) return EOF;
    if (file->at == 0) {
        memmove(file->buffer + 1, file->buffer, file->end);
        file->at++;
        file->end++;
    }
    file->buffer[--file->at] = (char)c;
    file->ended = 0;
    return c;
}

size_t fread(void *to, size_t size, size_t count, FILE *file) {
    char *t = to;
    size_t wanted = size * count, got = 0;
    if (wanted == 0) return 0;
    __lock(&file->lock);
    while (got < wanted) {
        if (file->at >= file->end && !fill(file)) break;
        size_t n = file->end - file->at;
        if (n > wanted - got) n = wanted - got;
        memcpy(t + got, file->buffer + file->at, n);
        file->at += n;
        got += n;
    }
    __unlock(&file->lock);
    return got / size;
}

char *fgets(char *to, int size, FILE *file) {
    int n = 0;
    __lock(&file->lock);
    while (n < size - 1) {
        int c = get(file);
        if (c == EOF) break;
        to[n++] = (char)c;
        if (c == '\n') break;
    }
    __unlock(&file->lock);
    if (n == 0) return NULL;
    to[n] = '\0';
    return to;
}

ssize_t getdelim(char **line, size_t *size, int delimiter, FILE *file) {
    size_t n = 0;
    if (!*line) *size = 0;
    __lock(&file->lock);
    for (;;) {
        if (n + 2 > *size) {
            size_t more = *size ? *size * 2 : 128;
            char *grown = realloc(*line, more);
            if (!grown) {
                __unlock(&file->lock);
                return -1;
            }
            *line = grown;
            *size = more;
        }
        int c = get(file);
        if (c == EOF) break;
        (*line)[n++] = (char)c;
        if (c == delimiter) break;
    }
    __unlock(&file->lock);
    (*line)[n] = '\0';
    return n > 0 ? (ssize_t)n : -1;
}

ssize_t getline(char **line, size_t *size, FILE *file) { return getdelim(line, size, '\n', file); }

static void learn_mode(FILE *file) {
    struct stat st;
    file->mode = fstat(file->descriptor, &st) == 0 && !S_ISCHR(st.st_mode) ? _IOFBF : _IOLBF;
}

static size_t put(FILE *file, const char *from, size_t count) {
    if (!file->writable) {
        errno = EBADF;
        file->failed = 1;
        return 0;
    }
    if (file->mode == MODE_UNKNOWN) learn_mode(file);
    if (file->end > file->at) forget(file);
    file->at = file->end = 0;
    if (file->mode == _IONBF) {
        size_t done = 0;
        while (done < count) {
            ssize_t n = write(file->descriptor, from + done, count - done);
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) {
                file->failed = 1;
                break;
            }
            done += (size_t)n;
        }
        return done;
    }
    for (size_t done = 0; done < count;) {
        size_t n = file->size - file->pending;
        if (n > count - done) n = count - done;
        memcpy(file->buffer + file->pending, from + done, n);
        file->pending += n;
        done += n;
        if (file->pending == file->size && drain(file) < 0) return done;
    }
    if (file->mode == _IOLBF && memchr(from, '\n', count)) drain(file);
    return count;
}

size_t fwrite(const void *from, size_t size, size_t count, FILE *file) {
    if (size == 0 || count == 0) return 0;
    __lock(&file->lock);
    size_t done = put(file, from, size * count);
    __unlock(&file->lock);
    return done / size;
}

int fputc(int c, FILE *file) {
    char byte = (char)c;
    return fwrite(&byte, 1, 1, file) == 1 ? (unsigned char)c : EOF;
}

int putc(int c, FILE *file) { return fputc(c, file); }
int putchar(int c) { return fputc(c, stdout); }
int fputs(const char *s, FILE *file) {
    size_t length = strlen(s);
    return fwrite(s, 1, length, file) == length ? 0 : EOF;
}
int puts(const char *s) { return fputs(s, stdout) < 0 ? EOF : putchar('\n'); }

int fseek(FILE *file, long offset, int whence) {
    if (file->pending && drain(file) < 0) return -1;
    if (whence == SEEK_CUR) offset -= (long)(file->end - file->at);
    if (lseek(file->descriptor, offset, whence) < 0) return -1;
    file->at = file->end = 0;
    file->ended = 0;
    return 0;
}

long ftell(FILE *file) {
    off_t at = lseek(file->descriptor, 0, SEEK_CUR);
    return at < 0 ? -1 : at - (long)(file->end - file->at) + (long)file->pending;
}

void rewind(FILE *file) {
    fseek(file, 0, SEEK_SET);
    clearerr(file);
}

int remove(const char *path) {
    if (unlink(path) == 0) return 0;
    return errno == EISDIR || errno == EPERM ? rmdir(path) : -1;
}
