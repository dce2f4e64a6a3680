/* Strings and memory. */
#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

void *memcpy(void *to, const void *from, size_t count) {
    void *result = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    return result;
}

void *memmove(void *to, const void *from, size_t count) {
    char *t = to;
    const char *f = from;
    if (t <= f || t >= f + count) return memcpy(to, from, count);
    while (count-- > 0) t[count] = f[count];
    return to;
}

void *memset(void *to, int byte, size_t count) {
    void *result = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(byte) : "memory");
    return result;
}

int memcmp(const void *a, const void *b, size_t count) {
    const unsigned char *x = a, *y = b;
    size_t i = 0;
    /* Eight bytes at a time while they are equal: the exercisers compare whole pages. */
    for (; i + 8 <= count; i += 8) {
        uint64_t left, right;
        __builtin_memcpy(&left, x + i, 8);
        __builtin_memcpy(&right, y + i, 8);
        if (left != right) break;
    }
    for (; i < count; i++)
        if (x[i] != y[i]) return x[i] - y[i];
    return 0;
}

void *memchr(const void *s, int c, size_t count) {
    const unsigned char *p = s;
    for (; count > 0; p++, count--)
        if (*p == (unsigned char)c) return (void *)p;
    return NULL;
}

void *memmem(const void *s, size_t length, const void *part, size_t part_length) {
    const char *p = s;
    for (; length >= part_length; p++, length--)
        if (memcmp(p, part, part_length) == 0) return (void *)p;
    return NULL;
}

size_t strlen(const char *s) {
    size_t n = 0;
    while (s[n]) n++;
    return n;
}

size_t strnlen(const char *s, size_t most) {
    size_t n = 0;
    while (n < most && s[n]) n++;
    return n;
}

int strcmp(const char *a, const char *b) {
    while (*a && *a == *b) a++, b++;
    return (unsigned char)*a - (unsigned char)*b;
}

int strcoll(const char *a, const char *b) { return strcmp(a, b); }

int strncmp(const char *a, const char *b, size_t count) {
    for (; count > 0; a++, b++, count--) {
        if (*a != *b) return (unsigned char)*a - (unsigned char)*b;
        if (!*a) break;
    }
    return 0;
}

int strcasecmp(const char *a, const char *b) { return strncasecmp(a, b, SIZE_MAX); }

int strncasecmp(const char *a, const char *b, size_t count) {
    for (; count > 0; a++, b++, count--) {
        int x = tolower((unsigned char)*a), y = tolower((unsigned char)*b);
        if (x != y) return x - y;
        if (!x) break;
    }
    return 0;
}

char *strchr(const char *s, int c) {
    for (;; s++) {
        if (*s == (char)c) return (char *)s;
        if (!*s) return NULL;
    }
}

char *strrchr(const char *s, int c) {
    const char *found = NULL;
    for (;; s++) {
        if (*s == (char)c) found = s;
        if (!*s) return (char *)found;
    }
}

char *strstr(const char *s, const char *part) {
    size_t length = strlen(part);
    for (;; s++) {
        if (strncmp(s, part, length) == 0) return (char *)s;
        if (!*s) return NULL;
    }
}

size_t strspn(const char *s, const char *set) {
    size_t n = 0;
    while (s[n] && strchr(set, s[n])) n++;
    return n;
}

size_t strcspn(const char *s, const char *set) {
    size_t n = 0;
    while (s[n] && !strchr(set, s[n])) n++;
    return n;
}

char *strpbrk(const char *s, const char *set) {
    s += strcspn(s, set);
    return *s ? (char *)s : NULL;
}

char *stpcpy(char *to, const char *from) {
    while ((*to = *from)) to++, from++;
    return to;
}

char *strcpy(char *to, const char *from) {
    stpcpy(to, from);
    return to;
}

char *strncpy(char *to, const char *from, size_t count) {
    size_t length = strnlen(from, count);
    memcpy(to, from, length);
    memset(to + length, 0, count - length);
    return to;
}

char *strcat(char *to, const char *from) {
    stpcpy(to + strlen(to), from);
    return to;
}

char *strncat(char *to, const char *from, size_t count) {
    char *end = to + strlen(to);
    size_t length = strnlen(from, count);
    memcpy(end, from, length);
    end[length] = '\0';
    return to;
}

size_t strlcpy(char *to, const char *from, size_t size) {
    size_t length = strlen(from);
    if (size > 0) {
        size_t copied = length < size ? length : size - 1;
        memcpy(to, from, copied);
        to[copied] = '\0';
    }
    return length;
}

size_t strlcat(char *to, const char *from, size_t size) {
    size_t length = strnlen(to, size);
    return length + strlcpy(to + length, from, size - length);
}

char *strndup(const char *s, size_t most) {
    size_t length = strnlen(s, most);
    char *copy = malloc(length + 1);
    if (!copy) return NULL;
    memcpy(copy, s, length);
    copy[length] = '\0';
    return copy;
}

char *strdup(const char *s) { return strndup(s, SIZE_MAX); }

char *strtok_r(char *s, const char *set, char **state) {
    if (!s) s = *state;
    s += strspn(s, set);
    if (!*s) {
        *state = s;
        return NULL;
    }
    char *end = s + strcspn(s, set);
    *state = *end ? end + 1 : end;
    *end = '\0';
    return s;
}

char *strtok(char *s, const char *set) {
    static char *state;
    return strtok_r(s, set, &state);
}

char *strsep(char **s, const char *set) {
    char *start = *s;
    if (!start) return NULL;
    char *end = strpbrk(start, set);
    *s = end ? end + 1 : NULL;
    if (end) *end = '\0';
    return start;
}
