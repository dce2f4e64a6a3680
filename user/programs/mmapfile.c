/*
 * mmapfile [PAGES]: files mapped shared and private, against read() and write(): who sees whose changes, what truncation
 * takes away, what a child sees, and that a mapping outlives its file's name.
 */
#include <check.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096 };
static long pages;
static char page[PAGE];
static sigjmp_buf caught;
static volatile int signal_seen;
static char path[64];

static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)context, (void)info;
    signal_seen = signal;
    siglongjmp(caught, 1);
}

static char *map(int fd, int protection, int flags) {
    char *at = mmap(NULL, (size_t)pages * PAGE, protection, flags, fd, 0);
    if (at == MAP_FAILED) cannot("mmap");
    return at;
}

static void must_fault(const char *what, volatile char *at, int signal) {
    signal_seen = 0;
    if (sigsetjmp(caught, 1) == 0) (void)*at;
    if (signal_seen != signal) differs("%s: signal %d and not %d", what, signal_seen, signal);
}

int main(int argc, char **argv) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    pages = argument(argc, argv, 1, 16);
    if (pages < 4) return 2;
    snprintf(path, sizeof path, "/tmp/mmapfile.%d", getpid());
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0) cannot(path);
    for (long i = 0; i < pages; i++) {
        fill_page(page, (uint64_t)i);
        if (write(fd, page, PAGE) != PAGE) cannot("write");
    }

    /* What write() wrote, mappings show. */
    char *shared = map(fd, PROT_READ | PROT_WRITE, MAP_SHARED), *other = map(fd, PROT_READ, MAP_SHARED);
    char *private = map(fd, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    for (long i = 0; i < pages; i++) {
        page_is(shared + i * PAGE, (uint64_t)i);
        page_is(other + i * PAGE, (uint64_t)i);
    }

    /* A change of a shared mapping is seen by the other one, by read(), and by a private one that was never written. */
    for (long i = 0; i < pages; i += 2) fill_page(shared + i * PAGE, 1000 + (uint64_t)i);
    for (long i = 0; i < pages; i++) {
        uint64_t seed = i % 2 ? (uint64_t)i : 1000 + (uint64_t)i;
        page_is(other + i * PAGE, seed);
        page_is(private + i * PAGE, seed);
        if (pread(fd, page, PAGE, i * PAGE) != PAGE) differs("pread of page %ld", i);
        page_is(page, seed);
    }

    /* A change of a private mapping is seen by nobody. */
    for (long i = 0; i < pages; i += 3) fill_page(private + i * PAGE, 2000 + (uint64_t)i);
    for (long i = 0; i < pages; i++) {
        page_is(other + i * PAGE, i % 2 ? (uint64_t)i : 1000 + (uint64_t)i);
        page_is(private + i * PAGE, i % 3 == 0 ? 2000 + (uint64_t)i : i % 2 ? (uint64_t)i : 1000 + (uint64_t)i);
    }

    /* write() behind the back of the mappings. */
    fill_page(page, 3000);
    if (pwrite(fd, page, PAGE, PAGE) != PAGE) differs("pwrite");
    page_is(shared + PAGE, 3000);
    page_is(other + PAGE, 3000);
    if (msync(shared, (size_t)pages * PAGE, MS_SYNC) < 0) differs("msync");
    page_is(shared + PAGE, 3000);

    /* A child writes: the shared mapping has it, the private one has not. */
    pid_t child = fork();
    if (child < 0) cannot("fork");
    if (child == 0) {
        fill_page(shared + 2 * PAGE, 4000);
        fill_page(private, 4001);
        _exit(page_is(private, 4001) && page_is(other + 2 * PAGE, 4000) ? 0 : 1);
    }
    expect_child(child);
    page_is(other + 2 * PAGE, 4000);
    page_is(private, 2000);

    /* Read-only is read-only. */
    signal_seen = 0;
    if (sigsetjmp(caught, 1) == 0) *(volatile char *)other = 1;
    if (signal_seen != SIGSEGV && signal_seen != SIGBUS) differs("write into a read-only mapping: signal %d",
        signal_seen);

    /* Truncation takes pages away, the rest of the last page becomes zero, and what comes back is zero. */
    if (ftruncate(fd, PAGE + 100) < 0) differs("ftruncate");
    must_fault("behind the end, shared", shared + 2 * PAGE, SIGBUS);
    must_fault("behind the end, other", other + 3 * PAGE, SIGBUS);
    if (ftruncate(fd, pages * PAGE) < 0) differs("ftruncate");
    for (long k = 100; k < PAGE; k++)
        if (shared[PAGE + k] != 0) {
            differs("byte %ld of the page that was cut is %d", k, shared[PAGE + k]);
            break;
        }
    for (long i = 2; i < pages; i++)
        if (shared[i * PAGE] != 0 || other[i * PAGE + PAGE - 1] != 0) differs("page %ld came back with data", i);

    /* Without a name, and without a descriptor. */
    if (unlink(path) < 0 || close(fd) < 0) differs("unlink or close");
    fill_page(shared + 3 * PAGE, 5000);
    page_is(other + 3 * PAGE, 5000);
    if (munmap(shared, (size_t)pages * PAGE) < 0) differs("munmap");
    page_is(other + 3 * PAGE, 5000);
    must_fault("an unmapped page", shared, SIGSEGV);
    return verdict("%ld pages", pages);
}
