/*
 * forkcow [DEPTH [WIDTH [PAGES]]]: a tree of processes. Each checks the pages that it inherited, changes some of them while
 * its children change others, and checks that it sees its own changes only.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, WIDEST = 64 };

static char *pages;
static long page_count, width;
/* What each page must hold; copied by fork like everything else. */
static uint64_t *seeds;

static void check_all(void) {
    for (long i = 0; i < page_count; i++) page_is(pages + i * PAGE, seeds[i]);
}

static void change(uint64_t *random, long count) {
    for (long n = 0; n < count; n++) {
        long i = (long)(next_random(random) % (uint64_t)page_count);
        seeds[i] = next_random(random);
        fill_page(pages + i * PAGE, seeds[i]);
    }
}

static void tree(long depth, uint64_t *random) {
    pid_t children[WIDEST];
    check_all();
    for (long i = 0; depth > 0 && i < width; i++) {
        uint64_t child_random = next_random(random);
        fflush(stdout);
        children[i] = fork();
        if (children[i] < 0) cannot("fork");
        if (children[i] == 0) {
            change(&child_random, page_count / 3 + 1);
            tree(depth - 1, &child_random);
            check_all();
            fflush(stdout);
            _exit(all_right() ? 0 : 1);
        }
        change(random, page_count / 5 + 1);
        check_all();
    }
    for (long i = 0; depth > 0 && i < width; i++) expect_child(children[i]);
    check_all();
}

int main(int argc, char **argv) {
    long depth = argument(argc, argv, 1, 3);
    uint64_t random = 1;
    width = argument(argc, argv, 2, 3);
    page_count = argument(argc, argv, 3, 32);
    if (depth < 0 || width < 1 || width > WIDEST || page_count < 1) return 2;
    pages = get_pages((size_t)page_count);
    seeds = get_pages((size_t)(page_count * (long)sizeof *seeds + PAGE - 1) / PAGE);
    for (long i = 0; i < page_count; i++) {
        seeds[i] = next_random(&random);
        fill_page(pages + i * PAGE, seeds[i]);
    }
    tree(depth, &random);
    long processes = 1, level = 1;
    for (long i = 0; i < depth; i++) processes += level *= width;
    return verdict("%ld processes, %ld pages each", processes, page_count);
}
