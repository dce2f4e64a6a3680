/* Traps: commands that run when a signal has come, between two commands. */
#include <ctype.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "sh.h"

enum { SIGNALS = 32 };
static char *actions[SIGNALS];      /* [0] is EXIT; NULL: default; "": ignored */
static char ignored_at_start[SIGNALS];
static volatile sig_atomic_t pending[SIGNALS], any_pending;
volatile int interrupted;

static void on_signal(int signal) {
    pending[signal] = 1;
    any_pending = 1;
}

static void on_interrupt(int signal) {
    interrupted = 1;
    if (actions[signal]) on_signal(signal);
}

static void set_handler(int signal, void (*handler)(int)) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    /* No restart: wait and read must come back to us. */
    sigaction(signal, &action, NULL);
}

void begin_interactive_signals(void) {
    set_handler(SIGINT, on_interrupt);
    signal(SIGQUIT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
}

int signal_number(const char *name) {
    if (isdigit((unsigned char)*name)) {
        int n = atoi(name);
        return n < SIGNALS ? n : -1;
    }
    if (strncasecmp(name, "SIG", 3) == 0) name += 3;
    for (int i = 0; i < SIGNALS; i++)
        if (strcasecmp(name, sys_signame[i]) == 0) return i;
    return -1;
}

int trap_builtin(int argc, char **argv) {
    int first = argc > 1 && strcmp(argv[1], "--") == 0 ? 2 : 1, status = 0;
    if (argc <= first) {
        for (int i = 0; i < SIGNALS; i++)
            if (actions[i]) printf("trap -- '%s' %s\n", actions[i], sys_signame[i]);
        return 0;
    }
    /* "trap INT" and "trap - INT" both take the trap away. */
    int reset = strcmp(argv[first], "-") == 0 || (argc == first + 1 && signal_number(argv[first]) >= 0);
    const char *action = argv[first];
    for (int i = first + (argc > first + 1); i < argc; i++) {
        int n = signal_number(argv[i]);
        if (n < 0) {
            complain("trap: %s: no such signal", argv[i]);
            status = 1;
            continue;
        }
        if (n && ignored_at_start[n] && !options[O_INTERACTIVE]) continue;
        free(actions[n]);
        actions[n] = reset ? NULL : strdup(action);
        if (n == 0 || n == SIGKILL || n == SIGSTOP) continue;
        if (n == SIGINT && options[O_INTERACTIVE] && !in_subshell) continue;
        if (reset) signal(n, SIG_DFL);
        else if (!*action) signal(n, SIG_IGN);
        else set_handler(n, on_signal);
    }
    return status;
}

int signal_pending(void) {
    for (int i = 1; any_pending && i < SIGNALS; i++)
        if (pending[i]) return i;
    return 0;
}

void run_pending_traps(void) {
    static int running;
    if (!any_pending || running) return;
    any_pending = 0;
    for (int i = 1; i < SIGNALS; i++) {
        if (!pending[i]) continue;
        pending[i] = 0;
        if (!actions[i] || !*actions[i]) continue;
        int status = last_status, outer_skipping = skipping;
        skipping = SKIP_NONE;
        running = 1;
        char *action = strdup(actions[i]);
        run_text(action);
        free(action);
        running = 0;
        if (skipping == SKIP_NONE) skipping = outer_skipping;
        last_status = status;
    }
}

void run_exit_trap(void) {
    char *action = actions[0];
    actions[0] = NULL;
    if (!action || !*action) return;
    int status = last_status;
    skipping = SKIP_NONE;
    run_text(action);
    last_status = status;
}

/* In a subshell traps are back to the default; what is ignored stays so. */
void clear_traps(void) {
    for (int i = 0; i < SIGNALS; i++) {
        if (!actions[i] || !*actions[i]) continue;
        free(actions[i]);
        actions[i] = NULL;
        if (i) signal(i, SIG_DFL);
        pending[i] = 0;
    }
}
