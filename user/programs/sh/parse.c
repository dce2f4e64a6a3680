/* Commands from tokens, by the grammar of POSIX's shell. */
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "sh.h"

extern sigjmp_buf main_loop;

/* what NULL: nothing to say (an interrupt). */
void syntax_error(const char *what) {
    if (what) complain("line %d: syntax error: %s", source_line(), what);
    last_status = what ? 2 : 130;
    siglongjmp(main_loop, 1);
}

static const char *token_text(const struct lexed *t) {
    static char one[2];
    switch (t->token) {
    case T_END: return "end of file";
    case T_NEWLINE: return "newline";
    case T_REDIRECT: return "redirection";
    case T_AND_IF: return "&&";
    case T_OR_IF: return "||";
    case T_DSEMI: return ";;";
    }
    if (t->text) return t->text;
    one[0] = (char)t->token;
    return one;
}

static void unexpected(const struct lexed *t) {
    char text[128];
    snprintf(text, sizeof text, "%.100s unexpected", token_text(t));
    syntax_error(text);
}

static void expect(int token) {
    const struct lexed *t = peek(1);
    if (t->token != token) unexpected(t);
    take();
}

static struct node *new_node(enum node_kind kind) {
    struct node *node = keep(sizeof *node);
    node->kind = kind;
    node->line = source_line();
    return node;
}

static struct node *pair(enum node_kind kind, struct node *left, struct node *right) {
    struct node *node = new_node(kind);
    node->left = left;
    node->right = right;
    return node;
}

static void skip_newlines(void) {
    while (peek(0)->token == T_NEWLINE) take();
}

static struct redirect *parse_redirect(void) {
    struct redirect *r = keep(sizeof *r);
    *r = peek(0)->redirect;
    take();
    const struct lexed *t = peek(0);
    if (t->token != T_WORD) unexpected(t);
    r->target = t->text;
    if (r->kind == R_HERE) add_here_document(r);
    take();
    return r;
}

static struct node *parse_list(int stop_at_newline);
static struct node *parse_command(void);

static struct node *compound_list(void) {
    skip_newlines();
    return parse_list(0);
}

static struct node *parse_if(void) {
    struct node *node = new_node(N_IF);
    node->left = compound_list();
    expect(T_THEN);
    node->right = compound_list();
    int token = peek(1)->token;
    if (token == T_ELIF) {
        take();
        node->otherwise = parse_if();
        return node;
    }
    if (token == T_ELSE) {
        take();
        node->otherwise = compound_list();
    }
    expect(T_FI);
    return node;
}

static struct word **add_word(struct word **end, char *text) {
    struct word *word = keep(sizeof *word);
    word->text = text;
    *end = word;
    return &word->next;
}

static struct node *parse_for(void) {
    struct node *node = new_node(N_FOR);
    struct lexed *t = peek(0);
    if (t->token != T_WORD || name_length(t->text) != strlen(t->text)) syntax_error("bad for loop variable");
    node->name = t->text;
    take();
    skip_newlines();
    if (peek(1)->token == T_IN) {
        take();
        node->has_list = 1;
        struct word **end = &node->words;
        while ((t = peek(0))->token == T_WORD) {
            end = add_word(end, t->text);
            take();
        }
        if (t->token != ';' && t->token != T_NEWLINE) unexpected(t);
        take();
    } else if (peek(0)->token == ';') {
        take();
    }
    skip_newlines();
    int brace = peek(1)->token == T_BRACE_OPEN;
    expect(brace ? T_BRACE_OPEN : T_DO);
    node->right = compound_list();
    expect(brace ? T_BRACE_CLOSE : T_DONE);
    return node;
}

static struct node *parse_case(void) {
    struct node *node = new_node(N_CASE);
    struct lexed *t = peek(0);
    if (t->token != T_WORD) unexpected(t);
    add_word(&node->words, t->text);
    take();
    skip_newlines();
    expect(T_IN);
    skip_newlines();
    struct case_item **end = &node->items;
    while (peek(1)->token != T_ESAC) {
        struct case_item *item = keep(sizeof *item);
        struct word **patterns = &item->patterns;
        if (peek(0)->token == '(') take();
        for (;;) {
            t = peek(0);
            if (t->token != T_WORD) unexpected(t);
            patterns = add_word(patterns, t->text);
            take();
            if (peek(0)->token != '|') break;
            take();
        }
        expect(')');
        skip_newlines();
        int token = peek(1)->token;
        if (token != T_DSEMI && token != T_ESAC) item->body = parse_list(0);
        *end = item;
        end = &item->next;
        if (peek(1)->token != T_DSEMI) break;
        take();
        skip_newlines();
    }
    expect(T_ESAC);
    return node;
}

static int is_assignment(const char *text) {
    size_t length = name_length(text);
    return length > 0 && text[length] == '=';
}

static struct node *parse_simple(void) {
    struct node *node = new_node(N_SIMPLE);
    struct word **words = &node->words, **assignments = &node->assignments;
    struct redirect **redirects = &node->redirects;
    for (;;) {
        struct lexed *t = peek(0);
        if (t->token == T_REDIRECT) {
            *redirects = parse_redirect();
            redirects = &(*redirects)->next;
            continue;
        }
        if (t->token == '(' && node->words && !node->words->next && !node->assignments && !node->redirects) {
            take();
            expect(')');
            skip_newlines();
            node->kind = N_FUNCTION;
            node->name = node->words->text;
            node->words = NULL;
            node->left = parse_command();
            return node;
        }
        if (t->token != T_WORD) break;
        if (!node->words && is_assignment(t->text)) assignments = add_word(assignments, t->text);
        else words = add_word(words, t->text);
        take();
    }
    if (!node->words && !node->assignments && !node->redirects) unexpected(peek(0));
    return node;
}

static struct node *parse_command(void) {
    struct node *node;
    int token = peek(1)->token;
    switch (token) {
    case T_IF:
        take();
        node = parse_if();
        break;
    case T_WHILE:
    case T_UNTIL:
        take();
        node = new_node(token == T_WHILE ? N_WHILE : N_UNTIL);
        node->left = compound_list();
        expect(T_DO);
        node->right = compound_list();
        expect(T_DONE);
        break;
    case T_FOR:
        take();
        node = parse_for();
        break;
    case T_CASE:
        take();
        node = parse_case();
        break;
    case T_BRACE_OPEN:
        take();
        node = pair(N_GROUP, compound_list(), NULL);
        expect(T_BRACE_CLOSE);
        break;
    case '(':
        take();
        node = pair(N_SUBSHELL, compound_list(), NULL);
        expect(')');
        break;
    case T_IN:
    case T_WORD:
    case T_REDIRECT: return parse_simple();
    default: unexpected(peek(1)); return NULL;
    }
    struct redirect **redirects = &node->redirects;
    while (peek(0)->token == T_REDIRECT) {
        *redirects = parse_redirect();
        redirects = &(*redirects)->next;
    }
    return node;
}

static struct node *parse_pipeline(void) {
    if (peek(1)->token == T_BANG) {
        take();
        return pair(N_NOT, parse_pipeline(), NULL);
    }
    struct node *first = parse_command();
    if (peek(0)->token != '|') return first;
    struct node *node = pair(N_PIPE, first, NULL), *last = first;
    while (peek(0)->token == '|') {
        take();
        skip_newlines();
        last->next = parse_command();
        last = last->next;
    }
    return node;
}

static struct node *parse_and_or(void) {
    struct node *node = parse_pipeline();
    for (;;) {
        int token = peek(0)->token;
        if (token != T_AND_IF && token != T_OR_IF) return node;
        take();
        skip_newlines();
        node = pair(token == T_AND_IF ? N_AND : N_OR, node, parse_pipeline());
    }
}

static int ends_list(int token) {
    switch (token) {
    case T_END: case ')': case T_DSEMI: case T_THEN: case T_ELSE: case T_ELIF: case T_FI: case T_DO: case T_DONE:
    case T_ESAC: case T_BRACE_CLOSE: return 1;
    }
    return 0;
}

/* A sequence; at its top level a newline ends a command line, within compounds it separates. */
static struct node *parse_list(int stop_at_newline) {
    struct node *list = NULL;
    for (;;) {
        struct node *node = parse_and_or();
        int token = peek(0)->token;
        if (token == '&') node = pair(N_BACKGROUND, node, NULL);
        list = list ? pair(N_SEQUENCE, list, node) : node;
        if (token == ';' || token == '&') {
            take();
            token = peek(0)->token;
        } else if (token != T_NEWLINE) {
            if (!ends_list(peek(1)->token)) unexpected(peek(0));
            return list;
        }
        if (token == T_NEWLINE) {
            if (stop_at_newline) return list;
            skip_newlines();
        }
        if (ends_list(peek(1)->token)) return list;
    }
}

struct node *parse_list_until(int token) {
    skip_newlines();
    struct node *list = peek(1)->token == token ? NULL : parse_list(0);
    expect(token);
    return list;
}

struct node *parse_command_line(int *at_end) {
    int token = peek(1)->token;
    *at_end = token == T_END;
    if (token == T_END || token == T_NEWLINE) {
        take();
        return NULL;
    }
    struct node *list = parse_list(1);
    token = peek(1)->token;
    if (token != T_NEWLINE && token != T_END) unexpected(peek(1));
    /* The end stays, to be found again. */
    if (token == T_NEWLINE) take();
    return list;
}
