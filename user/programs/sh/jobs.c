/* Children: jobs in the foreground and behind, and the terminal that goes to and fro between them and the shell. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include "sh.h"

enum state { RUNNING, STOPPED, DONE };

struct process {
    pid_t pid;
    int status;
    enum state state;
};

struct job {
    struct job *next;
    int number;         /* 0: never seen by the user yet */
    pid_t group;
    char *text;
    int background, told;
    int count, room;
    struct process processes[];
};

static struct job *jobs;
static int terminal = -1;
static pid_t own_group;
static struct termios own_modes;

/* Signals that a person's shell does not want for itself but its children do. */
static const int TERMINAL_SIGNALS[] = {SIGINT, SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU, SIGTERM};
enum { SIGNAL_COUNT = sizeof TERMINAL_SIGNALS / sizeof *TERMINAL_SIGNALS };

void begin_jobs(void) {
    if (!isatty(0)) return;
    terminal = fcntl(0, F_DUPFD_CLOEXEC, 10);
    /* Started in the background, we wait until somebody gives us the terminal. */
    for (int i = 0; i < 100; i++) {
        pid_t group = tcgetpgrp(terminal);
        if (group < 0 || group == getpgrp()) break;
        kill(0, SIGTTIN);
    }
    signal(SIGTSTP, SIG_IGN);
    signal(SIGTTIN, SIG_IGN);
    signal(SIGTTOU, SIG_IGN);
    setpgid(0, 0);
    own_group = getpgrp();
    if (tcsetpgrp(terminal, own_group) < 0) {
        close(terminal);
        terminal = -1;
        complain("no job control");
        return;
    }
    tcgetattr(terminal, &own_modes);
    options[O_MONITOR] = 1;
}

/* Before the shell becomes another program, or ends. */
void end_jobs(void) {
    if (terminal >= 0 && !in_subshell) {
        signal(SIGTSTP, SIG_DFL);
        signal(SIGTTIN, SIG_DFL);
        signal(SIGTTOU, SIG_DFL);
    }
}

struct job *new_job(const struct node *node, int processes) {
    struct job *job = calloc(1, sizeof *job + (size_t)processes * sizeof *job->processes);
    job->room = processes;
    /* Only somebody who can see it wants the text. */
    job->text = options[O_INTERACTIVE] ? strdup(node_text(node)) : strdup("");
    job->next = jobs;
    jobs = job;
    return job;
}

static void remove_job(struct job *job) {
    for (struct job **link = &jobs; *link; link = &(*link)->next)
        if (*link == job) {
            *link = job->next;
            break;
        }
    free(job->text);
    free(job);
}

pid_t fork_into(struct job *job, int background) {
    fflush(stdout);
    /* What we ignore or catch and the child does not waits for the child: sent right after the fork, it must reach it. */
    int control = options[O_MONITOR], reset = options[O_INTERACTIVE] || control, number;
    struct sigaction own[SIGNAL_COUNT];
    sigset_t waiting, mask;
    sigemptyset(&waiting);
    for (int i = 0; reset && i < SIGNAL_COUNT; i++) sigaddset(&waiting, TERMINAL_SIGNALS[i]);
    sigprocmask(SIG_BLOCK, &waiting, &mask);
    for (int i = 0; reset && i < SIGNAL_COUNT; i++) {
        sigaction(TERMINAL_SIGNALS[i], NULL, &own[i]);
        if (own[i].sa_handler == SIG_IGN) signal(TERMINAL_SIGNALS[i], SIG_DFL);
    }
    pid_t pid = fork();
    number = errno;
    if (pid != 0) {
        for (int i = 0; reset && i < SIGNAL_COUNT; i++) sigaction(TERMINAL_SIGNALS[i], &own[i], NULL);
        sigprocmask(SIG_SETMASK, &mask, NULL);
    }
    if (pid < 0) {
        if (job->count == 0) remove_job(job);
        fail("cannot fork: %s", strerror(number));
    }
    if (pid == 0) {
        if (control) {
            pid_t group = job->group ? job->group : getpid();
            setpgid(0, group);
            if (!background) tcsetpgrp(terminal, group);
        }
        for (int i = 0; reset && i < SIGNAL_COUNT; i++) signal(TERMINAL_SIGNALS[i], SIG_DFL);
        sigprocmask(SIG_SETMASK, &mask, NULL);
        if (background && !control) {
            signal(SIGINT, SIG_IGN);
            signal(SIGQUIT, SIG_IGN);
            int null = open("/dev/null", O_RDONLY);
            if (null > 0) dup2(null, 0), close(null);
        }
        jobs = NULL;
        return 0;
    }
    if (control) {
        if (!job->group) job->group = pid;
        setpgid(pid, job->group);
    }
    job->background = background;
    if (job->count < job->room) job->processes[job->count++].pid = pid;
    return pid;
}

static enum state state_of(const struct job *job) {
    enum state state = DONE;
    for (int i = 0; i < job->count; i++)
        if (job->processes[i].state < state) state = job->processes[i].state;
    return state;
}

static int exit_status(int status) {
    if (WIFEXITED(status)) return WEXITSTATUS(status);
    return 128 + (WIFSTOPPED(status) ? WSTOPSIG(status) : WTERMSIG(status));
}

static int job_status(const struct job *job) {
    return job->count ? exit_status(job->processes[job->count - 1].status) : 1;
}

/* Notes what became of a child. */
static void note(pid_t pid, int status) {
    for (struct job *job = jobs; job; job = job->next)
        for (int i = 0; i < job->count; i++)
            if (job->processes[i].pid == pid && job->processes[i].state != DONE) {
                if (WIFCONTINUED(status)) {
                    job->processes[i].state = RUNNING;
                    return;
                }
                job->processes[i].status = status;
                job->processes[i].state = WIFSTOPPED(status) ? STOPPED : DONE;
                job->told = 0;
                return;
            }
}

static void reap_without_waiting(void) {
    int status;
    pid_t pid;
    while ((pid = waitpid(WAIT_ANY, &status, WNOHANG | (options[O_MONITOR] ? WUNTRACED : 0))) > 0) note(pid, status);
}

static void give_number(struct job *job) {
    int highest = 0;
    if (job->number) return;
    for (struct job *other = jobs; other; other = other->next)
        if (other->number > highest) highest = other->number;
    job->number = highest + 1;
}

static void print_end(int status, pid_t pid) {
    if (WIFEXITED(status) || WIFSTOPPED(status)) return;
    int number = WTERMSIG(status);
    if (number == SIGPIPE || (number == SIGINT && !options[O_INTERACTIVE])) return;
    if (number == SIGINT) {
        fputc('\n', stderr);
        return;
    }
    const char *core = WCOREDUMP(status) ? " (core dumped)" : "";
    if (in_subshell || options[O_INTERACTIVE]) fprintf(stderr, "%s%s\n", strsignal(number), core);
    else fprintf(stderr, "%s: %d %s%s\n", shell_name, pid, strsignal(number), core);
}

static void print_job(const struct job *job, int with_pid) {
    char text[48];
    enum state state = state_of(job);
    int status = job->count ? job->processes[job->count - 1].status : 0;
    if (state == RUNNING) strcpy(text, "Running");
    else if (state == STOPPED) snprintf(text, sizeof text, "Stopped");
    else if (WIFEXITED(status) && WEXITSTATUS(status) == 0) strcpy(text, "Done");
    else if (WIFEXITED(status)) snprintf(text, sizeof text, "Done(%d)", WEXITSTATUS(status));
    else snprintf(text, sizeof text, "%s", strsignal(WTERMSIG(status)));
    printf("[%d] ", job->number);
    if (with_pid && job->count) printf("%d ", job->processes[0].pid);
    printf("%-12s %s\n", text, job->text);
}

/* Waits for a foreground job to end or stop. */
int wait_job(struct job *job) {
    int status;
    while (state_of(job) == RUNNING) {
        pid_t pid = waitpid(WAIT_ANY, &status, options[O_MONITOR] ? WUNTRACED : 0);
        if (pid > 0) note(pid, status);
        else if (errno != EINTR) break;
    }
    if (options[O_MONITOR]) {
        tcsetpgrp(terminal, own_group);
        tcsetattr(terminal, TCSADRAIN, &own_modes);
    }
    int result = job_status(job);
    if (state_of(job) == STOPPED) {
        give_number(job);
        job->background = 1;
        job->told = 1;
        fputc('\n', stdout);
        print_job(job, 0);
        fflush(stdout);
        return result;
    }
    if (job->count) print_end(job->processes[job->count - 1].status, job->processes[job->count - 1].pid);
    /* A script that runs in our group would see the ^C as well. */
    if (result == 128 + SIGINT && options[O_INTERACTIVE]) skipping = SKIP_NONE;
    remove_job(job);
    return result;
}

void leave_in_background(struct job *job) {
    give_number(job);
    job->background = 1;
    if (job->count) last_background = job->processes[job->count - 1].pid;
    if (options[O_INTERACTIVE] && !in_subshell) fprintf(stderr, "[%d] %d\n", job->number, last_background);
}

/* Before a prompt: jobs that have ended or stopped. */
void report_jobs(void) {
    reap_without_waiting();
    for (struct job *job = jobs, *next; job; job = next) {
        next = job->next;
        if (!job->background || job->told || state_of(job) == RUNNING) continue;
        print_job(job, 0);
        fflush(stdout);
        job->told = 1;
        if (state_of(job) == DONE) remove_job(job);
    }
}

int wait_pid(pid_t pid) {
    int status;
    for (;;) {
        pid_t got = waitpid(pid, &status, 0);
        if (got == pid) return exit_status(status);
        if (got < 0 && errno != EINTR) return 127;
    }
}

/* The job that "fg" alone means: the last one that stopped, or else the last one. */
static int is_more_current(const struct job *job, const struct job *other) {
    int stopped = state_of(job) == STOPPED, other_stopped = state_of(other) == STOPPED;
    return stopped != other_stopped ? stopped : job->number > other->number;
}

/* %N, %TEXT or a process's number. */
static int is_called(const struct job *job, const char *text) {
    if (*text == '%') {
        if (!job->number) return 0;
        return job->number == atoi(text + 1) || (text[1] > '9' && strncmp(job->text, text + 1, strlen(text + 1)) == 0);
    }
    for (int i = 0; i < job->count; i++)
        if (job->processes[i].pid == atoi(text)) return 1;
    return 0;
}

static struct job *find_job(const char *text, const char *who) {
    struct job *found = NULL;
    int current = !text || strcmp(text, "%%") == 0 || strcmp(text, "%+") == 0 || strcmp(text, "%") == 0;
    for (struct job *job = jobs; job; job = job->next) {
        if (current) {
            if (job->number && state_of(job) != DONE && (!found || is_more_current(job, found))) found = job;
        } else if (is_called(job, text)) {
            found = job;
        }
    }
    if (!found && who) complain("%s: no such job: %s", who, text ? text : "current");
    return found;
}

int jobs_builtin(int argc, char **argv) {
    reap_without_waiting();
    int only_pids = argc > 1 && strcmp(argv[1], "-p") == 0, with_pid = argc > 1 && strcmp(argv[1], "-l") == 0;
    int highest = 0;
    for (struct job *job = jobs; job; job = job->next)
        if (job->number > highest) highest = job->number;
    for (int number = 1; number <= highest; number++)
        for (struct job *job = jobs, *next; job; job = next) {
            next = job->next;
            if (job->number != number) continue;
            if (only_pids) printf("%d\n", job->processes[0].pid);
            else print_job(job, with_pid);
            if (state_of(job) == DONE) remove_job(job);
        }
    return 0;
}

/* Waits for a background job; 128 + n if signal n, which has a trap, comes first. */
static int wait_background(struct job *job) {
    int status;
    while (state_of(job) == RUNNING) {
        pid_t pid = waitpid(WAIT_ANY, &status, options[O_MONITOR] ? WUNTRACED : 0);
        if (pid > 0) {
            note(pid, status);
        } else if (errno == EINTR) {
            int signal = signal_pending();
            if (signal) return 128 + signal;
            if (interrupted) return 128 + SIGINT;
        } else {
            break;
        }
    }
    return job_status(job);
}

int wait_builtin(int argc, char **argv) {
    int result = 0;
    if (argc == 1) {
        for (struct job *job = jobs, *next; job; job = next) {
            next = job->next;
            if (state_of(job) == STOPPED) continue;
            result = wait_background(job);
            if (state_of(job) == RUNNING) return result;
            if (!options[O_INTERACTIVE]) remove_job(job);
            next = jobs == job ? next : next;
        }
        return 0;
    }
    for (int i = 1; i < argc; i++) {
        struct job *job = find_job(argv[i], NULL);
        result = 127;
        if (!job) continue;
        result = wait_background(job);
        if (state_of(job) == DONE) remove_job(job);
    }
    return result;
}

static int resume(struct job *job, int background) {
    for (int i = 0; i < job->count; i++)
        if (job->processes[i].state == STOPPED) job->processes[i].state = RUNNING;
    job->background = background;
    job->told = 0;
    if (!background) tcsetpgrp(terminal, job->group);
    if (kill(-job->group, SIGCONT) < 0) complain("%s", strerror(errno));
    return background ? 0 : wait_job(job);
}

int fg_builtin(int argc, char **argv) {
    struct job *job = options[O_MONITOR] ? find_job(argc > 1 ? argv[1] : NULL, "fg") : NULL;
    if (!job) {
        if (!options[O_MONITOR]) complain("fg: no job control");
        return 1;
    }
    printf("%s\n", job->text);
    fflush(stdout);
    return resume(job, 0);
}

int bg_builtin(int argc, char **argv) {
    struct job *job = options[O_MONITOR] ? find_job(argc > 1 ? argv[1] : NULL, "bg") : NULL;
    if (!job) {
        if (!options[O_MONITOR]) complain("bg: no job control");
        return 1;
    }
    printf("[%d] %s\n", job->number, job->text);
    return resume(job, 1);
}

int kill_builtin(int argc, char **argv) {
    int signal = SIGTERM, i = 1, status = 0;
    if (argc > 1 && strcmp(argv[1], "-l") == 0) {
        for (int s = 1; s < 32; s++) printf("%s%c", sys_signame[s], s % 8 && s < 31 ? ' ' : '\n');
        return 0;
    }
    if (i < argc && argv[i][0] == '-' && argv[i][1] && strcmp(argv[i], "--") != 0) {
        const char *name = argv[i] + 1;
        if (strcmp(name, "s") == 0 && i + 1 < argc) name = argv[++i];
        signal = signal_number(name);
        if (signal < 0) {
            complain("kill: %s: no such signal", name);
            return 2;
        }
        i++;
    }
    if (i < argc && strcmp(argv[i], "--") == 0) i++;
    if (i >= argc) {
        complain("usage: kill [-SIGNAL] pid | %%job ...");
        return 2;
    }
    for (; i < argc; i++) {
        pid_t pid = atoi(argv[i]);
        if (*argv[i] == '%') {
            struct job *job = find_job(argv[i], "kill");
            if (!job) {
                status = 1;
                continue;
            }
            pid = job->group ? -job->group : job->processes[0].pid;
        } else if (pid == 0 && strcmp(argv[i], "0") != 0) {
            complain("kill: %s: not a process id", argv[i]);
            status = 2;
            continue;
        }
        if (kill(pid, signal) < 0) {
            complain("kill: %s: %s", argv[i], strerror(errno));
            status = 1;
        } else if (signal != SIGCONT && *argv[i] == '%' && signal != 0) {
            /* A stopped job must run to notice. */
            if (signal == SIGTERM || signal == SIGHUP) kill(pid, SIGCONT);
        }
    }
    return status;
}
