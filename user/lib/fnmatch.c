/* Patterns of file names. */
#include <ctype.h>
#include <fnmatch.h>
#include <string.h>

static int in_class(const char *name, size_t length, int c) {
    static const struct {
        const char *name;
        int (*test)(int);
    } CLASSES[] = {
        {"alnum", isalnum}, {"alpha", isalpha}, {"blank", isblank}, {"cntrl", iscntrl}, {"digit", isdigit},
        {"graph", isgraph}, {"lower", islower}, {"print", isprint}, {"punct", ispunct}, {"space", isspace},
        {"upper", isupper}, {"xdigit", isxdigit},
    };
    for (size_t i = 0; i < sizeof CLASSES / sizeof *CLASSES; i++)
        if (strlen(CLASSES[i].name) == length && strncmp(CLASSES[i].name, name, length) == 0)
            return CLASSES[i].test(c);
    return 0;
}

/* The bracket expression behind "[": where it ends, or NULL if it never does; *matched says whether c is in it. */
static const char *bracket(const char *p, int c, int flags, int *matched) {
    int invert = *p == '!' || *p == '^', found = 0;
    if (invert) p++;
    for (const char *first = p; *p && (*p != ']' || p == first); p++) {
        if (p[0] == '[' && p[1] == ':') {
            const char *end = strstr(p + 2, ":]");
            if (end) {
                found |= in_class(p + 2, (size_t)(end - p - 2), c);
                p = end + 1;
                continue;
            }
        }
        if (*p == '\\' && !(flags & FNM_NOESCAPE) && p[1]) p++;
        unsigned char from = (unsigned char)*p, to = from;
        if (p[1] == '-' && p[2] && p[2] != ']') {
            p += 2;
            if (*p == '\\' && !(flags & FNM_NOESCAPE) && p[1]) p++;
            to = (unsigned char)*p;
        }
        found |= c >= from && c <= to;
    }
    *matched = found != invert;
    return *p == ']' ? p + 1 : NULL;
}

static int match(const char *p, const char *s, const char *start, int flags) {
    for (;; s++) {
        int hidden = *s == '.' && (flags & FNM_PERIOD) && (s == start || ((flags & FNM_PATHNAME) && s[-1] == '/'));
        switch (*p) {
        case '\0': return *s ? FNM_NOMATCH : 0;
        case '*':
            if (hidden) return FNM_NOMATCH;
            while (*p == '*') p++;
            for (;; s++) {
                if (match(p, s, start, flags) == 0) return 0;
                if (!*s || (*s == '/' && (flags & FNM_PATHNAME))) return FNM_NOMATCH;
            }
        case '?':
            if (!*s || hidden || (*s == '/' && (flags & FNM_PATHNAME))) return FNM_NOMATCH;
            p++;
            break;
        case '[': {
            int matched;
            const char *after = bracket(p + 1, (unsigned char)*s, flags, &matched);
            if (after) {
                if (!*s || hidden || !matched || (*s == '/' && (flags & FNM_PATHNAME))) return FNM_NOMATCH;
                p = after;
                break;
            }
            if (*s != '[') return FNM_NOMATCH;
            p++;
            break;
        }
        case '\\':
            if (!(flags & FNM_NOESCAPE) && p[1]) p++;
            /* fall through */
        default:
            if (*p != *s) return FNM_NOMATCH;
            p++;
        }
    }
}

int fnmatch(const char *pattern, const char *s, int flags) { return match(pattern, s, s, flags); }
