/* echo, printf, read, getopts, ulimit. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "sh.h"

int echo_builtin(int argc, char **argv) {
    int first = argc > 1 && strcmp(argv[1], "-n") == 0 ? 2 : 1;
    for (int i = first; i < argc; i++) printf("%s%s", argv[i], i + 1 < argc ? " " : "");
    if (first == 1) putchar('\n');
    return fflush(stdout) < 0;
}

/* A backslash sequence at s; returns what is behind it. *stop: \c. */
static const char *print_escape(const char *s, int *stop) {
    static const char LETTERS[] = "abfnrtv\\\"'", VALUES[] = "\a\b\f\n\r\t\v\\\"'";
    const char *found = *s ? strchr(LETTERS, *s) : NULL;
    if (found) {
        putchar(VALUES[found - LETTERS]);
        return s + 1;
    }
    if (*s == 'c') {
        *stop = 1;
        return s + 1;
    }
    if (*s >= '0' && *s <= '7') {
        int value = 0;
        for (int i = 0; i < 3 + (*s == '0') && *s >= '0' && *s <= '7'; i++) value = value * 8 + (*s++ - '0');
        putchar(value);
        return s;
    }
    putchar('\\');
    return s;
}

static long number_argument(const char *text, int *status) {
    char *end;
    if (!text) return 0;
    if (*text == '\'' || *text == '"') return (unsigned char)text[1];
    long value = strtol(text, &end, 0);
    if (*end || end == text) {
        complain("printf: %s: not a number", text);
        *status = 1;
    }
    return value;
}

int printf_builtin(int argc, char **argv) {
    int next = 2, status = 0, stop = 0;
    if (argc < 2) {
        complain("usage: printf FORMAT [ARGUMENT ...]");
        return 2;
    }
    do {
        int before = next;
        for (const char *s = argv[1]; *s && !stop;) {
            if (*s == '\\') {
                s = print_escape(s + 1, &stop);
                continue;
            }
            if (*s != '%' || s[1] == '%') {
                putchar(*s);
                s += *s == '%' ? 2 : 1;
                continue;
            }
            char spec[32] = "%";
            size_t n = 1;
            for (s++; *s && strchr("-+ #0123456789.*", *s) && n < 20; s++) {
                if (*s != '*') {
                    spec[n++] = *s;
                    continue;
                }
                int width = (int)number_argument(next < argc ? argv[next++] : NULL, &status);
                n += (size_t)snprintf(spec + n, 8, "%d", width);
            }
            char *argument = *s && next < argc ? argv[next++] : NULL;
            switch (*s) {
            case 'd': case 'i': case 'o': case 'u': case 'x': case 'X':
                spec[n++] = 'l';
                spec[n] = *s;
                printf(spec, number_argument(argument, &status));
                break;
            case 'e': case 'f': case 'g':
                spec[n] = *s;
                printf(spec, argument ? atof(argument) : 0.0);
                break;
            case 'c':
                if (argument && *argument) putchar(*argument);
                break;
            case 's':
                spec[n] = 's';
                printf(spec, argument ? argument : "");
                break;
            case 'b':
                for (const char *a = argument ? argument : ""; *a && !stop;) {
                    if (*a == '\\') a = print_escape(a + 1, &stop);
                    else putchar(*a++);
                }
                break;
            default:
                complain("printf: %%%c: bad format", *s);
                fflush(stdout);
                return 1;
            }
            s++;
        }
        if (next == before) break;
    } while (next < argc && !stop);
    return fflush(stdout) < 0 ? 1 : status;
}

/* A line is read byte by byte: the rest belongs to the next reader. */
int read_builtin(int argc, char **argv) {
    int raw = 0, first = 1, status = 0;
    static char *reply[] = {"REPLY", NULL};
    for (; first < argc && argv[first][0] == '-'; first++) {
        if (strcmp(argv[first], "-r") == 0) raw = 1;
        else if (strcmp(argv[first], "-p") == 0 && first + 1 < argc) fputs(argv[++first], stderr);
        else break;
    }
    char **names = first < argc ? argv + first : reply;
    struct buffer line = {0};
    for (;;) {
        char c;
        ssize_t n = read(0, &c, 1);
        if (n < 0 && errno == EINTR) {
            if (interrupted) return 130;
            run_pending_traps();
            continue;
        }
        if (n <= 0) {
            status = 1;
            break;
        }
        if (c == '\n') break;
        if (c == '\\' && !raw) {
            if (read(0, &c, 1) == 1 && c != '\n') buffer_add(&line, c, 1);
            continue;
        }
        if (c) buffer_add(&line, c, 0);
    }
    const char *ifs = get_variable("IFS");
    if (!ifs) ifs = " \t\n";
    size_t at = 0;
#define IS_IFS(i) (!line.marks[i] && strchr(ifs, line.text[i]))
#define IS_SPACE(i) (IS_IFS(i) && isspace((unsigned char)line.text[i]))
    while (at < line.length && IS_SPACE(at)) at++;
    for (; *names; names++) {
        size_t start = at, end;
        if (names[1]) {
            while (at < line.length && !IS_IFS(at)) at++;
            end = at;
            while (at < line.length && IS_SPACE(at)) at++;
            if (at < line.length && IS_IFS(at)) {
                at++;
                while (at < line.length && IS_SPACE(at)) at++;
            }
        } else {
            end = line.length;
            while (end > start && IS_SPACE(end - 1)) end--;
            at = line.length;
        }
        if (set_variable(*names, make_text(line.text ? line.text + start : "", end - start))) return 2;
    }
    return status;
}

int getopts_builtin(int argc, char **argv) {
    static int inside;
    char text[16];
    if (argc < 3) {
        complain("usage: getopts OPTIONS NAME [ARGUMENT ...]");
        return 2;
    }
    char **list = argc > 3 ? argv + 3 : positional;
    int count = argc > 3 ? argc - 3 : positional_count;
    const char *wanted = argv[1], *index_text = get_variable("OPTIND");
    int index = index_text ? atoi(index_text) : 1, silent = *wanted == ':';
    if (index < 1) index = 1;
    if (index == 1 && (count < 1 || (size_t)inside >= strlen(list[0]))) inside = 0;
    if (inside == 0) {
        if (index > count || list[index - 1][0] != '-' || !list[index - 1][1]) {
            set_variable(argv[2], "?");
            return 1;
        }
        if (strcmp(list[index - 1], "--") == 0) {
            snprintf(text, sizeof text, "%d", index + 1);
            set_variable("OPTIND", text);
            set_variable(argv[2], "?");
            return 1;
        }
        inside = 1;
    }
    char letter = list[index - 1][inside++];
    const char *found = letter == ':' ? NULL : strchr(wanted, letter);
    char result[2] = {letter, '\0'};
    unset_variable("OPTARG");
    if (!found) {
        if (silent) set_variable("OPTARG", result);
        else complain("illegal option -%c", letter);
        result[0] = '?';
    } else if (found[1] == ':') {
        if (list[index - 1][inside]) {
            set_variable("OPTARG", list[index - 1] + inside);
        } else if (index < count) {
            set_variable("OPTARG", list[index++]);
        } else {
            if (silent) set_variable("OPTARG", result);
            else complain("option -%c wants an argument", letter);
            result[0] = silent ? ':' : '?';
        }
        inside = 0;
        index++;
    }
    if (inside && !list[index - 1][inside]) {
        inside = 0;
        index++;
    }
    snprintf(text, sizeof text, "%d", index);
    set_variable("OPTIND", text);
    set_variable(argv[2], result);
    return 0;
}

int ulimit_builtin(int argc, char **argv) {
    static const struct {
        char letter;
        int resource;
        rlim_t unit;
        const char *text;
    } LIMITS[] = {
        {'t', RLIMIT_CPU, 1, "cpu time (seconds)"},      {'f', RLIMIT_FSIZE, 512, "file size (512-byte blocks)"},
        {'d', RLIMIT_DATA, 1024, "data segment (KiB)"},  {'s', RLIMIT_STACK, 1024, "stack (KiB)"},
        {'c', RLIMIT_CORE, 512, "core file (512-byte blocks)"}, {'m', RLIMIT_RSS, 1024, "resident memory (KiB)"},
        {'l', RLIMIT_MEMLOCK, 1024, "locked memory (KiB)"}, {'u', RLIMIT_NPROC, 1, "processes"},
        {'n', RLIMIT_NOFILE, 1, "open files"},           {'v', RLIMIT_VMEM, 1024, "virtual memory (KiB)"},
    };
    char letter = 'f';
    int hard = 0, soft = 0, i = 1;
    struct rlimit limit;
    for (; i < argc && argv[i][0] == '-'; i++)
        for (const char *s = argv[i] + 1; *s; s++) {
            if (*s == 'H') hard = 1;
            else if (*s == 'S') soft = 1;
            else letter = *s;
        }
    for (size_t k = 0; k < sizeof LIMITS / sizeof *LIMITS; k++) {
        if (letter != 'a' && LIMITS[k].letter != letter) continue;
        if (getrlimit(LIMITS[k].resource, &limit) < 0) {
            complain("ulimit: %s", strerror(errno));
            return 1;
        }
        if (i < argc && letter != 'a') {
            rlim_t value = strcmp(argv[i], "unlimited") == 0 ? RLIM_INFINITY : atol(argv[i]) * LIMITS[k].unit;
            if (hard || !soft) limit.rlim_max = value;
            if (soft || !hard) limit.rlim_cur = value;
            if (setrlimit(LIMITS[k].resource, &limit) == 0) return 0;
            complain("ulimit: %s", strerror(errno));
            return 1;
        }
        rlim_t value = hard ? limit.rlim_max : limit.rlim_cur;
        if (letter == 'a') printf("%-32s ", LIMITS[k].text);
        if (value == RLIM_INFINITY) puts("unlimited");
        else printf("%ld\n", value / LIMITS[k].unit);
        if (letter != 'a') return 0;
    }
    if (letter == 'a') return 0;
    complain("ulimit: no limit -%c", letter);
    return 2;
}
