/* Variables, positional parameters, functions, options. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "sh.h"

char **positional;
int positional_count;
char *shell_name = "sh";
int last_status;
pid_t shell_pid, last_background;
char options[O_COUNT];
const char option_letters[O_COUNT + 1] = "efnuxvmis";

enum { BUCKETS = 64 };
static struct variable *variables[BUCKETS];

/* What `local` has hidden, to be restored when the function returns. */
static struct hidden {
    char *name, *value;
    int exported;
} *hidden;
static size_t hidden_count, hidden_room;

size_t name_length(const char *s) {
    size_t n = 0;
    if (!isalpha((unsigned char)*s) && *s != '_') return 0;
    while (isalnum((unsigned char)s[n]) || s[n] == '_') n++;
    return n;
}

static struct variable **find(const char *name) {
    unsigned hash = 0;
    for (const char *s = name; *s; s++) hash = hash * 31 + (unsigned char)*s;
    struct variable **link = &variables[hash % BUCKETS];
    while (*link && strcmp((*link)->name, name) != 0) link = &(*link)->next;
    return link;
}

struct variable *find_variable(const char *name) { return *find(name); }

static struct variable *obtain(const char *name) {
    struct variable **link = find(name);
    if (!*link) {
        *link = calloc(1, sizeof **link);
        (*link)->name = strdup(name);
    }
    return *link;
}

char *get_variable(const char *name) {
    struct variable *v = *find(name);
    return v ? v->value : NULL;
}

int set_variable(const char *name, const char *value) {
    struct variable *v = obtain(name);
    if (v->readonly) {
        complain("%s: is read only", name);
        return 1;
    }
    char *copy = strdup(value);
    free(v->value);
    v->value = copy;
    if (v->exported) setenv(name, value, 1);
    return 0;
}

int unset_variable(const char *name) {
    struct variable **link = find(name), *v = *link;
    if (!v) return 0;
    if (v->readonly) {
        complain("%s: is read only", name);
        return 1;
    }
    if (v->exported) unsetenv(name);
    *link = v->next;
    free(v->name);
    free(v->value);
    free(v);
    return 0;
}

void export_variable(const char *name) {
    struct variable *v = obtain(name);
    v->exported = 1;
    if (v->value) setenv(name, v->value, 1);
}

void make_readonly(const char *name) { obtain(name)->readonly = 1; }

size_t local_mark(void) { return hidden_count; }

void make_local(const char *name) {
    struct variable *v = find_variable(name);
    if (hidden_count == hidden_room) {
        hidden_room = hidden_room ? hidden_room * 2 : 16;
        hidden = realloc(hidden, hidden_room * sizeof *hidden);
    }
    char *value = v && v->value ? strdup(v->value) : NULL;
    hidden[hidden_count++] = (struct hidden){strdup(name), value, v ? v->exported : 0};
}

void local_restore(size_t mark) {
    while (hidden_count > mark) {
        struct hidden *h = &hidden[--hidden_count];
        if (h->value) set_variable(h->name, h->value);
        else unset_variable(h->name);
        if (h->exported) export_variable(h->name);
        free(h->name);
        free(h->value);
    }
}

void import_environment(void) {
    for (char **e = environ; e && *e; e++) {
        size_t length = name_length(*e);
        if (length == 0 || (*e)[length] != '=') continue;
        char *name = strndup(*e, length);
        struct variable *v = obtain(name);
        free(v->value);
        v->value = strdup(*e + length + 1);
        v->exported = 1;
        free(name);
    }
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(struct variable *const *)a)->name, (*(struct variable *const *)b)->name);
}

static void print_quoted(const char *s) {
    putchar('\'');
    for (; *s; s++) {
        if (*s == '\'') printf("'\\''");
        else putchar(*s);
    }
    putchar('\'');
}

void print_variables(int exported_only, const char *prefix) {
    size_t count = 0;
    for (int i = 0; i < BUCKETS; i++)
        for (struct variable *v = variables[i]; v; v = v->next) count++;
    struct variable **all = make((count + 1) * sizeof *all);
    count = 0;
    for (int i = 0; i < BUCKETS; i++)
        for (struct variable *v = variables[i]; v; v = v->next) all[count++] = v;
    qsort(all, count, sizeof *all, by_name);
    for (size_t i = 0; i < count; i++) {
        if (exported_only == 1 && !all[i]->exported) continue;
        if (exported_only == 2 && !all[i]->readonly) continue;
        if (!all[i]->value && !*prefix) continue;
        printf("%s%s", prefix, all[i]->name);
        if (all[i]->value) {
            putchar('=');
            print_quoted(all[i]->value);
        }
        putchar('\n');
    }
}

char *special_parameter(char c, char *to) {
    switch (c) {
    case '?': sprintf(to, "%d", last_status); return to;
    case '$': sprintf(to, "%d", shell_pid); return to;
    case '#': sprintf(to, "%d", positional_count); return to;
    case '!':
        if (!last_background) return NULL;
        sprintf(to, "%d", last_background);
        return to;
    case '-': {
        char *at = to;
        for (int i = 0; i < O_COUNT; i++)
            if (options[i]) *at++ = option_letters[i];
        *at = '\0';
        return to;
    }
    }
    return NULL;
}

int set_option(const char *letters, int on) {
    for (; *letters; letters++) {
        const char *found = strchr(option_letters, *letters);
        if (!found) {
            complain("set: illegal option -%c", *letters);
            return 2;
        }
        options[found - option_letters] = (char)on;
    }
    return 0;
}

static struct function *functions;

struct function *find_function(const char *name) {
    for (struct function *f = functions; f; f = f->next)
        if (strcmp(f->name, name) == 0) return f;
    return NULL;
}

void define_function(const char *name, struct node *body) {
    struct function *f = find_function(name);
    if (!f) {
        f = keep(sizeof *f);
        f->name = keep_text(name, strlen(name));
        f->next = functions;
        functions = f;
    }
    f->body = body;
}

void unset_function(const char *name) {
    for (struct function **link = &functions; *link; link = &(*link)->next)
        if (strcmp((*link)->name, name) == 0) {
            *link = (*link)->next;
            return;
        }
}
