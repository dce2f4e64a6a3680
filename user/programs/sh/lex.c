/* Tokens. A word is kept as it was written: what its quotes and dollars mean is found out when it is expanded. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include "sh.h"

static struct lexed current;
static int have_current;
static struct redirect *here_documents, **here_end = &here_documents;

/* Everything that is read goes here too while the inside of $( ) is parsed: its text is part of the word. */
static struct buffer *capture;

static int get(void) {
    int c = next_char();
    if (capture && c != END_OF_INPUT) buffer_add(capture, (char)c, 0);
    return c;
}

static void unget(int c) {
    if (c == END_OF_INPUT) return;
    push_back(c);
    if (capture) capture->text[--capture->length] = '\0';
}

void reset_lexer(void) {
    have_current = 0;
    capture = NULL;
    here_documents = NULL;
    here_end = &here_documents;
}

static void single_quoted(struct buffer *b) {
    for (;;) {
        int c = get();
        if (c == END_OF_INPUT) syntax_error("unterminated quoted string");
        buffer_add(b, (char)c, 0);
        if (c == '\'') return;
    }
}

static void dollar(struct buffer *b, int quoted);

static void backquoted(struct buffer *b) {
    for (;;) {
        int c = get();
        if (c == END_OF_INPUT) syntax_error("unterminated `");
        buffer_add(b, (char)c, 0);
        if (c == '`') return;
        if (c == '\\' && (c = get()) != END_OF_INPUT) buffer_add(b, (char)c, 0);
    }
}

static void double_quoted(struct buffer *b) {
    for (;;) {
        int c = get();
        if (c == END_OF_INPUT) syntax_error("unterminated quoted string");
        buffer_add(b, (char)c, 0);
        if (c == '"') return;
        if (c == '\\' && (c = get()) != END_OF_INPUT) buffer_add(b, (char)c, 0);
        else if (c == '$') dollar(b, 1);
        else if (c == '`') backquoted(b);
    }
}

/* Up to the closing brace of ${ or the closing parentheses of $((. */
static void nested(struct buffer *b, char open, char close, int quoted) {
    for (int depth = 1; depth > 0;) {
        int c = get();
        if (c == END_OF_INPUT) syntax_error("unterminated substitution");
        buffer_add(b, (char)c, 0);
        if (c == close) depth--;
        else if (c == open && open == '(') depth++;
        else if (c == '\\' && (c = get()) != END_OF_INPUT) buffer_add(b, (char)c, 0);
        else if (c == '\'' && open == '{' && !quoted) single_quoted(b);
        else if (c == '"') double_quoted(b);
        else if (c == '`') backquoted(b);
        else if (c == '$') dollar(b, quoted);
    }
}

/* The command in $( ) is parsed to find its end, and its text is taken. */
static void command_substitution(struct buffer *b) {
    struct lexed saved = current;
    struct redirect *saved_here = here_documents, **saved_end = here_end;
    struct buffer *outer = capture, inner = {0};
    int saved_have = have_current;
    have_current = 0;
    here_documents = NULL;
    here_end = &here_documents;
    capture = &inner;
    parse_list_until(')');
    have_current = saved_have;
    current = saved;
    here_documents = saved_here;
    here_end = saved_end == &here_documents || !here_documents ? &here_documents : saved_end;
    capture = outer;
    if (outer) buffer_text(outer, inner.text, 0);
    inner.text[inner.length - 1] = '\0';
    buffer_add(b, COMMAND_START, 0);
    buffer_text(b, inner.text, 0);
    buffer_add(b, COMMAND_END, 0);
}

/* Behind a "$" that is in b already. */
static void dollar(struct buffer *b, int quoted) {
    int c = get();
    if (c == '{') {
        buffer_add(b, '{', 0);
        nested(b, '{', '}', quoted);
    } else if (c == '(') {
        buffer_add(b, '(', 0);
        c = get();
        if (c == '(') {
            buffer_add(b, '(', 0);
            nested(b, '(', ')', quoted);
            c = get();
            if (c != ')') syntax_error("expected ))");
            buffer_add(b, ')', 0);
        } else {
            unget(c);
            command_substitution(b);
        }
    } else {
        unget(c);
    }
}

static int is_operator(int c) { return c == END_OF_INPUT || strchr(" \t\n;&|<>()", c) != NULL; }

static char *read_word(int c) {
    struct buffer b = {0};
    size_t mark = stack_mark();
    for (; !is_operator(c); c = get()) {
        if (c == '\\') {
            int next = get();
            if (next == '\n') continue;
            buffer_add(&b, '\\', 0);
            if (next == END_OF_INPUT) break;
            c = next;
            buffer_add(&b, (char)c, 0);
            continue;
        }
        buffer_add(&b, (char)c, 0);
        if (c == '\'') single_quoted(&b);
        else if (c == '"') double_quoted(&b);
        else if (c == '`') backquoted(&b);
        else if (c == '$') dollar(&b, 0);
    }
    unget(c);
    char *text = keep_text(b.text ? b.text : "", b.length);
    /* Inside a capture the stack also holds the captured text. */
    if (!capture) cut(mark);
    return text;
}

static void read_here_document(struct redirect *r) {
    struct buffer body = {0};
    size_t delimiter_length = strlen(r->target);
    for (;;) {
        struct buffer line = {0};
        int c = get();
        while (r->strip_tabs && c == '\t') c = get();
        for (; c != '\n' && c != END_OF_INPUT; c = get()) buffer_add(&line, (char)c, 0);
        const char *text = line.text ? line.text : "";
        if (line.length == delimiter_length && strcmp(text, r->target) == 0) break;
        if (c == END_OF_INPUT && line.length == 0) break;
        buffer_text(&body, text, 0);
        buffer_add(&body, '\n', 0);
        if (c == END_OF_INPUT) break;
    }
    r->target = keep_text(body.text ? body.text : "", body.length);
}

/* The delimiter loses its quotes; if it had any, the text is literal. */
void add_here_document(struct redirect *r) {
    size_t n = 0;
    char *plain = keep(strlen(r->target) + 1);
    for (const char *s = r->target; *s; s++) {
        if (*s == '\'' || *s == '"' || *s == '\\') r->literal = 1;
        else plain[n++] = *s;
    }
    r->target = plain;
    r->pending = NULL;
    *here_end = r;
    here_end = &r->pending;
}

static void read_here_documents(void) {
    while (here_documents) {
        struct redirect *r = here_documents;
        here_documents = r->pending;
        read_here_document(r);
    }
    here_end = &here_documents;
}

static int reserved_word(const char *text) {
    static const struct {
        const char *text;
        int token;
    } WORDS[] = {
        {"if", T_IF}, {"then", T_THEN}, {"else", T_ELSE}, {"elif", T_ELIF}, {"fi", T_FI}, {"do", T_DO},
        {"done", T_DONE}, {"case", T_CASE}, {"esac", T_ESAC}, {"while", T_WHILE}, {"until", T_UNTIL}, {"for", T_FOR},
        {"in", T_IN}, {"{", T_BRACE_OPEN}, {"}", T_BRACE_CLOSE}, {"!", T_BANG},
    };
    for (size_t i = 0; i < sizeof WORDS / sizeof *WORDS; i++)
        if (strcmp(WORDS[i].text, text) == 0) return WORDS[i].token;
    return T_WORD;
}

static void read_redirect(int c, int fd) {
    struct redirect *r = &current.redirect;
    memset(r, 0, sizeof *r);
    current.token = T_REDIRECT;
    r->fd = fd >= 0 ? fd : c == '<' ? 0 : 1;
    int next = get();
    if (c == '<') {
        if (next == '<') {
            r->kind = R_HERE;
            next = get();
            if (next == '-') r->strip_tabs = 1;
            else unget(next);
        } else if (next == '&') {
            r->kind = R_DUPLICATE;
        } else if (next == '>') {
            r->kind = R_BOTH;
        } else {
            r->kind = R_INPUT;
            unget(next);
        }
    } else if (next == '>') {
        r->kind = R_APPEND;
    } else if (next == '&') {
        r->kind = R_DUPLICATE;
    } else if (next == '|') {
        r->kind = R_CLOBBER;
    } else {
        r->kind = R_OUTPUT;
        unget(next);
    }
}

char *lex_text(const char *text) {
    struct buffer b = {0};
    push_text(text);
    for (int c = get(); c != END_OF_INPUT; c = get()) {
        buffer_add(&b, (char)c, 0);
        if (c == '\\' && (c = get()) != END_OF_INPUT) buffer_add(&b, (char)c, 0);
        else if (c == '$') dollar(&b, 1);
        else if (c == '`') backquoted(&b);
    }
    pop_source();
    return b.text ? b.text : make_text("", 0);
}

static void lex(void) {
    int c;
    for (;;) {
        c = get();
        if (c == '\\') {
            int next = get();
            if (next == '\n') continue;
            unget(next);
            break;
        }
        if (c == '#')
            while (c != '\n' && c != END_OF_INPUT) c = get();
        if (c != ' ' && c != '\t' && c != '\r') break;
    }
    current.text = NULL;
    switch (c) {
    case END_OF_INPUT: current.token = T_END; return;
    case '\n':
        current.token = T_NEWLINE;
        read_here_documents();
        return;
    case '(':
    case ')': current.token = c; return;
    case ';':
    case '&':
    case '|': {
        int next = get();
        current.token = c;
        if (next == c) current.token = c == ';' ? T_DSEMI : c == '&' ? T_AND_IF : T_OR_IF;
        else unget(next);
        return;
    }
    case '<':
    case '>': read_redirect(c, -1); return;
    }
    /* A number right before "<" or ">" is a descriptor. */
    if (isdigit(c)) {
        int next = get();
        if (next == '<' || next == '>') {
            read_redirect(next, c - '0');
            return;
        }
        unget(next);
    }
    current.token = T_WORD;
    current.text = read_word(c);
}

struct lexed *peek(int reserved) {
    if (!have_current) lex();
    have_current = 1;
    if (reserved && current.token == T_WORD) {
        int token = reserved_word(current.text);
        if (token != T_WORD) {
            static struct lexed view;
            view = current;
            view.token = token;
            return &view;
        }
    }
    return &current;
}

void take(void) { have_current = 0; }
