/* The shell's start and its main loop. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "sh.h"

sigjmp_buf main_loop;

static void usage(void) {
    dprintf(2, "usage: sh [-efinuvx] [-c COMMAND | FILE | -s] [ARGUMENT ...]\n");
    exit(2);
}

static void set_default(const char *name, const char *value) {
    if (!get_variable(name)) set_variable(name, value);
}

static void command_loop(int login) {
    /* volatile: changed between sigsetjmp and the jump back. */
    static size_t mark;
    static int redirects, profile;
    profile = login;
    mark = stack_mark();
    redirects = redirect_mark();
    if (sigsetjmp(main_loop, 1)) {
        /* A syntax error, or an interrupt: only a person gets another chance. */
        undo_redirects(redirects);
        while (!source_is_interactive() && options[O_INTERACTIVE] && !in_subshell) pop_source();
        if (!source_is_interactive() || in_subshell) exit_shell(last_status);
        reset_lexer();
        forget_line();
        cut(mark);
        skipping = loop_depth = function_depth = 0;
        local_restore(0);
    }
    if (profile) {
        profile = 0;
        run_file("/etc/profile", 0);
        skipping = SKIP_NONE;
    }
    for (int at_end = 0; !at_end;) {
        begin_command();
        interrupted = 0;
        struct node *node = parse_command_line(&at_end);
        interrupted = 0;
        if (node) run(node, 0);
        skipping = SKIP_NONE;
    }
}

int main(int argc, char **argv) {
    char *command = NULL;
    int i = 1, login = **argv == '-';
    char *first = strrchr(argv[0], '/');
    shell_name = first ? first + 1 : argv[0] + login;
    /* As /bin/test, /bin/[ and /bin/printf the program is only that command. */
    argv[0] = shell_name;
    if (strcmp(shell_name, "test") == 0 || strcmp(shell_name, "[") == 0) return test_builtin(argc, argv);
    if (strcmp(shell_name, "printf") == 0) return printf_builtin(argc, argv);
    shell_pid = getpid();
    for (; i < argc && (argv[i][0] == '-' || argv[i][0] == '+') && argv[i][1]; i++) {
        if (strcmp(argv[i], "--") == 0) {
            i++;
            break;
        }
        if (strcmp(argv[i], "-c") == 0) {
            if (!(command = argv[++i])) usage();
            i++;
            break;
        }
        if (strcmp(argv[i], "-l") == 0) login = 1;
        else if (argv[i][1] == 'o' || set_option(argv[i] + 1, argv[i][0] == '-')) usage();
    }
    import_environment();
    set_default("PATH", "/bin:/sbin:/usr/bin");
    set_default("PS1", getuid() ? "$ " : "# ");
    set_default("PS2", "> ");
    set_variable("OPTIND", "1");
    char here[1024];
    if (!get_variable("PWD") && getcwd(here, sizeof here)) set_variable("PWD", here);
    if (command && i < argc) {
        shell_name = argv[i++];
    } else if (!command && i < argc && !options[O_STDIN]) {
        int fd = open(argv[i], O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
            complain("%s: %s", argv[i], strerror(errno));
            return 127;
        }
        int high = fcntl(fd, F_DUPFD_CLOEXEC, 10);
        close(fd);
        shell_name = argv[i++];
        push_file(high, 0);
    } else if (!command) {
        if (isatty(0) && isatty(2)) options[O_INTERACTIVE] = 1;
        push_file(0, options[O_INTERACTIVE]);
    }
    positional = argv + i;
    positional_count = argc - i;
    if (options[O_INTERACTIVE]) {
        begin_interactive_signals();
        begin_jobs();
    }
    if (command) push_text(command);
    command_loop(login);
    if (options[O_INTERACTIVE]) fputs("exit\n", stderr);
    exit_shell(last_status);
}
