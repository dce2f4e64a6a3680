/* Messages on standard error. */
#include <err.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "libc.h"

/* One write for the line: several processes may speak at once. */
static void say(int number, const char *format, va_list arguments) {
    char line[512];
    int at = snprintf(line, 128, "%s: ", getprogname());
    vsnprintf(line + at, sizeof line - (size_t)at - 64, format, arguments);
    at = (int)strlen(line);
    if (number >= 0) snprintf(line + at, 63, ": %s", strerror(number));
    strcat(line, "\n");
    fputs(line, stderr);
}

#define SAY(number) \
    va_list arguments; \
    va_start(arguments, format); \
    say(number, format, arguments); \
    va_end(arguments)

void warn(const char *format, ...) { SAY(errno); }
void warnx(const char *format, ...) { SAY(-1); }

void err(int status, const char *format, ...) {
    SAY(errno);
    exit(status);
}

void errx(int status, const char *format, ...) {
    SAY(-1);
    exit(status);
}
