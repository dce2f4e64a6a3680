/*
 * The shell. A command line goes through lex.c and parse.c into a tree of nodes; exec.c walks the tree; expand.c turns the
 * words of a command into its arguments; jobs.c knows the children.
 *
 * Memory: trees live for ever (they are as long as the text that was read); what an expansion makes lives in a stack (mem.c)
 * that is cut back when its command has run.
 */
#ifndef SH_H
#define SH_H

#include <stddef.h>
#include <sys/types.h>

/* Trees. */

enum node_kind {
    N_SIMPLE, N_PIPE, N_AND, N_OR, N_SEQUENCE, N_BACKGROUND, N_NOT, N_SUBSHELL, N_GROUP,
    N_IF, N_WHILE, N_UNTIL, N_FOR, N_CASE, N_FUNCTION,
};

/* A word as it was written, with its quotes. */
struct word {
    struct word *next;
    char *text;
};

enum redirect_kind { R_INPUT, R_OUTPUT, R_APPEND, R_CLOBBER, R_BOTH, R_DUPLICATE, R_HERE };

struct redirect {
    struct redirect *next;
    enum redirect_kind kind;
    int fd;
    char *target;   /* file, descriptor or "-"; of a here-document the delimiter, then its text */
    int literal;    /* here-document with a quoted delimiter: nothing in it is expanded */
    int strip_tabs;
    struct redirect *pending;   /* the lexer's list of documents to be read */
};

struct case_item {
    struct case_item *next;
    struct word *patterns;
    struct node *body;
};

struct node {
    enum node_kind kind;
    struct redirect *redirects;
    struct word *assignments;   /* N_SIMPLE */
    struct word *words;         /* N_SIMPLE: arguments; N_FOR: list; N_CASE: the word */
    struct node *left, *right, *otherwise;
    struct node *next;          /* N_PIPE: left is the first of a chain */
    struct case_item *items;
    char *name;                 /* N_FOR, N_FUNCTION */
    int has_list;               /* N_FOR: "in" was written */
    int line;
};

/* mem.c */

void *keep(size_t size);                        /* zeroed, for ever */
char *keep_text(const char *s, size_t length);
void *make(size_t size);                        /* until cut() */
char *make_text(const char *s, size_t length);
size_t stack_mark(void);
void cut(size_t mark);

struct buffer {
    char *text, *marks;
    size_t length, size;
};
void buffer_add(struct buffer *b, char c, char mark);
void buffer_text(struct buffer *b, const char *s, char mark);

/* input.c */

enum { END_OF_INPUT = -1 };
void push_file(int fd, int interactive);
void push_text(const char *text);
void pop_source(void);
int next_char(void);
void push_back(int c);
int source_line(void);
void begin_command(void);       /* the next line gets the first prompt */
void forget_line(void);         /* after an error or ^C */
int source_is_interactive(void);

/* lex.c */

enum token {
    T_END = 256, T_NEWLINE, T_WORD, T_REDIRECT, T_AND_IF, T_OR_IF, T_DSEMI,
    T_IF, T_THEN, T_ELSE, T_ELIF, T_FI, T_DO, T_DONE, T_CASE, T_ESAC, T_WHILE, T_UNTIL, T_FOR, T_IN, T_BRACE_OPEN,
    T_BRACE_CLOSE, T_BANG,
};

struct lexed {
    int token;
    char *text;                 /* T_WORD, as written */
    struct redirect redirect;   /* T_REDIRECT: kind and fd */
};
struct lexed *peek(int reserved);   /* reserved: words like "if" are tokens of their own */
void take(void);
void add_here_document(struct redirect *r);
void reset_lexer(void);
/* A command substitution in a word is "$(", COMMAND_START, the command, COMMAND_END: nobody has to parse it again. */
enum { COMMAND_START = 1, COMMAND_END = 2 };
/* A text that was not read as a word, in that form. */
char *lex_text(const char *text);

/* parse.c */

struct node *parse_command_line(int *at_end);  /* NULL: an empty line, or the end */
struct node *parse_list_until(int token);
void syntax_error(const char *what) __attribute__((noreturn));

/* expand.c */

enum { EXPAND_SPLIT = 1, EXPAND_PATTERN = 2, EXPAND_ASSIGNMENT = 4 };
int expand_words(struct word *words, char ***argv);     /* splits and globs; the vector ends with NULL */
char *expand_word(const char *text, int flags);         /* to one string */
char *expand_here(const char *text);
char *command_output(const char *command);

/* glob.c */

int glob(const char *pattern, char ***found);           /* sorted; pattern with quoted characters escaped */

/* arith.c */

long arithmetic(const char *text);

/* vars.c */

struct variable {
    struct variable *next;
    char *name, *value;     /* value NULL: exported or readonly, but unset */
    int exported, readonly;
};
void import_environment(void);
char *get_variable(const char *name);
struct variable *find_variable(const char *name);
int set_variable(const char *name, const char *value);
int unset_variable(const char *name);
void export_variable(const char *name);
void make_readonly(const char *name);
void make_local(const char *name);
size_t local_mark(void);
void local_restore(size_t mark);
size_t name_length(const char *s);
void print_variables(int exported_only, const char *prefix);
char *special_parameter(char c, char *to);      /* NULL: unset */

struct function {
    struct function *next;
    char *name;
    struct node *body;
};
struct function *find_function(const char *name);
void define_function(const char *name, struct node *body);
void unset_function(const char *name);

extern char **positional;       /* $1 … */
extern int positional_count;
extern char *shell_name;        /* $0 */
extern int last_status;         /* $? */
extern pid_t shell_pid;         /* $$ */
extern pid_t last_background;   /* $! */

enum option { O_ERREXIT, O_NOGLOB, O_NOEXEC, O_NOUNSET, O_XTRACE, O_VERBOSE, O_MONITOR, O_INTERACTIVE, O_STDIN,
    O_COUNT };
extern char options[O_COUNT];
extern const char option_letters[O_COUNT + 1];
int set_option(const char *letters, int on);

/* exec.c */

enum { SKIP_NONE, SKIP_BREAK, SKIP_CONTINUE, SKIP_RETURN };
extern int skipping, skip_count, loop_depth, function_depth, in_subshell;
int run(struct node *node, int last);   /* last: nothing comes behind, the process may be used up */
int run_text(const char *text);
int run_file(const char *path, int missing_is_error);
int apply_redirects(struct redirect *r, int keep);
void undo_redirects(int mark);
int redirect_mark(void);
void forget_redirects(void);
void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
char *find_program(const char *name);
void become_subshell(void);

/* jobs.c */

struct job;
void begin_jobs(void);
void end_jobs(void);
struct job *new_job(const struct node *node, int processes);
pid_t fork_into(struct job *job, int background);      /* 0 in the child */
int wait_job(struct job *job);
void leave_in_background(struct job *job);
void report_jobs(void);
int wait_pid(pid_t pid);
int wait_any_signal(void);
int jobs_builtin(int argc, char **argv);
int wait_builtin(int argc, char **argv);
int fg_builtin(int argc, char **argv);
int bg_builtin(int argc, char **argv);
int kill_builtin(int argc, char **argv);
char *node_text(const struct node *node);

/* trap.c */

int trap_builtin(int argc, char **argv);
void run_pending_traps(void);
void run_exit_trap(void);
void clear_traps(void);
void begin_interactive_signals(void);
int signal_pending(void);
extern volatile int interrupted;
int signal_number(const char *name);

/* builtins */

struct builtin {
    const char *name;
    int (*run)(int argc, char **argv);
    int special;        /* POSIX's special built-ins: assignments before them stay */
};
const struct builtin *find_builtin(const char *name);
int test_builtin(int argc, char **argv);
int echo_builtin(int argc, char **argv);
int printf_builtin(int argc, char **argv);
int read_builtin(int argc, char **argv);
int ulimit_builtin(int argc, char **argv);
int umask_builtin(int argc, char **argv);
int times_builtin(int argc, char **argv);
int getopts_builtin(int argc, char **argv);
void exit_shell(int status) __attribute__((noreturn));

#endif
