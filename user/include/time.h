/* Clocks and calendar time (UTC only). */
#ifndef _TIME_H
#define _TIME_H

#include <sys/types.h>

struct timespec {
    time_t tv_sec;
    long tv_nsec;
};

struct tm {
    int tm_sec, tm_min, tm_hour, tm_mday, tm_mon, tm_year, tm_wday, tm_yday, tm_isdst;
    long tm_gmtoff;
    const char *tm_zone;
};

#define CLOCK_REALTIME 0
#define CLOCK_VIRTUAL 1
#define CLOCK_PROF 2
#define CLOCK_MONOTONIC 4
#define CLOCKS_PER_SEC 1000000L

int clock_gettime(clockid_t clock, struct timespec *ts);
int clock_getres(clockid_t clock, struct timespec *ts);
int nanosleep(const struct timespec *wanted, struct timespec *remaining);
time_t time(time_t *to);
clock_t clock(void);
struct tm *gmtime(const time_t *t);
struct tm *gmtime_r(const time_t *t, struct tm *to);
struct tm *localtime(const time_t *t);
struct tm *localtime_r(const time_t *t, struct tm *to);
time_t mktime(struct tm *tm);
time_t timegm(struct tm *tm);
size_t strftime(char *to, size_t size, const char *format, const struct tm *tm);
char *asctime(const struct tm *tm);
char *ctime(const time_t *t);

#endif
