/* Messages on standard error, with the program's name before and the error's after. */
#ifndef _ERR_H
#define _ERR_H

void err(int status, const char *format, ...) __attribute__((noreturn, format(printf, 2, 3)));
void errx(int status, const char *format, ...) __attribute__((noreturn, format(printf, 2, 3)));
void warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
void warnx(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *getprogname(void);
void setprogname(const char *name);

#endif
