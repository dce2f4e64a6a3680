/* Commands about the system: ps top vmstat free uptime df mount umount sysctl dmesg. */
#include <ctype.h>
#include <err.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/kinfo.h>
#include <sys/mount.h>
#include <sys/sysctl.h>
#include <sys/vmmeter.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include "toolbox.h"

/* The process's state as ps shows it. */
static const char *state_text(const struct kinfo_proc *p) {
    static char text[8];
    char *s = text;
    if (p->kp_stat == SZOMB) *s++ = 'Z';
    else if (p->kp_stat == SIDL) *s++ = 'I';
    else if (p->kp_stat == SSTOP) *s++ = 'T';
    else if (p->kp_lwp.kl_stat == LSRUN) *s++ = 'R';
    else *s++ = p->kp_lwp.kl_wmesg[0] ? 'S' : 'D';
    if (p->kp_nthreads > 1) *s++ = 'L';
    if (p->kp_auxflags & KI_SLEADER && p->kp_pid > 0) *s++ = 's';
    if (p->kp_tpgid > 0 && p->kp_pgid == p->kp_tpgid && p->kp_pid > 0) *s++ = '+';
    *s = '\0';
    return text;
}

static long ticks_of(const struct kinfo_proc *p) {
    const struct rusage *u = &p->kp_ru;
    long microseconds = (u->ru_utime.tv_sec + u->ru_stime.tv_sec) * 1000000L + u->ru_utime.tv_usec + u->ru_stime.tv_usec;
    if (p->kp_pid <= 0) microseconds = (long)(p->kp_lwp.kl_uticks + p->kp_lwp.kl_sticks);
    return microseconds / 10000;
}

static const char *time_text(long ticks) {
    static char text[24];
    snprintf(text, sizeof text, "%ld:%02ld.%02ld", ticks / 6000, ticks / 100 % 60, ticks % 100);
    return text;
}

static void print_arguments(const struct kinfo_proc *p, int width) {
    char text[1024];
    int name[] = {CTL_KERN, KERN_PROC, KERN_PROC_ARGS, p->kp_pid};
    size_t size = sizeof text - 1;
    if (p->kp_pid <= 0 || p->kp_stat == SZOMB || sysctl(name, 4, text, &size, NULL, 0) < 0 || size <= 1) {
        printf(p->kp_pid <= 0 ? "[%s]\n" : p->kp_stat == SZOMB ? "<%s>\n" : "%s\n", p->kp_comm);
        return;
    }
    if (text[size - 1] == '\0') size--;
    for (size_t i = 0; i < size; i++)
        if (text[i] == '\0' || !isprint((unsigned char)text[i])) text[i] = ' ';
    if (width > 0 && size > (size_t)width) size = (size_t)width;
    text[size] = '\0';
    puts(text);
}

static int by_pid(const void *a, const void *b) {
    const struct kinfo_proc *x = a, *y = b;
    return x->kp_pid < y->kp_pid ? -1 : x->kp_pid > y->kp_pid;
}

int ps_main(int argc, char **argv) {
    int everyone = 0, no_terminal = 0, user_form = 0, long_list = 0, count;
    const char *letters = argc > 1 ? argv[1] : "";
    for (const char *s = letters; *s; s++) {
        if (*s == 'a') everyone = 1;
        else if (*s == 'x') no_terminal = 1;
        else if (*s == 'A' || *s == 'e') everyone = no_terminal = 1;
        else if (*s == 'u') user_form = 1;
        else if (*s == 'l') long_list = 1;
        else if (*s != '-' && *s != 'w' && *s != 'H') usage("[-Aalux]");
    }
    struct kinfo_proc *list = processes(&count);
    qsort(list, (size_t)count, sizeof *list, by_pid);
    if (user_form) printf("  UID   PID CPU     VSZ    RSS STAT       TIME COMMAND\n");
    else if (long_list) printf("  UID   PID  PPID CPU PRI NI     VSZ    RSS WCHAN    STAT       TIME COMMAND\n");
    else printf("  PID STAT       TIME COMMAND\n");
    for (int i = 0; i < count; i++) {
        struct kinfo_proc *p = &list[i];
        if (p->kp_pid <= 0 && !(everyone && no_terminal)) continue;
        if (!everyone && p->kp_uid != getuid()) continue;
        if (!no_terminal && !(p->kp_auxflags & KI_CTTY)) continue;
        if (user_form) printf("%5u %5d %3d %7zu %6ld ", p->kp_uid, p->kp_pid, p->kp_lwp.kl_cpuid,
            p->kp_vm_map_size / 1024, p->kp_vm_rssize * 4);
        else if (long_list)
            printf("%5u %5d %5d %3d %3d %2d %7zu %6ld %-8.8s ", p->kp_uid, p->kp_pid, p->kp_ppid, p->kp_lwp.kl_cpuid,
                   p->kp_lwp.kl_prio, p->kp_nice, p->kp_vm_map_size / 1024, p->kp_vm_rssize * 4,
                   p->kp_lwp.kl_wmesg[0] ? p->kp_lwp.kl_wmesg : "-");
        else printf("%5d ", p->kp_pid);
        printf("%-4s %10s ", state_text(p), time_text(ticks_of(p)));
        print_arguments(p, 0);
    }
    free(list);
    return 0;
}

static long stat_of(const char *name) {
    char full[64];
    snprintf(full, sizeof full, "vm.stats.%s", name);
    return sysctl_number(full, 0);
}

static long kilobytes(const char *name) { return stat_of(name) * 4; }

static double uptime_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int uptime_main(int argc, char **argv) {
    long seconds = (long)uptime_seconds();
    int count, running = 0;
    (void)argc, (void)argv;
    struct kinfo_proc *list = processes(&count);
    for (int i = 0; i < count; i++)
        running += list[i].kp_stat == SACTIVE && list[i].kp_pid > 0 && list[i].kp_lwp.kl_stat == LSRUN;
    printf("up %ld:%02ld:%02ld, %d processes, %d running\n", seconds / 3600, seconds / 60 % 60, seconds % 60,
        count, running);
    return 0;
}

/* Kernel threads have no pid of their own: their names tell them apart. */
struct usage_sample {
    pid_t pid;
    char name[MAXCOMLEN + 1];
    long ticks;
};

static int by_use(const void *a, const void *b) {
    const struct kinfo_proc *x = a, *y = b;
    /* kp_spare[0] holds the ticks of the interval. */
    return x->kp_spare[0] != y->kp_spare[0] ? y->kp_spare[0] - x->kp_spare[0] : x->kp_pid - y->kp_pid;
}

static void top_page(struct usage_sample **before, int *before_count, double interval, int rows) {
    int count, running = 0, sleeping = 0, stopped = 0, zombies = 0;
    struct kinfo_proc *list = processes(&count);
    struct usage_sample *now = calloc((size_t)count + 1, sizeof *now);
    for (int i = 0; i < count; i++) {
        long ticks = ticks_of(&list[i]), old = 0;
        for (int k = 0; k < *before_count; k++)
            if ((*before)[k].pid == list[i].kp_pid &&
                (list[i].kp_pid > 0 || strcmp((*before)[k].name, list[i].kp_comm) == 0))
                old = (*before)[k].ticks;
        now[i] = (struct usage_sample){.pid = list[i].kp_pid, .ticks = ticks};
        strlcpy(now[i].name, list[i].kp_comm, sizeof now[i].name);
        list[i].kp_spare[0] = (int)(ticks - old);
        if (list[i].kp_stat == SZOMB) zombies++;
        else if (list[i].kp_stat == SSTOP) stopped++;
        else if (list[i].kp_lwp.kl_stat == LSRUN) running++;
        else sleeping++;
    }
    free(*before);
    *before = now;
    *before_count = count;
    qsort(list, (size_t)count, sizeof *list, by_use);
    long seconds = (long)uptime_seconds();
    printf("up %ld:%02ld:%02ld  %d processes: %d running, %d sleeping, %d stopped, %d zombie\n", seconds / 3600,
           seconds / 60 % 60, seconds % 60, count, running, sleeping, stopped, zombies);
    printf("Mem: %ldK active, %ldK inactive, %ldK wired, %ldK cache, %ldK free\n", kilobytes("vm.v_active_count"),
           kilobytes("vm.v_inactive_count"), kilobytes("vm.v_wire_count"), kilobytes("vm.v_cache_count"),
               kilobytes("vm.v_free_count"));
    long swap = sysctl_number("vm.swap_max", 0) * 4, swap_free = sysctl_number("vm.swap_free", 0) * 4;
    printf("Swap: %ldK total, %ldK free\n\n", swap, swap_free);
    printf("  PID  PPID   UID PRI NI     VSZ    RSS STAT CPU   %%CPU       TIME COMMAND\n");
    for (int i = 0; i < count && i < rows; i++) {
        struct kinfo_proc *p = &list[i];
        long tenths = interval > 0 ? (long)(p->kp_spare[0] * 10 / interval) : 0;
        printf("%5d %5d %5u %3d %2d %7zu %6ld %-4s %3d %3ld.%ld%% %10s %s\n", p->kp_pid, p->kp_ppid, p->kp_uid,
               p->kp_lwp.kl_prio, p->kp_nice, p->kp_vm_map_size / 1024, p->kp_vm_rssize * 4, state_text(p),
               p->kp_lwp.kl_cpuid, tenths / 10, tenths % 10, time_text(ticks_of(p)), p->kp_comm);
    }
    free(list);
}

int top_main(int argc, char **argv) {
    int seconds = 2, pages = -1, rows = 20, batch = !isatty(1), before_count = 0;
    struct usage_sample *before = NULL;
    for (int option; (option = getopt(argc, argv, "bd:n:s:")) != -1;) {
        if (option == 'b') batch = 1;
        else if (option == 'd' || option == 'n') pages = atoi(optarg);
        else if (option == 's') seconds = atoi(optarg);
        else usage("[-b] [-d PAGES] [-s SECONDS]");
    }
    if (pages < 0 && batch) pages = 1;
    struct winsize size;
    struct termios own, raw;
    int is_raw = !batch && tcgetattr(0, &own) == 0;
    if (is_raw) {
        /* A key without Enter; the shell puts the terminal right if we are interrupted. */
        raw = own;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        tcsetattr(0, TCSANOW, &raw);
    }
    if (!batch && ioctl(1, TIOCGWINSZ, &size) == 0 && size.ws_row > 8) rows = size.ws_row - 6;
    for (double last = uptime_seconds(); pages != 0; pages -= pages > 0) {
        double now = uptime_seconds();
        if (!batch) fputs("\033[H\033[2J", stdout);
        top_page(&before, &before_count, before_count ? now - last : now, rows);
        last = now;
        fflush(stdout);
        if (pages == 1) break;
        struct pollfd key = {0, POLLIN, 0};
        if (batch) sleep((unsigned)seconds);
        else if (poll(&key, 1, seconds * 1000) > 0) {
            char c;
            if (read(0, &c, 1) <= 0 || c == 'q') break;
        }
    }
    if (is_raw) tcsetattr(0, TCSANOW, &own);
    return 0;
}

static const char *const RATES[] = {
    "vm.v_vm_faults", "vm.v_reactivated", "vm.v_swappgsin", "vm.v_swappgsout", "vm.v_tfree", "vm.v_pdpages",
    "sys.v_intr", "sys.v_syscall", "sys.v_swtch",
};
enum { RATE_COUNT = sizeof RATES / sizeof *RATES };

/* vmstat -s: every counter of vm.stats; vmstat [SECONDS [COUNT]]: rates. */
int vmstat_main(int argc, char **argv) {
    static const char *const COUNTERS[][2] = {
        {"sys.v_swtch", "cpu context switches"}, {"sys.v_intr", "device interrupts"}, 
        {"sys.v_timer", "timer interrupts"},
        {"sys.v_ipi", "interprocessor interrupts"}, {"sys.v_soft", "software interrupts"}, {"sys.v_trap", "traps"},
        {"sys.v_syscall", "system calls"}, {"vm.v_kthreads", "kernel threads created"}, 
        {"vm.v_forks", "fork() calls"},
        {"vm.v_vforks", "vfork() calls"}, {"vm.v_rforks", "rfork() calls"}, {"vm.v_swapin", "swap pager pageins"},
        {"vm.v_swappgsin", "swap pager pages paged in"}, {"vm.v_swapout", "swap pager pageouts"},
        {"vm.v_swappgsout", "swap pager pages paged out"}, {"vm.v_vnodein", "vnode pager pageins"},
        {"vm.v_vnodepgsin", "vnode pager pages paged in"}, {"vm.v_vnodeout", "vnode pager pageouts"},
        {"vm.v_vnodepgsout", "vnode pager pages paged out"}, {"vm.v_pdwakeups", "page daemon wakeups"},
        {"vm.v_pdpages", "pages examined by the page daemon"}, {"vm.v_reactivated", "pages reactivated"},
        {"vm.v_cow_faults", "copy-on-write faults"}, {"vm.v_cow_optim", "copy-on-write optimized faults"},
        {"vm.v_zfod", "zero fill pages zeroed"}, {"vm.v_ozfod", "zero fill pages prezeroed"},
        {"vm.v_intrans", "intransit blocking page faults"}, {"vm.v_vm_faults", "total VM faults taken"},
        {"vm.v_forkpages", "pages affected by fork()"}, {"vm.v_vforkpages", "pages affected by vfork()"},
        {"vm.v_tfree", "pages freed"}, {"vm.v_dfree", "pages freed by daemon"}, 
        {"vm.v_pfree", "pages freed by exiting processes"},
        {"vm.v_active_count", "pages active"}, {"vm.v_inactive_count", "pages inactive"}, 
        {"vm.v_cache_count", "pages in VM cache"},
        {"vm.v_wire_count", "pages wired down"}, {"vm.v_free_count", "pages free"}, 
        {"vm.v_page_size", "bytes per page"},
    };
    if (argc > 1 && strcmp(argv[1], "-s") == 0) {
        for (size_t i = 0; i < sizeof COUNTERS / sizeof *COUNTERS; i++)
            printf("%9ld %s\n", stat_of(COUNTERS[i][0]), COUNTERS[i][1]);
        return 0;
    }
    int seconds = argc > 1 ? atoi(argv[1]) : 0, lines = argc > 2 ? atoi(argv[2]) : seconds ? -1 : 1;
    if (argc > 1 && seconds <= 0) usage("[-s | SECONDS [COUNT]]");
    long before[RATE_COUNT] = {0};
    double last = 0;
    for (int row = 0; lines != 0; lines -= lines > 0, row++) {
        struct vmtotal total = {0};
        int count;
        if (row > 0) sleep((unsigned)seconds);
        if (row % 20 == 0) {
            puts(" procs         memory               page                             faults");
            puts(" r  b  w      avm      fre     flt    re    pi    po     fr     sr     in      sy     cs");
        }
        double now = uptime_seconds(), interval = now - last;
        struct kinfo_proc *list = processes(&count);
        for (int i = 0; i < count; i++) {
            if (list[i].kp_pid <= 0) continue;
            if (list[i].kp_stat == SACTIVE && list[i].kp_lwp.kl_stat == LSRUN) total.t_rq++;
            else if (list[i].kp_stat == SACTIVE) total.t_sl++;
            total.t_avm += (long)(list[i].kp_vm_map_size / 4096);
        }
        free(list);
        printf("%2ld %2ld %2ld %8ld %8ld", total.t_rq, total.t_dw + total.t_pw, total.t_sw, total.t_avm * 4,
            kilobytes("vm.v_free_count"));
        static const int WIDTHS[RATE_COUNT] = {7, 5, 5, 5, 6, 6, 6, 7, 6};
        for (int i = 0; i < RATE_COUNT; i++) {
            long value = stat_of(RATES[i]);
            printf(" %*ld", WIDTHS[i], interval > 0 ? (long)((double)(value - before[i]) / interval + 0.5) : value);
            before[i] = value;
        }
        putchar('\n');
        fflush(stdout);
        last = now;
    }
    return 0;
}

int free_main(int argc, char **argv) {
    (void)argc, (void)argv;
    long total = kilobytes("vm.v_page_count"), free_pages = kilobytes("vm.v_free_count"),
        cache = kilobytes("vm.v_cache_count");
    long swap = sysctl_number("vm.swap_max", 0) * 4, swap_free = sysctl_number("vm.swap_free", 0) * 4;
    printf("            total       used       free      cache     active   inactive      wired\n");
    printf("Mem:   %10ld %10ld %10ld %10ld %10ld %10ld %10ld\n", total, total - free_pages - cache, free_pages, cache,
           kilobytes("vm.v_active_count"), kilobytes("vm.v_inactive_count"), kilobytes("vm.v_wire_count"));
    printf("Swap:  %10ld %10ld %10ld\n", swap, swap - swap_free, swap_free);
    return 0;
}

static struct statfs *mounted(int *count) {
    static struct statfs list[64];
    *count = getfsstat(list, sizeof list, MNT_WAIT);
    if (*count < 0) err(1, "getfsstat");
    return list;
}

static void print_space(const struct statfs *s) {
    long unit = s->f_bsize > 0 ? s->f_bsize : 512, used = s->f_blocks - s->f_bfree;
    long percent = s->f_blocks > 0 ? (used * 100 + s->f_blocks - 1) / s->f_blocks : 0;
    printf("%-12s %10ld %10ld %10ld %7ld%%    %s\n", s->f_mntfromname, s->f_blocks * unit / 1024, used * unit / 1024,
           s->f_bavail * unit / 1024, percent, s->f_mntonname);
}

int df_main(int argc, char **argv) {
    int count, result = 0;
    printf("Filesystem    1K-blocks       Used      Avail Capacity    Mounted on\n");
    if (argc > 1 && argv[argc - 1][0] != '-') {
        for (int i = 1; i < argc; i++) {
            struct statfs one;
            if (argv[i][0] == '-') continue;
            if (statfs(argv[i], &one) == 0) print_space(&one);
            else warn("%s", argv[i]), result = 1;
        }
        return result;
    }
    struct statfs *list = mounted(&count);
    for (int i = 0; i < count; i++) print_space(&list[i]);
    return 0;
}

int mount_main(int argc, char **argv) {
    const char *type = NULL;
    int flags = 0, count;
    for (int option; (option = getopt(argc, argv, "t:r")) != -1;) {
        if (option == 't') type = optarg;
        else if (option == 'r') flags |= MNT_RDONLY;
        else usage("[-r] -t TYPE [DEVICE] FOLDER");
    }
    if (!type && optind == argc) {
        struct statfs *list = mounted(&count);
        for (int i = 0; i < count; i++)
            printf("%s on %s (%s%s)\n", list[i].f_mntfromname, list[i].f_mntonname, list[i].f_fstypename,
                   list[i].f_flags & MNT_RDONLY ? ", read-only" : list[i].f_flags & MNT_LOCAL ? ", local" : "");
        return 0;
    }
    if (!type || argc - optind < 1 || argc - optind > 2) usage("[-r] -t TYPE [DEVICE] FOLDER");
    char *device = argc - optind == 2 ? argv[optind] : NULL;
    if (mount(type, argv[argc - 1], flags, device) < 0) err(1, "%s", argv[argc - 1]);
    return 0;
}

int umount_main(int argc, char **argv) {
    int force = argc > 1 && strcmp(argv[1], "-f") == 0;
    if (argc - force != 2) usage("[-f] FOLDER");
    if (unmount(argv[1 + force], force ? MNT_FORCE : 0) < 0) err(1, "%s", argv[1 + force]);
    return 0;
}

/* {0, 1, name…} gives the name as text, {0, 2, name…} the name that comes next, {0, 4, name…} kind and format. */
static int print_variable(const int *name, size_t length, int value_only) {
    int question[2 + CTL_MAXNAME] = {0, 1};
    char text[128], value[4096];
    size_t size = sizeof text - 1;
    memcpy(question + 2, name, length * sizeof *name);
    if (sysctl(question, (u_int)length + 2, text, &size, NULL, 0) < 0) return -1;
    text[size] = '\0';
    question[1] = 4;
    struct {
        unsigned kind;
        char format[60];
    } kind;
    size = sizeof kind;
    memset(&kind, 0, sizeof kind);
    if (sysctl(question, (u_int)length + 2, &kind, &size, NULL, 0) < 0) kind.kind = CTLTYPE_OPAQUE;
    if ((kind.kind & CTLTYPE) == CTLTYPE_NODE) return 1;
    size = sizeof value - 1;
    if (sysctl(name, (u_int)length, value, &size, NULL, 0) < 0) return -1;
    value[size] = '\0';
    if (!value_only) printf("%s: ", text);
    unsigned type = kind.kind & CTLTYPE;
    if (type == CTLTYPE_STRING) {
        puts(value);
    } else if ((type == CTLTYPE_INT || type == CTLTYPE_UINT) && size >= 4) {
        for (size_t i = 0; i + 4 <= size; i += 4) {
            int number;
            memcpy(&number, value + i, 4);
            printf(type == CTLTYPE_INT ? "%s%d" : "%s%u", i ? " " : "", number);
        }
        putchar('\n');
    } else if (size == 8 && type != CTLTYPE_OPAQUE) {
        long number;
        memcpy(&number, value, 8);
        printf("%ld\n", number);
    } else {
        printf("(%zu bytes)\n", size);
    }
    return 0;
}

/* All variables below a prefix, in the kernel's order. */
static int print_below(const int *prefix, size_t prefix_length) {
    int question[2 + CTL_MAXNAME] = {0, 2}, next[CTL_MAXNAME];
    size_t length = prefix_length, printed = 0;
    memcpy(question + 2, prefix, length * sizeof *prefix);
    for (;;) {
        size_t size = sizeof next;
        if (sysctl(question, (u_int)length + 2, next, &size, NULL, 0) < 0) break;
        size_t next_length = size / sizeof *next;
        if (next_length < prefix_length || memcmp(next, prefix, prefix_length * sizeof *prefix) != 0) break;
        print_variable(next, next_length, 0);
        printed++;
        memcpy(question + 2, next, size);
        length = next_length;
    }
    return printed ? 0 : 1;
}

int sysctl_main(int argc, char **argv) {
    int everything = 0, value_only = 0, result = 0;
    for (int option; (option = getopt(argc, argv, "anw")) != -1;) {
        if (option == 'a') everything = 1;
        else if (option == 'n') value_only = 1;
        else if (option == '?') usage("[-an] [NAME | NAME=VALUE ...]");
    }
    if (everything) {
        /* The first one is what comes after {1}. */
        static const int ROOTS[] = {CTL_KERN, CTL_VM, CTL_VFS, CTL_HW};
        for (size_t i = 0; i < sizeof ROOTS / sizeof *ROOTS; i++) print_below(&ROOTS[i], 1);
        return 0;
    }
    if (optind == argc) usage("[-an] [NAME | NAME=VALUE ...]");
    for (int i = optind; i < argc; i++) {
        int name[CTL_MAXNAME];
        size_t length = CTL_MAXNAME;
        char *value = strchr(argv[i], '=');
        if (value) *value++ = '\0';
        if (sysctlnametomib(argv[i], name, &length) < 0) {
            warn("%s", argv[i]);
            result = 1;
            continue;
        }
        if (value) {
            char *end;
            int number = (int)strtol(value, &end, 0);
            int bad = *end || end == value ? sysctl(name, (u_int)length, NULL, NULL, value, strlen(value))
                                           : sysctl(name, (u_int)length, NULL, NULL, &number, sizeof number);
            if (bad < 0) {
                warn("%s", argv[i]);
                result = 1;
                continue;
            }
        }
        int kind = print_variable(name, length, value_only);
        if (kind == 1) kind = print_below(name, length);
        if (kind) {
            warn("%s", argv[i]);
            result = 1;
        }
    }
    return result;
}

int dmesg_main(int argc, char **argv) {
    (void)argc, (void)argv;
    for (size_t room = 16384;; room *= 2) {
        char *text = malloc(room);
        size_t size = room;
        if (!text) err(1, "memory");
        if (sysctlbyname("kern.msgbuf", text, &size, NULL, 0) == 0) {
            while (size > 0 && text[size - 1] == '\0') size--;
            fwrite(text, 1, size, stdout);
            if (size > 0 && text[size - 1] != '\n') putchar('\n');
            return 0;
        }
        free(text);
        if (errno != ENOMEM || room > 1 << 24) err(1, "kern.msgbuf");
    }
}
