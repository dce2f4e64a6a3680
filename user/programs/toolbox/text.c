/* Commands that show or count lines: cat head tail wc tee yes seq cut tr uniq. */
#include <ctype.h>
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "toolbox.h"

int cat_main(int argc, char **argv) {
    int status = 0, numbers = argc > 1 && strcmp(argv[1], "-n") == 0;
    if (numbers) {
        char *line = NULL;
        size_t size = 0;
        int number = 0;
        for (int i = 2; i < argc || i == 2; i++) {
            FILE *file = i < argc ? fopen(argv[i], "r") : stdin;
            if (!file) err(1, "%s", argv[i]);
            while (getline(&line, &size, file) >= 0) printf("%6d\t%s", ++number, line);
            if (i < argc) fclose(file);
        }
        return 0;
    }
    if (argc == 1 && copy_bytes(0, 1) < 0) err(1, "standard input");
    for (int i = 1; i < argc; i++) {
        int fd = strcmp(argv[i], "-") == 0 ? 0 : open(argv[i], O_RDONLY);
        if (fd < 0 || copy_bytes(fd, 1) < 0) {
            warn("%s", argv[i]);
            status = 1;
        }
        if (fd > 0) close(fd);
    }
    return status;
}

static long wanted;
static int by_bytes, several;

static int head_file(FILE *file, const char *name) {
    long left = wanted;
    int c;
    if (several) printf("==> %s <==\n", name);
    while (left > 0 && (c = getc(file)) != EOF) {
        putchar(c);
        if (by_bytes || c == '\n') left--;
    }
    return 0;
}

/* -n N, -N, -c N; returns where the files begin. */
static int count_options(int argc, char **argv) {
    int i = 1;
    wanted = 10;
    by_bytes = 0;
    for (; i < argc && (argv[i][0] == '-' || argv[i][0] == '+') && argv[i][1]; i++) {
        const char *text = argv[i] + 1;
        int from_start = argv[i][0] == '+';
        if (*text == 'n' || *text == 'c') {
            by_bytes = *text == 'c';
            text = text[1] ? text + 1 : i + 1 < argc ? argv[++i] : "x";
        }
        wanted = *text == '+' ? -size_argument(text + 1) : size_argument(text);
        if (from_start) wanted = -wanted;
        if (wanted == 1 && *text == 'x') usage("[-n LINES | -c BYTES] [FILE ...]");
    }
    several = argc - i > 1;
    return i;
}

int head_main(int argc, char **argv) {
    int first = count_options(argc, argv);
    return each_file(argc - first, argv + first, head_file);
}

static int tail_file(FILE *file, const char *name) {
    if (several) printf("==> %s <==\n", name);
    if (wanted < 0) {
        /* From a line or byte on, counted from 1. */
        long skip = -wanted - 1;
        for (int c; (c = getc(file)) != EOF;) {
            if (skip <= 0) putchar(c);
            else if (by_bytes || c == '\n') skip--;
        }
        return 0;
    }
    size_t room = 65536, length = 0;
    char *text = malloc(room);
    for (size_t n; text && (n = fread(text + length, 1, room - length, file)) > 0;) {
        length += n;
        if (length == room) text = realloc(text, room *= 2);
    }
    if (!text) err(1, "memory");
    size_t from = length;
    if (by_bytes) {
        from = (size_t)wanted < length ? length - (size_t)wanted : 0;
    } else {
        long lines = wanted;
        if (from > 0 && lines > 0) from--;
        while (from > 0 && !(text[from - 1] == '\n' && --lines == 0)) from--;
    }
    fwrite(text + from, 1, length - from, stdout);
    free(text);
    return 0;
}

int tail_main(int argc, char **argv) {
    int first = count_options(argc, argv);
    return each_file(argc - first, argv + first, tail_file);
}

static int show_lines, show_words, show_bytes;
static long total_lines, total_words, total_bytes;

static void print_counts(long lines, long words, long bytes, const char *name) {
    if (show_lines) printf(" %7ld", lines);
    if (show_words) printf(" %7ld", words);
    if (show_bytes) printf(" %7ld", bytes);
    printf(name ? " %s\n" : "\n", name);
}

static int wc_file(FILE *file, const char *name) {
    long lines = 0, words = 0, bytes = 0;
    int inside = 0;
    for (int c; (c = getc(file)) != EOF;) {
        bytes++;
        lines += c == '\n';
        words += !isspace(c) && !inside;
        inside = !isspace(c);
    }
    total_lines += lines;
    total_words += words;
    total_bytes += bytes;
    print_counts(lines, words, bytes, file == stdin ? NULL : name);
    return 0;
}

int wc_main(int argc, char **argv) {
    for (int option; (option = getopt(argc, argv, "lwcm")) != -1;) {
        if (option == 'l') show_lines = 1;
        else if (option == 'w') show_words = 1;
        else if (option == '?') usage("[-lwc] [FILE ...]");
        else show_bytes = 1;
    }
    if (!show_lines && !show_words && !show_bytes) show_lines = show_words = show_bytes = 1;
    int status = each_file(argc - optind, argv + optind, wc_file);
    if (argc - optind > 1) print_counts(total_lines, total_words, total_bytes, "total");
    return status;
}

int tee_main(int argc, char **argv) {
    int append = argc > 1 && strcmp(argv[1], "-a") == 0, first = 1 + append, status = 0;
    int fds[16] = {1}, count = 1;
    for (int i = first; i < argc && count < 16; i++) {
        fds[count] = open(argv[i], O_WRONLY | O_CREAT | (append ? O_APPEND : O_TRUNC), 0666);
        if (fds[count] < 0) warn("%s", argv[i]), status = 1;
        else count++;
    }
    char buffer[4096];
    for (ssize_t n; (n = read(0, buffer, sizeof buffer)) > 0;)
        for (int i = 0; i < count; i++)
            if (write(fds[i], buffer, (size_t)n) != n) status = 1;
    return status;
}

int yes_main(int argc, char **argv) {
    while (puts(argc > 1 ? argv[1] : "y") >= 0) continue;
    return 1;
}

int seq_main(int argc, char **argv) {
    int i = 1;
    const char *separator = "\n";
    if (argc > 2 && strcmp(argv[1], "-s") == 0) separator = argv[2], i = 3;
    int count = argc - i;
    if (count < 1 || count > 3) usage("[-s SEPARATOR] [FIRST [STEP]] LAST");
    long first = count > 1 ? atol(argv[i]) : 1, step = count > 2 ? atol(argv[i + 1]) : 1, last = atol(argv[argc - 1]);
    if (step == 0) errx(1, "a step of 0 leads nowhere");
    for (long n = first; step > 0 ? n <= last : n >= last; n += step) {
        if (n != first) fputs(separator, stdout);
        printf("%ld", n);
    }
    if (step > 0 ? first <= last : first >= last) putchar('\n');
    return 0;
}

static char delimiter = '\t';
static const char *list;
static int cut_bytes;

static int listed(int n) {
    for (const char *s = list; *s;) {
        char *end;
        long from = *s == '-' ? 1 : strtol(s, &end, 10), to = from;
        if (*s != '-') s = end;
        if (*s == '-') {
            to = strtol(++s, &end, 10);
            if (end == s) to = 0x7fffffff;
            s = end;
        }
        if (n >= from && n <= to) return 1;
        if (*s == ',') s++;
        else break;
    }
    return 0;
}

static int cut_file(FILE *file, const char *name) {
    char *line = NULL;
    size_t size = 0;
    (void)name;
    for (ssize_t n; (n = getline(&line, &size, file)) >= 0;) {
        if (n > 0 && line[n - 1] == '\n') line[--n] = '\0';
        if (cut_bytes) {
            for (int i = 0; i < n; i++)
                if (listed(i + 1)) putchar(line[i]);
        } else if (!strchr(line, delimiter)) {
            fputs(line, stdout);
        } else {
            int field = 1, any = 0;
            for (char *s = line; s; field++) {
                char *end = strchr(s, delimiter);
                if (listed(field)) {
                    if (any++) putchar(delimiter);
                    fwrite(s, 1, end ? (size_t)(end - s) : strlen(s), stdout);
                }
                s = end ? end + 1 : NULL;
            }
        }
        putchar('\n');
    }
    free(line);
    return 0;
}

int cut_main(int argc, char **argv) {
    for (int option; (option = getopt(argc, argv, "d:f:c:b:")) != -1;) {
        if (option == 'd') delimiter = *optarg;
        else if (option == '?') list = NULL;
        else list = optarg, cut_bytes = option != 'f';
    }
    if (!list) usage("-f LIST [-d C] | -c LIST  [FILE ...]");
    return each_file(argc - optind, argv + optind, cut_file);
}

/* The characters of a set of tr: ranges, classes, escapes. */
static int tr_set(const char *s, unsigned char *to) {
    int n = 0;
    while (*s && n < 255) {
        if (strncmp(s, "[:", 2) == 0) {
            static const struct {
                const char *name;
                int (*test)(int);
            } CLASSES[] = {{"[:lower:]", islower}, {"[:upper:]", isupper}, {"[:digit:]", isdigit},
                           {"[:space:]", isspace}, {"[:alpha:]", isalpha}, {"[:alnum:]", isalnum},
                           {"[:punct:]", ispunct}};
            size_t i = 0;
            while (i < 7 && strncmp(s, CLASSES[i].name, 9) != 0) i++;
            if (i < 7) {
                for (int c = 0; c < 256 && n < 255; c++)
                    if (CLASSES[i].test(c)) to[n++] = (unsigned char)c;
                s += 9;
                continue;
            }
        }
        unsigned char c = (unsigned char)*s++;
        if (c == '\\' && *s) {
            c = (unsigned char)*s++;
            if (c == 'n') c = '\n';
            else if (c == 't') c = '\t';
            else if (c == 'r') c = '\r';
            else if (c >= '0' && c <= '7') {
                c -= '0';
                for (int i = 0; i < 2 && *s >= '0' && *s <= '7'; i++) c = (unsigned char)(c * 8 + (*s++ - '0'));
            }
        }
        if (*s == '-' && s[1]) {
            for (int d = c; d <= (unsigned char)s[1] && n < 255; d++) to[n++] = (unsigned char)d;
            s += 2;
        } else {
            to[n++] = c;
        }
    }
    return n;
}

int tr_main(int argc, char **argv) {
    int drop = 0, squeeze = 0, complement = 0;
    for (int option; (option = getopt(argc, argv, "dsc")) != -1;) {
        if (option == 'd') drop = 1;
        else if (option == 's') squeeze = 1;
        else if (option == 'c') complement = 1;
        else usage("[-cds] SET [SET]");
    }
    if (argc - optind < (drop || squeeze ? 1 : 2)) usage("[-cds] SET [SET]");
    unsigned char from[256], to[256], in[256] = {0}, squeezed[256] = {0};
    int map[256], from_count = tr_set(argv[optind], from), to_count = 0;
    if (argc - optind > 1) to_count = tr_set(argv[optind + 1], to);
    for (int i = 0; i < from_count; i++) in[from[i]] = 1;
    if (complement) {
        from_count = 0;
        for (int c = 0; c < 256; c++)
            if ((in[c] = !in[c])) from[from_count++ & 255] = (unsigned char)c;
    }
    for (int c = 0; c < 256; c++) map[c] = c;
    for (int i = 0; i < from_count && to_count && !drop; i++) map[from[i]] = to[i < to_count ? i : to_count - 1];
    for (int c = 0; c < 256; c++)
        if (squeeze && (to_count ? memchr(to, c, (size_t)to_count) != NULL : in[c])) squeezed[c] = 1;
    for (int c, last = -1; (c = getchar()) != EOF;) {
        if (drop && in[c]) continue;
        c = map[c];
        if (c == last && squeezed[c]) continue;
        putchar(c);
        last = c;
    }
    return 0;
}

static int count_them, only_repeated, only_single;

static void put_unique(const char *line, int times) {
    if (!line || (only_repeated && times == 1) || (only_single && times > 1)) return;
    if (count_them) printf("%4d ", times);
    fputs(line, stdout);
}

static int uniq_file(FILE *file, const char *name) {
    char *line = NULL, *last = NULL;
    size_t size = 0;
    int times = 0;
    (void)name;
    while (getline(&line, &size, file) >= 0) {
        if (last && strcmp(line, last) == 0) {
            times++;
            continue;
        }
        put_unique(last, times);
        free(last);
        last = strdup(line);
        times = 1;
    }
    put_unique(last, times);
    free(last);
    free(line);
    return 0;
}

int uniq_main(int argc, char **argv) {
    for (int option; (option = getopt(argc, argv, "cdu")) != -1;) {
        if (option == 'c') count_them = 1;
        else if (option == 'd') only_repeated = 1;
        else if (option == 'u') only_single = 1;
        else usage("[-cdu] [FILE]");
    }
    return each_file(argc - optind, argv + optind, uniq_file);
}
