/* sort: whole lines or from a field on, by text or by number. */
#include <ctype.h>
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "toolbox.h"

static int numeric, reverse, unique, ignore_case, key;
static char separator;
static char **lines;
static size_t count, room;

static const char *key_of(const char *line) {
    for (int field = 1; field < key && *line; field++) {
        if (separator) {
            const char *end = strchr(line, separator);
            line = end ? end + 1 : line + strlen(line);
        } else {
            while (isblank((unsigned char)*line)) line++;
            while (*line && !isblank((unsigned char)*line)) line++;
        }
    }
    if (key > 1 && !separator)
        while (isblank((unsigned char)*line)) line++;
    return line;
}

static int by_key(const char *x, const char *y) {
    const char *a = key_of(x), *b = key_of(y);
    if (numeric) {
        double left = atof(a), right = atof(b);
        return left < right ? -1 : left > right;
    }
    return ignore_case ? strcasecmp(a, b) : strcmp(a, b);
}

static int compare(const void *a, const void *b) {
    const char *x = *(char *const *)a, *y = *(char *const *)b;
    int order = by_key(x, y);
    if (order == 0 && !unique) order = strcmp(x, y);
    return reverse ? -order : order;
}

static int read_file(FILE *file, const char *name) {
    char *line = NULL;
    size_t size = 0;
    (void)name;
    for (ssize_t n; (n = getline(&line, &size, file)) >= 0;) {
        if (n > 0 && line[n - 1] == '\n') line[n - 1] = '\0';
        if (count == room) {
            room = room ? room * 2 : 256;
            lines = realloc(lines, room * sizeof *lines);
            if (!lines) err(2, "memory");
        }
        if (!(lines[count++] = strdup(line))) err(2, "memory");
    }
    free(line);
    return 0;
}

int sort_main(int argc, char **argv) {
    for (int option; (option = getopt(argc, argv, "nrufk:t:")) != -1;) {
        switch (option) {
        case 'n': numeric = 1; break;
        case 'r': reverse = 1; break;
        case 'u': unique = 1; break;
        case 'f': ignore_case = 1; break;
        case 'k':
            key = atoi(optarg);
            if (strchr(optarg, 'n')) numeric = 1;
            if (strchr(optarg, 'r')) reverse = 1;
            break;
        case 't': separator = *optarg; break;
        default: usage("[-fnru] [-k FIELD] [-t C] [FILE ...]");
        }
    }
    int status = each_file(argc - optind, argv + optind, read_file);
    qsort(lines, count, sizeof *lines, compare);
    for (size_t i = 0; i < count; i++) {
        if (unique && i > 0 && by_key(lines[i - 1], lines[i]) == 0) continue;
        puts(lines[i]);
    }
    return status;
}
