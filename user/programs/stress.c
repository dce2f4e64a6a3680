/*
 * stress [-v PROCESSES] [-b SIZE] [-r ROUNDS] [-c PROCESSES] [-f PROCESSES] [-i PROCESSES]: workers that use memory (-v, SIZE
 * each, checked), the processor (-c), fork (-f) and files (-i), all at once. Without options: twice the memory that there is,
 * in four processes.
 */
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, MOST = 64 };
static long size = -1, rounds = 2;

static void use_memory(uint64_t seed) {
    long count = size / PAGE;
    char *pages = get_pages((size_t)count);
    for (long round = 0; round < rounds; round++) {
        for (long i = 0; i < count; i++) fill_page(pages + i * PAGE, seed + (uint64_t)(round * count + i));
        for (long i = 0; i < count; i++) page_is(pages + i * PAGE, seed + (uint64_t)(round * count + i));
    }
    munmap(pages, (size_t)count * PAGE);
}

static void use_processor(uint64_t seed) {
    uint64_t state = seed, again = seed;
    for (long i = 0; i < rounds * 100000; i++) next_random(&state);
    for (long i = 0; i < rounds * 100000; i++) next_random(&again);
    if (state != again) differs("the same computation gave another result");
}

static void use_fork(uint64_t seed) {
    for (long i = 0; i < rounds * 10; i++) {
        uint64_t word = seed + (uint64_t)i;
        pid_t pid = fork();
        if (pid < 0) cannot("fork");
        if (pid == 0) _exit(word == seed + (uint64_t)i ? 0 : 1);
        word++;
        expect_child(pid);
    }
}

static void use_files(uint64_t seed) {
    static char page[PAGE];
    char path[64];
    snprintf(path, sizeof path, "/tmp/stress.%d", getpid());
    for (long round = 0; round < rounds; round++) {
        int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        if (fd < 0) cannot(path);
        for (int i = 0; i < 16; i++) {
            fill_page(page, seed + (uint64_t)i);
            if (write(fd, page, PAGE) != PAGE) differs("write");
        }
        lseek(fd, 0, SEEK_SET);
        for (int i = 0; i < 16; i++) {
            if (read(fd, page, PAGE) != PAGE) differs("read");
            page_is(page, seed + (uint64_t)i);
        }
        close(fd);
    }
    unlink(path);
}

static pid_t children[MOST];
static int child_count;

static void start(long count, void (*work)(uint64_t)) {
    for (long i = 0; i < count && child_count < MOST; i++) {
        pid_t pid = fork();
        if (pid < 0) cannot("fork");
        if (pid == 0) {
            work((uint64_t)(child_count + 1) << 40);
            fflush(stdout);
            _exit(all_right() ? 0 : 1);
        }
        children[child_count++] = pid;
    }
}

static long bytes(const char *text) {
    char *end;
    long value = strtol(text, &end, 0);
    return *end == 'k' || *end == 'K' ? value << 10 : *end == 'm' || *end == 'M' ? value << 20 : *end == 'g' ||
        *end == 'G' ? value << 30 : value;
}

int main(int argc, char **argv) {
    long memory = 0, processor = 0, forks = 0, files = 0;
    for (int option; (option = getopt(argc, argv, "v:b:r:c:f:i:")) != -1;) {
        switch (option) {
        case 'v': memory = atol(optarg); break;
        case 'b': size = bytes(optarg); break;
        case 'r': rounds = atol(optarg); break;
        case 'c': processor = atol(optarg); break;
        case 'f': forks = atol(optarg); break;
        case 'i': files = atol(optarg); break;
        default: return 2;
        }
    }
    if (!memory && !processor && !forks && !files) memory = 4;
    if (size < 0) size = kernel_number("hw.physmem", 16 << 20) * 2 / (memory ? memory : 1);
    start(memory, use_memory);
    start(processor, use_processor);
    start(forks, use_fork);
    start(files, use_files);
    for (int i = 0; i < child_count; i++) expect_child(children[i]);
    return verdict("%d workers, %ld KiB of memory", child_count, memory * size / 1024);
}
