/*
 * mprotsegv [PAGES [ROUNDS]]: protections are changed page by page and at random ranges; accesses that they forbid end in
 * a SIGSEGV with the right address and code, those that they grant do not; a handler that grants the access lets it go on.
 */
#include <check.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, MOST = 1024 };

static sigjmp_buf caught;
static volatile int faults, repair;
static char *volatile fault_address;
static volatile int fault_code;
static char *area;

static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)context;
    faults++;
    fault_address = info->si_addr;
    fault_code = signal == SIGSEGV ? info->si_code : SEGV_ACCERR;
    if (repair) {
        mprotect((void *)((uintptr_t)info->si_addr & ~(uintptr_t)(PAGE - 1)), PAGE, PROT_READ | PROT_WRITE);
        return;
    }
    siglongjmp(caught, 1);
}

/* Whether an access faults. */
static int access_faults(volatile char *at, int is_write) {
    int before = faults;
    if (sigsetjmp(caught, 1) == 0) {
        if (is_write) *at = *at;
        else (void)*at;
    }
    return faults > before;
}

int main(int argc, char **argv) {
    static int protection[MOST];
    long pages = argument(argc, argv, 1, 64), rounds = argument(argc, argv, 2, 200), expected = 0;
    uint64_t random = 5;
    struct sigaction action;
    if (pages < 2 || pages > MOST) return 2;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    area = get_pages((size_t)pages);
    for (long i = 0; i < pages; i++) {
        fill_page(area + i * PAGE, (uint64_t)i);
        protection[i] = PROT_READ | PROT_WRITE;
    }

    static const int KINDS[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE};
    for (long round = 0; round < rounds; round++) {
        long from = (long)(next_random(&random) % (uint64_t)pages);
        long length = 1 + (long)(next_random(&random) % (uint64_t)(pages - from));
        int kind = KINDS[next_random(&random) % 3];
        if (mprotect(area + from * PAGE, (size_t)length * PAGE, kind) < 0) cannot("mprotect");
        for (long i = from; i < from + length; i++) protection[i] = kind;
        for (int n = 0; n < 16; n++) {
            long i = (long)(next_random(&random) % (uint64_t)pages), offset = (long)(next_random(&random) % PAGE);
            int is_write = next_random(&random) & 1;
            int forbidden = !(protection[i] & (is_write ? PROT_WRITE : PROT_READ)) || !(protection[i] & PROT_READ);
            int faulted = access_faults(area + i * PAGE + offset, is_write);
            expected += forbidden;
            char *at = area + i * PAGE + offset;
            if (faulted != forbidden)
                differs("page %ld, protection %d, %s: %s", i, protection[i], is_write ? "write" : "read",
                        faulted ? "faults" : "does not fault");
            else if (faulted && fault_address != at)
                differs("si_addr %p and not %p", (void *)fault_address, (void *)at);
            else if (faulted && fault_code != SEGV_ACCERR) differs("si_code %d", fault_code);
        }
    }

    /* The handler grants what was forbidden, and the instruction is tried again. */
    repair = 1;
    for (long i = 0; i < pages; i++) mprotect(area + i * PAGE, PAGE, PROT_NONE);
    int before = faults;
    for (long i = 0; i < pages; i++) page_is(area + i * PAGE, (uint64_t)i);
    if (faults - before != pages) differs("%d faults for %ld pages", faults - before, pages);
    repair = 0;

    /* Where nothing is mapped, the code says so. */
    munmap(area + PAGE, PAGE);
    if (!access_faults(area + PAGE, 0)) differs("an unmapped page can be read");
    else if (fault_code != SEGV_MAPERR) differs("unmapped: si_code %d", fault_code);
    /* Children have the same protections. */
    mprotect(area, PAGE, PROT_READ);
    pid_t child = fork();
    if (child < 0) cannot("fork");
    if (child == 0) _exit(access_faults(area, 1) && !access_faults(area, 0) ? 0 : 1);
    expect_child(child);
    return verdict("%ld pages, %ld faults", pages, expected + pages);
}
