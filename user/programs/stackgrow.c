/*
 * stackgrow [FRAMES]: the stack grows by recursion and by one large step, keeps what is on it, is not given to others, and
 * ends at its limit with SIGSEGV, taken on an alternate stack.
 */
#include <check.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

static sigjmp_buf caught;
static char *volatile fault_address;

static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    fault_address = info->si_addr;
    siglongjmp(caught, 1);
}

/* Each frame holds words of its own, checked on the way back. */
static __attribute__((noinline)) int recurse(int depth) {
    volatile uint64_t frame[64];
    for (int i = 0; i < 64; i++) frame[i] = (uint64_t)depth * 64 + (uint64_t)i;
    int below = depth > 0 ? recurse(depth - 1) : 0;
    for (int i = 0; i < 64; i++)
        if (frame[i] != (uint64_t)depth * 64 + (uint64_t)i) {
            differs("frame %d, word %d: %lu", depth, i, frame[i]);
            break;
        }
    return below + 1;
}

static __attribute__((noinline)) void large_step(size_t bytes, size_t used) {
    volatile char area[bytes];
    area[0] = 1;
    area[bytes - 1] = 2;
    /* Below what recursion has used, pages are fresh. */
    for (size_t i = 4096; i + used < bytes; i += 4096)
        if (area[i] != 0) {
            differs("byte %zu of a fresh stack page is %d", i, area[i]);
            break;
        }
    if (area[0] != 1 || area[bytes - 1] != 2) differs("large frame");
}

static __attribute__((noinline)) int endless(int depth) {
    volatile char frame[1024];
    frame[0] = (char)depth;
    return depth < 0 ? 0 : endless(depth + 1) + frame[0];
}

int main(int argc, char **argv) {
    long frames = argument(argc, argv, 1, 512);
    static char alternate[SIGSTKSZ];
    stack_t stack = {alternate, sizeof alternate, 0};
    struct sigaction action;
    struct rlimit limit;
    char *here = (char *)&here;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    if (sigaltstack(&stack, NULL) < 0) cannot("sigaltstack");
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);

    recurse((int)frames);
    recurse((int)frames);
    large_step((size_t)frames * 4096, (size_t)frames * 1024);

    /* Children have copies of it. */
    pid_t child = fork();
    if (child < 0) cannot("fork");
    if (child == 0) {
        recurse((int)frames + 100);
        _exit(all_right() ? 0 : 1);
    }
    recurse((int)frames / 2);
    expect_child(child);

    if (getrlimit(RLIMIT_STACK, &limit) < 0) cannot("getrlimit");
    if (sigsetjmp(caught, 1) == 0) {
        endless(0);
        differs("endless recursion ended");
    }
    long depth = here - fault_address;
    /* The kernel's own things stand above main's frame; the limit counts them too. */
    if (depth <= 0 || (limit.rlim_cur != RLIM_INFINITY && depth > limit.rlim_cur + 65536))
        differs("the stack ended %ld bytes below main, its limit is %ld", depth, limit.rlim_cur);
    recurse(100);
    return verdict("%ld KiB by recursion, %ld KiB to the end", frames / 2, depth / 1024);
}
