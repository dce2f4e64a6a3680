/* Formatted input. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "libc.h"

struct input {
    FILE *file;
    const char *from;
    int count;
};

static int next(struct input *in) {
    int c = in->file ? getc(in->file) : *in->from ? (unsigned char)*in->from++ : EOF;
    if (c != EOF) in->count++;
    return c;
}

static void back(struct input *in, int c) {
    if (c == EOF) return;
    in->count--;
    if (in->file) ungetc(c, in->file);
    else in->from--;
}

static void skip_space(struct input *in) {
    int c;
    do c = next(in);
    while (c != EOF && isspace(c));
    back(in, c);
}

static void store(void *to, int size, unsigned long value) {
    if (size == -2) *(char *)to = (char)value;
    else if (size == -1) *(short *)to = (short)value;
    else if (size == 0) *(int *)to = (int)value;
    else *(long *)to = (long)value;
}

/* Collects the characters of a number: sign, 0x, digits. */
static int number_text(struct input *in, char *text, int width, int base) {
    int n = 0, c = next(in);
    if ((c == '-' || c == '+') && n < width) text[n++] = (char)c, c = next(in);
    int digits = 0;
    while (n < width && c != EOF) {
        int is_digit = base == 16 || base == 0 ? isxdigit(c) : base == 8 ? c >= '0' && c < '8' : isdigit(c);
        if (base == 0 && isxdigit(c) && !isdigit(c) && !(digits > 1 && memchr(text, 'x', (size_t)n))) is_digit = 0;
        int is_x = (c | 32) == 'x' && digits == 1 && text[n - 1] == '0' && base != 10 && base != 8;
        if (!is_digit && !is_x) break;
        text[n++] = (char)(is_x ? 'x' : c);
        digits++;
        c = next(in);
    }
    back(in, c);
    text[n] = '\0';
    return digits;
}

static const char *parse_set(const char *format, char *set) {
    int invert = *format == '^';
    memset(set, invert, 256);
    if (invert) format++;
    for (const char *first = format; *format && (*format != ']' || format == first); format++) {
        unsigned char from = (unsigned char)*format, to = from;
        if (format[1] == '-' && format[2] && format[2] != ']') to = (unsigned char)*(format += 2);
        for (int c = from; c <= to; c++) set[c] = (char)!invert;
    }
    return format;
}

static int scan(struct input *in, const char *format, va_list *arguments) {
    int stored = 0;
    for (; *format; format++) {
        if (isspace((unsigned char)*format)) {
            skip_space(in);
            continue;
        }
        if (*format != '%') {
            int c = next(in);
            if (c == (unsigned char)*format) continue;
            back(in, c);
            return c == EOF && stored == 0 ? EOF : stored;
        }
        int silent = 0, width = 0, size = 0;
        if (*++format == '*') silent = 1, format++;
        for (; isdigit((unsigned char)*format); format++) width = width * 10 + (*format - '0');
        for (;; format++) {
            if (*format == 'h') size--;
            else if (*format == 'l' || *format == 'z' || *format == 'j' || *format == 't') size = 1;
            else break;
        }
        if (*format != 'c' && *format != '[' && *format != 'n') skip_space(in);
        int c = next(in);
        back(in, c);
        if (c == EOF && *format != 'n') return stored ? stored : EOF;
        switch (*format) {
        case 'd':
        case 'i':
        case 'u':
        case 'x':
        case 'X':
        case 'o': {
            char text[72];
            int base = *format == 'i' ? 0 : (*format | 32) == 'x' ? 16 : *format == 'o' ? 8 : 10;
            if (!number_text(in, text, width > 0 && width < 70 ? width : 70, base)) return stored;
            if (silent) break;
            unsigned long value = *text == '-' ? (unsigned long)strtol(text, NULL, base) : strtoul(text, NULL, base);
            store(va_arg(*arguments, void *), size, value);
            stored++;
            break;
        }
        case 's':
        case '[':
        case 'c': {
            char set[256];
            char *to = silent ? NULL : va_arg(*arguments, char *);
            int kind = *format, n = 0;
            if (kind == '[') format = parse_set(format + 1, set);
            if (width == 0) width = kind == 'c' ? 1 : 0x7fffffff;
            for (; n < width && (c = next(in)) != EOF; n++) {
                if (kind == 's' ? isspace(c) : kind == '[' && !set[c]) {
                    back(in, c);
                    break;
                }
                if (to) to[n] = (char)c;
            }
            if (n == 0) return stored;
            if (to && kind != 'c') to[n] = '\0';
            stored += !silent;
            break;
        }
        case 'n': store(va_arg(*arguments, void *), size, (unsigned long)in->count); break;
        case '%':
            if (next(in) != '%') return stored;
            break;
        default: return stored;
        }
    }
    return stored;
}

int vfscanf(FILE *file, const char *format, va_list arguments) {
    struct input in = {file, NULL, 0};
    va_list copy;
    va_copy(copy, arguments);
    int stored = scan(&in, format, &copy);
    va_end(copy);
    return stored;
}

int vsscanf(const char *s, const char *format, va_list arguments) {
    struct input in = {NULL, s, 0};
    va_list copy;
    va_copy(copy, arguments);
    int stored = scan(&in, format, &copy);
    va_end(copy);
    return stored;
}

#define FORWARD(call) \
    va_list arguments; \
    va_start(arguments, format); \
    int stored = call; \
    va_end(arguments); \
    return stored

int scanf(const char *format, ...) { FORWARD(vfscanf(stdin, format, arguments)); }
int fscanf(FILE *file, const char *format, ...) { FORWARD(vfscanf(file, format, arguments)); }
int sscanf(const char *s, const char *format, ...) { FORWARD(vsscanf(s, format, arguments)); }
