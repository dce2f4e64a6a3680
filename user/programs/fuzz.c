/*
 * fuzz [SEED [COUNT]]: COUNT system calls with random numbers and random or nearly right arguments. Children make them, a
 * few hundred each, since few survive for long; the parent counts, ends those that hang, and cleans up.
 *
 * Left out: calls that end the machine (reboot), that send signals to others (kill with a foreign pid), that set the clock,
 * that take the swap away, and vfork, whose child would run on our stack.
 */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, CALLS_A_CHILD = 300, HIGHEST = 540, NAMES = 8 };

/* Shared with the parent: how far the child came, and with what. */
static struct progress {
    volatile long calls, errors;
    volatile long number, arguments[7];
} *progress;

static uint64_t state;
static char scratch[64];
static char *arena; /* 16 pages: data, with a hole behind */
static char longname[1200];

static uint64_t r(void) { return next_random(&state); }
static uint64_t below(uint64_t n) { return r() % n; }

static const char *path(void) {
    static char text[4][80];
    static int next;
    char *to = text[next++ % 4];
    switch (below(20)) {
    case 0: return "/";
    case 1: return "";
    case 2: return longname;
    case 3: return "nothing/here";
    case 4: return "loop";
    case 5: return "folder/..";
    case 6: return ".";
    default: snprintf(to, 80, "f%lu", below(NAMES)); return to;
    }
}

static long address(void) {
    switch (below(24)) {
    case 0: return 0;
    case 1: return (long)r();
    case 2: return (long)0x7ffffffff000;
    case 3: return (long)0x800000000000;
    case 4: return (long)0xffffffff80000000;
    case 5: return (long)(arena + 16 * PAGE - below(64));
    case 6: case 8: case 9: return (long)(arena + below(16) * PAGE) + (long)below(8);
    case 7: return -(long)below(PAGE);
    default: return (long)(arena + below(16) * PAGE);
    }
}

static long length(void) {
    switch (below(16)) {
    case 0: return 0;
    case 1: return -1;
    case 2: return (long)r();
    case 3: case 5: case 6: return (long)(below(64) * PAGE);
    case 4: return (long)1 << below(63);
    default: return (long)below(PAGE);
    }
}

static long small(void) {
    switch (below(12)) {
    case 0: return -1;
    case 1: return (long)r();
    case 2: case 3: return 1L << below(32);
    case 4: case 5: case 6: return (long)below(4);
    default: return (long)below(20);
    }
}

static long any(void) {
    switch (below(6)) {
    case 0: return (long)path();
    case 1: return address();
    case 2: return length();
    case 3: return (long)below(12); /* a descriptor */
    default: return small();
    }
}

/* Calls with arguments of about the right kind: p path, f descriptor, a address, l length, i small number, s signal. */
static const struct {
    short number;
    const char *kinds;
} NEAR[] = {
    {SYS_read, "fal"}, {SYS_write, "fal"}, {SYS_open, "pii"}, {SYS_close, "f"}, {SYS_link, "pp"}, {SYS_unlink, "p"},
    {SYS_chdir, "p"}, {SYS_fchdir, "f"}, {SYS_chmod, "pi"}, {SYS_break, "a"}, {SYS_access, "pi"}, {SYS_dup, "f"},
    {SYS_pipe, ""}, {SYS_sigaltstack, "aa"}, {SYS_ioctl, "fia"}, {SYS_symlink, "pp"}, {SYS_readlink, "pal"},
    {SYS_execve, "paa"}, {SYS_umask, "i"}, {SYS_msync, "ali"}, {SYS_munmap, "al"}, {SYS_mprotect, "ali"},
    {SYS_madvise, "ali"}, {SYS_mincore, "ala"}, {SYS_setpgid, "ii"}, {SYS_setitimer, "iaa"}, {SYS_getitimer, "ia"},
    {SYS_dup2, "ff"}, {SYS_fcntl, "fii"}, {SYS_select, "iaaaa"}, {SYS_fsync, "f"}, {SYS_gettimeofday, "aa"},
    {SYS_getrusage, "ia"}, {SYS_readv, "fai"}, {SYS_writev, "fai"}, {SYS_rename, "pp"}, {SYS_mkdir, "pi"},
    {SYS_rmdir, "p"}, {SYS_utimes, "pa"}, {SYS_statfs, "pa"}, {SYS_fstatfs, "fa"}, {SYS_uname, "a"},
    {SYS_extpread, "falil"}, {SYS_extpwrite, "falil"}, {SYS_getrlimit, "ia"}, {SYS_setrlimit, "ia"},
    {SYS_mmap, "aliifil"}, {SYS_lseek, "fili"}, {SYS_truncate, "pil"}, {SYS_ftruncate, "fil"},
    {SYS___sysctl, "aiaaal"},
    {SYS_mlock, "al"}, {SYS_munlock, "al"}, {SYS_poll, "aii"}, {SYS_clock_gettime, "ia"}, {SYS_nanosleep, "aa"},
    {SYS_minherit, "ali"}, {SYS_mlockall, "i"}, {SYS___getcwd, "al"}, {SYS_sigprocmask, "iaa"},
    {SYS_sigaction, "saa"},
    {SYS_sigpending, "a"}, {SYS_umtx_sleep, "aii"}, {SYS_umtx_wakeup, "ai"}, {SYS_set_tls_area, "iai"},
    {SYS_stat, "pa"}, {SYS_fstat, "fa"}, {SYS_lstat, "pa"}, {SYS_getdirentries, "fala"}, {SYS_mcontrol, "alii"},
    {SYS_lwp_create, "a"}, {SYS_openat, "fpii"}, {SYS_fstatat, "fpai"}, {SYS_fork, ""}, {SYS_wait4, "iaia"},
    {SYS_sigreturn, "a"}, {SYS_mkfifo, "pi"}, {SYS_getfsstat, "ali"},
};

/* Random maps are looked for, and so are huge ones; the stack must stay, or nothing would be tried at all. */
static int forbidden(long number, const long *arguments) {
    switch (number) {
    case SYS_exit: case SYS_reboot: case SYS_vfork: case SYS_extexit:
    case 122: case 233: case 140: case 176:      /* clocks */
    case 85: case 529:                           /* swapon, swapoff */
    case SYS_mount: case SYS_unmount: case SYS_chroot: case 522:
    case SYS_setpriority:
        return 1;
    case 0: case 198: return 1; /* syscall, __syscall: any of these by a detour */
    case SYS___sysctl: return arguments[4] != 0;
    case SYS_kill: case SYS_lwp_kill: return arguments[0] != getpid();
    case SYS_rfork: return (arguments[0] & RFMEM) != 0;
    }
    return 0;
}

static void one_call(void) {
    long a[7], number;
    if (below(4) == 0) {
        number = (long)below(16) == 0 ? (long)(int)r() : (long)below(HIGHEST);
        for (int i = 0; i < 7; i++) a[i] = any();
        /* As a signal's or thread's victim nobody but ourselves. */
        if ((number == SYS_kill || number == SYS_lwp_kill) && below(2)) a[0] = getpid();
    } else {
        size_t i = below(sizeof NEAR / sizeof *NEAR);
        const char *kinds = NEAR[i].kinds;
        number = NEAR[i].number;
        for (int k = 0; k < 7; k++) {
            char kind = *kinds ? *kinds++ : 'x';
            if (below(20) == 0) kind = 'x';
            a[k] = kind == 'p'   ? (long)path()
                   : kind == 'f' ? (long)below(12)
                   : kind == 'a' ? address()
                   : kind == 'l' ? length()
                   : kind == 'i' ? small()
                   : kind == 's' ? (long)below(40)
                                 : any();
        }
    }
    if (forbidden((int)number, a)) return;
    /* Half of the data that calls read is random. */
    if (below(2)) *(uint64_t *)(arena + below(16 * PAGE / 8) * 8) = below(2) ? r() : (uint64_t)address();
    progress->number = number;
    for (int i = 0; i < 7; i++) progress->arguments[i] = a[i];
    progress->calls++;
    pid_t self = getpid();
    if (syscall7(number, a[0], a[1], a[2], a[3], a[4], a[5], a[6]) == -1) progress->errors++;
    if (getpid() != self) _exit(0);
}

static void child(uint64_t seed, long calls) {
    struct itimerval limit = {{0, 0}, {1, 0}};
    state = seed;
    int null = open("/dev/null", O_RDWR);
    for (int i = 0; i < 3; i++) dup2(null, i);
    if (chdir(scratch) < 0) _exit(3);
    int fds[2];
    pipe(fds);
    open("f0", O_RDWR | O_CREAT, 0644);
    open("f1", O_RDWR | O_CREAT, 0644);
    open(".", O_RDONLY);
    open("/dev/zero", O_RDWR);
    arena = mmap(NULL, 17 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    munmap(arena + 16 * PAGE, PAGE);
    for (size_t i = 0; i < 16 * PAGE / sizeof(uint64_t); i += 8) ((uint64_t *)arena)[i] = below(64);
    setitimer(ITIMER_REAL, &limit, NULL);
    for (long i = 0; i < calls; i++) one_call();
    _exit(0);
}

/* Ends the child if it has not ended within two seconds. */
static int bury(pid_t pid) {
    int status;
    for (int i = 0; i < 200; i++) {
        pid_t got = waitpid(pid, &status, WNOHANG);
        if (got == pid) return status;
        if (got < 0 && errno == ECHILD) return 0;
        usleep(i < 20 ? 2000 : 10000);
    }
    kill(pid, SIGKILL);
    kill(pid, SIGCONT);
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) return 0;
    return status;
}

/* Everything in a folder; names may have moved into one another. */
static void clean(const char *folder, int depth) {
    DIR *dir = opendir(folder);
    if (!dir) return;
    static char names[8][64][64];
    int count = 0;
    for (struct dirent *entry; count < 64 && (entry = readdir(dir));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 && strlen(entry->d_name) < 64)
            strcpy(names[depth][count++], entry->d_name);
    closedir(dir);
    for (int i = 0; i < count; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", folder, names[depth][i]);
        if (unlink(path) == 0) continue;
        chmod(path, 0700);
        if (depth < 7) clean(path, depth + 1);
        rmdir(path);
    }
}

static void prepare(void) {
    char name[96];
    mkdir(scratch, 0755);
    snprintf(name, sizeof name, "%s/loop", scratch);
    symlink("loop", name);
    snprintf(name, sizeof name, "%s/folder", scratch);
    mkdir(name, 0755);
}

int main(int argc, char **argv) {
    uint64_t seed = (uint64_t)argument(argc, argv, 1, 1);
    long count = argument(argc, argv, 2, 2000), children = 0, killed = 0;
    memset(longname, 'x', sizeof longname - 1);
    snprintf(scratch, sizeof scratch, "/tmp/fuzz.%d", getpid());
    progress = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANON, -1, 0);
    if (progress == MAP_FAILED) cannot("mmap");
    while (progress->calls < count) {
        long left = count - progress->calls;
        uint64_t child_seed = next_random(&seed);
        if (children % 16 == 0) {
            clean(scratch, 0);
            prepare();
        }
        fflush(stdout);
        pid_t pid = fork();
        if (pid < 0) cannot("fork");
        if (pid == 0) child(child_seed, left < CALLS_A_CHILD ? left : CALLS_A_CHILD);
        int status = bury(pid);
        children++;
        if (WIFSIGNALED(status)) killed++;
        /* A call that ends every child at once would keep us here for ever. */
        if (children > count + 100) break;
    }
    clean(scratch, 0);
    if (rmdir(scratch) < 0) printf("fuzz: %s stays: %s\n", scratch, strerror(errno));
    long calls = progress->calls, errors = progress->errors;
    return verdict("%ld calls, %ld errors, %ld children, %ld ended by a signal", calls, errors, children, killed);
}
