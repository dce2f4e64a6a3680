/* Running trees. */
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "sh.h"

int skipping, skip_count, loop_depth, function_depth, in_subshell;
/* Of the last command substitution: the status of a command that is only assignments. */
static int substitution_status;
/* Inside a condition, "set -e" does not apply. */
static int tested;
extern sigjmp_buf main_loop;

void complain(const char *format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fflush(stdout);
    fprintf(stderr, "%s: %s\n", shell_name, text);
}

/* An error that ends a script; a person's shell goes back to its prompt. */
void fail(const char *format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    complain("%s", text);
    last_status = 2;
    if (in_subshell || !options[O_INTERACTIVE]) exit_shell(2);
    siglongjmp(main_loop, 1);
}

/* Redirections: what a descriptor was is kept at 10 and above, to be put back. */

enum { SAVED_MOST = 64 };
static struct {
    int fd, copy; /* copy -1: it was closed */
} saved[SAVED_MOST];
static int saved_count;

int redirect_mark(void) { return saved_count; }

void undo_redirects(int mark) {
    fflush(stdout);
    while (saved_count > mark) {
        saved_count--;
        if (saved[saved_count].copy < 0) {
            close(saved[saved_count].fd);
        } else {
            dup2(saved[saved_count].copy, saved[saved_count].fd);
            close(saved[saved_count].copy);
        }
    }
}

/* For "exec >file" and for children: the new descriptors stay. */
void forget_redirects(void) {
    while (saved_count > 0)
        if (saved[--saved_count].copy >= 0) close(saved[saved_count].copy);
}

/* A here-document is a pipe if it fits into one, else a child feeds the pipe. */
static int here_descriptor(const struct redirect *r) {
    const char *text = r->literal ? r->target : expand_here(r->target);
    size_t length = strlen(text);
    int fds[2];
    if (pipe(fds) < 0) return -1;
    if (length <= 512) {
        write(fds[1], text, length);
    } else if (fork() == 0) {
        close(fds[0]);
        for (ssize_t n; length > 0 && (n = write(fds[1], text, length)) > 0; text += n) length -= (size_t)n;
        _exit(0);
    }
    close(fds[1]);
    return fds[0];
}

/* keep: as long as undo_redirects has not been called. */
int apply_redirects(struct redirect *r, int keep) {
    fflush(stdout);
    for (; r; r = r->next) {
        int fd = -1, flags = 0;
        char *target = r->kind == R_HERE ? NULL : expand_word(r->target, 0);
        switch (r->kind) {
        case R_INPUT: flags = O_RDONLY; break;
        case R_BOTH: flags = O_RDWR | O_CREAT; break;
        case R_OUTPUT:
        case R_CLOBBER: flags = O_WRONLY | O_CREAT | O_TRUNC; break;
        case R_APPEND: flags = O_WRONLY | O_CREAT | O_APPEND; break;
        case R_DUPLICATE:
            if (strcmp(target, "-") == 0) break;
            if (target[0] < '0' || target[0] > '9' || target[strspn(target, "0123456789")]) {
                complain("%s: bad descriptor", target);
                return 1;
            }
            fd = atoi(target);
            if (fcntl(fd, F_GETFD) < 0) {
                complain("%d: %s", fd, strerror(errno));
                return 1;
            }
            break;
        case R_HERE: fd = here_descriptor(r); break;
        }
        if (r->kind != R_DUPLICATE && r->kind != R_HERE) fd = open(target, flags, 0666);
        if (fd < 0 && r->kind != R_DUPLICATE) {
            complain("%s: %s", target ? target : "here-document", strerror(errno));
            return 1;
        }
        if (keep) {
            if (saved_count == SAVED_MOST) {
                complain("Too many redirections");
                return 1;
            }
            saved[saved_count].fd = r->fd;
            saved[saved_count].copy = fcntl(r->fd, F_DUPFD_CLOEXEC, 10);
            if (saved[saved_count].copy < 0 && errno != EBADF) {
                complain("%d: %s", r->fd, strerror(errno));
                return 1;
            }
            saved_count++;
        }
        if (fd < 0) {
            close(r->fd);
        } else if (fd != r->fd) {
            dup2(fd, r->fd);
            if (r->kind != R_DUPLICATE) close(fd);
        }
    }
    return 0;
}

/* Programs. */

char *find_program(const char *name) {
    struct stat st;
    if (strchr(name, '/')) return make_text(name, strlen(name));
    const char *path = get_variable("PATH");
    if (!path) path = "/bin:/sbin:/usr/bin";
    for (;;) {
        size_t length = strcspn(path, ":"), name_size = strlen(name) + 1;
        char *whole = make(length + 1 + name_size);
        memcpy(whole, path, length);
        if (length > 0) whole[length++] = '/';
        memcpy(whole + length, name, name_size);
        if (access(whole, X_OK) == 0 && stat(whole, &st) == 0 && S_ISREG(st.st_mode)) return whole;
        path += strcspn(path, ":");
        if (!*path++) return NULL;
    }
}

/* Whether the file's first block has a zero byte: no script has. Keeps errno. */
static int is_binary(const char *path) {
    int saved = errno, binary = 0;
    char block[256];
    int descriptor = open(path, O_RDONLY);
    if (descriptor >= 0) {
        ssize_t count = read(descriptor, block, sizeof block);
        binary = count > 0 && memchr(block, 0, (size_t)count) != NULL;
        close(descriptor);
    }
    errno = saved;
    return binary;
}

static void run_program(char **argv) __attribute__((noreturn));
static void run_program(char **argv) {
    char *path = find_program(argv[0]);
    fflush(stdout);
    if (path) {
        execv(path, argv);
        if (errno == ENOEXEC && is_binary(path)) {
            complain("%s: cannot execute binary file", argv[0]);
            _exit(126);
        }
        if (errno == ENOEXEC) {
            /* A script without #!. */
            int count = 0;
            while (argv[count]) count++;
            char **shell_argv = make((size_t)(count + 2) * sizeof *shell_argv);
            shell_argv[0] = "sh";
            shell_argv[1] = path;
            for (int i = 1; i <= count; i++) shell_argv[i + 1] = argv[i];
            execv("/bin/sh", shell_argv);
        }
    } else {
        errno = ENOENT;
    }
    int number = errno;
    if (!path) complain("%s: not found", argv[0]);
    else complain("%s: %s", argv[0], strerror(number));
    _exit(number == ENOENT ? 127 : 126);
}

void become_subshell(void) {
    in_subshell = 1;
    options[O_MONITOR] = 0;
    forget_redirects();
    clear_traps();
    loop_depth = 0;
}

static void trace(char **argv, struct word *assignments) {
    fflush(stdout);
    fputs("+", stderr);
    for (; assignments; assignments = assignments->next) fprintf(stderr, " %s", assignments->text);
    for (; *argv; argv++) fprintf(stderr, " %s", *argv);
    fputc('\n', stderr);
}

/* Carries out the assignments before a command. */
static int assign_all(struct word *assignments, int exported) {
    int status = 0;
    for (; assignments; assignments = assignments->next) {
        size_t length = name_length(assignments->text);
        char *name = make_text(assignments->text, length);
        status |= set_variable(name, expand_word(assignments->text + length + 1, EXPAND_ASSIGNMENT));
        if (exported) export_variable(name);
    }
    return status;
}

static int call_function(struct function *f, int argc, char **argv) {
    char **outer = positional;
    int outer_count = positional_count, outer_loops = loop_depth;
    size_t locals = local_mark();
    if (function_depth >= 400) fail("%s: functions nested too deeply", argv[0]);
    positional = argv + 1;
    positional_count = argc - 1;
    loop_depth = 0;
    function_depth++;
    int status = run(f->body, 0);
    function_depth--;
    loop_depth = outer_loops;
    if (skipping == SKIP_RETURN) {
        skipping = SKIP_NONE;
        status = last_status;
    }
    local_restore(locals);
    positional = outer;
    positional_count = outer_count;
    return status;
}

/* A change of variables for one command only is undone like locals. */
static void hide_all(struct word *assignments) {
    for (; assignments; assignments = assignments->next)
        make_local(make_text(assignments->text, name_length(assignments->text)));
}

static int run_simple(struct node *node, int last) {
    char **argv;
    int argc, status = 0, redirects = redirect_mark();
    substitution_status = 0;
    argc = expand_words(node->words, &argv);
    if (argc == 0) {
        if (node->redirects) {
            if (apply_redirects(node->redirects, 1)) status = 1;
            undo_redirects(redirects);
        }
        if (options[O_XTRACE] && node->assignments) trace(argv, node->assignments);
        if (assign_all(node->assignments, 0)) status = 1;
        return status ? status : substitution_status;
    }
    if (options[O_XTRACE]) trace(argv, node->assignments);
    struct function *function = find_function(argv[0]);
    const struct builtin *builtin = function ? NULL : find_builtin(argv[0]);
    if (builtin && builtin->special) {
        int is_exec = strcmp(argv[0], "exec") == 0;
        if (apply_redirects(node->redirects, 1)) {
            undo_redirects(redirects);
            if (!options[O_INTERACTIVE]) exit_shell(1);
            return 1;
        }
        assign_all(node->assignments, is_exec);
        if (is_exec) {
            forget_redirects();
            redirects = 0;
        }
        status = builtin->run(argc, argv);
        undo_redirects(redirects);
        return status;
    }
    if (builtin || function) {
        size_t locals = local_mark();
        if (apply_redirects(node->redirects, 1)) {
            undo_redirects(redirects);
            return 1;
        }
        hide_all(node->assignments);
        assign_all(node->assignments, 1);
        status = function ? call_function(function, argc, argv) : builtin->run(argc, argv);
        fflush(stdout);
        undo_redirects(redirects);
        if (node->assignments) local_restore(locals);
        return status;
    }
    if (last) {
        if (apply_redirects(node->redirects, 0)) exit_shell(1);
        assign_all(node->assignments, 1);
        end_jobs();
        run_program(argv);
    }
    struct job *job = new_job(node, 1);
    if (fork_into(job, 0) == 0) {
        become_subshell();
        if (apply_redirects(node->redirects, 0)) _exit(1);
        assign_all(node->assignments, 1);
        run_program(argv);
    }
    return wait_job(job);
}

static int run_pipeline(struct node *node, int background) {
    int count = 0, input = -1;
    for (struct node *n = node->left; n; n = n->next) count++;
    struct job *job = new_job(node, count);
    for (struct node *n = node->left; n; n = n->next) {
        int fds[2] = {-1, -1};
        if (n->next && pipe(fds) < 0) {
            complain("pipe: %s", strerror(errno));
            break;
        }
        if (fork_into(job, background) == 0) {
            become_subshell();
            if (input >= 0) dup2(input, 0), close(input);
            if (n->next) dup2(fds[1], 1), close(fds[0]), close(fds[1]);
            exit_shell(run(n, 1));
        }
        if (input >= 0) close(input);
        if (n->next) close(fds[1]);
        input = fds[0];
    }
    if (input >= 0) close(input);
    if (background) {
        leave_in_background(job);
        return 0;
    }
    return wait_job(job);
}

static int run_background(struct node *node) {
    if (node->kind == N_PIPE) return run_pipeline(node, 1);
    struct job *job = new_job(node, 1);
    if (fork_into(job, 1) == 0) {
        become_subshell();
        exit_shell(run(node, 1));
    }
    leave_in_background(job);
    return 0;
}

static int run_subshell(struct node *node, int last) {
    if (last) {
        become_subshell();
        if (apply_redirects(node->redirects, 0)) exit_shell(1);
        exit_shell(run(node->left, 1));
    }
    struct job *job = new_job(node, 1);
    if (fork_into(job, 0) == 0) {
        become_subshell();
        if (apply_redirects(node->redirects, 0)) exit_shell(1);
        exit_shell(run(node->left, 1));
    }
    return wait_job(job);
}

/* After the body of a loop: whether the loop ends. */
static int loop_ends(void) {
    if (skipping == SKIP_NONE) return 0;
    if (skipping == SKIP_RETURN) return 1;
    if (--skip_count > 0) return 1;
    int ends = skipping == SKIP_BREAK;
    skipping = SKIP_NONE;
    return ends;
}

static int run_condition(struct node *node) {
    tested++;
    int status = run(node, 0);
    tested--;
    return status;
}

static int run_loop(struct node *node) {
    int status = 0;
    loop_depth++;
    for (;;) {
        int condition = run_condition(node->left);
        if (skipping) {
            if (loop_ends()) break;
            continue;
        }
        if ((condition == 0) != (node->kind == N_WHILE)) break;
        status = run(node->right, 0);
        if (loop_ends()) break;
    }
    loop_depth--;
    return status;
}

static int run_for(struct node *node) {
    int status = 0, count = positional_count;
    char **list = positional;
    if (node->has_list) count = expand_words(node->words, &list);
    loop_depth++;
    for (int i = 0; i < count; i++) {
        if (set_variable(node->name, list[i])) {
            status = 1;
            break;
        }
        status = run(node->right, 0);
        if (loop_ends()) break;
    }
    loop_depth--;
    return status;
}

static int run_case(struct node *node, int last) {
    char *subject = expand_word(node->words->text, 0);
    for (struct case_item *item = node->items; item; item = item->next)
        for (struct word *pattern = item->patterns; pattern; pattern = pattern->next)
            if (fnmatch(expand_word(pattern->text, EXPAND_PATTERN), subject, 0) == 0)
                return item->body ? run(item->body, last) : 0;
    return 0;
}

static int run_compound(struct node *node, int last) {
    int status;
    switch (node->kind) {
    case N_GROUP: return run(node->left, last);
    case N_IF:
        status = run_condition(node->left);
        if (skipping) return status;
        if (status == 0) return run(node->right, last);
        return node->otherwise ? run(node->otherwise, last) : 0;
    case N_WHILE:
    case N_UNTIL: return run_loop(node);
    case N_FOR: return run_for(node);
    default: return run_case(node, last);
    }
}

static int run_node(struct node *node, int last) {
    int status;
    switch (node->kind) {
    case N_SIMPLE: return run_simple(node, last);
    case N_PIPE: return run_pipeline(node, 0);
    case N_SUBSHELL: return run_subshell(node, last);
    case N_BACKGROUND: return run_background(node->left);
    case N_SEQUENCE:
        run(node->left, 0);
        return skipping ? last_status : run(node->right, last);
    case N_AND:
    case N_OR:
        status = run_condition(node->left);
        if (skipping || (status == 0) != (node->kind == N_AND)) return status;
        return run(node->right, last);
    case N_NOT:
        status = run_condition(node->left);
        return skipping ? status : !status;
    case N_FUNCTION: define_function(node->name, node->left); return 0;
    default: break;
    }
    if (!node->redirects) return run_compound(node, last);
    int redirects = redirect_mark();
    status = apply_redirects(node->redirects, 1) ? 1 : run_compound(node, 0);
    undo_redirects(redirects);
    return status;
}

static int exits_on_error(enum node_kind kind) { return kind == N_SIMPLE || kind == N_PIPE || kind == N_SUBSHELL; }

int run(struct node *node, int last) {
    if (!node || options[O_NOEXEC]) return last_status;
    size_t mark = stack_mark();
    /* A process can only be used up if nobody waits for its end with a trap. */
    last_status = run_node(node, last && in_subshell);
    cut(mark);
    run_pending_traps();
    if (options[O_ERREXIT] && last_status != 0 && !tested && exits_on_error(node->kind)) exit_shell(last_status);
    return last_status;
}

/* Runs what the topmost source gives, to its end. */
static int run_source(void) {
    int at_end, status = 0;
    while (!skipping) {
        struct node *node = parse_command_line(&at_end);
        if (node) status = run(node, 0);
        if (at_end) break;
    }
    reset_lexer();
    return status;
}

int run_text(const char *text) {
    push_text(text);
    int status = run_source();
    pop_source();
    return status;
}

int run_file(const char *path, int missing_is_error) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        if (missing_is_error) complain("%s: %s", path, strerror(errno));
        return 127;
    }
    int high = fcntl(fd, F_DUPFD_CLOEXEC, 10);
    close(fd);
    push_file(high, 0);
    int status = run_source();
    pop_source();
    return status;
}

char *command_output(const char *command) {
    int fds[2];
    if (pipe(fds) < 0) fail("pipe: %s", strerror(errno));
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0) {
        close(fds[0]);
        close(fds[1]);
        fail("fork: %s", strerror(errno));
    }
    if (pid == 0) {
        become_subshell();
        close(fds[0]);
        if (fds[1] != 1) {
            dup2(fds[1], 1);
            close(fds[1]);
        }
        reset_lexer();
        push_text(command);
        int at_end = 0, status = last_status;
        while (!at_end) {
            struct node *node = parse_command_line(&at_end);
            if (node) status = run(node, 0);
            if (skipping) break;
        }
        exit_shell(status);
    }
    close(fds[1]);
    struct buffer b = {0};
    char piece[512];
    for (;;) {
        ssize_t n = read(fds[0], piece, sizeof piece);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        for (ssize_t i = 0; i < n; i++)
            if (piece[i]) buffer_add(&b, piece[i], 0);
    }
    close(fds[0]);
    last_status = substitution_status = wait_pid(pid);
    while (b.length > 0 && b.text[b.length - 1] == '\n') b.text[--b.length] = '\0';
    return b.text ? b.text : make_text("", 0);
}
