/* test and [. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "sh.h"

static char **at, **end;
static int broken;

static int or_expression(void);

static long integer(const char *text) {
    char *rest;
    long value = strtol(text, &rest, 10);
    while (*rest == ' ') rest++;
    if (*rest || rest == text) {
        complain("test: %s: not a number", text);
        broken = 1;
    }
    return value;
}

static int unary(char op, const char *s) {
    struct stat st;
    switch (op) {
    case 'n': return *s != '\0';
    case 'z': return *s == '\0';
    case 't': return isatty(atoi(s));
    case 'r': return access(s, R_OK) == 0;
    case 'w': return access(s, W_OK) == 0;
    case 'x': return access(s, X_OK) == 0;
    case 'h':
    case 'L': return lstat(s, &st) == 0 && S_ISLNK(st.st_mode);
    }
    if (stat(s, &st) < 0) return 0;
    switch (op) {
    case 'e': return 1;
    case 'f': return S_ISREG(st.st_mode);
    case 'd': return S_ISDIR(st.st_mode);
    case 'c': return S_ISCHR(st.st_mode);
    case 'b': return S_ISBLK(st.st_mode);
    case 'p': return S_ISFIFO(st.st_mode);
    case 'u': return (st.st_mode & S_ISUID) != 0;
    case 'g': return (st.st_mode & S_ISGID) != 0;
    default: return st.st_size > 0;
    }
}

static int is_unary(const char *s) { return s[0] == '-' && s[1] && !s[2] && strchr("nztrwxhLefdcbpsug", s[1]); }

enum binary { NONE, SAME, DIFFERENT, EQ, NE, LT, LE, GT, GE, NEWER, OLDER, FILE_SAME, LESS, GREATER };

static enum binary binary(const char *s) {
    static const char *const NAMES[] = {"",    "=",   "!=",  "-eq", "-ne", "-lt", "-le",
                                        "-gt", "-ge", "-nt", "-ot", "-ef", "<",   ">"};
    if (strcmp(s, "==") == 0) return SAME;
    for (int i = 1; i < (int)(sizeof NAMES / sizeof *NAMES); i++)
        if (strcmp(s, NAMES[i]) == 0) return (enum binary)i;
    return NONE;
}

static int compare(const char *a, enum binary op, const char *b) {
    struct stat x, y;
    switch (op) {
    case SAME: return strcmp(a, b) == 0;
    case DIFFERENT: return strcmp(a, b) != 0;
    case LESS: return strcmp(a, b) < 0;
    case GREATER: return strcmp(a, b) > 0;
    case EQ: return integer(a) == integer(b);
    case NE: return integer(a) != integer(b);
    case LT: return integer(a) < integer(b);
    case LE: return integer(a) <= integer(b);
    case GT: return integer(a) > integer(b);
    case GE: return integer(a) >= integer(b);
    case NEWER: return stat(a, &x) == 0 && (stat(b, &y) < 0 || x.st_mtime > y.st_mtime);
    case OLDER: return stat(b, &y) == 0 && (stat(a, &x) < 0 || x.st_mtime < y.st_mtime);
    default: return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
    }
}

static int primary(void) {
    if (at >= end) {
        broken = 1;
        return 0;
    }
    /* "a = b" comes before what a may mean alone. */
    if (at + 2 < end && binary(at[1]) != NONE) {
        int result = compare(at[0], binary(at[1]), at[2]);
        at += 3;
        return result;
    }
    if (strcmp(*at, "!") == 0 && at + 1 < end) {
        at++;
        return !primary();
    }
    if (strcmp(*at, "(") == 0 && at + 1 < end) {
        at++;
        int result = or_expression();
        if (at >= end || strcmp(*at, ")") != 0) broken = 1;
        else at++;
        return result;
    }
    if (is_unary(*at) && at + 1 < end) {
        at += 2;
        return unary(at[-2][1], at[-1]);
    }
    return *(*at++) != '\0';
}

static int and_expression(void) {
    int result = primary();
    while (at < end && strcmp(*at, "-a") == 0) {
        at++;
        int right = primary();
        result = result && right;
    }
    return result;
}

static int or_expression(void) {
    int result = and_expression();
    while (at < end && strcmp(*at, "-o") == 0) {
        at++;
        int right = and_expression();
        result = result || right;
    }
    return result;
}

int test_builtin(int argc, char **argv) {
    if (**argv == '[') {
        if (strcmp(argv[argc - 1], "]") != 0) {
            complain("[: missing ]");
            return 2;
        }
        argc--;
    }
    if (argc == 1) return 1;
    at = argv + 1;
    end = argv + argc;
    broken = 0;
    int result = or_expression();
    if (at < end && !broken) {
        complain("test: %s: unexpected", *at);
        broken = 1;
    }
    return broken ? 2 : !result;
}
