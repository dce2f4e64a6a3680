/*
 * Regular expressions, basic and extended, by backtracking: . [ ] * + ? {m,n} ^ $ | ( ) \1…\9. The leftmost match is taken,
 * and of alternatives the first that matches (POSIX would take the longest).
 */
#include <ctype.h>
#include <err.h>
#include <stdlib.h>
#include <string.h>
#include "toolbox.h"

enum kind { CHARACTER, ANY, SET, START, END, GROUP, BACK, WORD_EDGE };

struct piece {
    struct piece *next;
    enum kind kind;
    unsigned char c;
    unsigned char set[32];
    int group;
    struct branch *branches;
    int least, most; /* most -1: no limit */
};

struct branch {
    struct branch *next;
    struct piece *first;
};

struct regex {
    struct branch *branches;
    int flags, groups;
};

static const char *at;
static struct regex *making;

static void *zeroed(size_t size) {
    void *p = calloc(1, size);
    if (!p) err(2, "memory");
    return p;
}

static int is_special(char c) {
    int extended = making->flags & REGEX_EXTENDED;
    if (extended) return at[0] == c;
    return at[0] == '\\' && at[1] == c;
}

static void skip_special(void) { at += making->flags & REGEX_EXTENDED ? 1 : 2; }

static void add_to_set(struct piece *p, int c) {
    p->set[c / 8] |= (unsigned char)(1 << c % 8);
    if (!(making->flags & REGEX_IGNORE_CASE)) return;
    p->set[toupper(c) / 8] |= (unsigned char)(1 << toupper(c) % 8);
    p->set[tolower(c) / 8] |= (unsigned char)(1 << tolower(c) % 8);
}

static void parse_set(struct piece *p) {
    static const struct {
        const char *name;
        int (*test)(int);
    } CLASSES[] = {
        {"[:alnum:]", isalnum}, {"[:alpha:]", isalpha}, {"[:blank:]", isblank}, {"[:digit:]", isdigit},
        {"[:lower:]", islower}, {"[:print:]", isprint}, {"[:punct:]", ispunct}, {"[:space:]", isspace},
        {"[:upper:]", isupper}, {"[:xdigit:]", isxdigit},
    };
    int invert = *at == '^';
    if (invert) at++;
    for (const char *first = at; *at != ']' || at == first; at++) {
        if (!*at) errx(2, "regular expression: [ without ]");
        if (at[0] == '[' && at[1] == ':') {
            int found = 0;
            for (size_t i = 0; i < sizeof CLASSES / sizeof *CLASSES && !found; i++) {
                size_t length = strlen(CLASSES[i].name);
                if (strncmp(at, CLASSES[i].name, length) != 0) continue;
                for (int c = 1; c < 256; c++)
                    if (CLASSES[i].test(c)) add_to_set(p, c);
                at += length - 1;
                found = 1;
            }
            if (found) continue;
        }
        unsigned char from = (unsigned char)*at, to = from;
        if (at[1] == '-' && at[2] && at[2] != ']') to = (unsigned char)*(at += 2);
        for (int c = from; c <= to; c++) add_to_set(p, c);
    }
    at++;
    if (invert)
        for (int i = 0; i < 32; i++) p->set[i] = (unsigned char)~p->set[i];
}

static struct branch *parse_branches(int depth);

static struct piece *parse_atom(int first, int depth) {
    struct piece *p = zeroed(sizeof *p);
    p->least = p->most = 1;
    if (is_special('(')) {
        skip_special();
        p->kind = GROUP;
        p->group = ++making->groups;
        p->branches = parse_branches(depth + 1);
        if (!is_special(')')) errx(2, "regular expression: ( without )");
        skip_special();
        return p;
    }
    int extended = making->flags & REGEX_EXTENDED;
    char c = *at++;
    if (c == '\\' && *at) {
        c = *at++;
        p->kind = CHARACTER;
        if (c >= '1' && c <= '9') p->kind = BACK, p->group = c - '0';
        else if (c == '<' || c == '>' || c == 'b') p->kind = WORD_EDGE;
        else if (c == 'n') c = '\n';
        else if (c == 't') c = '\t';
    } else if (c == '.') {
        p->kind = ANY;
    } else if (c == '[') {
        p->kind = SET;
        parse_set(p);
    } else if (c == '^' && (extended || first)) {
        p->kind = START;
    } else if (c == '$' && (extended || !*at || is_special(')') || is_special('|'))) {
        p->kind = END;
    } else {
        p->kind = CHARACTER;
    }
    p->c = (unsigned char)c;
    return p;
}

static void parse_repeat(struct piece *p) {
    for (;;) {
        if (*at == '*') {
            at++;
            p->least = 0, p->most = -1;
        } else if (is_special('+')) {
            skip_special();
            p->least = 1, p->most = -1;
        } else if (is_special('?')) {
            skip_special();
            p->least = 0, p->most = 1;
        } else if (is_special('{') && isdigit((unsigned char)at[making->flags & REGEX_EXTENDED ? 1 : 2])) {
            char *end;
            skip_special();
            p->least = p->most = (int)strtol(at, &end, 10);
            at = end;
            if (*at == ',') {
                at++;
                p->most = isdigit((unsigned char)*at) ? (int)strtol(at, &end, 10) : -1;
                at += strspn(at, "0123456789");
            }
            if (!is_special('}')) errx(2, "regular expression: { without }");
            skip_special();
        } else {
            return;
        }
    }
}

static struct branch *parse_branches(int depth) {
    struct branch *list = NULL, **end = &list;
    for (;;) {
        struct branch *branch = zeroed(sizeof *branch);
        struct piece **link = &branch->first;
        int first = 1;
        while (*at && !is_special('|') && !(depth > 0 && is_special(')'))) {
            *link = parse_atom(first, depth);
            if ((*link)->kind != START) parse_repeat(*link);
            first = 0;
            link = &(*link)->next;
        }
        *end = branch;
        end = &branch->next;
        if (!is_special('|')) return list;
        skip_special();
    }
}

struct regex *regex_compile(const char *pattern, int flags) {
    making = zeroed(sizeof *making);
    making->flags = flags;
    at = pattern;
    making->branches = parse_branches(0);
    return making;
}

static const struct regex *matching;
static const char *text_start;
static int not_line_start;
static struct span *found;

/* What comes behind the last piece of a branch: the group that the branch stands in ends, for the count-th time. */
struct rest {
    struct piece *group;
    const char *from; /* where this repetition began */
    int count;
    struct rest *outer;
};

static const char *match_piece(struct piece *p, const char *s, int count, struct rest *rest);

static const char *match_sequence(struct piece *p, const char *s, struct rest *rest) {
    if (p) return match_piece(p, s, 0, rest);
    if (!rest) return s;
    struct span saved = {NULL, NULL};
    int group = rest->group->group;
    if (group < 10) {
        saved = found[group];
        found[group] = (struct span){rest->from, s};
    }
    /* An empty repetition would go on for ever. */
    const char *end = s == rest->from && rest->count >= rest->group->least
        ? NULL
        : match_piece(rest->group, s, rest->count, rest->outer);
    if (!end && rest->count >= rest->group->least) end = match_sequence(rest->group->next, s, rest->outer);
    if (!end && group < 10) found[group] = saved;
    return end;
}

static int is_word(int c) { return isalnum(c) || c == '_'; }

/* Characters that one repetition takes, or -1. */
static long one(const struct piece *p, const char *s) {
    unsigned char c = (unsigned char)*s;
    switch (p->kind) {
    case CHARACTER:
        if (matching->flags & REGEX_IGNORE_CASE) return c && tolower(c) == tolower(p->c) ? 1 : -1;
        return c && c == p->c ? 1 : -1;
    case ANY: return c ? 1 : -1;
    case SET: return c && (p->set[c / 8] >> c % 8 & 1) ? 1 : -1;
    case START: return s == text_start && !not_line_start ? 0 : -1;
    case END: return c ? -1 : 0;
    case WORD_EDGE: {
        int before = s > text_start && is_word((unsigned char)s[-1]), after = is_word(c);
        return (p->c == '<' ? !before && after : p->c == '>' ? before && !after : before != after) ? 0 : -1;
    }
    case BACK: {
        struct span *group = &found[p->group];
        size_t length = group->from ? (size_t)(group->to - group->from) : 0;
        return strncmp(s, group->from ? group->from : "", length) == 0 ? (long)length : -1;
    }
    default: return -1;
    }
}

static const char *match_piece(struct piece *p, const char *s, int count, struct rest *rest) {
    if (p->kind == GROUP) {
        if (p->most < 0 || count < p->most)
            for (struct branch *b = p->branches; b; b = b->next) {
                struct rest here = {p, s, count + 1, rest};
                const char *end = match_sequence(b->first, s, &here);
                if (end) return end;
            }
        return count >= p->least && count == 0 ? match_sequence(p->next, s, rest) : NULL;
    }
    /* As many as there are, then fewer. */
    const char *start = s;
    long taken = 0, step = 0;
    while (p->most < 0 || taken < p->most) {
        step = one(p, s);
        if (step < 0) break;
        s += step;
        taken++;
        if (step == 0) break;
    }
    if (p->kind == BACK || step == 0) {
        if (taken < p->least) return NULL;
        return match_sequence(p->next, s, rest);
    }
    for (; taken >= p->least; taken--, s--) {
        const char *end = match_sequence(p->next, s, rest);
        if (end) return end;
        if (s == start) break;
    }
    return NULL;
}

int regex_search(struct regex *regex, const char *s, int at_start, struct span spans[10]) {
    matching = regex;
    text_start = s;
    not_line_start = !at_start;
    found = spans;
    for (;; s++) {
        for (struct branch *b = regex->branches; b; b = b->next) {
            memset(spans, 0, 10 * sizeof *spans);
            const char *end = match_sequence(b->first, s, NULL);
            if (end) {
                spans[0] = (struct span){s, end};
                return 1;
            }
        }
        if (!*s) return 0;
    }
}
