/* Formatted output. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "libc.h"

struct output {
    FILE *file;
    char *to;
    size_t size, length;
    char pending[128];
    size_t pending_length;
};

static void flush_output(struct output *o) {
    if (o->file && o->pending_length) fwrite(o->pending, 1, o->pending_length, o->file);
    o->pending_length = 0;
}

static void put(struct output *o, char c) {
    if (o->file) {
        o->pending[o->pending_length++] = c;
        if (o->pending_length == sizeof o->pending) flush_output(o);
    } else if (o->length + 1 < o->size) {
        o->to[o->length] = c;
    }
    o->length++;
}

struct spec {
    int left, plus, space, alternate, zero, width, precision;
};

static void put_padded(struct output *o, const struct spec *spec, const char *prefix, const char *body,
    size_t length) {
    size_t prefix_length = strlen(prefix), whole = prefix_length + length;
    size_t padding = spec->width > 0 && (size_t)spec->width > whole ? (size_t)spec->width - whole : 0;
    if (!spec->left && !spec->zero)
        for (; padding > 0; padding--) put(o, ' ');
    while (*prefix) put(o, *prefix++);
    if (!spec->left && spec->zero)
        for (; padding > 0; padding--) put(o, '0');
    while (length-- > 0) put(o, *body++);
    for (; padding > 0; padding--) put(o, ' ');
}

static void put_number(struct output *o, struct spec *spec, uintmax_t value, unsigned base, int upper,
    const char *prefix) {
    char digits[80];
    size_t at = sizeof digits;
    const char *set = upper ? "0123456789ABCDEF" : "0123456789abcdef";
    for (uintmax_t rest = value; rest; rest /= base) digits[--at] = set[rest % base];
    int least = spec->precision < 0 ? 1 : spec->precision;
    if (least > 70) least = 70;
    while ((int)(sizeof digits - at) < least) digits[--at] = '0';
    if (spec->alternate && base == 8 && (at == sizeof digits || digits[at] != '0')) digits[--at] = '0';
    if (spec->precision >= 0) spec->zero = 0;
    put_padded(o, spec, prefix, digits + at, sizeof digits - at);
}

static intmax_t signed_argument(va_list *arguments, int size) {
    switch (size) {
    case -2: return (signed char)va_arg(*arguments, int);
    case -1: return (short)va_arg(*arguments, int);
    case 0: return va_arg(*arguments, int);
    default: return va_arg(*arguments, long);
    }
}

static uintmax_t unsigned_argument(va_list *arguments, int size) {
    switch (size) {
    case -2: return (unsigned char)va_arg(*arguments, unsigned);
    case -1: return (unsigned short)va_arg(*arguments, unsigned);
    case 0: return va_arg(*arguments, unsigned);
    default: return va_arg(*arguments, unsigned long);
    }
}

static void put_double(struct output *o, struct spec *spec, double value, char conversion) {
    /* 309 digits before the point are the most. */
    char body[400];
    int negative = __builtin_signbit(value) != 0;
    int precision = spec->precision < 0 ? 6 : spec->precision > 60 ? 60 : spec->precision;
    int length = __format_double(body, sizeof body, negative ? -value : value, conversion, precision,
        spec->alternate);
    if (__builtin_isnan(value) || __builtin_isinf(value)) spec->zero = 0;
    put_padded(o, spec, negative ? "-" : spec->plus ? "+" : spec->space ? " " : "", body, (size_t)length);
}

static int format_output(struct output *o, const char *format, va_list *arguments) {
    for (; *format; format++) {
        if (*format != '%') {
            put(o, *format);
            continue;
        }
        struct spec spec = {.precision = -1};
        for (format++;; format++) {
            if (*format == '-') spec.left = 1;
            else if (*format == '+') spec.plus = 1;
            else if (*format == ' ') spec.space = 1;
            else if (*format == '#') spec.alternate = 1;
            else if (*format == '0') spec.zero = 1;
            else break;
        }
        if (*format == '*') {
            spec.width = va_arg(*arguments, int);
            if (spec.width < 0) spec.left = 1, spec.width = -spec.width;
            format++;
        }
        for (; *format >= '0' && *format <= '9'; format++)
            if (spec.width < 1000000) spec.width = spec.width * 10 + (*format - '0');
        if (*format == '.') {
            spec.precision = 0;
            if (*++format == '*') {
                spec.precision = va_arg(*arguments, int);
                format++;
            }
            for (; *format >= '0' && *format <= '9'; format++)
                if (spec.precision < 1000000) spec.precision = spec.precision * 10 + (*format - '0');
        }
        if (spec.left) spec.zero = 0;
        int size = 0;
        for (;; format++) {
            if (*format == 'h') size--;
            else if (*format == 'l' || *format == 'z' || *format == 'j' || *format == 't' || *format == 'q') size = 1;
            else if (*format != 'L') break;
        }
        switch (*format) {
        case 'd':
        case 'i': {
            intmax_t value = signed_argument(arguments, size);
            const char *prefix = value < 0 ? "-" : spec.plus ? "+" : spec.space ? " " : "";
            put_number(o, &spec, value < 0 ? 0 - (uintmax_t)value : (uintmax_t)value, 10, 0, prefix);
            break;
        }
        case 'u': put_number(o, &spec, unsigned_argument(arguments, size), 10, 0, ""); break;
        case 'o': put_number(o, &spec, unsigned_argument(arguments, size), 8, 0, ""); break;
        case 'x':
        case 'X': {
            uintmax_t value = unsigned_argument(arguments, size);
            const char *prefix = !spec.alternate || !value ? "" : *format == 'x' ? "0x" : "0X";
            put_number(o, &spec, value, 16, *format == 'X', prefix);
            break;
        }
        case 'p': put_number(o, &spec, (uintptr_t)va_arg(*arguments, void *), 16, 0, "0x"); break;
        case 'c': {
            char c = (char)va_arg(*arguments, int);
            spec.zero = 0;
            put_padded(o, &spec, "", &c, 1);
            break;
        }
        case 's': {
            const char *s = va_arg(*arguments, const char *);
            if (!s) s = "(null)";
            spec.zero = 0;
            put_padded(o, &spec, "", s, spec.precision < 0 ? strlen(s) : strnlen(s, (size_t)spec.precision));
            break;
        }
        case 'f':
        case 'F':
        case 'e':
        case 'E':
        case 'g':
        case 'G': put_double(o, &spec, va_arg(*arguments, double), *format); break;
        case 'n': *va_arg(*arguments, int *) = (int)o->length; break;
        case '\0': format--; break;
        default: put(o, *format);
        }
    }
    flush_output(o);
    return (int)o->length;
}

int vfprintf(FILE *file, const char *format, va_list arguments) {
    struct output o = {.file = file};
    va_list copy;
    va_copy(copy, arguments);
    int length = format_output(&o, format, &copy);
    va_end(copy);
    return ferror(file) ? -1 : length;
}

int vsnprintf(char *to, size_t size, const char *format, va_list arguments) {
    struct output o = {.to = to, .size = size};
    va_list copy;
    va_copy(copy, arguments);
    int length = format_output(&o, format, &copy);
    va_end(copy);
    if (size > 0) to[o.length < size ? o.length : size - 1] = '\0';
    return length;
}

int vsprintf(char *to, const char *format, va_list arguments) {
    return vsnprintf(to, SIZE_MAX / 2, format, arguments);
}
int vprintf(const char *format, va_list arguments) { return vfprintf(stdout, format, arguments); }

int vasprintf(char **to, const char *format, va_list arguments) {
    int length = vsnprintf(NULL, 0, format, arguments);
    if (!(*to = malloc((size_t)length + 1))) return -1;
    return vsnprintf(*to, (size_t)length + 1, format, arguments);
}

int vdprintf(int descriptor, const char *format, va_list arguments) {
    char text[1024];
    int length = vsnprintf(text, sizeof text, format, arguments);
    size_t count = (size_t)length < sizeof text ? (size_t)length : sizeof text - 1;
    return write(descriptor, text, count) < 0 ? -1 : length;
}

#define FORWARD(call) \
    va_list arguments; \
    va_start(arguments, format); \
    int length = call; \
    va_end(arguments); \
    return length

int printf(const char *format, ...) { FORWARD(vfprintf(stdout, format, arguments)); }
int fprintf(FILE *file, const char *format, ...) { FORWARD(vfprintf(file, format, arguments)); }
int dprintf(int descriptor, const char *format, ...) { FORWARD(vdprintf(descriptor, format, arguments)); }
int sprintf(char *to, const char *format, ...) { FORWARD(vsprintf(to, format, arguments)); }
int snprintf(char *to, size_t size, const char *format, ...) { FORWARD(vsnprintf(to, size, format, arguments)); }
int asprintf(char **to, const char *format, ...) { FORWARD(vasprintf(to, format, arguments)); }

void perror(const char *text) {
    int number = errno;
    if (text && *text) fprintf(stderr, "%s: ", text);
    fprintf(stderr, "%s\n", strerror(number));
}
