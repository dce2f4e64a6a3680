/* The built-in commands, but for those with a file of their own. */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/times.h>
#include <unistd.h>
#include "sh.h"

void exit_shell(int status) {
    last_status = status;
    run_exit_trap();
    fflush(stdout);
    end_jobs();
    _exit(last_status & 0xff);
}

static int colon(int argc, char **argv) {
    (void)argc, (void)argv;
    return 0;
}

static int false_builtin(int argc, char **argv) {
    (void)argc, (void)argv;
    return 1;
}

static int number(const char *text, int otherwise) { return text ? atoi(text) : otherwise; }

static int exit_builtin(int argc, char **argv) {
    (void)argc;
    exit_shell(number(argv[1], last_status));
}

static int return_builtin(int argc, char **argv) {
    (void)argc;
    skipping = SKIP_RETURN;
    return last_status = number(argv[1], last_status);
}

static int break_builtin(int argc, char **argv) {
    (void)argc;
    if (loop_depth == 0) return 0;
    skip_count = number(argv[1], 1);
    if (skip_count < 1) skip_count = 1;
    if (skip_count > loop_depth) skip_count = loop_depth;
    skipping = **argv == 'b' ? SKIP_BREAK : SKIP_CONTINUE;
    return 0;
}

/* The path without . and .. and double slashes. */
static void tidy_path(char *path) {
    char *out = path;
    for (char *at = path; *at;) {
        while (*at == '/') at++;
        size_t length = strcspn(at, "/");
        if (length == 0) break;
        if (length == 2 && at[0] == '.' && at[1] == '.') {
            while (out > path && *--out != '/') continue;
        } else if (!(length == 1 && *at == '.')) {
            *out++ = '/';
            memmove(out, at, length);
            out += length;
        }
        at += length;
    }
    if (out == path) *out++ = '/';
    *out = '\0';
}

static int cd_builtin(int argc, char **argv) {
    const char *to = argc > 1 ? argv[1] : get_variable("HOME"), *old = get_variable("PWD");
    char path[2 * PATH_MAX];
    int print = 0;
    if (to && strcmp(to, "-") == 0) {
        to = get_variable("OLDPWD");
        print = 1;
    }
    if (!to || !*to) {
        complain("cd: no directory to go to");
        return 1;
    }
    if (*to == '/' || !old) snprintf(path, sizeof path, "%s", to);
    else snprintf(path, sizeof path, "%s/%s", old, to);
    if (*path == '/') tidy_path(path);
    if (chdir(path) < 0 && chdir(to) < 0) {
        complain("cd: %s: %s", to, strerror(errno));
        return 1;
    }
    if (*path != '/' && !getcwd(path, sizeof path)) *path = '\0';
    if (old) set_variable("OLDPWD", old);
    set_variable("PWD", path);
    if (print) puts(path);
    return 0;
}

static int pwd_builtin(int argc, char **argv) {
    char path[PATH_MAX];
    const char *known = get_variable("PWD");
    struct stat here, there;
    int physical = argc > 1 && strcmp(argv[1], "-P") == 0;
    if (!physical && known && *known == '/' && stat(known, &there) == 0 && stat(".", &here) == 0 &&
        here.st_ino == there.st_ino && here.st_dev == there.st_dev) {
        puts(known);
        return 0;
    }
    if (!getcwd(path, sizeof path)) {
        complain("pwd: %s", strerror(errno));
        return 1;
    }
    puts(path);
    return 0;
}

/* export, readonly and local: NAME or NAME=VALUE. */
static int declare(int argc, char **argv) {
    int status = 0;
    char kind = **argv;
    if (argc == 1 || strcmp(argv[1], "-p") == 0) {
        if (kind != 'l') print_variables(kind == 'e' ? 1 : 2, kind == 'e' ? "export " : "readonly ");
        return 0;
    }
    if (kind == 'l' && function_depth == 0) {
        complain("local: not in a function");
        return 1;
    }
    for (int i = 1; i < argc; i++) {
        size_t length = name_length(argv[i]);
        if (length == 0 || (argv[i][length] && argv[i][length] != '=')) {
            complain("%s: %s: bad variable name", argv[0], argv[i]);
            status = 1;
            continue;
        }
        char *name = make_text(argv[i], length);
        if (kind == 'l') make_local(name);
        if (argv[i][length] == '=') status |= set_variable(name, argv[i] + length + 1);
        if (kind == 'e') export_variable(name);
        if (kind == 'r') make_readonly(name);
    }
    return status;
}

static int unset_builtin(int argc, char **argv) {
    int status = 0, functions = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-f") == 0) functions = 1;
        else if (strcmp(argv[i], "-v") == 0) functions = 0;
        else if (functions) unset_function(argv[i]);
        else status |= unset_variable(argv[i]);
    }
    return status;
}

static void set_positional(int count, char **values) {
    char **copy = keep((size_t)(count + 1) * sizeof *copy);
    for (int i = 0; i < count; i++) copy[i] = keep_text(values[i], strlen(values[i]));
    positional = copy;
    positional_count = count;
}

static int set_named(const char *name, int on) {
    static const char *const NAMES[] = {"errexit", "noglob", "noexec", "nounset", "xtrace", "verbose", "monitor",
                                        "interactive", "stdin"};
    if (!name) {
        for (int i = 0; i < O_COUNT; i++) printf("%-12s %s\n", NAMES[i], options[i] ? "on" : "off");
        return 0;
    }
    for (int i = 0; i < O_COUNT; i++)
        if (strcmp(NAMES[i], name) == 0) {
            options[i] = (char)on;
            return 0;
        }
    complain("set: no such option: %s", name);
    return 1;
}

static int set_builtin(int argc, char **argv) {
    int i = 1;
    if (argc == 1) print_variables(0, "");
    for (; i < argc && (argv[i][0] == '-' || argv[i][0] == '+') && argv[i][1]; i++) {
        if (strcmp(argv[i], "--") == 0) {
            set_positional(argc - i - 1, argv + i + 1);
            return 0;
        }
        int on = argv[i][0] == '-';
        int status = argv[i][1] == 'o' ? set_named(argv[i + 1], on) : set_option(argv[i] + 1, on);
        if (status) return status;
        if (argv[i][1] == 'o' && argv[i + 1]) i++;
    }
    if (i < argc) set_positional(argc - i, argv + i);
    return 0;
}

static int shift_builtin(int argc, char **argv) {
    (void)argc;
    int n = number(argv[1], 1);
    if (n < 0 || n > positional_count) {
        complain("shift: can't shift that many");
        return 1;
    }
    positional += n;
    positional_count -= n;
    return 0;
}

static int eval_builtin(int argc, char **argv) {
    struct buffer b = {0};
    for (int i = 1; i < argc; i++) {
        if (i > 1) buffer_add(&b, ' ', 0);
        buffer_text(&b, argv[i], 0);
    }
    return b.text ? run_text(b.text) : 0;
}

static int dot_builtin(int argc, char **argv) {
    if (argc < 2) {
        complain(".: which file?");
        return 2;
    }
    char *path = strchr(argv[1], '/') ? argv[1] : find_program(argv[1]);
    int status = run_file(path ? path : argv[1], 1);
    if (skipping == SKIP_RETURN && function_depth == 0) skipping = SKIP_NONE;
    return status;
}

static int exec_builtin(int argc, char **argv) {
    if (argc < 2) return 0;
    char *path = find_program(argv[1]);
    fflush(stdout);
    end_jobs();
    if (path) execv(path, argv + 1);
    int status = path && errno != ENOENT ? 126 : 127;
    complain("exec: %s: %s", argv[1], path ? strerror(errno) : "not found");
    if (!options[O_INTERACTIVE]) exit_shell(status);
    return status;
}

static int type_builtin(int argc, char **argv) {
    int status = 0;
    for (int i = 1; i < argc; i++) {
        char *path;
        if (find_function(argv[i])) printf("%s is a shell function\n", argv[i]);
        else if (find_builtin(argv[i])) printf("%s is a shell builtin\n", argv[i]);
        else if ((path = find_program(argv[i])) && access(path, X_OK) == 0) printf("%s is %s\n", argv[i], path);
        else {
            printf("%s: not found\n", argv[i]);
            status = 127;
        }
    }
    return status;
}

/* command NAME …: no function; command -v NAME: what it would be. */
static int command_builtin(int argc, char **argv) {
    if (argc > 2 && (strcmp(argv[1], "-v") == 0 || strcmp(argv[1], "-V") == 0)) {
        char *path;
        if (argv[1][1] == 'V') return type_builtin(argc - 1, argv + 1);
        if (find_function(argv[2]) || find_builtin(argv[2])) puts(argv[2]);
        else if ((path = find_program(argv[2])) && access(path, X_OK) == 0) puts(path);
        else return 127;
        return 0;
    }
    if (argc < 2) return 0;
    const struct builtin *builtin = find_builtin(argv[1]);
    if (builtin) return builtin->run(argc - 1, argv + 1);
    struct node node = {.kind = N_SIMPLE};
    struct job *job = new_job(&node, 1);
    if (fork_into(job, 0) == 0) {
        become_subshell();
        exec_builtin(argc, argv);
        _exit(127);
    }
    return wait_job(job);
}

int umask_builtin(int argc, char **argv) {
    if (argc < 2) {
        mode_t mask = umask(0);
        umask(mask);
        printf("%04o\n", mask);
        return 0;
    }
    char *end;
    long mask = strtol(argv[1], &end, 8);
    if (*end || mask < 0 || mask > 0777) {
        complain("umask: %s: not a mask", argv[1]);
        return 1;
    }
    umask((mode_t)mask);
    return 0;
}

int times_builtin(int argc, char **argv) {
    struct tms t;
    (void)argc, (void)argv;
    times(&t);
    const clock_t ticks[4] = {t.tms_utime, t.tms_stime, t.tms_cutime, t.tms_cstime};
    for (int i = 0; i < 4; i++)
        printf("%dm%d.%02ds%c", ticks[i] / 6000, ticks[i] / 100 % 60, ticks[i] % 100, i % 2 ? '\n' : ' ');
    return 0;
}

static const struct builtin BUILTINS[] = {
    {":", colon, 1},
    {".", dot_builtin, 1},
    {"[", test_builtin, 0},
    {"bg", bg_builtin, 0},
    {"break", break_builtin, 1},
    {"cd", cd_builtin, 0},
    {"command", command_builtin, 0},
    {"continue", break_builtin, 1},
    {"echo", echo_builtin, 0},
    {"eval", eval_builtin, 1},
    {"exec", exec_builtin, 1},
    {"exit", exit_builtin, 1},
    {"export", declare, 1},
    {"false", false_builtin, 0},
    {"fg", fg_builtin, 0},
    {"getopts", getopts_builtin, 0},
    {"jobs", jobs_builtin, 0},
    {"kill", kill_builtin, 0},
    {"local", declare, 0},
    {"printf", printf_builtin, 0},
    {"pwd", pwd_builtin, 0},
    {"read", read_builtin, 0},
    {"readonly", declare, 1},
    {"return", return_builtin, 1},
    {"set", set_builtin, 1},
    {"shift", shift_builtin, 1},
    {"test", test_builtin, 0},
    {"times", times_builtin, 1},
    {"trap", trap_builtin, 1},
    {"true", colon, 0},
    {"type", type_builtin, 0},
    {"ulimit", ulimit_builtin, 0},
    {"umask", umask_builtin, 0},
    {"unset", unset_builtin, 1},
    {"wait", wait_builtin, 0},
};

const struct builtin *find_builtin(const char *name) {
    for (size_t i = 0; i < sizeof BUILTINS / sizeof *BUILTINS; i++)
        if (strcmp(BUILTINS[i].name, name) == 0) return &BUILTINS[i];
    return NULL;
}
