/*
 * Memory. Small blocks come from lists of free blocks, one list for each size class, cut from pieces of the data segment;
 * large ones are mappings of their own. A block is preceded by its header. Left out: freed small blocks are not joined,
 * so a class keeps what it once had.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "libc.h"

enum { FINE = 16, FINE_CLASSES = 32, COARSE_CLASSES = 8, LARGEST = FINE * FINE_CLASSES << COARSE_CLASSES,
    PIECE = 65536 };
static const unsigned LIVE = 0xa110ca7e, FREE = 0xf4eeb10c, MAPPED = 0x3a99ed00;

struct header {
    size_t size; /* of the block behind, or of the whole mapping */
    unsigned kind;
    unsigned class;
};

static struct block {
    struct block *next;
} *lists[FINE_CLASSES + COARSE_CLASSES + 1];
static char *piece, *piece_end;
static pthread_mutex_t lock;

static unsigned class_of(size_t size) {
    if (size <= FINE * FINE_CLASSES) return (unsigned)((size + FINE - 1) / FINE);
    unsigned class = FINE_CLASSES;
    for (size_t most = FINE * FINE_CLASSES; most < size; most *= 2) class++;
    return class;
}

static size_t size_of(unsigned class) {
    return class <= FINE_CLASSES ? (size_t)class * FINE : (size_t)FINE * FINE_CLASSES << (class - FINE_CLASSES);
}

static void *cut(unsigned class) {
    size_t size = size_of(class), whole = size + sizeof(struct header);
    if ((size_t)(piece_end - piece) < whole) {
        size_t more = whole > PIECE ? whole : PIECE;
        char *fresh = sbrk((intptr_t)more);
        if (fresh == (char *)-1) return NULL;
        if (fresh != piece_end) piece = fresh;
        piece_end = fresh + more;
    }
    struct header *header = (struct header *)piece;
    piece += whole;
    *header = (struct header){size, LIVE, class};
    return header + 1;
}

static void *map(size_t size) {
    size_t whole = (size + sizeof(struct header) + 4095) & ~(size_t)4095;
    struct header *header = whole < size ? MAP_FAILED
                                         : mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (header == MAP_FAILED) {
        errno = ENOMEM;
        return NULL;
    }
    *header = (struct header){whole, MAPPED, 0};
    return header + 1;
}

void *malloc(size_t size) {
    if (size > LARGEST) return map(size);
    unsigned class = class_of(size ? size : 1);
    __lock(&lock);
    struct block *block = lists[class];
    if (block) {
        lists[class] = block->next;
        ((struct header *)block)[-1].kind = LIVE;
    } else {
        block = cut(class);
    }
    __unlock(&lock);
    if (!block) errno = ENOMEM;
    return block;
}

void free(void *p) {
    if (!p) return;
    struct header *header = (struct header *)p - 1;
    if (header->kind == MAPPED) {
        munmap(header, header->size);
        return;
    }
    if (header->kind != LIVE) {
        static const char TEXT[] = "free(): not a live block of malloc\n";
        write(2, TEXT, sizeof TEXT - 1);
        abort();
    }
    __lock(&lock);
    header->kind = FREE;
    ((struct block *)p)->next = lists[header->class];
    lists[header->class] = p;
    __unlock(&lock);
}

void *calloc(size_t count, size_t size) {
    size_t whole;
    if (__builtin_mul_overflow(count, size, &whole)) {
        errno = ENOMEM;
        return NULL;
    }
    void *p = malloc(whole);
    /* A fresh mapping is zero. */
    if (p && ((struct header *)p)[-1].kind != MAPPED) memset(p, 0, whole);
    return p;
}

void *realloc(void *old, size_t size) {
    if (!old) return malloc(size);
    struct header *header = (struct header *)old - 1;
    size_t has = header->kind == MAPPED ? header->size - sizeof *header : header->size;
    if (size <= has && size >= has / 4) return old;
    void *new = malloc(size);
    if (!new) return NULL;
    memcpy(new, old, size < has ? size : has);
    free(old);
    return new;
}
