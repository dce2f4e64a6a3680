/* Calendar time, UTC. */
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include "libc.h"

static const char DAYS[7][10] = {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"};
static const char MONTHS[12][10] = {"January", "February", "March", "April", "May", "June", "July", "August",
                                    "September", "October", "November", "December"};

time_t time(time_t *to) {
    struct timespec now = {0, 0};
    clock_gettime(CLOCK_REALTIME, &now);
    if (to) *to = now.tv_sec;
    return now.tv_sec;
}

clock_t clock(void) {
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) < 0) return -1;
    return (clock_t)((usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * CLOCKS_PER_SEC + usage.ru_utime.tv_usec +
                     usage.ru_stime.tv_usec);
}

/* Days since 1970-01-01 of the first of March of a year: the leap day is the last of the year that begins in March. */
static long march_first(long year) {
    long era = (year >= 0 ? year : year - 399) / 400, in_era = year - era * 400;
    return era * 146097 + in_era * 365 + in_era / 4 - in_era / 100 - 719468;
}

struct tm *gmtime_r(const time_t *t, struct tm *to) {
    long days = *t / 86400, rest = *t % 86400;
    if (rest < 0) rest += 86400, days--;
    long year = 1970 + days / 366 - 2;
    while (march_first(year + 1) <= days) year++;
    long in_year = days - march_first(year);
    long month = (5 * in_year + 2) / 153;
    to->tm_mday = (int)(in_year - (153 * month + 2) / 5 + 1);
    to->tm_mon = (int)(month < 10 ? month + 2 : month - 10);
    long calendar_year = year + (month >= 10);
    to->tm_year = (int)(calendar_year - 1900);
    to->tm_yday = (int)(days - (march_first(calendar_year - 1) + 306));
    to->tm_wday = (int)(((days + 4) % 7 + 7) % 7);
    to->tm_hour = (int)(rest / 3600);
    to->tm_min = (int)(rest / 60 % 60);
    to->tm_sec = (int)(rest % 60);
    to->tm_isdst = 0;
    to->tm_gmtoff = 0;
    to->tm_zone = "UTC";
    return to;
}

struct tm *gmtime(const time_t *t) {
    static struct tm tm;
    return gmtime_r(t, &tm);
}
struct tm *localtime_r(const time_t *t, struct tm *to) { return gmtime_r(t, to); }
struct tm *localtime(const time_t *t) { return gmtime(t); }

time_t timegm(struct tm *tm) {
    long month = tm->tm_mon, year = tm->tm_year + 1900 + month / 12;
    month %= 12;
    if (month < 0) month += 12, year--;
    long from_march = month >= 2 ? month - 2 : month + 10;
    long days = march_first(month >= 2 ? year : year - 1) + (153 * from_march + 2) / 5 + tm->tm_mday - 1;
    time_t t = ((days * 24 + tm->tm_hour) * 60 + tm->tm_min) * 60 + tm->tm_sec;
    gmtime_r(&t, tm);
    return t;
}
time_t mktime(struct tm *tm) { return timegm(tm); }

size_t strftime(char *to, size_t size, const char *format, const struct tm *tm) {
    size_t length = 0;
    for (; *format; format++) {
        char piece[64];
        if (*format != '%') {
            piece[0] = *format;
            piece[1] = '\0';
        } else {
            int hour12 = tm->tm_hour % 12 ? tm->tm_hour % 12 : 12;
            struct tm copy = *tm;
            switch (*++format) {
            case 'a': snprintf(piece, sizeof piece, "%.3s", DAYS[tm->tm_wday]); break;
            case 'A': strcpy(piece, DAYS[tm->tm_wday]); break;
            case 'b':
            case 'h': snprintf(piece, sizeof piece, "%.3s", MONTHS[tm->tm_mon]); break;
            case 'B': strcpy(piece, MONTHS[tm->tm_mon]); break;
            case 'c': strftime(piece, sizeof piece, "%a %b %e %H:%M:%S %Y", tm); break;
            case 'C': snprintf(piece, sizeof piece, "%02d", (tm->tm_year + 1900) / 100); break;
            case 'd': snprintf(piece, sizeof piece, "%02d", tm->tm_mday); break;
            case 'D':
            case 'x': strftime(piece, sizeof piece, "%m/%d/%y", tm); break;
            case 'e': snprintf(piece, sizeof piece, "%2d", tm->tm_mday); break;
            case 'F': strftime(piece, sizeof piece, "%Y-%m-%d", tm); break;
            case 'H': snprintf(piece, sizeof piece, "%02d", tm->tm_hour); break;
            case 'I': snprintf(piece, sizeof piece, "%02d", hour12); break;
            case 'j': snprintf(piece, sizeof piece, "%03d", tm->tm_yday + 1); break;
            case 'm': snprintf(piece, sizeof piece, "%02d", tm->tm_mon + 1); break;
            case 'M': snprintf(piece, sizeof piece, "%02d", tm->tm_min); break;
            case 'n': strcpy(piece, "\n"); break;
            case 'p': strcpy(piece, tm->tm_hour < 12 ? "AM" : "PM"); break;
            case 'r': strftime(piece, sizeof piece, "%I:%M:%S %p", tm); break;
            case 'R': strftime(piece, sizeof piece, "%H:%M", tm); break;
            case 's': snprintf(piece, sizeof piece, "%ld", timegm(&copy)); break;
            case 'S': snprintf(piece, sizeof piece, "%02d", tm->tm_sec); break;
            case 't': strcpy(piece, "\t"); break;
            case 'T':
            case 'X': strftime(piece, sizeof piece, "%H:%M:%S", tm); break;
            case 'u': snprintf(piece, sizeof piece, "%d", tm->tm_wday ? tm->tm_wday : 7); break;
            case 'w': snprintf(piece, sizeof piece, "%d", tm->tm_wday); break;
            case 'y': snprintf(piece, sizeof piece, "%02d", tm->tm_year % 100); break;
            case 'Y': snprintf(piece, sizeof piece, "%d", tm->tm_year + 1900); break;
            case 'z': strcpy(piece, "+0000"); break;
            case 'Z': strcpy(piece, "UTC"); break;
            case '%': strcpy(piece, "%"); break;
            case '\0': format--; piece[0] = '\0'; break;
            default: snprintf(piece, sizeof piece, "%%%c", *format);
            }
        }
        size_t n = strlen(piece);
        if (length + n >= size) return 0;
        memcpy(to + length, piece, n);
        length += n;
    }
    to[length] = '\0';
    return length;
}

char *asctime(const struct tm *tm) {
    static char text[64];
    strftime(text, sizeof text, "%a %b %e %H:%M:%S %Y\n", tm);
    return text;
}
char *ctime(const time_t *t) { return asctime(gmtime(t)); }
