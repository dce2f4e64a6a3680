/* hexdump (in the form of -C), od, cmp, dd. */
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "toolbox.h"

static long skip, length_most = -1;
static unsigned long offset;
static int verbose;

static int dump(FILE *file, const char *name) {
    unsigned char line[16], last[16];
    int have_last = 0, starred = 0;
    (void)name;
    for (; skip > 0 && getc(file) != EOF; skip--) offset++;
    for (;;) {
        size_t wanted = length_most >= 0 && length_most < 16 ? (size_t)length_most : 16;
        size_t n = wanted ? fread(line, 1, wanted, file) : 0;
        if (n == 0) break;
        if (length_most >= 0) length_most -= (long)n;
        if (n == 16 && have_last && !verbose && memcmp(line, last, 16) == 0) {
            if (!starred) puts("*");
            starred = 1;
            offset += 16;
            continue;
        }
        starred = 0;
        printf("%08lx ", offset);
        for (size_t i = 0; i < 16; i++) {
            if (i == 8) putchar(' ');
            if (i < n) printf(" %02x", line[i]);
            else fputs("   ", stdout);
        }
        fputs("  |", stdout);
        for (size_t i = 0; i < n; i++) putchar(line[i] >= 32 && line[i] < 127 ? line[i] : '.');
        puts("|");
        memcpy(last, line, 16);
        have_last = n == 16;
        offset += n;
    }
    printf("%08lx\n", offset);
    return 0;
}

int hexdump_main(int argc, char **argv) {
    for (int option; (option = getopt(argc, argv, "Cvn:s:")) != -1;) {
        if (option == 'n') length_most = size_argument(optarg);
        else if (option == 's') skip = size_argument(optarg);
        else if (option == 'v') verbose = 1;
        else if (option == '?') usage("[-Cv] [-n LENGTH] [-s SKIP] [FILE ...]");
    }
    return each_file(argc - optind, argv + optind, dump);
}

/* Offsets in octal, two bytes to a word; -c for characters, -An for no offsets, -tx1 for bytes in hexadecimal. */
static int characters, no_offsets, hex_bytes;

static int octal_dump(FILE *file, const char *name) {
    unsigned char line[16];
    (void)name;
    for (size_t n; (n = fread(line, 1, length_most >= 0 && length_most < 16 ? (size_t)length_most : 16, file)) > 0;) {
        if (length_most >= 0) length_most -= (long)n;
        if (!no_offsets) printf("%07lo", offset);
        for (size_t i = 0; i < n; i++) {
            if (characters && line[i] == '\n') fputs("  \\n", stdout);
            else if (characters && line[i] >= 32 && line[i] < 127) printf("   %c", line[i]);
            else if (characters) printf(" %03o", line[i]);
            else if (hex_bytes) printf(" %02x", line[i]);
            else if (i % 2 == 0) printf(" %06o", line[i] | (i + 1 < n ? line[i + 1] << 8 : 0));
        }
        putchar('\n');
        offset += n;
    }
    if (!no_offsets) printf("%07lo\n", offset);
    return 0;
}

int od_main(int argc, char **argv) {
    for (int option; (option = getopt(argc, argv, "cA:t:N:vbx")) != -1;) {
        if (option == 'c') characters = 1;
        else if (option == 'A') no_offsets = *optarg == 'n';
        else if (option == 't') hex_bytes = *optarg == 'x', characters = *optarg == 'c';
        else if (option == 'N') length_most = size_argument(optarg);
        else if (option == '?') usage("[-c] [-An] [-tx1] [-N LENGTH] [FILE ...]");
    }
    return each_file(argc - optind, argv + optind, octal_dump);
}

int cmp_main(int argc, char **argv) {
    int quiet = argc > 1 && strcmp(argv[1], "-s") == 0;
    if (argc - quiet != 3) usage("[-s] FILE FILE");
    FILE *a = fopen(argv[1 + quiet], "r"), *b = fopen(argv[2 + quiet], "r");
    if (!a) err(2, "%s", argv[1 + quiet]);
    if (!b) err(2, "%s", argv[2 + quiet]);
    for (long byte = 1, line = 1;; byte++) {
        int x = getc(a), y = getc(b);
        if (x == EOF && y == EOF) return 0;
        if (x == y) {
            line += x == '\n';
            continue;
        }
        if (!quiet && (x == EOF || y == EOF)) fprintf(stderr, "cmp: EOF on %s\n", argv[(x == EOF ? 1 : 2) + quiet]);
        else if (!quiet) printf("%s %s differ: char %ld, line %ld\n", argv[1 + quiet], argv[2 + quiet], byte, line);
        return 1;
    }
}

int dd_main(int argc, char **argv) {
    const char *from = NULL, *to = NULL;
    long block = 512, count = -1, skip_blocks = 0, seek_blocks = 0, whole = 0, partial = 0;
    int truncate_it = 1;
    for (int i = 1; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (!value) usage("[if=FILE] [of=FILE] [bs=N] [count=N] [skip=N] [seek=N] [conv=notrunc]");
        *value++ = '\0';
        if (strcmp(argv[i], "if") == 0) from = value;
        else if (strcmp(argv[i], "of") == 0) to = value;
        else if (strcmp(argv[i], "bs") == 0) block = size_argument(value);
        else if (strcmp(argv[i], "count") == 0) count = size_argument(value);
        else if (strcmp(argv[i], "skip") == 0) skip_blocks = size_argument(value);
        else if (strcmp(argv[i], "seek") == 0) seek_blocks = size_argument(value);
        else if (strcmp(argv[i], "conv") == 0) truncate_it = strstr(value, "notrunc") == NULL;
        else errx(1, "unknown: %s", argv[i]);
    }
    if (block <= 0) errx(1, "bs: not a size");
    char *buffer = malloc((size_t)block);
    if (!buffer) err(1, "memory");
    int in = from ? open(from, O_RDONLY) : 0;
    if (in < 0) err(1, "%s", from);
    int out = to ? open(to, O_WRONLY | O_CREAT | (truncate_it && !seek_blocks ? O_TRUNC : 0), 0666) : 1;
    if (out < 0) err(1, "%s", to);
    if (skip_blocks && lseek(in, skip_blocks * block, SEEK_SET) < 0)
        for (; skip_blocks > 0 && read(in, buffer, (size_t)block) > 0; skip_blocks--) continue;
    if (seek_blocks && lseek(out, seek_blocks * block, SEEK_SET) < 0) err(1, "seek");
    long bytes = 0;
    for (ssize_t n; count != 0 && (n = read(in, buffer, (size_t)block)) != 0; count -= count > 0) {
        if (n < 0) err(1, "%s", from ? from : "standard input");
        for (ssize_t done = 0, m; done < n; done += m)
            if ((m = write(out, buffer + done, (size_t)(n - done))) < 0) err(1, "%s", to ? to : "standard output");
        bytes += n;
        if (n == block) whole++;
        else partial++;
    }
    fprintf(stderr, "%ld+%ld records in\n%ld+%ld records out\n%ld bytes transferred\n", whole, partial, whole,
        partial, bytes);
    return 0;
}
