/*
 * escape [CHILDREN [SEED]]: tries to get out. Reads, writes and executes at every kind of address, instructions of ring 0, gates and
 * continuations of others, system calls that only a vkernel may make, every kind of exception, and pages of random bytes. Each attempt ends in
 * a signal of this process or an error number; whoever runs beside notices nothing. With CHILDREN 0 no random code runs.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, GATES = 300, STACK = 64 * 1024 };

static sigjmp_buf caught;
static volatile int last_signal;
static long attempts, signals, errors;
static uint64_t state = 1;

static void on_signal(int signal) {
    last_signal = signal;
    siglongjmp(caught, 1);
}

static void handle_all(void) {
    static char stack[STACK];
    stack_t alternative;
    struct sigaction action;
    memset(&alternative, 0, sizeof alternative);
    alternative.ss_sp = stack;
    alternative.ss_size = sizeof stack;
    sigaltstack(&alternative, NULL);
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_ONSTACK | SA_NODEFER;
    static const int KINDS[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, SIGALRM, SIGXCPU};
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++) sigaction(KINDS[i], &action, NULL);
}

/* Whether an attempt ended in a signal; which is in last_signal. */
#define ATTEMPT(action) (attempts++, last_signal = 0, sigsetjmp(caught, 1) == 0 ? ((action), 0) : (signals++, 1))

static unsigned char *code; /* a page that may be written and executed */

/* Runs bytes of machine code, with a word in R15 and RAX, RCX, RDX, RDI = 0; behind them stands a return. */
static int run(const unsigned char *bytes, size_t length, uint64_t r15) {
    memset(code, 0xcc, 64);
    memcpy(code, bytes, length);
    code[length] = 0xc3;
    __asm__ volatile("" ::: "memory");
    return ATTEMPT(({
        uint64_t a = 0, c = 0, d = 0, i = 0;
        __asm__ volatile("push %%r15\n\tpush %%rbx\n\tmov %5, %%r15\n\tcall *%4\n\tcld\n\tpop %%rbx\n\tpop %%r15"
                         : "+a"(a), "+c"(c), "+d"(d), "+D"(i)
                         : "r"(code), "r"(r15)
                         : "rsi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "memory", "cc");
    }));
}

/* It must end in one of two signals. */
static void expect(const char *what, int ended, int one, int other) {
    if (!ended) differs("%s: nothing stopped it", what);
    else if (last_signal != one && last_signal != other)
        differs("%s: signal %d, not %d or %d", what, last_signal, one, other);
}

/* Addresses of kernels, of vkernels' own parts, and of nobody. */
static const uint64_t ADDRESSES[] = {
    0, 8, 0xff8,
    0x7ffffffff000, 0x7ffffffffff8, 0x800000000000, 0x800000001000, 0x123456789abcdef0, 0x8000000000000000,
    0xffff7ffffffffff8, 0xffff800000000000, 0xffffc00000000000, 0xffffc00000100000, 0xffffff8000000000,
    0xffffff8000010000, 0xffffffff80000000, 0xffffffff80100000, 0xfffffffffffff000, 0xfffffffffffffff8,
    0x400000, 0x400040, 0x500000, 0x600000, 0x700000, 0x800000, 0x20000000, 0x20200000, 0x100000000, 0x100001000,
    0x101000000, 0x8000000000, 0x8000001000, 0xffffffff000, 0x20000000000, 0x20000001000, 0x20001000000,
    0x7f0000000000, 0x7fffdffff000,
};

static int mine(uint64_t address) {
    char vec;
    return address < 0x800000000000 && mincore((void *)(address & ~(uint64_t)(PAGE - 1)), PAGE, &vec) == 0;
}

static void addresses(void) {
    char what[64];
    for (volatile size_t i = 0; i < sizeof ADDRESSES / sizeof *ADDRESSES; i++) {
        uint64_t at = ADDRESSES[i];
        /* What the program itself has there it may use. */
        if (mine(at)) continue;
        snprintf(what, sizeof what, "reading 0x%lx", at);
        expect(what, ATTEMPT(*(volatile uint64_t *)at), SIGSEGV, SIGBUS);
        snprintf(what, sizeof what, "writing 0x%lx", at);
        expect(what, ATTEMPT(*(volatile uint64_t *)at = 0x41), SIGSEGV, SIGBUS);
        snprintf(what, sizeof what, "executing 0x%lx", at);
        expect(what, ATTEMPT(((void (*)(void))at)()), SIGSEGV, SIGBUS);
        snprintf(what, sizeof what, "a stack at 0x%lx", at);
        if (!mine(at - 8)) expect(what, ATTEMPT(({
                   __asm__ volatile("mov %%rsp, %%rbx\n\tmov %0, %%rsp\n\tpush %%rax\n\tmov %%rbx, %%rsp"
                                    :
                                    : "r"(at)
                                    : "rbx", "memory");
               })),
               SIGSEGV, SIGBUS);
        /* A kernel that copies for us knows as much. */
        attempts++;
        int fds[2];
        if (pipe(fds) < 0) cannot("pipe");
        if (write(fds[1], (void *)at, 8) >= 0) differs("write from 0x%lx works", at);
        else errors++;
        if (write(fds[1], "12345678", 8) != 8) cannot("write");
        if (read(fds[0], (void *)at, 8) >= 0) differs("read to 0x%lx works", at);
        else errors++;
        close(fds[0]);
        close(fds[1]);
    }
}

#define CODE(...) ((const unsigned char[]){__VA_ARGS__}), sizeof((const unsigned char[]){__VA_ARGS__})

static const struct {
    const char *name;
    int one, other;
    unsigned char length, bytes[15];
} INSTRUCTIONS[] = {
    {"cli", SIGBUS, SIGSEGV, 1, {0xfa}},
    {"sti", SIGBUS, SIGSEGV, 1, {0xfb}},
    {"hlt", SIGBUS, SIGSEGV, 1, {0xf4}},
    {"lgdt", SIGBUS, SIGSEGV, 4, {0x0f, 0x01, 0x14, 0x24}},
    {"lidt", SIGBUS, SIGSEGV, 4, {0x0f, 0x01, 0x1c, 0x24}},
    {"lldt", SIGBUS, SIGSEGV, 3, {0x0f, 0x00, 0xd0}},
    {"ltr", SIGBUS, SIGSEGV, 3, {0x0f, 0x00, 0xd8}},
    {"lmsw", SIGBUS, SIGSEGV, 3, {0x0f, 0x01, 0xf0}},
    {"mov rax, cr0", SIGBUS, SIGSEGV, 3, {0x0f, 0x20, 0xc0}},
    {"mov cr0, rax", SIGBUS, SIGSEGV, 3, {0x0f, 0x22, 0xc0}},
    {"mov rax, cr3", SIGBUS, SIGSEGV, 3, {0x0f, 0x20, 0xd8}},
    {"mov cr3, rax", SIGBUS, SIGSEGV, 3, {0x0f, 0x22, 0xd8}},
    {"mov cr4, rax", SIGBUS, SIGSEGV, 3, {0x0f, 0x22, 0xe0}},
    {"mov cr8, rax", SIGBUS, SIGSEGV, 4, {0x44, 0x0f, 0x22, 0xc0}},
    {"mov rax, dr7", SIGBUS, SIGSEGV, 3, {0x0f, 0x21, 0xf8}},
    {"mov dr7, rax", SIGBUS, SIGSEGV, 3, {0x0f, 0x23, 0xf8}},
    {"rdmsr", SIGBUS, SIGSEGV, 2, {0x0f, 0x32}},
    {"wrmsr", SIGBUS, SIGSEGV, 2, {0x0f, 0x30}},
    {"invlpg", SIGBUS, SIGSEGV, 3, {0x0f, 0x01, 0x38}},
    {"invd", SIGBUS, SIGSEGV, 2, {0x0f, 0x08}},
    {"wbinvd", SIGBUS, SIGSEGV, 2, {0x0f, 0x09}},
    {"clts", SIGBUS, SIGSEGV, 2, {0x0f, 0x06}},
    {"in", SIGBUS, SIGSEGV, 2, {0xe4, 0x60}},
    {"out", SIGBUS, SIGSEGV, 2, {0xe6, 0x80}},
    {"insb", SIGBUS, SIGSEGV, 1, {0x6c}},
    {"swapgs", SIGBUS, SIGILL, 3, {0x0f, 0x01, 0xf8}},
    {"sysret", SIGBUS, SIGILL, 3, {0x48, 0x0f, 0x07}},
    {"sysexit", SIGBUS, SIGILL, 2, {0x0f, 0x35}},
    {"sysenter", SIGBUS, SIGILL, 2, {0x0f, 0x34}},
    {"rdpmc", SIGBUS, SIGILL, 2, {0x0f, 0x33}},
    {"xsetbv", SIGBUS, SIGILL, 3, {0x0f, 0x01, 0xd1}},
    {"monitor", SIGBUS, SIGILL, 3, {0x0f, 0x01, 0xc8}},
    {"mwait", SIGBUS, SIGILL, 3, {0x0f, 0x01, 0xc9}},
    {"rsm", SIGBUS, SIGILL, 2, {0x0f, 0xaa}},
    {"vmcall", SIGBUS, SIGILL, 3, {0x0f, 0x01, 0xc1}},
    {"vmlaunch", SIGBUS, SIGILL, 3, {0x0f, 0x01, 0xc2}},
    {"vmresume", SIGBUS, SIGILL, 3, {0x0f, 0x01, 0xc3}},
    {"vmxoff", SIGBUS, SIGILL, 3, {0x0f, 0x01, 0xc4}},
    {"vmfunc", SIGBUS, SIGILL, 3, {0x0f, 0x01, 0xd4}},
    {"vmptrld", SIGBUS, SIGILL, 4, {0x0f, 0xc7, 0x34, 0x24}},
    {"vmclear", SIGBUS, SIGILL, 5, {0x66, 0x0f, 0xc7, 0x34, 0x24}},
    {"vmxon", SIGBUS, SIGILL, 5, {0xf3, 0x0f, 0xc7, 0x34, 0x24}},
    {"vmread", SIGBUS, SIGILL, 3, {0x0f, 0x78, 0xc1}},
    {"vmwrite", SIGBUS, SIGILL, 3, {0x0f, 0x79, 0xc1}},
    {"invept", SIGBUS, SIGILL, 6, {0x66, 0x0f, 0x38, 0x80, 0x04, 0x24}},
    {"invvpid", SIGBUS, SIGILL, 6, {0x66, 0x0f, 0x38, 0x81, 0x04, 0x24}},
    {"divide by zero", SIGFPE, SIGFPE, 2, {0xf7, 0xf1}},
    {"ud2", SIGILL, SIGILL, 2, {0x0f, 0x0b}},
    {"ud1", SIGILL, SIGILL, 3, {0x0f, 0xb9, 0xc0}},
    {"int3", SIGTRAP, SIGTRAP, 1, {0xcc}},
    {"icebp", SIGTRAP, SIGTRAP, 1, {0xf1}},
    {"trap flag", SIGTRAP, SIGTRAP, 9, {0x9c, 0x80, 0x4c, 0x24, 0x01, 0x01, 0x9d, 0x90, 0x90}},
    {"aad of 64 bits", SIGILL, SIGILL, 2, {0xd5, 0x0a}},
    {"lock nop", SIGILL, SIGILL, 2, {0xf0, 0x90}},
    {"mov ss, ax", SIGBUS, SIGSEGV, 2, {0x8e, 0xd0}},
    {"mov cs, ax", SIGILL, SIGILL, 2, {0x8e, 0xc8}},
    {"far return to 8:0", SIGBUS, SIGSEGV, 6, {0x6a, 0x08, 0x6a, 0x00, 0x48, 0xcb}},
    {"far jump", SIGBUS, SIGILL, 3, {0xff, 0x2c, 0x24}},
    {"iretq to the kernel", SIGBUS, SIGSEGV, 12,
     {0x6a, 0x10, 0x6a, 0x00, 0x6a, 0x02, 0x6a, 0x08, 0x6a, 0x00, 0x48, 0xcf}},
    {"a jump to no canonical address", SIGBUS, SIGSEGV, 10, {0x6a, 0x01, 0x48, 0xc1, 0x24, 0x24, 0x3f, 0xc3, 0x90, 0x90}},
    {"an instruction of 16 bytes", SIGBUS, SIGSEGV, 15,
     {0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66}},
};

static void instructions(void) {
    char what[64];
    for (size_t i = 0; i < sizeof INSTRUCTIONS / sizeof *INSTRUCTIONS; i++)
        expect(INSTRUCTIONS[i].name, run(INSTRUCTIONS[i].bytes, INSTRUCTIONS[i].length, 0), INSTRUCTIONS[i].one,
               INSTRUCTIONS[i].other);
    for (int n = 0; n < 256; n++) {
        /* 1 and 3 are a debugger's, 4 the overflow's: gates for programs. 0x80 is Linux's. */
        snprintf(what, sizeof what, "int %d", n);
        int ended = run(CODE(0xcd, (unsigned char)n), 0);
        if (n == 3 || n == 4 || n == 0x80) continue;
        expect(what, ended, SIGBUS, n == 1 ? SIGTRAP : SIGSEGV);
    }
    /* What POPF may not change it does not change. */
    attempts++;
    uint64_t before, after;
    __asm__ volatile("pushf\n\tpop %0\n\tpush %2\n\tpopf\n\tpushf\n\tpop %1\n\tpush %0\n\tpopf"
                     : "=&r"(before), "=&r"(after)
                     : "r"(0x3000ul)
                     : "memory", "cc");
    if ((after & 0x3000) || !(after & 0x200)) differs("popf: RFLAGS 0x%lx, then 0x%lx", before, after);
}

/* Gates of kernels and programs by their numbers, and continuations that are somebody else's or nobody's. */
static void gates(void) {
    char what[64];
    for (int n = 0; n < GATES; n++) {
        /* Some numbers are programs, which anybody may run: as himself. A page of int3 comes back from all of them. */
        snprintf(what, sizeof what, "gate %d", n);
        int ended = run(CODE(0x0f, 0xff, 0x05, (unsigned char)n, (unsigned char)(n >> 8), 0, 0), next_random(&state));
        if (ended && last_signal != SIGILL && last_signal != SIGBUS && last_signal != SIGSEGV)
            differs("%s: signal %d", what, last_signal);
    }
    for (int n = 0; n < 64; n++) {
        uint64_t id = n < 8 ? (uint64_t)n : next_random(&state);
        expect("resume", run(CODE(0x0f, 0xff, 0x05, 0xff, 0xff, 0xff, 0xff), id), SIGBUS, SIGSEGV);
    }
    expect("gate -2", run(CODE(0x0f, 0xff, 0x05, 0xfe, 0xff, 0xff, 0xff), 1), SIGILL, SIGBUS);
    expect("gate 0x7fffffff", run(CODE(0x0f, 0xff, 0x05, 0xff, 0xff, 0xff, 0x7f), 1), SIGILL, SIGBUS);
}

/* Calls that only kernels make. This process has made no address space; what it asks for must not be. */
static void calls(void) {
    static const uint64_t WORDS[] = {0, 1, 0x1000, 0x400000, 0x100000000, 0x7ffffffff000, 0x800000000000, -1ul};
    static const int NUMBERS[] = {487, 488, 489, 490, 491, 492, 493, 534, 535};
    enum { N = sizeof WORDS / sizeof *WORDS };
    for (size_t i = 0; i < sizeof NUMBERS / sizeof *NUMBERS; i++)
        for (int n = 0; n < 4 * N; n++) {
            uint64_t a[6];
            for (int k = 0; k < 6; k++) a[k] = WORDS[next_random(&state) % N];
            /* A vkernel may be run here too. Then space 0, and no more, may be its first. */
            attempts++;
            last_signal = 0;
            if (syscall7(NUMBERS[i], (long)a[0], (long)a[1], (long)a[2], (long)a[3], (long)a[4], (long)a[5], 0) != -1)
                differs("system call %d works", NUMBERS[i]);
            else errors++;
        }
    static const long NONE[] = {-1, -2, 0x7fffffff, 0x100000001, 700, 1 << 20};
    for (size_t i = 0; i < sizeof NONE / sizeof *NONE; i++) {
        int ended = ATTEMPT(({
            if (NONE[i] != 0x100000001 && syscall7(NONE[i], 0, 0, 0, 0, 0, 0, 0) != -1)
                differs("system call %ld works", NONE[i]);
        }));
        if (ended && last_signal != SIGSYS) differs("system call %ld: signal %d", NONE[i], last_signal);
    }
}

/* Random bytes, in a child. It has nothing to lose: no descriptors, a little time and memory. */
static void random_code(uint64_t seed) {
    struct itimerval limit = {{0, 20000}, {0, 20000}};
    for (int fd = 0; fd < 16; fd++) close(fd);
    for (int i = 0; i < PAGE; i += 8) *(uint64_t *)(code + i) = next_random(&seed);
    /* SYSCALL would be the fuzz's business. */
    for (int i = 0; i + 1 < PAGE; i++)
        if (code[i] == 0x0f && code[i + 1] == 0x05) code[i] = 0x90;
    setitimer(ITIMER_REAL, &limit, NULL);
    for (volatile int tries = 0; tries < 40; tries++)
        (void)ATTEMPT(((void (*)(uint64_t, uint64_t))(code + next_random(&seed) % PAGE))(seed, tries));
    _exit(0);
}

int main(int argc, char **argv) {
    long children = argument(argc, argv, 1, 8), ended = 0;
    state = (uint64_t)argument(argc, argv, 2, 1);
    code = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (code == MAP_FAILED) cannot("mmap");
    handle_all();
    addresses();
    instructions();
    gates();
    calls();
    for (long i = 0; i < children; i++) {
        uint64_t seed = next_random(&state);
        fflush(stdout);
        pid_t pid = fork();
        int status;
        if (pid < 0) cannot("fork");
        if (pid == 0) random_code(seed);
        for (int tick = 0; waitpid(pid, &status, WNOHANG) != pid; tick++) {
            if (tick == 100) kill(pid, SIGKILL);
            usleep(10000);
        }
        ended += WIFSIGNALED(status);
    }
    return verdict("%ld attempts, %ld signals, %ld errors; %ld of %ld children ended by a signal", attempts, signals,
                   errors, ended, children);
}
