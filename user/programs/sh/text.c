/* Trees as text again, for the list of jobs. */
#include <stdio.h>
#include <string.h>
#include "sh.h"

static void add(struct buffer *b, const char *s) {
    for (; *s; s++)
        if (*s == COMMAND_END) buffer_add(b, ')', 0);
        else if (*s != COMMAND_START) buffer_add(b, *s, 0);
}

static void add_words(struct buffer *b, const struct word *words) {
    for (; words; words = words->next) {
        if (b->length && b->text[b->length - 1] != ' ') buffer_add(b, ' ', 0);
        add(b, words->text);
    }
}

static void add_redirects(struct buffer *b, const struct redirect *r) {
    static const char *const SIGNS[] = {"<", ">", ">>", ">|", "<>", ">&", "<<"};
    for (; r; r = r->next) {
        char number[8] = "";
        int usual = r->kind == R_INPUT || r->kind == R_BOTH || r->kind == R_HERE ? 0 : 1;
        if (r->fd != usual) snprintf(number, sizeof number, "%d", r->fd);
        add(b, " ");
        add(b, number);
        add(b, SIGNS[r->kind]);
        add(b, r->kind == R_HERE ? "..." : r->target);
    }
}

static void add_node(struct buffer *b, const struct node *node) {
    if (!node) return;
    switch (node->kind) {
    case N_SIMPLE:
        add_words(b, node->assignments);
        add_words(b, node->words);
        break;
    case N_PIPE:
        for (const struct node *n = node->left; n; n = n->next) {
            add_node(b, n);
            if (n->next) add(b, " | ");
        }
        break;
    case N_AND:
    case N_OR:
    case N_SEQUENCE:
        add_node(b, node->left);
        add(b, node->kind == N_AND ? " && " : node->kind == N_OR ? " || " : "; ");
        add_node(b, node->right);
        break;
    case N_BACKGROUND:
        add_node(b, node->left);
        add(b, " &");
        break;
    case N_NOT:
        add(b, "! ");
        add_node(b, node->left);
        break;
    case N_SUBSHELL:
        add(b, "(");
        add_node(b, node->left);
        add(b, ")");
        break;
    case N_GROUP:
        add(b, "{ ");
        add_node(b, node->left);
        add(b, "; }");
        break;
    case N_IF:
        add(b, "if ");
        add_node(b, node->left);
        add(b, "; then ...; fi");
        break;
    case N_WHILE:
    case N_UNTIL:
        add(b, node->kind == N_WHILE ? "while " : "until ");
        add_node(b, node->left);
        add(b, "; do ...; done");
        break;
    case N_FOR:
        add(b, "for ");
        add(b, node->name);
        add(b, " ...; done");
        break;
    case N_CASE:
        add(b, "case ");
        add(b, node->words->text);
        add(b, " in ... esac");
        break;
    case N_FUNCTION:
        add(b, node->name);
        add(b, "() ...");
        break;
    }
    add_redirects(b, node->redirects);
}

char *node_text(const struct node *node) {
    struct buffer b = {0};
    add_node(&b, node);
    return b.text ? b.text : make_text("", 0);
}
