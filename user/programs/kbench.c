/*
 * kbench [-p] [NAME [COUNT]]: what the kernel's operations cost. Each test prints one line: its name, how many operations, the
 * microseconds that they took by the machine's clock, and by how much the kernel's counters grew. With -p a test only prepares:
 * who measures from outside takes the difference.
 */
#include <check.h>
#include <err.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <workload.h>

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

static long start(const char *name, long count) {
    (void)name;
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

static const struct meter METER = {start, stop};
static const char *own_path;

static void null_calls(long count) { work_syscall(&METER, count); }
static void zero_fill(long count) { work_zfod(&METER, count); }
static void copy_on_write(long count) { work_cow(&METER, count, count); }
static void forks(long count) { work_fork(&METER, count); }
static void fork_exec(long count) { work_forkexec(&METER, count, own_path); }
static void switches(long count) { work_pingpong(&METER, count); }
static void map_unmap(long count) { work_mmap(&METER, count); }
/* A thread on each other processor. */
static void protect(long count) { work_mprotect(&METER, count, kernel_number("hw.ncpu", 1) - 1); }

/* More memory than there is, written once; then each page is read again, and must come from the disk. */
static void swap_in(long page_count) {
    if (page_count == 0) page_count = kernel_number("hw.physmem", 16 << 20) / PAGE * 3 / 2;
    char *pages = get_pages((size_t)page_count);
    for (long i = 0; i < page_count; i++) *(long *)(pages + i * PAGE) = i;
    long count = start("swapin", page_count);
    for (long i = 0; i < count; i++)
        if (*(volatile long *)(pages + i * PAGE) != i) differs("page %ld", i);
    stop("swapin", count);
    munmap(pages, (size_t)page_count * PAGE);
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
