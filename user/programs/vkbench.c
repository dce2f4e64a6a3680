/*
 * vkbench NAME COUNT [ARG]: carries out an operation COUNT times, between a line "vkbench NAME COUNT begin" and a line "vkbench NAME COUNT
 * end" on the console, where who measures from outside reads the counters. Two runs with different COUNTs and the same ARG differ by nothing
 * but the operations; everything that has to be prepared depends on ARG alone.
 */
#include <check.h>
#include <err.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <workload.h>

enum { PAGE = 4096, LINE = 64 };

static void mark(const char *name, long count, const char *what) {
    printf("vkbench %s %ld %s\n", name, count, what);
    fflush(stdout);
}

static long begin(const char *name, long count) {
    mark(name, count, "begin");
    return count;
}

static void end(const char *name, long count) { mark(name, count, "end"); }

static const struct meter METER = {begin, end};
static const char *own_path;

/* ARG: nothing. */
static void null_call(long count, long argument) {
    (void)argument;
    work_syscall(&METER, count);
}

/*
 * ARG: pages that there are. Between any two is one that must not be touched: so each is an entry of the map by itself, and a fault brings
 * one page and no neighbours.
 */
static void zero_fill(long count, long page_count) {
    if (page_count < count) page_count = count;
    char *pages = get_pages((size_t)page_count * 2);
    for (long i = 0; i < page_count; i++)
        if (mprotect(pages + (2 * i + 1) * PAGE, PAGE, PROT_NONE) < 0) cannot("mprotect");
    begin("zfod", count);
    for (long i = 0; i < count; i++) pages[2 * i * PAGE] = 1;
    end("zfod", count);
}

/* ARG: pages that are shared. */
static void copy_on_write(long count, long pages) { work_cow(&METER, count, pages < count ? count : pages); }

static void fork_exec(long count, long argument) {
    (void)argument;
    work_forkexec(&METER, count, own_path);
}

static void ping_pong(long count, long argument) {
    (void)argument;
    work_pingpong(&METER, count);
}

/* ARG: other processes. On one processor each sched_yield of this one is a switch to another address space and one back. */
static void context_switch(long count, long others) {
    if (others < 1) others = 1;
    pid_t *pids = calloc((size_t)others, sizeof *pids);
    volatile int *running = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANON, -1, 0);
    if (pids == NULL || running == MAP_FAILED) cannot("memory");
    for (long i = 0; i < others; i++) {
        pids[i] = fork();
        if (pids[i] < 0) cannot("fork");
        if (pids[i] > 0) continue;
        __atomic_add_fetch(running, 1, __ATOMIC_SEQ_CST);
        for (;;) sched_yield();
    }
    while (*running < others) sched_yield();
    begin("switch", count);
    for (long i = 0; i < count; i++) sched_yield();
    end("switch", count);
    for (long i = 0; i < others; i++) {
        int status;
        kill(pids[i], SIGKILL);
        if (waitpid(pids[i], &status, 0) < 0) cannot("waitpid");
    }
}

/* ARG: other threads, busy in the same address space. */
static void protect(long count, long others) { work_mprotect(&METER, count, others); }

/*
 * ARG: MiB. Eight pointers in each page, in lines of their own, all in one circle in random order; an operation follows one. (One pointer in
 * each page would be the worst case of any cache that forgets what was not used for longest: all hit, or all miss.)
 */
static void chase(long count, long mib) {
    enum { EACH = 8 };
    long page_count = (mib < 1 ? 1 : mib) << 8, node_count = page_count * EACH;
    char *pages = get_pages((size_t)page_count);
    int *order = malloc((size_t)node_count * sizeof *order);
    if (order == NULL) cannot("malloc");
    uint64_t state = 1;
    for (long i = 0; i < node_count; i++) order[i] = (int)i;
    /* Sattolo's: a random permutation that is a single circle. */
    for (long i = node_count - 1; i > 0; i--) {
        long j = (long)(next_random(&state) % (uint64_t)i);
        int other = order[j];
        order[j] = order[i];
        order[i] = other;
    }
#define PLACE(n) (pages + (n) / EACH * PAGE + ((n) % EACH * EACH + (n) / EACH % EACH) * LINE)
    for (long i = 0; i < node_count; i++) {
        long here = order[i], next = order[(i + 1) % node_count];
        *(char **)PLACE(here) = PLACE(next);
    }
    char *at = PLACE(order[0]);
    for (long i = 0; i < node_count; i++) at = *(char *volatile *)at;
    begin("chase", count);
    for (long i = 0; i < count; i++) at = *(char *volatile *)at;
    end("chase", count);
    if (at == NULL) differs("the circle is open");
}

/*
 * COUNT: how often most of the free memory is used and given back, without marks. Free pages are used in the order in which they became free, so
 * that after two times every page has been used.
 */
static void touch(long count, long argument) {
    (void)argument;
    for (long n = 0; n < count; n++) {
        size_t page_count = (size_t)(kernel_number("vm.stats.vm.v_free_count", 0) * 4 / 5);
        if (page_count == 0) return;
        char *pages = get_pages(page_count);
        for (size_t i = 0; i < page_count; i++) pages[i * PAGE] = 1;
        munmap(pages, page_count * PAGE);
    }
}

static const char BUSYBOX[] = "/bin/busybox";

/* What a small make does for each source: write it, a "compiler" of three passes, a pipeline at the end. */
static const char BUILD[] =
    "cd /tmp; i=0\n"
    "while [ $i -lt $1 ]; do\n"
    "  echo \"int f$i(void) { return $i; }\" > f.c\n"
    "  /bin/busybox sed -e 's/int/long/' f.c > f.i\n"
    "  /bin/busybox awk '{ for (k = 1; k <= NF; k++) n += length($k); print n, $0 }' f.i > f.s\n"
    "  /bin/busybox cat f.c f.i f.s | /bin/busybox sort | /bin/busybox md5sum > f.o\n"
    "  i=$((i + 1))\n"
    "done\n"
    "/bin/busybox rm -f f.c f.i f.s f.o\n";

static void build(long count, long argument) {
    (void)argument;
    if (access(BUSYBOX, X_OK) < 0) {
        puts("vkbench build skipped: there is no /bin/busybox");
        return;
    }
    char times[24];
    snprintf(times, sizeof times, "%ld", count);
    begin("build", count);
    pid_t pid = fork();
    if (pid < 0) cannot("fork");
    if (pid == 0) {
        execl(BUSYBOX, "busybox", "sh", "-c", BUILD, "build", times, NULL);
        _exit(127);
    }
    expect_child(pid);
    end("build", count);
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*run)(long count, long argument);
        long argument;
    } WORK[] = {
        {"syscall", null_call, 0}, {"zfod", zero_fill, 0}, {"cow", copy_on_write, 0}, {"forkexec", fork_exec, 0},
        {"pingpong", ping_pong, 0}, {"switch", context_switch, 1}, {"mprotect", protect, 0}, {"chase", chase, 4},
        {"build", build, 0}, {"touch", touch, 0},
    };
    own_path = strchr(argv[0], '/') ? argv[0] : "/bin/vkbench";
    if (argc == 2 && strcmp(argv[1], "nothing") == 0) return 0;
    if (argc < 3) errx(2, "usage: vkbench NAME COUNT [ARG]");
    for (size_t i = 0; i < sizeof WORK / sizeof *WORK; i++)
        if (strcmp(argv[1], WORK[i].name) == 0) {
            WORK[i].run(argument(argc, argv, 2, 0), argument(argc, argv, 3, WORK[i].argument));
            return !all_right();
        }
    errx(2, "%s: no such work (syscall zfod cow forkexec pingpong switch mprotect chase build touch)", argv[1]);
}
