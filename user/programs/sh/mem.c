/* Memory: a heap that lives for ever, a stack that is cut back, and growing texts. */
#include <err.h>
#include <stdlib.h>
#include <string.h>
#include "sh.h"

static void *get(size_t size) {
    void *p = malloc(size);
    if (!p) errx(2, "Out of memory");
    return p;
}

void *keep(size_t size) {
    static char *at;
    static size_t left;
    size = (size + 15) & ~(size_t)15;
    if (size > 2048) return memset(get(size), 0, size);
    if (size > left) at = get(left = 8192);
    void *p = at;
    at += size;
    left -= size;
    return memset(p, 0, size);
}

char *keep_text(const char *s, size_t length) {
    char *copy = keep(length + 1);
    memcpy(copy, s, length);
    return copy;
}

/* The stack is a list of the pieces that are in use, by their numbers. */
static void **pieces;
static size_t piece_count, piece_room;

void *make(size_t size) {
    if (piece_count == piece_room) {
        piece_room = piece_room ? piece_room * 2 : 256;
        pieces = realloc(pieces, piece_room * sizeof *pieces);
        if (!pieces) errx(2, "Out of memory");
    }
    return pieces[piece_count++] = get(size);
}

char *make_text(const char *s, size_t length) {
    char *copy = make(length + 1);
    memcpy(copy, s, length);
    copy[length] = '\0';
    return copy;
}

size_t stack_mark(void) { return piece_count; }

void cut(size_t mark) {
    while (piece_count > mark) free(pieces[--piece_count]);
}

/* Texts are on the stack too: growing leaves the old copy there. */
void buffer_add(struct buffer *b, char c, char mark) {
    if (b->length + 1 >= b->size) {
        size_t size = b->size ? b->size * 2 : 64;
        char *text = make(size), *marks = make(size);
        if (b->length) {
            memcpy(text, b->text, b->length);
            memcpy(marks, b->marks, b->length);
        }
        b->text = text;
        b->marks = marks;
        b->size = size;
    }
    b->text[b->length] = c;
    b->marks[b->length] = mark;
    b->text[++b->length] = '\0';
}

void buffer_text(struct buffer *b, const char *s, char mark) {
    while (*s) buffer_add(b, *s++, mark);
}
