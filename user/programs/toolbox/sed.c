/* sed, a small one: s/re/text/[g p N], d, p, q, =, y/ab/cd/, addresses N $ /re/ and pairs of them, "!" and several -e. */
#include <ctype.h>
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "toolbox.h"

struct address {
    enum { NONE, NUMBER, LAST, PATTERN } kind;
    long number;
    struct regex *regex;
};

static struct command {
    struct address from, to;
    int inside, negated;
    char name;
    struct regex *regex;
    char *replacement, *targets;
    int global, print, which;
} commands[64];
static int command_count, silent, flags;
static long line_number;
static int is_last;

/* Text up to the delimiter, with "\delimiter" as the delimiter itself. */
static char *delimited(char **at, char end) {
    char *from = *at, *to = malloc(strlen(from) + 1), *out = to;
    while (*from && *from != end) {
        if (*from == '\\' && from[1] == end) from++;
        else if (*from == '\\' && from[1]) *out++ = *from++;
        *out++ = *from++;
    }
    if (*from != end) errx(1, "unterminated command");
    *out = '\0';
    *at = from + 1;
    return to;
}

static void parse_address(char **at, struct address *a) {
    if (isdigit((unsigned char)**at)) {
        a->kind = NUMBER;
        a->number = strtol(*at, at, 10);
    } else if (**at == '$') {
        a->kind = LAST;
        ++*at;
    } else if (**at == '/') {
        ++*at;
        a->kind = PATTERN;
        a->regex = regex_compile(delimited(at, '/'), flags);
    }
}

static void parse(char *script) {
    for (char *at = script;;) {
        at += strspn(at, " \t\n;");
        if (!*at) return;
        if (command_count == 64) errx(1, "too many commands");
        struct command *c = &commands[command_count++];
        parse_address(&at, &c->from);
        if (*at == ',') {
            at++;
            parse_address(&at, &c->to);
        }
        at += strspn(at, " ");
        if (*at == '!') c->negated = 1, at++;
        c->name = *at++;
        if (c->name == 's' || c->name == 'y') {
            char end = *at++;
            char *pattern = delimited(&at, end);
            c->replacement = delimited(&at, end);
            if (c->name == 'y') {
                c->targets = pattern;
                if (strlen(pattern) != strlen(c->replacement)) errx(1, "y: texts of different length");
                continue;
            }
            c->regex = regex_compile(pattern, flags);
            c->which = 1;
            for (; *at && !strchr(" ;\n}", *at); at++) {
                if (*at == 'g') c->global = 1;
                else if (*at == 'p') c->print = 1;
                else if (isdigit((unsigned char)*at)) c->which = *at - '0';
                else errx(1, "s: unknown flag %c", *at);
            }
        } else if (!c->name || !strchr("dpq=", c->name)) {
            errx(1, "unknown command: %c", c->name);
        }
    }
}

static int address_matches(const struct address *a, const char *line) {
    struct span spans[10];
    switch (a->kind) {
    case NUMBER: return line_number == a->number;
    case LAST: return is_last;
    case PATTERN: return regex_search(a->regex, line, 1, spans);
    default: return 1;
    }
}

static int selected(struct command *c, const char *line) {
    int yes;
    if (c->to.kind == NONE) {
        yes = address_matches(&c->from, line);
    } else if (c->inside) {
        yes = 1;
        if (address_matches(&c->to, line) || (c->to.kind == NUMBER && line_number >= c->to.number)) c->inside = 0;
    } else {
        yes = address_matches(&c->from, line);
        c->inside = yes && !(c->to.kind == NUMBER && line_number >= c->to.number);
    }
    return yes != c->negated;
}

static char *out;
static size_t out_length, out_room;

static void add(const char *s, size_t length) {
    if (out_length + length + 1 > out_room) {
        out_room = (out_length + length + 1) * 2;
        if (!(out = realloc(out, out_room))) err(1, "memory");
    }
    memcpy(out + out_length, s, length);
    out_length += length;
    out[out_length] = '\0';
}

static int substitute(struct command *c, char **line) {
    struct span spans[10];
    const char *s = *line;
    int times = 0, done = 0;
    out_length = 0;
    const char *last_end = NULL;
    while (regex_search(c->regex, s, s == *line, spans)) {
        /* Nothing, right behind a match, is not another match. */
        if (spans[0].from == spans[0].to && spans[0].from == last_end) {
            if (!*s) break;
            add(s++, 1);
            last_end = NULL;
            continue;
        }
        times++;
        add(s, (size_t)(spans[0].from - s));
        if (times < c->which) {
            add(spans[0].from, (size_t)(spans[0].to - spans[0].from));
        } else {
            done = 1;
            for (const char *r = c->replacement; *r; r++) {
                if (*r == '&') add(spans[0].from, (size_t)(spans[0].to - spans[0].from));
                else if (*r == '\\' && isdigit((unsigned char)r[1])) {
                    struct span *g = &spans[*++r - '0'];
                    if (g->from) add(g->from, (size_t)(g->to - g->from));
                } else if (*r == '\\' && r[1]) {
                    r++;
                    add(*r == 'n' ? "\n" : *r == 't' ? "\t" : r, 1);
                } else add(r, 1);
            }
        }
        s = last_end = spans[0].to;
        if (spans[0].to == spans[0].from) {
            if (!*s) break;
            add(s++, 1);
        }
        if (done && !c->global) break;
    }
    if (!times) return 0;
    add(s, strlen(s));
    free(*line);
    *line = strdup(out);
    return done;
}

static int quitting;

static void edit(char *text) {
    char *line = strdup(text);
    int deleted = 0;
    line_number++;
    for (int i = 0; i < command_count && !deleted && !quitting; i++) {
        struct command *c = &commands[i];
        if (!selected(c, line)) continue;
        switch (c->name) {
        case 'd': deleted = 1; break;
        case 'p': puts(line); break;
        case 'q': quitting = 1; break;
        case '=': printf("%ld\n", line_number); break;
        case 's':
            if (substitute(c, &line) && c->print) puts(line);
            break;
        case 'y':
            for (char *s = line; *s; s++) {
                char *found = strchr(c->targets, *s);
                if (found) *s = c->replacement[found - c->targets];
            }
        }
    }
    if (!deleted && !silent) puts(line);
    free(line);
}

static char *waiting;

static int sed_file(FILE *file, const char *name) {
    char *line = NULL;
    size_t size = 0;
    (void)name;
    for (ssize_t n; !quitting && (n = getline(&line, &size, file)) >= 0;) {
        if (n > 0 && line[n - 1] == '\n') line[n - 1] = '\0';
        /* One line behind: only then is it known which is the last. */
        if (waiting) edit(waiting);
        free(waiting);
        waiting = strdup(line);
    }
    free(line);
    return 0;
}

int sed_main(int argc, char **argv) {
    char *scripts[16];
    int count = 0;
    for (int option; (option = getopt(argc, argv, "nErie:")) != -1;) {
        if (option == 'n') silent = 1;
        else if (option == 'E' || option == 'r') flags |= REGEX_EXTENDED;
        else if (option == 'e' && count < 16) scripts[count++] = optarg;
        else usage("[-nE] [-e SCRIPT] [SCRIPT] [FILE ...]");
    }
    if (!count && optind < argc) scripts[count++] = argv[optind++];
    if (!count) usage("[-nE] [-e SCRIPT] [SCRIPT] [FILE ...]");
    for (int i = 0; i < count; i++) parse(scripts[i]);
    int status = each_file(argc - optind, argv + optind, sed_file);
    is_last = 1;
    if (waiting && !quitting) edit(waiting);
    return status;
}
