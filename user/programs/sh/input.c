/* Where commands come from: files, the terminal, texts; one inside the other. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "sh.h"

struct source {
    struct source *below;
    const char *text;       /* of a text */
    int fd;                 /* of a file */
    int interactive, terminal, one_by_one, ended;
    int line;
    int pushed[2], pushed_count;
    char buffer[1024];
    size_t at, end;
};

static struct source *top;
static int first_line = 1;

static void push(struct source *s) {
    s->below = top;
    s->line = 1;
    top = s;
}

void push_file(int fd, int interactive) {
    struct source *s = calloc(1, sizeof *s);
    s->fd = fd;
    s->interactive = interactive;
    /* What we read too much of a pipe or file would be missing for the commands that read it too. A terminal gives lines. */
    s->one_by_one = fd == 0 && !isatty(fd);
    push(s);
}

void push_text(const char *text) {
    struct source *s = calloc(1, sizeof *s);
    s->text = text;
    s->fd = -1;
    push(s);
}

void pop_source(void) {
    struct source *s = top;
    top = s->below;
    if (s->fd > 2) close(s->fd);
    free(s);
}

int source_line(void) { return top ? top->line : 0; }
int source_is_interactive(void) { return top && top->interactive; }
void begin_command(void) { first_line = 1; }

void forget_line(void) {
    if (!top) return;
    top->at = top->end = 0;
    top->pushed_count = 0;
    top->ended = 0;
}

static void prompt(void) {
    const char *text = get_variable(first_line ? "PS1" : "PS2");
    if (!text) text = "";
    size_t mark = stack_mark();
    text = expand_here(text);
    write(2, text, strlen(text));
    cut(mark);
    first_line = 0;
}

static int fill(struct source *s) {
    if (s->ended) return 0;
    if (s->interactive) {
        report_jobs();
        prompt();
    }
    for (;;) {
        ssize_t n = read(s->fd, s->buffer, s->one_by_one ? 1 : sizeof s->buffer);
        if (n > 0) {
            s->at = 0;
            s->end = (size_t)n;
            return 1;
        }
        if (n < 0 && errno == EINTR) {
            if (s->interactive && interrupted) {
                write(2, "\n", 1);
                syntax_error(NULL);
            }
            run_pending_traps();
            continue;
        }
        s->ended = 1;
        return 0;
    }
}

int next_char(void) {
    struct source *s = top;
    int c;
    if (!s) return END_OF_INPUT;
    if (s->pushed_count) {
        c = s->pushed[--s->pushed_count];
    } else if (s->text) {
        c = *s->text ? (unsigned char)*s->text++ : END_OF_INPUT;
    } else {
        do {
            if (s->at >= s->end && !fill(s)) return END_OF_INPUT;
            c = (unsigned char)s->buffer[s->at++];
        } while (c == '\0');
        if (options[O_VERBOSE]) fputc(c, stderr);
    }
    if (c == '\n') s->line++;
    return c;
}

void push_back(int c) {
    if (c == END_OF_INPUT || !top) return;
    if (c == '\n') top->line--;
    top->pushed[top->pushed_count++] = c;
}
