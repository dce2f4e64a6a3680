/*
 * kbench [-p] [NAME [COUNT]]: what the kernel's operations cost. Each test prints one line: its name, how many operations, the
 * microseconds that they took by the machine's clock, and by how much the kernel's counters grew. With -p a test only prepares:
 * who measures from outside takes the difference.
 */
#include <check.h>
#include <err.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096 };

static const char *const COUNTERS[] = {
    "sys.v_syscall", "sys.v_trap", "sys.v_swtch", "sys.v_ipi", "vm.v_vm_faults", "vm.v_zfod", "vm.v_cow_faults",
    "vm.v_cow_optim", "vm.v_swapin", "vm.v_swappgsin", "vm.v_swappgsout", "vm.v_vnodepgsin", "vm.v_forks",
        "vm.v_tfree",
};
enum { COUNTER_COUNT = sizeof COUNTERS / sizeof *COUNTERS };

static long before[COUNTER_COUNT];
static struct timespec start_time;

static long counter(int i) {
    char name[64];
    snprintf(name, sizeof name, "vm.stats.%s", COUNTERS[i]);
    return kernel_number(name, 0);
}

static int prepare_only;

/* Gives how often the operation is to be carried out. */
static long start(long count) {
    for (int i = 0; i < COUNTER_COUNT; i++) before[i] = counter(i);
    clock_gettime(CLOCK_MONOTONIC, &start_time);
    return prepare_only ? 0 : count;
}

static void stop(const char *name, long operations) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    long microseconds = (now.tv_sec - start_time.tv_sec) * 1000000 + (now.tv_nsec - start_time.tv_nsec) / 1000;
    printf("%s operations=%ld microseconds=%ld", name, operations, microseconds);
    for (int i = 0; i < COUNTER_COUNT; i++) {
        long grown = counter(i) - before[i];
        if (grown > 0) printf(" %s=%ld", strchr(COUNTERS[i], '.') + 1, grown);
    }
    putchar('\n');
    fflush(stdout);
}

/* A system call that does nothing: getppid's. */
static void null_calls(long count) {
    count = start(count);
    for (long i = 0; i < count; i++) syscall6(SYS_getppid, 0, 0, 0, 0, 0, 0);
    stop("syscall", count);
}

static void zero_fill(long page_count) {
    char *pages = get_pages((size_t)page_count);
    long count = start(page_count);
    for (long i = 0; i < count; i++) pages[i * PAGE] = 1;
    stop("zfod", count);
    munmap(pages, (size_t)page_count * PAGE);
}

/* The child writes what it shares with its parent. */
static void copy_on_write(long count) {
    char *pages = get_pages((size_t)count);
    for (long i = 0; i < count; i++) pages[i * PAGE] = 1;
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0) cannot("fork");
    if (pid == 0) {
        count = start(count);
        for (long i = 0; i < count; i++) pages[i * PAGE] = 2;
        stop("cow", count);
        _exit(0);
    }
    expect_child(pid);
    munmap(pages, (size_t)count * PAGE);
}

/* The child ends at once. */
static void forks(long count) {
    count = start(count);
    for (long i = 0; i < count; i++) {
        pid_t pid = fork();
        if (pid < 0) cannot("fork");
        if (pid == 0) _exit(0);
        expect_child(pid);
    }
    stop("fork", count);
}

static const char *own_path;

static void fork_exec(long count) {
    count = start(count);
    for (long i = 0; i < count; i++) {
        pid_t pid = fork();
        if (pid < 0) cannot("fork");
        if (pid == 0) {
            execl(own_path, "kbench", "nothing", NULL);
            _exit(127);
        }
        expect_child(pid);
    }
    stop("forkexec", count);
}

/* Two processes hand one byte to and fro: two switches an operation. */
static void switches(long count) {
    int there[2], back[2];
    char byte = 0;
    if (pipe(there) < 0 || pipe(back) < 0) cannot("pipe");
    pid_t pid = fork();
    if (pid < 0) cannot("fork");
    if (pid == 0) {
        close(there[1]);
        while (read(there[0], &byte, 1) == 1)
            if (write(back[1], &byte, 1) != 1) _exit(1);
        _exit(0);
    }
    count = start(count);
    for (long i = 0; i < count; i++)
        if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) cannot("pipe");
    stop("pingpong", count);
    close(there[1]);
    expect_child(pid);
    close(there[0]);
    close(back[0]);
    close(back[1]);
}

static void map_unmap(long count) {
    count = start(count);
    for (long i = 0; i < count; i++) {
        char *pages = get_pages(4);
        pages[0] = 1;
        munmap(pages, 4 * PAGE);
    }
    stop("mmap", count);
}

/* More memory than there is, written once; then each page is read again, and must come from the disk. */
static void swap_in(long page_count) {
    if (page_count == 0) page_count = kernel_number("hw.physmem", 16 << 20) / PAGE * 3 / 2;
    char *pages = get_pages((size_t)page_count);
    for (long i = 0; i < page_count; i++) *(long *)(pages + i * PAGE) = i;
    long count = start(page_count);
    for (long i = 0; i < count; i++)
        if (*(volatile long *)(pages + i * PAGE) != i) differs("page %ld", i);
    stop("swapin", count);
    munmap(pages, (size_t)page_count * PAGE);
}

enum { THREADS_MOST = 16 };
static volatile int ready, finish;

static void *look(void *argument) {
    (void)argument;
    __atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
    while (!finish) continue;
    return NULL;
}

/* A page loses and gets back its right to be written, and is written, while a thread runs in the address space on each other CPU. */
static void protect(long count) {
    pthread_t threads[THREADS_MOST];
    long others = kernel_number("hw.ncpu", 1) - 1;
    if (others > THREADS_MOST) others = THREADS_MOST;
    volatile char *page = get_pages(1);
    *page = 1;
    for (long i = 0; i < others; i++)
        if (pthread_create(&threads[i], NULL, look, NULL) != 0) errx(1, "there is no thread");
    while (ready < others) sched_yield();
    count = start(count);
    for (long i = 0; i < count; i++) {
        if (mprotect((void *)page, PAGE, PROT_READ) < 0) cannot("mprotect");
        if (mprotect((void *)page, PAGE, PROT_READ | PROT_WRITE) < 0) cannot("mprotect");
        *page = 2;
    }
    stop("mprotect", count);
    finish = 1;
    for (long i = 0; i < others; i++) pthread_join(threads[i], NULL);
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*run)(long count);
        long count;
    } TESTS[] = {
        {"syscall", null_calls, 20000}, {"zfod", zero_fill, 1000}, {"cow", copy_on_write, 1000}, {"fork", forks, 100},
        {"forkexec", fork_exec, 50}, {"pingpong", switches, 2000}, {"mmap", map_unmap, 1000},
        {"mprotect", protect, 200}, {"swapin", swap_in, 0},
    };
    enum { COUNT = sizeof TESTS / sizeof *TESTS };
    own_path = strchr(argv[0], '/') ? argv[0] : "/bin/kbench";
    if (argc > 1 && strcmp(argv[1], "-p") == 0) {
        prepare_only = 1;
        argc--;
        argv++;
    }
    if (argc > 1 && strcmp(argv[1], "nothing") == 0) return 0;
    if (argc > 1 && strcmp(argv[1], "all") != 0) {
        for (int i = 0; i < COUNT; i++)
            if (strcmp(argv[1], TESTS[i].name) == 0) {
                TESTS[i].run(argument(argc, argv, 2, TESTS[i].count));
                return !all_right();
            }
        errx(2, "%s: no such test (syscall zfod cow fork forkexec pingpong mmap mprotect swapin)", argv[1]);
    }
    /* Swapping is for those who ask: without a disk it would be the end of somebody. */
    for (int i = 0; i < COUNT - 1; i++) TESTS[i].run(TESTS[i].count);
    return !all_right();
}
