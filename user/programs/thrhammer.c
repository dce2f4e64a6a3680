/*
 * thrhammer [THREADS [PAGES [ROUNDS]]]: threads count in the pages of a window while another thread keeps remapping the
 * window's pages to other pages of the file, takes write permission away and gives it back. Each counter's upper half says
 * whose it is: a write through a translation that has been revoked lands where it is missed or where it is too much.
 */
#include <check.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, THREADS_MOST = 16, PAGES_MOST = 64 };

static long threads, pages, rounds;
static char *window, *whole;
static int fd;
static volatile int stop;
/* Rises while the threads count. */
static volatile long progress;
static volatile long faults, remaps;
/* What each thread has counted in each page of the file. */
static uint32_t counted[THREADS_MOST][PAGES_MOST];

/* The page is being remapped, or is read-only just now: the access is tried again. */
static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)context;
    char *at = info->si_addr;
    if (at < window || at >= window + pages * PAGE) {
        static const char TEXT[] = "thrhammer: a fault outside the window\n";
        write(1, TEXT, sizeof TEXT - 1);
        _exit(100 + signal);
    }
    __atomic_add_fetch(&faults, 1, __ATOMIC_RELAXED);
    sched_yield();
}

static uint64_t *counter(char *base, long page, long thread) { return (uint64_t *)(base + page * PAGE) + thread * 8; }

static void *hammer(void *argument) {
    long thread = (long)argument;
    uint64_t random = (uint64_t)thread + 1;
    while (!stop) {
        long slot = (long)(next_random(&random) % (uint64_t)pages);
        uint64_t old = __atomic_fetch_add(counter(window, slot, thread), 1, __ATOMIC_SEQ_CST);
        long page = (long)(old >> 48), whose = (long)(old >> 32 & 0xffff);
        if (page >= pages || whose != thread) {
            differs("thread %ld found a counter of thread %ld, page %ld", thread, whose, page);
            continue;
        }
        if ((uint32_t)old != counted[thread][page]) {
            differs("thread %ld, page %ld: %u and not %u", thread, page, (uint32_t)old, counted[thread][page]);
            counted[thread][page] = (uint32_t)old;
        }
        counted[thread][page]++;
        progress++;
    }
    return NULL;
}

static void *remap(void *argument) {
    uint64_t random = 99;
    int processors = (int)kernel_number("hw.ncpu", 1);
    (void)argument;
    for (long round = 0; round < rounds; round++) {
        uint64_t r = next_random(&random);
        long slot = (long)(r % (uint64_t)pages), page = (long)(r >> 16) % pages;
        char *at = window + slot * PAGE;
        if (page < 0) page = -page;
        switch (r >> 62) {
        case 0:
            mprotect(at, PAGE, PROT_READ);
            sched_yield();
            mprotect(at, PAGE, PROT_READ | PROT_WRITE);
            break;
        case 1:
            munmap(at, PAGE);
            /* fall through */
        default:
            at = mmap(at, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, page * PAGE);
            if (at == MAP_FAILED) cannot("mmap");
        }
        remaps++;
        if (processors == 1) {
            if (round % 4 == 0) sched_yield();
            continue;
        }
        /* The others count a little with every mapping. */
        for (long before = progress, spins = 0; progress - before < 8 * threads && spins < 100000; spins++)
            __asm__ volatile("pause");
    }
    stop = 1;
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t ids[THREADS_MOST], remapper;
    char path[64];
    struct sigaction action;
    threads = argument(argc, argv, 1, 4);
    pages = argument(argc, argv, 2, 8);
    rounds = argument(argc, argv, 3, 200);
    if (threads < 1 || threads > THREADS_MOST || pages < 1 || pages > PAGES_MOST) return 2;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    snprintf(path, sizeof path, "/tmp/thrhammer.%d", getpid());
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || ftruncate(fd, pages * PAGE) < 0) cannot(path);
    unlink(path);
    size_t size = (size_t)pages * PAGE;
    whole = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    window = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (whole == MAP_FAILED || window == MAP_FAILED) cannot("mmap");
    for (long page = 0; page < pages; page++)
        for (long thread = 0; thread < threads; thread++)
            *counter(whole, page, thread) = (uint64_t)page << 48 | (uint64_t)thread << 32;
    for (long i = 0; i < threads; i++)
        if (pthread_create(&ids[i], NULL, hammer, (void *)i)) cannot("pthread_create");
    if (pthread_create(&remapper, NULL, remap, NULL)) cannot("pthread_create");
    for (long i = 0; i < threads; i++) pthread_join(ids[i], NULL);
    pthread_join(remapper, NULL);
    uint64_t total = 0;
    for (long page = 0; page < pages; page++)
        for (long thread = 0; thread < threads; thread++) {
            uint64_t value = *counter(whole, page, thread);
            total += counted[thread][page];
            if (value != ((uint64_t)page << 48 | (uint64_t)thread << 32 | counted[thread][page]))
                differs("at the end, page %ld, thread %ld: 0x%lx and not %u", page, thread, value,
                    counted[thread][page]);
        }
    return verdict("%ld threads counted to %lu during %ld remappings, %ld faults", threads, total, remaps, faults);
}
