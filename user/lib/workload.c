/* What kbench and vkbench measure. */
#include <check.h>
#include <err.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <workload.h>

enum { PAGE = 4096 };

void work_syscall(const struct meter *meter, long count) {
    count = meter->begin("syscall", count);
    for (long i = 0; i < count; i++) syscall6(SYS_getppid, 0, 0, 0, 0, 0, 0);
    meter->end("syscall", count);
}

void work_zfod(const struct meter *meter, long page_count) {
    char *pages = get_pages((size_t)page_count);
    long count = meter->begin("zfod", page_count);
    for (long i = 0; i < count; i++) pages[i * PAGE] = 1;
    meter->end("zfod", count);
    munmap(pages, (size_t)page_count * PAGE);
}

void work_cow(const struct meter *meter, long count, long page_count) {
    char *pages = get_pages((size_t)page_count);
    for (long i = 0; i < page_count; i++) pages[i * PAGE] = 1;
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0) cannot("fork");
    if (pid == 0) {
        count = meter->begin("cow", count);
        for (long i = 0; i < count; i++) pages[i * PAGE] = 2;
        meter->end("cow", count);
        _exit(0);
    }
    expect_child(pid);
    munmap(pages, (size_t)page_count * PAGE);
}

void work_fork(const struct meter *meter, long count) {
    count = meter->begin("fork", count);
    for (long i = 0; i < count; i++) {
        pid_t pid = fork();
        if (pid < 0) cannot("fork");
        if (pid == 0) _exit(0);
        expect_child(pid);
    }
    meter->end("fork", count);
}

void work_forkexec(const struct meter *meter, long count, const char *path) {
    count = meter->begin("forkexec", count);
    for (long i = 0; i < count; i++) {
        pid_t pid = fork();
        if (pid < 0) cannot("fork");
        if (pid == 0) {
            execl(path, path, "nothing", NULL);
            _exit(127);
        }
        expect_child(pid);
    }
    meter->end("forkexec", count);
}

void work_pingpong(const struct meter *meter, long count) {
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
    count = meter->begin("pingpong", count);
    for (long i = 0; i < count; i++)
        if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) cannot("pipe");
    meter->end("pingpong", count);
    close(there[1]);
    expect_child(pid);
    close(there[0]);
    close(back[0]);
    close(back[1]);
}

void work_mmap(const struct meter *meter, long count) {
    count = meter->begin("mmap", count);
    for (long i = 0; i < count; i++) {
        char *pages = get_pages(4);
        pages[0] = 1;
        munmap(pages, 4 * PAGE);
    }
    meter->end("mmap", count);
}

enum { THREADS_MOST = 16 };
static volatile int ready, finish;

static void *look(void *argument) {
    (void)argument;
    __atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
    while (!finish) continue;
    return NULL;
}

void work_mprotect(const struct meter *meter, long count, long others) {
    pthread_t threads[THREADS_MOST];
    if (others > THREADS_MOST) others = THREADS_MOST;
    volatile char *page = get_pages(1);
    *page = 1;
    ready = finish = 0;
    for (long i = 0; i < others; i++)
        if (pthread_create(&threads[i], NULL, look, NULL) != 0) errx(1, "there is no thread");
    while (ready < others) sched_yield();
    count = meter->begin("mprotect", count);
    for (long i = 0; i < count; i++) {
        if (mprotect((void *)page, PAGE, PROT_READ) < 0) cannot("mprotect");
        if (mprotect((void *)page, PAGE, PROT_READ | PROT_WRITE) < 0) cannot("mprotect");
        *page = 2;
    }
    meter->end("mprotect", count);
    finish = 1;
    for (long i = 0; i < others; i++) pthread_join(threads[i], NULL);
    munmap((void *)page, PAGE);
}
