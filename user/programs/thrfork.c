/*
 * thrfork [THREADS [PAGES [FORKS]]]: threads write their pages without a pause while another thread forks. What a child has
 * inherited must stand still: nobody writes there. A thread whose processor still believes that it may write to a page
 * which fork has made the child's too is seen as a change.
 */
#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, THREADS_MOST = 16, LOOKS = 4 };

static long threads, page_count;
static char *pages;
static volatile int stop;
static volatile long rounds;

static volatile uint64_t *word(long thread, long page, long index) {
    return (volatile uint64_t *)(pages + (thread * page_count + page) * PAGE) + index;
}

static void *writer(void *argument) {
    long thread = (long)argument;
    for (uint64_t round = 1; !stop; round++) {
        for (long page = 0; page < page_count; page++)
            for (long index = 0; index < 4; index++) *word(thread, page, index) = round << 8 | (uint64_t)thread;
        rounds++;
    }
    return NULL;
}

/* The child: its copy is complete with the first look, and the same with every other. */
static void look(void) {
    static uint64_t seen[THREADS_MOST][64][4];
    for (int turn = 0; turn < LOOKS; turn++) {
        for (long thread = 0; thread < threads; thread++)
            for (long page = 0; page < page_count; page++)
                for (long index = 0; index < 4; index++) {
                    uint64_t value = *word(thread, page, index);
                    if (turn == 0) seen[thread][page][index] = value;
                    else if (seen[thread][page][index] != value)
                        differs("page %ld of thread %ld changed in the child: 0x%lx and not 0x%lx", page, thread, value,
                                seen[thread][page][index]);
                    if (value && (long)(value & 0xff) != thread) differs("a word of thread %ld is 0x%lx", thread, value);
                }
        for (volatile int spin = 0; spin < 2000; spin++) continue;
    }
    fflush(stdout);
    _exit(all_right() ? 0 : 1);
}

int main(int argc, char **argv) {
    pthread_t ids[THREADS_MOST];
    threads = argument(argc, argv, 1, 3);
    page_count = argument(argc, argv, 2, 4);
    long forks = argument(argc, argv, 3, 20);
    if (threads < 1 || threads > THREADS_MOST || page_count < 1 || page_count > 64) return 2;
    pages = get_pages((size_t)(threads * page_count));
    for (long i = 0; i < threads; i++)
        if (pthread_create(&ids[i], NULL, writer, (void *)i)) cannot("pthread_create");
    for (long i = 0; i < forks; i++) {
        /* Each thread is at it. */
        for (long before = rounds, spins = 0; rounds - before < 2 * threads && spins < 1000; spins++) sched_yield();
        fflush(stdout);
        pid_t pid = fork();
        if (pid < 0) cannot("fork");
        if (pid == 0) look();
        expect_child(pid);
    }
    stop = 1;
    for (long i = 0; i < threads; i++) pthread_join(ids[i], NULL);
    return verdict("%ld threads, %ld forks", threads, forks);
}
