/* Arithmetic of $(( )): C's operators on longs, with variables. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "sh.h"

static const char *at, *whole;
/* Within the branch that is not taken nothing is assigned, and division by zero does not matter. */
static int idle;

static long expression(int level);

static void bad(void) { fail("arithmetic: syntax error in \"%s\"", whole); }

static void skip(void) {
    while (isspace((unsigned char)*at)) at++;
}

static long variable_value(const char *name) {
    const char *value = get_variable(name);
    if (!value || !*value) return 0;
    char *end;
    long n = strtol(value, &end, 0);
    if (*end) fail("arithmetic: %s=\"%s\" is not a number", name, value);
    return n;
}

static void assign(const char *name, long value) {
    char text[32];
    if (idle) return;
    snprintf(text, sizeof text, "%ld", value);
    set_variable(name, text);
}

static long divide(long a, long b, int rest) {
    if (b == 0) {
        if (idle) return 0;
        fail("arithmetic: division by zero");
    }
    if (b == -1) return rest ? 0 : (long)(0 - (unsigned long)a);
    return rest ? a % b : a / b;
}

static long apply(int op, long a, long b) {
    unsigned long x = (unsigned long)a, y = (unsigned long)b;
    switch (op) {
    case '+': return (long)(x + y);
    case '-': return (long)(x - y);
    case '*': return (long)(x * y);
    case '/': return divide(a, b, 0);
    case '%': return divide(a, b, 1);
    case '&': return a & b;
    case '|': return a | b;
    case '^': return a ^ b;
    case 'l': return (long)(x << (y & 63));
    case 'r': return a >> (y & 63);
    case '<': return a < b;
    case '>': return a > b;
    case 'L': return a <= b;
    case 'G': return a >= b;
    case '=': return a == b;
    default: return a != b;
    }
}

static long primary(void) {
    skip();
    if (*at == '(') {
        at++;
        long value = expression(0);
        skip();
        if (*at++ != ')') bad();
        return value;
    }
    if ((at[0] == '+' && at[1] == '+') || (at[0] == '-' && at[1] == '-')) {
        int step = *at == '+' ? 1 : -1;
        at += 2;
        skip();
        size_t length = name_length(at);
        if (length == 0) bad();
        const char *name = make_text(at, length);
        at += length;
        long value = variable_value(name) + step;
        assign(name, value);
        return value;
    }
    if (*at == '-') return at++, (long)(0 - (unsigned long)primary());
    if (*at == '+') return at++, primary();
    if (*at == '!') return at++, !primary();
    if (*at == '~') return at++, ~primary();
    if (isdigit((unsigned char)*at)) {
        char *end;
        long value = strtol(at, &end, 0);
        at = end;
        return value;
    }
    size_t length = name_length(at);
    if (length == 0) bad();
    const char *name = make_text(at, length);
    at += length;
    skip();
    if (*at == '=' && at[1] != '=') {
        at++;
        long value = expression(1);
        assign(name, value);
        return value;
    }
    if ((at[0] == '+' && at[1] == '+') || (at[0] == '-' && at[1] == '-')) {
        long value = variable_value(name);
        assign(name, value + (*at == '+' ? 1 : -1));
        at += 2;
        return value;
    }
    int shift = (at[0] == '<' && at[1] == '<') || (at[0] == '>' && at[1] == '>');
    if (shift ? at[2] == '=' : *at && strchr("+-*/%&|^", *at) && at[1] == '=') {
        int op = shift ? (*at == '<' ? 'l' : 'r') : *at;
        at += shift ? 3 : 2;
        long value = apply(op, variable_value(name), expression(1));
        assign(name, value);
        return value;
    }
    return variable_value(name);
}

/* Binary operators by their level; the operator's letter for apply(), and its length. */
static int binary(int *length, int *level) {
    static const struct {
        const char *text;
        int level, op;
    } OPERATORS[] = {
        {"||", 2, 'o'}, {"&&", 3, 'a'}, {"<<", 9, 'l'}, {">>", 9, 'r'}, {"<=", 8, 'L'}, {">=", 8, 'G'}, 
        {"==", 7, '='},
        {"!=", 7, '!'}, {"|", 4, '|'}, {"^", 5, '^'}, {"&", 6, '&'}, {"<", 8, '<'}, {">", 8, '>'}, {"+", 10, '+'},
        {"-", 10, '-'}, {"*", 11, '*'}, {"/", 11, '/'}, {"%", 11, '%'},
    };
    skip();
    for (size_t i = 0; i < sizeof OPERATORS / sizeof *OPERATORS; i++) {
        size_t n = strlen(OPERATORS[i].text);
        if (strncmp(at, OPERATORS[i].text, n) != 0) continue;
        *length = (int)n;
        *level = OPERATORS[i].level;
        return OPERATORS[i].op;
    }
    return 0;
}

/* Level 0 has the comma, level 1 ?:. */
static long expression(int level) {
    long value = primary();
    for (;;) {
        int length, op_level, op = binary(&length, &op_level);
        if (op && op_level >= level && op_level >= 2) {
            at += length;
            int decided = (op == 'o' && value) || (op == 'a' && !value);
            idle += decided;
            long right = expression(op_level + 1);
            idle -= decided;
            if (op == 'o') value = value || right;
            else if (op == 'a') value = value && right;
            else value = apply(op, value, right);
        } else if (*at == '?' && level <= 1) {
            at++;
            idle += !value;
            long yes = expression(1);
            idle -= !value;
            skip();
            if (*at++ != ':') bad();
            idle += value != 0;
            long no = expression(1);
            idle -= value != 0;
            value = value ? yes : no;
        } else if (*at == ',' && level == 0) {
            at++;
            value = expression(1);
        } else {
            return value;
        }
    }
}

long arithmetic(const char *text) {
    const char *saved_at = at, *saved_whole = whole;
    int saved_idle = idle;
    at = whole = text;
    idle = 0;
    skip();
    long value = *at ? expression(0) : 0;
    skip();
    if (*at) bad();
    at = saved_at;
    whole = saved_whole;
    idle = saved_idle;
    return value;
}
