/* Formatted output, collected in a buffer and written at once. */
#include "exuvia.h"

struct output {
    char *to;
    size_t size, length;
};

static void put(struct output *o, char c) {
    if (o->length + 1 < o->size) o->to[o->length] = c;
    o->length++;
}

static void put_padded(struct output *o, const char *s, size_t length, int width, int left, char fill) {
    int padding = width > (int)length ? width - (int)length : 0;
    if (!left && fill == '0' && length > 0 && *s == '-') put(o, *s++), length--;
    if (!left)
        while (padding-- > 0) put(o, fill);
    while (length-- > 0) put(o, *s++);
    if (left)
        while (padding-- > 0) put(o, ' ');
}

static void put_number(struct output *o, unsigned long value, unsigned base, int negative, int width, int left, char fill) {
    char digits[24];
    size_t at = sizeof digits;
    do {
        digits[--at] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    if (negative) digits[--at] = '-';
    put_padded(o, digits + at, sizeof digits - at, width, left, fill);
}

int vsnprintf(char *to, size_t size, const char *format, va_list arguments) {
    struct output o = {to, size, 0};
    for (; *format; format++) {
        if (*format != '%') {
            put(&o, *format);
            continue;
        }
        int left = 0, width = 0, is_long = 0;
        char fill = ' ';
        for (format++; *format == '-' || *format == '0'; format++)
            if (*format == '-') left = 1;
            else fill = '0';
        for (; *format >= '0' && *format <= '9'; format++) width = width * 10 + (*format - '0');
        for (; *format == 'l' || *format == 'z'; format++) is_long = 1;
        switch (*format) {
        case 'd': {
            long value = is_long ? va_arg(arguments, long) : va_arg(arguments, int);
            unsigned long magnitude = value < 0 ? 0 - (unsigned long)value : (unsigned long)value;
            put_number(&o, magnitude, 10, value < 0, width, left, fill);
            break;
        }
        case 'u':
        case 'x': {
            unsigned long value = is_long ? va_arg(arguments, unsigned long) : va_arg(arguments, unsigned);
            put_number(&o, value, *format == 'u' ? 10 : 16, 0, width, left, fill);
            break;
        }
        case 'p':
            put(&o, '0');
            put(&o, 'x');
            put_number(&o, (unsigned long)va_arg(arguments, void *), 16, 0, width, left, fill);
            break;
        case 'c':
            put(&o, (char)va_arg(arguments, int));
            break;
        case 's': {
            const char *s = va_arg(arguments, const char *);
            if (!s) s = "(null)";
            put_padded(&o, s, strlen(s), width, left, ' ');
            break;
        }
        case '\0':
            format--;
            break;
        default:
            put(&o, *format);
        }
    }
    if (size > 0) to[o.length < size ? o.length : size - 1] = '\0';
    return (int)o.length;
}

int snprintf(char *to, size_t size, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(to, size, format, arguments);
    va_end(arguments);
    return length;
}

int printf(const char *format, ...) {
    char buffer[1024];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(buffer, sizeof buffer, format, arguments);
    va_end(arguments);
    write(1, buffer, (size_t)length < sizeof buffer ? (size_t)length : sizeof buffer - 1);
    return length;
}

int puts(const char *s) { return printf("%s\n", s); }

int putchar(int c) {
    char byte = (char)c;
    write(1, &byte, 1);
    return c;
}
