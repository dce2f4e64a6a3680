/*
 * swapthrash [MIB [PROCESSES [ROUNDS]]]: fills more memory than there is (by default three times half of it) with data that
 * can be checked, and visits it in random order, changing some, so that pages go to the disk and come back.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096 };

static void work(long page_count, long rounds, uint64_t random) {
    char *pages = get_pages((size_t)page_count);
    uint64_t own = next_random(&random);
    unsigned char *version = get_pages((size_t)(page_count + PAGE - 1) / PAGE);
    for (long i = 0; i < page_count; i++) fill_page(pages + i * PAGE, own + (uint64_t)i);
    for (long round = 0; round < rounds; round++)
        for (long n = 0; n < page_count; n++) {
            uint64_t r = next_random(&random);
            long i = (long)(r % (uint64_t)page_count);
            page_is(pages + i * PAGE, own + (uint64_t)i + ((uint64_t)version[i] << 32));
            if (r >> 62) continue;
            version[i]++;
            fill_page(pages + i * PAGE, own + (uint64_t)i + ((uint64_t)version[i] << 32));
        }
    for (long i = 0; i < page_count; i++) page_is(pages + i * PAGE, own + (uint64_t)i + ((uint64_t)version[i] << 32));
}

int main(int argc, char **argv) {
    long memory = kernel_number("hw.physmem", 16 << 20);
    long page_count = argument(argc, argv, 1, memory * 3 / 2 >> 20) * (1 << 20) / PAGE;
    long processes = argument(argc, argv, 2, 2), rounds = argument(argc, argv, 3, 1);
    pid_t children[32];
    if (page_count < 1 || processes < 1 || processes > 32) return 2;
    for (long i = 0; i < processes; i++) {
        children[i] = fork();
        if (children[i] < 0) cannot("fork");
        if (children[i] == 0) {
            work(page_count / processes, rounds, (uint64_t)i + 7);
            fflush(stdout);
            _exit(all_right() ? 0 : 1);
        }
    }
    for (long i = 0; i < processes; i++) expect_child(children[i]);
    return verdict("%ld MiB in %ld processes; pages in %ld, out %ld", page_count * PAGE >> 20, processes,
                   kernel_number("vm.stats.vm.v_swappgsin", 0), kernel_number("vm.stats.vm.v_swappgsout", 0));
}
