/* Small commands: names and numbers, running other commands, the machine's end. */
#include <ctype.h>
#include <err.h>
#include <errno.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/sysctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "toolbox.h"

int true_main(int argc, char **argv) { return (void)argc, (void)argv, 0; }
int false_main(int argc, char **argv) { return (void)argc, (void)argv, 1; }

int echo_main(int argc, char **argv) {
    int first = argc > 1 && strcmp(argv[1], "-n") == 0 ? 2 : 1;
    for (int i = first; i < argc; i++) printf("%s%s", argv[i], i + 1 < argc ? " " : "");
    if (first == 1) putchar('\n');
    return 0;
}

int basename_main(int argc, char **argv) {
    if (argc < 2) usage("PATH [SUFFIX]");
    char *name = basename(argv[1]);
    size_t length = strlen(name), cut = argc > 2 ? strlen(argv[2]) : 0;
    if (cut && cut < length && strcmp(name + length - cut, argv[2]) == 0) length -= cut;
    printf("%.*s\n", (int)length, name);
    return 0;
}

int dirname_main(int argc, char **argv) {
    if (argc != 2) usage("PATH");
    puts(dirname(argv[1]));
    return 0;
}

int pwd_main(int argc, char **argv) {
    char path[1024];
    (void)argc, (void)argv;
    if (!getcwd(path, sizeof path)) err(1, "getcwd");
    puts(path);
    return 0;
}

int tty_main(int argc, char **argv) {
    const char *name = ttyname(0);
    (void)argc, (void)argv;
    puts(name ? name : "not a tty");
    return !name;
}

int sleep_main(int argc, char **argv) {
    if (argc != 2) usage("SECONDS");
    double seconds = atof(argv[1]);
    struct timespec wanted = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    while (nanosleep(&wanted, &wanted) < 0)
        if (errno != EINTR) err(1, "nanosleep");
    return 0;
}

int sync_main(int argc, char **argv) {
    (void)argc, (void)argv;
    sync();
    return 0;
}

int reboot_main(int argc, char **argv) {
    (void)argc, (void)argv;
    sync();
    if (reboot(RB_AUTOBOOT) < 0) err(1, "reboot");
    return 0;
}

int poweroff_main(int argc, char **argv) {
    (void)argc, (void)argv;
    sync();
    if (reboot(RB_POWEROFF | RB_HALT) < 0) err(1, "reboot");
    return 0;
}

int hostname_main(int argc, char **argv) {
    char name[256];
    if (argc > 1) {
        if (sysctlbyname("kern.hostname", NULL, NULL, argv[1], strlen(argv[1])) < 0) err(1, "kern.hostname");
        return 0;
    }
    if (gethostname(name, sizeof name) < 0) err(1, "kern.hostname");
    puts(name);
    return 0;
}

int uname_main(int argc, char **argv) {
    struct utsname names;
    const char *letters = "s";
    int some = 0;
    if (argc > 1 && argv[1][0] == '-') letters = argv[1] + 1;
    if (strchr(letters, 'a')) letters = "snrvm";
    if (uname(&names) < 0) err(1, "uname");
    for (const char *order = "snrvmp"; *order; order++) {
        if (!strchr(letters, *order)) continue;
        const char *text = *order == 's'   ? names.sysname
                           : *order == 'n' ? names.nodename
                           : *order == 'r' ? names.release
                           : *order == 'v' ? names.version
                                           : names.machine;
        printf(some++ ? " %s" : "%s", text);
    }
    if (!some) usage("[-amnprsv]");
    putchar('\n');
    return 0;
}

int id_main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "-u") == 0) printf("%u\n", geteuid());
    else if (argc > 1 && strcmp(argv[1], "-g") == 0) printf("%u\n", getegid());
    else printf("uid=%u gid=%u euid=%u egid=%u\n", getuid(), getgid(), geteuid(), getegid());
    return 0;
}

int date_main(int argc, char **argv) {
    char text[256];
    time_t now = time(NULL);
    const char *format = "%a %b %e %H:%M:%S %Z %Y";
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] == '+') format = argv[i] + 1;
        else if (strcmp(argv[i], "-r") == 0 && i + 1 < argc) now = atol(argv[++i]);
        else if (strcmp(argv[i], "-u") != 0) usage("[-u] [-r SECONDS] [+FORMAT]");
    }
    strftime(text, sizeof text, format, localtime(&now));
    puts(text);
    return 0;
}

static void run_command(char **argv) {
    execvp(argv[0], argv);
    int status = errno == ENOENT ? 127 : 126;
    err(status, "%s", argv[0]);
}

int env_main(int argc, char **argv) {
    int i = 1;
    static char *nothing[] = {NULL};
    for (; i < argc && argv[i][0] == '-'; i++) {
        if (strcmp(argv[i], "-i") == 0 || strcmp(argv[i], "-") == 0) environ = nothing;
        else if (strcmp(argv[i], "-u") == 0 && i + 1 < argc) unsetenv(argv[++i]);
        else usage("[-i] [-u NAME] [NAME=VALUE ...] [COMMAND ...]");
    }
    for (; i < argc && strchr(argv[i], '='); i++) putenv(argv[i]);
    if (i < argc) run_command(argv + i);
    for (char **e = environ; *e; e++) puts(*e);
    return 0;
}

int printenv_main(int argc, char **argv) {
    if (argc < 2) return env_main(1, argv);
    char *value = getenv(argv[1]);
    if (value) puts(value);
    return !value;
}

int nice_main(int argc, char **argv) {
    int increment = 10, i = 1;
    if (argc > 2 && strcmp(argv[1], "-n") == 0) increment = atoi(argv[2]), i = 3;
    if (i >= argc) {
        printf("%d\n", getpriority(PRIO_PROCESS, 0));
        return 0;
    }
    errno = 0;
    if (nice(increment) == -1 && errno) warn("nice");
    run_command(argv + i);
    return 126;
}

int nohup_main(int argc, char **argv) {
    if (argc < 2) usage("COMMAND ...");
    signal(SIGHUP, SIG_IGN);
    run_command(argv + 1);
    return 126;
}

static void print_time(const char *name, long microseconds) {
    fprintf(stderr, "%-5s %ld.%03ld\n", name, microseconds / 1000000, microseconds / 1000 % 1000);
}

int time_main(int argc, char **argv) {
    struct timespec start, end;
    struct rusage usage_of_child;
    int status, detailed = argc > 1 && strcmp(argv[1], "-l") == 0;
    if (argc - detailed < 2) usage("[-l] COMMAND ...");
    clock_gettime(CLOCK_MONOTONIC, &start);
    pid_t pid = fork();
    if (pid < 0) err(1, "fork");
    if (pid == 0) run_command(argv + 1 + detailed);
    signal(SIGINT, SIG_IGN);
    while (wait4(pid, &status, 0, &usage_of_child) < 0)
        if (errno != EINTR) err(1, "wait");
    clock_gettime(CLOCK_MONOTONIC, &end);
    print_time("real", (end.tv_sec - start.tv_sec) * 1000000 + (end.tv_nsec - start.tv_nsec) / 1000);
    print_time("user", usage_of_child.ru_utime.tv_sec * 1000000 + usage_of_child.ru_utime.tv_usec);
    print_time("sys", usage_of_child.ru_stime.tv_sec * 1000000 + usage_of_child.ru_stime.tv_usec);
    if (detailed) {
        const struct rusage *u = &usage_of_child;
        fprintf(stderr, "%10ld maximum resident KiB\n%10ld page reclaims\n%10ld page faults\n%10ld swaps\n",
            u->ru_maxrss,
                u->ru_minflt, u->ru_majflt, u->ru_nswap);
        fprintf(stderr, "%10ld signals received\n%10ld voluntary context switches\n%10ld involuntary context switches\n",
                u->ru_nsignals, u->ru_nvcsw, u->ru_nivcsw);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int kill_main(int argc, char **argv) {
    int number = SIGTERM, i = 1, status = 0;
    if (argc > 1 && strcmp(argv[1], "-l") == 0) {
        for (int s = 1; s < 32; s++) printf("%2d %s\n", s, sys_signame[s]);
        return 0;
    }
    if (i < argc && argv[i][0] == '-') {
        const char *name = argv[i] + 1;
        if (strcmp(name, "s") == 0 && i + 1 < argc) name = argv[++i];
        if (strncasecmp(name, "SIG", 3) == 0) name += 3;
        number = -1;
        for (int s = 0; s < 32; s++)
            if (isdigit((unsigned char)*name) ? atoi(name) == s : s && strcasecmp(name, sys_signame[s]) == 0) number = s;
        if (number < 0) errx(2, "%s: no such signal", name);
        i++;
    }
    if (i >= argc) usage("[-SIGNAL] PID ...");
    for (; i < argc; i++)
        if (kill(atoi(argv[i]), number) < 0) warn("%s", argv[i]), status = 1;
    return status;
}

int which_main(int argc, char **argv) {
    int status = 0;
    if (argc < 2) usage("COMMAND ...");
    for (int i = 1; i < argc; i++) {
        const char *path = getenv("PATH");
        int found = 0;
        for (path = path ? path : "/bin"; !found;) {
            size_t length = strcspn(path, ":");
            char *folder = strndup(path, length), *full = join_path(folder, argv[i]);
            struct stat st;
            if (access(full, X_OK) == 0 && stat(full, &st) == 0 && S_ISREG(st.st_mode)) puts(full), found = 1;
            free(folder);
            free(full);
            if (!path[length]) break;
            path += length + 1;
        }
        if (!found) status = 1;
    }
    return status;
}

int xargs_main(int argc, char **argv) {
    int most = 64, first = 1, status = 0;
    if (argc > 2 && strcmp(argv[1], "-n") == 0) most = atoi(argv[2]), first = 3;
    static char *echo[] = {"echo"};
    char **command = first < argc ? argv + first : echo, word[1024];
    int fixed = first < argc ? argc - first : 1, count = 0;
    if (most < 1) usage("[-n COUNT] [COMMAND ...]");
    char **words = calloc((size_t)(fixed + most + 1), sizeof *words);
    memcpy(words, command, (size_t)fixed * sizeof *words);
    for (int more = 1; more;) {
        more = scanf("%1023s", word) == 1;
        if (more) words[fixed + count++] = strdup(word);
        if (count == 0 || (more && count < most)) continue;
        words[fixed + count] = NULL;
        fflush(stdout);
        pid_t pid = fork();
        int one = 1;
        if (pid == 0) run_command(words);
        if (pid > 0) waitpid(pid, &one, 0);
        if (one) status = 123;
        while (count > 0) free(words[fixed + --count]);
    }
    return status;
}

/* expr: | & comparisons + - * / % and ( ), each an argument of its own; STRING : REGEX. */
static char **at;

static char *number_text(long n) {
    char text[32];
    snprintf(text, sizeof text, "%ld", n);
    return strdup(text);
}

static long number_of(const char *s) {
    char *end;
    long n = strtol(s, &end, 10);
    if (*end || end == s) errx(2, "%s is not a number", s);
    return n;
}

static char *expression(int level) {
    static const char *const OPERATORS[6][6] = {
        {"|"}, {"&"}, {"=", "!=", "<", "<=", ">", ">="}, {"+", "-"}, {"*", "/", "%"}, {":"}};
    if (level == 6) {
        if (!*at) errx(2, "syntax error");
        if (strcmp(*at, "(") != 0) return *at++;
        at++;
        char *value = expression(0);
        if (!*at || strcmp(*at, ")") != 0) errx(2, "syntax error");
        at++;
        return value;
    }
    char *left = expression(level + 1);
    for (;;) {
        int which = -1;
        for (int i = 0; *at && i < 6 && OPERATORS[level][i]; i++)
            if (strcmp(*at, OPERATORS[level][i]) == 0) which = i;
        if (which < 0) return left;
        at++;
        char *right = expression(level + 1);
        int left_true = *left && strcmp(left, "0") != 0, right_true = *right && strcmp(right, "0") != 0;
        if (level == 0) left = left_true ? left : right;
        else if (level == 1) left = left_true && right_true ? left : "0";
        else if (level == 2) {
            char *e1, *e2;
            long a = strtol(left, &e1, 10), b = strtol(right, &e2, 10);
            int order = *e1 || *e2 || e1 == left || e2 == right ? strcmp(left, right) : a < b ? -1 : a > b;
            const int results[6] = {order == 0, order != 0, order < 0, order <= 0, order > 0, order >= 0};
            left = results[which] ? "1" : "0";
        } else if (level == 3) {
            left = number_text(which ? number_of(left) - number_of(right) : number_of(left) + number_of(right));
        } else if (level == 4) {
            long a = number_of(left), b = number_of(right);
            if (which && b == 0) errx(2, "division by zero");
            left = number_text(which == 0 ? a * b : which == 1 ? a / b : a % b);
        } else {
            struct span spans[10];
            int found = regex_search(regex_compile(right, 0), left, 1, spans) && spans[0].from == left;
            size_t length = found && spans[1].from ? (size_t)(spans[1].to - spans[1].from) : 0;
            if (strstr(right, "\\(")) left = length ? strndup(spans[1].from, length) : "";
            else left = number_text(found ? spans[0].to - spans[0].from : 0);
        }
    }
}

int expr_main(int argc, char **argv) {
    if (argc < 2) usage("EXPRESSION");
    at = argv + 1;
    char *value = expression(0);
    if (*at) errx(2, "syntax error");
    puts(value);
    return !*value || strcmp(value, "0") == 0;
}
