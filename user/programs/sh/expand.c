/*
 * Expansion. A word becomes a text in which each character carries a mark: where it came from decides whether it may
 * split a field, match a file name, or is just itself.
 */
#include <ctype.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "sh.h"

enum mark {
    LITERAL,    /* written without quotes */
    QUOTED,
    EXPANDED,   /* came out of a $ outside quotes: may split */
    BREAK,      /* a field ends here, whatever IFS says */
    KEEP,       /* no character: the field stays even if it is empty */
};

enum mode { WORD, DOUBLE, BRACE_IN_DOUBLE, HERE };

static void expand_text(const char *s, struct buffer *out, enum mode mode, int flags);

/* The first character behind the construct at s: an escape, a quoted text, a substitution, or one character. */
static const char *skip_part(const char *s, int in_double) {
    char first = *s;
    switch (first) {
    case '\\': return s[1] ? s + 2 : s + 1;
    case '\'':
        if (in_double) return s + 1;
        for (s++; *s && *s != '\'';) s++;
        return *s ? s + 1 : s;
    case '"':
        for (s++; *s && *s != '"';) s = skip_part(s, 1);
        return *s ? s + 1 : s;
    case '`':
        for (s++; *s && *s != '`';) s += *s == '\\' && s[1] ? 2 : 1;
        return *s ? s + 1 : s;
    case '$':
        if (s[1] == '{') {
            for (s += 2; *s && *s != '}';) s = skip_part(s, in_double);
            return *s ? s + 1 : s;
        }
        if (s[1] == '(' && s[2] == COMMAND_START) {
            const char *end = strchr(s, COMMAND_END);
            return end ? end + 1 : s + strlen(s);
        }
        if (s[1] == '(' && s[2] == '(') {
            int depth = 2;
            for (s += 3; *s && depth > 0;) {
                if (*s == '(') depth++;
                if (*s == ')') depth--;
                s = *s == '(' || *s == ')' ? s + 1 : skip_part(s, in_double);
            }
            return s;
        }
    }
    return s + 1;
}

static void add_value(struct buffer *out, const char *value, int quoted) {
    buffer_text(out, value, quoted ? QUOTED : EXPANDED);
}

/* $@ and $*: several values at once. */
static void add_positional(struct buffer *out, char which, int quoted, int flags) {
    const char *ifs = get_variable("IFS");
    char separator = ifs ? *ifs : ' ';
    for (int i = 0; i < positional_count; i++) {
        if (i > 0) {
            if (which == '*' && quoted) {
                if (separator) buffer_add(out, separator, QUOTED);
            } else {
                buffer_add(out, ' ', flags & EXPAND_SPLIT ? BREAK : QUOTED);
            }
        }
        if (quoted && which == '@') buffer_add(out, ' ', KEEP);
        add_value(out, positional[i], quoted);
    }
}

static const char *parameter(const char *name, char *scratch) {
    if (isdigit((unsigned char)*name)) {
        int n = atoi(name);
        return n == 0 ? shell_name : n <= positional_count ? positional[n - 1] : NULL;
    }
    if (!name[1] && !isalpha((unsigned char)*name) && *name != '_') return special_parameter(*name, scratch);
    return get_variable(name);
}

static char *strip_pattern(const char *value, const char *pattern, char kind, int longest) {
    size_t length = strlen(value);
    char *copy = make_text(value, length);
    for (size_t i = 0; i <= length; i++) {
        size_t n = longest ? length - i : i;
        if (kind == '#') {
            char saved = copy[n];
            copy[n] = '\0';
            int matched = fnmatch(pattern, copy, 0) == 0;
            copy[n] = saved;
            if (matched) return copy + n;
        } else if (fnmatch(pattern, copy + length - n, 0) == 0) {
            copy[length - n] = '\0';
            return copy;
        }
    }
    return copy;
}

/* What stands between the braces of ${ }. */
static void expand_braces(const char *body, struct buffer *out, int quoted, int flags) {
    char scratch[32];
    if (*body == '#' && body[1] && !strchr("}-=?+#%:", body[1])) {
        const char *value = body[1] == '@' || body[1] == '*' ? NULL : parameter(body + 1, scratch);
        if (!value && options[O_NOUNSET] && body[1] != '@' && body[1] != '*') fail("%s: parameter not set", body + 1);
        int is_list = body[1] == '@' || body[1] == '*';
        snprintf(scratch, sizeof scratch, "%zu", is_list ? (size_t)positional_count : value ? strlen(value) : 0);
        add_value(out, scratch, quoted);
        return;
    }
    size_t length = name_length(body);
    if (length == 0)
        while (isdigit((unsigned char)body[length])) length++;
    if (length == 0 && *body) length = 1;
    const char *name = make_text(body, length), *rest = body + length;
    int list = *name == '@' || *name == '*';
    const char *value = list ? (positional_count ? "x" : NULL) : parameter(name, scratch);
    int colon = *rest == ':' && rest[1] && strchr("-=?+", rest[1]) != NULL;
    if (colon) rest++;
    int missing = !value || (colon && !*value);
    if (list && colon && positional_count == 1 && !*positional[0]) missing = 1;
    enum mode word_mode = quoted ? BRACE_IN_DOUBLE : WORD;
    switch (*rest) {
    case '-':
        if (!missing) break;
        expand_text(rest + 1, out, word_mode, flags);
        return;
    case '+':
        if (!missing) expand_text(rest + 1, out, word_mode, flags);
        return;
    case '=':
        if (!missing) break;
        if (name_length(name) == 0) fail("%s: cannot assign in this way", name);
        value = expand_word(rest + 1, EXPAND_ASSIGNMENT);
        set_variable(name, value);
        break;
    case '?':
        if (!missing) break;
        fail("%s: %s", name, rest[1] ? expand_word(rest + 1, 0) : "parameter null or not set");
    case '#':
    case '%': {
        char kind = *rest;
        int longest = rest[1] == kind;
        const char *pattern = expand_word(rest + 1 + longest, EXPAND_PATTERN);
        add_value(out, strip_pattern(value ? value : "", pattern, kind, longest), quoted);
        return;
    }
    case '\0': break;
    default: fail("${%s}: bad substitution", body);
    }
    if (list) {
        add_positional(out, *name, quoted, flags);
        return;
    }
    if (!value && options[O_NOUNSET]) fail("%s: parameter not set", name);
    if (value) add_value(out, value, quoted);
}

/* Inside ` `, a backslash before $ ` \ (and, within double quotes, ") is taken away. */
static char *unescape_backquoted(const char *s, size_t length, int quoted) {
    char *text = make(length + 1);
    size_t n = 0;
    for (size_t i = 0; i < length; i++) {
        if (s[i] == '\\' && i + 1 < length && (strchr("$`\\", s[i + 1]) || (quoted && s[i + 1] == '"'))) i++;
        text[n++] = s[i];
    }
    text[n] = '\0';
    return text;
}

/* At a "$"; returns what is behind the substitution. */
static const char *expand_dollar(const char *s, struct buffer *out, int quoted, int flags) {
    char scratch[32];
    const char *end = skip_part(s, quoted);
    if (s[1] == '{') {
        expand_braces(make_text(s + 2, (size_t)(end - s) - 3), out, quoted, flags);
        return end;
    }
    if (s[1] == '(' && s[2] == COMMAND_START) {
        add_value(out, command_output(make_text(s + 3, (size_t)(end - s) - 4)), quoted);
        return end;
    }
    if (s[1] == '(' && s[2] == '(') {
        struct buffer inner = {0};
        expand_text(make_text(s + 3, (size_t)(end - s) - 5), &inner, DOUBLE, 0);
        snprintf(scratch, sizeof scratch, "%ld", arithmetic(inner.text ? inner.text : ""));
        add_value(out, scratch, quoted);
        return end;
    }
    size_t length = name_length(s + 1);
    if (length == 0 && s[1] && (isdigit((unsigned char)s[1]) || strchr("?$!#@*-", s[1]))) length = 1;
    if (length == 0) {
        buffer_add(out, '$', quoted ? QUOTED : LITERAL);
        return s + 1;
    }
    if (s[1] == '@' || s[1] == '*') {
        add_positional(out, s[1], quoted, flags);
    } else {
        const char *name = make_text(s + 1, length), *value = parameter(name, scratch);
        if (!value && options[O_NOUNSET]) fail("%s: parameter not set", name);
        if (value) add_value(out, value, quoted);
    }
    return s + 1 + length;
}

static const char *expand_tilde(const char *s, struct buffer *out) {
    const char *home = s[1] == '\0' || s[1] == '/' || s[1] == ':' ? get_variable("HOME") : NULL;
    if (!home) return s;
    buffer_text(out, home, QUOTED);
    return s + 1;
}

static void expand_text(const char *s, struct buffer *out, enum mode mode, int flags) {
    int quoted = mode != WORD;
    if (mode == WORD && *s == '~') s = expand_tilde(s, out);
    while (*s) {
        const char *end;
        switch (*s) {
        case '\\':
            if (quoted && (!s[1] || !strchr(mode == HERE ? "$`\\\n" : "$`\"\\\n", s[1])) &&
                !(mode == BRACE_IN_DOUBLE && s[1] == '}')) {
                buffer_add(out, *s++, QUOTED);
                continue;
            }
            if (!*++s) continue;
            if (*s != '\n' || !quoted) buffer_add(out, *s, QUOTED);
            s++;
            continue;
        case '\'':
            if (quoted) break;
            end = skip_part(s, 0);
            buffer_add(out, ' ', KEEP);
            for (s++; s < end - 1; s++) buffer_add(out, *s, QUOTED);
            s = end;
            continue;
        case '"':
            if (mode == HERE) break;
            if (mode == BRACE_IN_DOUBLE) {
                s++;
                continue;
            }
            if (mode == DOUBLE) break;
            end = skip_part(s, 0);
            {
                const char *inner = make_text(s + 1, (size_t)(end - s) - 2);
                /* "$@" of no arguments is no field; any other quotes make one. */
                if (strcmp(inner, "$@") != 0 && strcmp(inner, "${@}") != 0) buffer_add(out, ' ', KEEP);
                expand_text(inner, out, DOUBLE, flags);
            }
            s = end;
            continue;
        case '$': s = expand_dollar(s, out, quoted, flags); continue;
        case '`':
            end = skip_part(s, quoted);
            add_value(out, command_output(unescape_backquoted(s + 1, (size_t)(end - s) - 2, quoted)), quoted);
            s = end;
            continue;
        case ':':
            if (flags & EXPAND_ASSIGNMENT && mode == WORD && s[1] == '~') {
                buffer_add(out, *s++, LITERAL);
                s = expand_tilde(s, out);
                continue;
            }
        }
        buffer_add(out, *s++, quoted ? QUOTED : LITERAL);
    }
}

/* The characters as a pattern: what was quoted is escaped. */
static char *as_pattern(const char *text, const char *marks, size_t length) {
    struct buffer b = {0};
    for (size_t i = 0; i < length; i++) {
        if (marks[i] == KEEP) continue;
        if (marks[i] == QUOTED && strchr("*?[]\\!-^", text[i])) buffer_add(&b, '\\', 0);
        buffer_add(&b, text[i], 0);
    }
    return b.text ? b.text : make_text("", 0);
}

static char *as_text(const char *text, const char *marks, size_t length) {
    char *plain = make(length + 1);
    size_t n = 0;
    for (size_t i = 0; i < length; i++)
        if (marks[i] != KEEP) plain[n++] = text[i];
    plain[n] = '\0';
    return plain;
}

char *expand_word(const char *text, int flags) {
    struct buffer b = {0};
    expand_text(text, &b, WORD, flags & ~EXPAND_SPLIT);
    if (!b.text) return make_text("", 0);
    return flags & EXPAND_PATTERN ? as_pattern(b.text, b.marks, b.length) : as_text(b.text, b.marks, b.length);
}

char *expand_here(const char *text) {
    struct buffer b = {0};
    expand_text(lex_text(text), &b, HERE, 0);
    return b.text ? as_text(b.text, b.marks, b.length) : make_text("", 0);
}

struct vector {
    char **items;
    int count, room;
};

static void vector_add(struct vector *v, char *item) {
    if (v->count + 1 >= v->room) {
        v->room = v->room ? v->room * 2 : 16;
        char **grown = make((size_t)v->room * sizeof *grown);
        if (v->count) memcpy(grown, v->items, (size_t)v->count * sizeof *grown);
        v->items = grown;
    }
    v->items[v->count++] = item;
    v->items[v->count] = NULL;
}

static void add_field(struct vector *v, const char *text, const char *marks, size_t length) {
    int magic = 0, keep_it = 0;
    size_t characters = 0;
    for (size_t i = 0; i < length; i++) {
        if (marks[i] == KEEP) keep_it = 1;
        else characters++;
        if (marks[i] != QUOTED && marks[i] != KEEP && strchr("*?[", text[i])) magic = 1;
    }
    if (characters == 0 && !keep_it) return;
    if (magic && !options[O_NOGLOB]) {
        char **found;
        int count = glob(as_pattern(text, marks, length), &found);
        for (int i = 0; i < count; i++) vector_add(v, found[i]);
        if (count > 0) return;
    }
    vector_add(v, as_text(text, marks, length));
}

static void split(struct vector *v, const struct buffer *b) {
    const char *ifs = get_variable("IFS");
    if (!ifs) ifs = " \t\n";
    size_t start = 0;
    for (size_t i = 0; i < b->length; i++) {
        int separates = b->marks[i] == EXPANDED && strchr(ifs, b->text[i]) != NULL;
        if (b->marks[i] != BREAK && !separates) continue;
        size_t end = i;
        /* White space of IFS around one other character of IFS is one separator. */
        if (separates) {
            int seen = 0;
            for (; i < b->length && b->marks[i] == EXPANDED && strchr(ifs, b->text[i]); i++) {
                if (isspace((unsigned char)b->text[i])) continue;
                if (seen++) break;
            }
            i--;
            if (seen && end == start) {
                vector_add(v, "");
                start = i + 1;
                continue;
            }
        }
        add_field(v, b->text + start, b->marks + start, end - start);
        start = i + 1;
    }
    add_field(v, b->text + start, b->marks + start, b->length - start);
}

int expand_words(struct word *words, char ***argv) {
    struct vector v = {0};
    for (; words; words = words->next) {
        struct buffer b = {0};
        expand_text(words->text, &b, WORD, EXPAND_SPLIT);
        if (b.text) split(&v, &b);
    }
    if (!v.items) {
        v.items = make(sizeof *v.items);
        v.items[0] = NULL;
    }
    *argv = v.items;
    return v.count;
}
