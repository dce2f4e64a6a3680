/* grep. */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "toolbox.h"

static struct regex *regexes[32];
static const char *fixed[32];
static int pattern_count, flags, is_fixed, invert, count_only, names_only, numbers, quiet, whole, with_name,
    only_matching;
static int any_match;

static int matches(const char *line, struct span *span) {
    struct span spans[10];
    for (int i = 0; i < pattern_count; i++) {
        if (is_fixed) {
            const char *at = whole ? (strcmp(line, fixed[i]) == 0 ? line : NULL) : strstr(line, fixed[i]);
            if (!at) continue;
            *span = (struct span){at, at + strlen(fixed[i])};
            return 1;
        }
        if (!regex_search(regexes[i], line, 1, spans)) continue;
        if (whole && (spans[0].from != line || *spans[0].to)) continue;
        *span = spans[0];
        return 1;
    }
    return 0;
}

static int grep_file(FILE *file, const char *name) {
    char *line = NULL;
    size_t size = 0;
    long found = 0, number = 0;
    struct span span;
    for (ssize_t n; (n = getline(&line, &size, file)) >= 0;) {
        number++;
        if (n > 0 && line[n - 1] == '\n') line[n - 1] = '\0';
        if (matches(line, &span) == invert) continue;
        found++;
        if (quiet) exit(0);
        if (names_only) break;
        if (count_only) continue;
        for (const char *rest = line;;) {
            int empty = only_matching && !invert && span.to == span.from;
            if (!empty && with_name) printf("%s:", name);
            if (!empty && numbers) printf("%ld:", number);
            if (!only_matching || invert) {
                puts(line);
                break;
            }
            if (!empty) printf("%.*s\n", (int)(span.to - span.from), span.from);
            rest = span.to > span.from ? span.to : span.to + 1;
            if (!*rest || whole || !matches(rest, &span)) break;
        }
    }
    if (count_only) {
        if (with_name) printf("%s:", name);
        printf("%ld\n", found);
    }
    if (names_only && found) puts(name);
    if (found) any_match = 1;
    free(line);
    return 0;
}

static void add_pattern(char *text) {
    for (char *line; (line = strsep(&text, "\n"));) {
        if (pattern_count == 32) errx(2, "too many patterns");
        if (is_fixed) fixed[pattern_count++] = line;
        else regexes[pattern_count++] = regex_compile(line, flags);
    }
}

int grep_main(int argc, char **argv) {
    char *patterns[32];
    int given = 0;
    for (int option; (option = getopt(argc, argv, "EFGivclnqsxhHoe:")) != -1;) {
        switch (option) {
        case 'E': flags |= REGEX_EXTENDED; break;
        case 'F': is_fixed = 1; break;
        case 'G': break;
        case 'i': flags |= REGEX_IGNORE_CASE; break;
        case 'v': invert = 1; break;
        case 'c': count_only = 1; break;
        case 'l': names_only = 1; break;
        case 'n': numbers = 1; break;
        case 'q': quiet = 1; break;
        case 's': break;
        case 'x': whole = 1; break;
        case 'h': with_name = -1; break;
        case 'H': with_name = 1; break;
        case 'o': only_matching = 1; break;
        case 'e':
            if (given < 32) patterns[given++] = optarg;
            break;
        default: usage("[-EFchilnoqvx] [-e PATTERN] [PATTERN] [FILE ...]");
        }
    }
    if (!given && optind < argc) patterns[given++] = argv[optind++];
    if (!given) usage("[-EFchilnoqvx] [-e PATTERN] [PATTERN] [FILE ...]");
    for (int i = 0; i < given; i++) add_pattern(patterns[i]);
    if (with_name == 0) with_name = argc - optind > 1;
    if (with_name < 0) with_name = 0;
    int status = each_file(argc - optind, argv + optind, grep_file);
    return status ? 2 : !any_match;
}
