/*
 * proctest [PART …]: processes, signals and threads as POSIX and DragonFly's manual pages have them. Parts: fork signals faults
 * stop threads exec limits family slices. Prints each part's verdict; the exit status says whether all were right.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sysctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int failures;
#define CHECK(condition)                                                              \
    do {                                                                              \
        if (!(condition)) {                                                           \
            printf("line %d: not so: %s (errno %d)\n", __LINE__, #condition, errno); \
            failures++;                                                               \
        }                                                                             \
    } while (0)

/* What the last handler was told. */
static volatile struct {
    int signal, code, pid, status;
    void *address, *stack;
} seen;

static void handler(int signal) {
    char here;
    seen.signal = signal;
    *(volatile uintptr_t *)&seen.stack = (uintptr_t)&here;
}

static void info_handler(int signal, siginfo_t *info, void *context) {
    (void)context;
    seen.signal = signal;
    seen.code = info->si_code;
    seen.pid = info->si_pid;
    seen.status = info->si_status;
    seen.address = info->si_addr;
}

static void catch(int signal, void (*function)(int, siginfo_t *, void *), int flags) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = function;
    action.sa_flags = SA_SIGINFO | flags;
    CHECK(sigaction(signal, &action, NULL) == 0);
}

static void alarm_in(int milliseconds) {
    struct itimerval timer = {{0, 0}, {0, milliseconds * 1000}};
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
}

static int status_of(pid_t pid) {
    int status = -1;
    CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}

static volatile int value = 1;

static void test_fork(void) {
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        value = 2;
        _exit(value == 2 ? 7 : 8);
    }
    status = status_of(pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    CHECK(value == 1);
    CHECK(wait(&status) == -1 && errno == ECHILD);

    pid = fork();
    if (pid == 0)
        for (;;) pause();
    CHECK(waitpid(pid, &status, WNOHANG) == 0);
    CHECK(kill(pid, SIGTERM) == 0);
    status = status_of(pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    CHECK(kill(pid, 0) == -1 && errno == ESRCH);

    pid = vfork();
    if (pid == 0) {
        value = 5;
        _exit(3);
    }
    CHECK(value == 5);
    CHECK(WEXITSTATUS(status_of(pid)) == 3);
    value = 1;
}

static void test_signals(void) {
    sigset_t set, old, pending;
    int status;
    catch(SIGUSR1, info_handler, 0);
    seen.signal = 0;
    CHECK(kill(getpid(), SIGUSR1) == 0);
    CHECK(seen.signal == SIGUSR1 && seen.pid == getpid() && seen.code == SI_USER);

    /* Blocked, it waits; unblocked, it comes at once. */
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    seen.signal = 0;
    CHECK(sigprocmask(SIG_BLOCK, &set, &old) == 0);
    kill(getpid(), SIGUSR1);
    CHECK(seen.signal == 0);
    CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1));
    sigprocmask(SIG_SETMASK, &old, NULL);
    CHECK(seen.signal == SIGUSR1);

    signal(SIGUSR2, handler);
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    CHECK(sigaction(SIGKILL, &action, NULL) == -1 && errno == EINVAL);
    CHECK(sigaction(0, &action, NULL) == -1 && errno == EINVAL);
    CHECK(kill(getpid(), 200) == -1 && errno == EINVAL);

    /* SSE registers come through a handler that uses them. */
    volatile double quarter = 0.25;
    double kept = quarter * 5;
    kill(getpid(), SIGUSR1);
    CHECK(kept == 1.25);

    catch(SIGALRM, info_handler, 0);
    seen.signal = 0;
    alarm_in(30);
    pause();
    CHECK(seen.signal == SIGALRM);
    catch(SIGALRM, info_handler, SA_RESTART);
    alarm_in(20);
    struct timespec second = {1, 0}, left;
    CHECK(nanosleep(&second, &left) == -1 && errno == EINTR);
    CHECK(left.tv_sec == 0 && left.tv_nsec > 500000000);

    catch(SIGCHLD, info_handler, SA_RESTART);
    seen.signal = 0;
    pid_t pid = fork();
    if (pid == 0) _exit(9);
    CHECK(WEXITSTATUS(status_of(pid)) == 9);
    CHECK(seen.signal == SIGCHLD && seen.pid == pid && seen.status == 9 && seen.code == 1);
    signal(SIGCHLD, SIG_DFL);

    /* wait4 goes on after a handler with SA_RESTART, and ends without it. */
    pid = fork();
    if (pid == 0) {
        usleep(60000);
        _exit(1);
    }
    alarm_in(20);
    seen.signal = 0;
    CHECK(WEXITSTATUS(status_of(pid)) == 1);
    CHECK(seen.signal == SIGALRM);
    catch(SIGALRM, info_handler, 0);
    pid = fork();
    if (pid == 0) {
        usleep(60000);
        _exit(1);
    }
    alarm_in(20);
    CHECK(waitpid(pid, &status, 0) == -1 && errno == EINTR);
    CHECK(WEXITSTATUS(status_of(pid)) == 1);

    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, &old);
    kill(getpid(), SIGUSR2);
    seen.signal = 0;
    CHECK(sigsuspend(&old) == -1 && errno == EINTR);
    CHECK(seen.signal == SIGUSR2);
    sigprocmask(SIG_SETMASK, &old, NULL);
    signal(SIGUSR2, SIG_IGN);
    kill(getpid(), SIGUSR2);
    signal(SIGUSR2, SIG_DFL);
}

static sigjmp_buf escape;

static void escape_handler(int signal, siginfo_t *info, void *context) {
    info_handler(signal, info, context);
    siglongjmp(escape, 1);
}

static void mending_handler(int signal, siginfo_t *info, void *context) {
    info_handler(signal, info, context);
    mprotect((void *)((uintptr_t)info->si_addr & ~(uintptr_t)4095), 4096, PROT_READ | PROT_WRITE);
}

static int deep(int n) {
    volatile char local[1024];
    local[0] = (char)n;
    return n == 0 ? 0 : deep(n - 1) + local[0];
}

static char alternate[16384];

static void test_faults(void) {
    catch(SIGSEGV, escape_handler, 0);
    if (sigsetjmp(escape, 1) == 0) {
        *(volatile int *)0x1234 = 1;
        CHECK(!"the store went through");
    }
    CHECK(seen.address == (void *)0x1234 && seen.code == SEGV_MAPERR);

    char *memory = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE | MAP_ANON, -1, 0);
    CHECK(memory != MAP_FAILED);
    catch(SIGSEGV, mending_handler, 0);
    memory[5000] = 7;
    CHECK(memory[5000] == 7 && seen.address == memory + 5000 && seen.code == SEGV_ACCERR);
    munmap(memory, 8192);
    signal(SIGSEGV, SIG_DFL);

    stack_t stack = {alternate, sizeof alternate, 0};
    CHECK(sigaltstack(&stack, NULL) == 0);
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = SA_ONSTACK;
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    kill(getpid(), SIGUSR1);
    CHECK((char *)seen.stack > alternate && (char *)seen.stack < alternate + sizeof alternate);
    deep(1000);

    pid_t pid = fork();
    if (pid == 0) {
        *(volatile int *)16 = 1;
        _exit(0);
    }
    int status = status_of(pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    /* A fault whose signal is blocked or ignored ends the program all the same. */
    pid = fork();
    if (pid == 0) {
        signal(SIGSEGV, SIG_IGN);
        *(volatile int *)16 = 1;
        _exit(0);
    }
    status = status_of(pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

static void test_stop(void) {
    int status;
    pid_t pid = fork();
    if (pid == 0)
        for (;;) pause();
    usleep(20000);
    for (int round = 0; round < 2; round++) {
        CHECK(kill(pid, SIGSTOP) == 0);
        CHECK(waitpid(pid, &status, WUNTRACED) == pid);
        CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
        if (round == 0) {
            CHECK(kill(pid, SIGCONT) == 0);
            CHECK(waitpid(pid, &status, WNOHANG) == 0);
        }
    }
    CHECK(kill(pid, SIGKILL) == 0);
    status = status_of(pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);

    /* One that never enters the kernel by itself. */
    pid = fork();
    if (pid == 0)
        for (;;) value++;
    usleep(20000);
    CHECK(kill(pid, SIGSTOP) == 0);
    CHECK(waitpid(pid, &status, WUNTRACED) == pid);
    kill(pid, SIGKILL);
    status_of(pid);
}

static volatile int counter;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void *count(void *argument) {
    for (int i = 0; i < 500; i++) {
        pthread_mutex_lock(&mutex);
        counter++;
        pthread_mutex_unlock(&mutex);
    }
    return argument;
}

static void *sleep_on(void *argument) {
    for (;;) pause();
    return argument;
}

static void test_threads(void) {
    pthread_t threads[4];
    counter = 0;
    for (long i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, count, (void *)i) == 0);
    for (long i = 0; i < 4; i++) {
        void *result;
        CHECK(pthread_join(threads[i], &result) == 0 && result == (void *)i);
    }
    CHECK(counter == 2000);
    /* The end of a process, and an exec, end its other threads wherever they sleep. */
    pid_t pid = fork();
    if (pid == 0) {
        pthread_create(&threads[0], NULL, sleep_on, NULL);
        pthread_create(&threads[1], NULL, sleep_on, NULL);
        usleep(10000);
        _exit(5);
    }
    CHECK(WEXITSTATUS(status_of(pid)) == 5);
    pid = fork();
    if (pid == 0) {
        pthread_create(&threads[0], NULL, sleep_on, NULL);
        usleep(10000);
        execl("/bin/proctest", "proctest", "answer", NULL);
        _exit(6);
    }
    CHECK(WEXITSTATUS(status_of(pid)) == 44);
}

static void test_exec(void) {
    char *arguments[] = {"proctest", "answer", NULL}, *none[] = {NULL};
    char *const *wild = (char *const *)strtoul("8", NULL, 0);
    pid_t pid = fork();
    if (pid == 0) {
        execve("/bin/proctest", arguments, none);
        _exit(1);
    }
    CHECK(WEXITSTATUS(status_of(pid)) == 44);
    CHECK(execve("/bin/nothing", arguments, none) == -1 && errno == ENOENT);
    CHECK(execve("/bin", arguments, none) == -1 && errno == EACCES);
    CHECK(execve((char *)wild, arguments, none) == -1 && errno == EFAULT);
    CHECK(execve("/bin/proctest", wild, none) == -1 && errno == EFAULT);
    pid = vfork();
    if (pid == 0) {
        execve("/bin/proctest", arguments, none);
        _exit(1);
    }
    CHECK(WEXITSTATUS(status_of(pid)) == 44);
}

static void test_limits(void) {
    struct rusage usage;
    CHECK(getrusage(RUSAGE_SELF, &usage) == 0 && usage.ru_maxrss > 0);
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_STACK, &limit) == 0 && limit.rlim_cur > 0);
    CHECK(getrlimit(99, &limit) == -1 && errno == EINVAL);
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    usleep(20000);
    clock_gettime(CLOCK_MONOTONIC, &after);
    long slept = (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000;
    CHECK(slept >= 20 && slept < 200);
}

static void test_family(void) {
    int status, ends[2], parent = 0, children = 0;
    CHECK(getpgid(0) == getpgrp());
    pid_t pid = fork();
    if (pid == 0) {
        CHECK(setpgid(0, 0) == 0 && getpgrp() == getpid());
        CHECK(setsid() == -1 && errno == EPERM);
        _exit(failures);
    }
    CHECK(WEXITSTATUS(status_of(pid)) == 0);
    pid = fork();
    if (pid == 0) {
        CHECK(setsid() == getpid() && getsid(0) == getpid());
        _exit(failures);
    }
    CHECK(WEXITSTATUS(status_of(pid)) == 0);

    CHECK(pipe(ends) == 0);
    pid = fork();
    if (pid == 0) {
        if (fork() == 0) {
            usleep(30000);
            parent = getppid();
            write(ends[1], &parent, sizeof parent);
        }
        _exit(0);
    }
    status_of(pid);
    CHECK(read(ends[0], &parent, sizeof parent) == sizeof parent && parent == 1);
    close(ends[0]);
    close(ends[1]);

    for (int i = 0; i < 20; i++) {
        pid = fork();
        if (pid == 0) {
            for (int turns = 0; turns < 20000; turns++) value++;
            _exit(0);
        }
    }
    while (wait(&status) > 0) children++;
    CHECK(children == 20);
}

/* Children that only compute share the processors: none starves, and a nice one gets less. */
static void test_slices(void) {
    volatile long *turns = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANON, -1, 0);
    pid_t children[3];
    CHECK(turns != MAP_FAILED);
    for (int i = 0; i < 3; i++) {
        children[i] = fork();
        if (children[i] != 0) continue;
        if (i == 2) setpriority(PRIO_PROCESS, 0, 20);
        for (;;) turns[i * 8]++;
    }
    usleep(900000);
    for (int i = 0; i < 3; i++) {
        kill(children[i], SIGKILL);
        status_of(children[i]);
    }
    CHECK(turns[0] > 0 && turns[8] > 0 && turns[16] > 0);
    CHECK(turns[0] < turns[8] * 3 && turns[8] < turns[0] * 3);
    int processors = 1;
    size_t size = sizeof processors;
    sysctlbyname("hw.ncpu", &processors, &size, NULL, 0);
    if (processors == 1) CHECK(turns[16] < turns[0] && turns[16] < turns[8]);
    munmap((void *)turns, 4096);
}

static const struct {
    const char *name;
    void (*run)(void);
} parts[] = {
    {"fork", test_fork}, {"signals", test_signals}, {"faults", test_faults},
    {"stop", test_stop}, {"threads", test_threads}, {"exec", test_exec},
    {"limits", test_limits}, {"family", test_family}, {"slices", test_slices},
};

static int wanted(const char *name, int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], name)) return 1;
    return argc < 2;
}

int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "answer")) return 44;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (!wanted(parts[i].name, argc, argv)) continue;
        int before = failures;
        parts[i].run();
        printf("%s: %s\n", parts[i].name, failures == before ? "ok" : "WRONG");
        fflush(stdout);
    }
    return failures != 0;
}
