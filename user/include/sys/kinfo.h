/* What the kernel tells about a process and its threads (sysctl kern.proc). */
#ifndef _SYS_KINFO_H
#define _SYS_KINFO_H

#include <signal.h>
#include <stdint.h>
#include <sys/param.h>
#include <sys/resource.h>
#include <sys/rtprio.h>

enum procstat { SIDL = 1, SACTIVE, SSTOP, SZOMB };
enum lwpstat { LSRUN = 1, LSSTOP, LSSLEEP };

struct kinfo_cputime {
    uint64_t cp_user, cp_nice, cp_sys, cp_intr, cp_idle, cp_unused01, cp_unused02, cp_sample_pc, cp_sample_sp;
    char cp_msg[32];
};

struct kinfo_lwp {
    pid_t kl_pid;
    lwpid_t kl_tid;
    int kl_flags;
    enum lwpstat kl_stat;
    int kl_lock, kl_tdflags, kl_mpcount, kl_prio, kl_tdprio;
    struct rtprio kl_rtprio;
    uint64_t kl_uticks, kl_sticks, kl_iticks, kl_cpticks;
    u_int kl_pctcpu, kl_slptime;
    int kl_origcpu, kl_estcpu, kl_cpuid;
    struct rusage kl_ru;
    sigset_t kl_siglist, kl_sigmask;
    uintptr_t kl_wchan;
    char kl_wmesg[9];
    char kl_comm[MAXCOMLEN + 1];
};

struct kinfo_proc {
    uintptr_t kp_paddr;
    int kp_flags;
    enum procstat kp_stat;
    int kp_lock, kp_acflag, kp_traceflag;
    uintptr_t kp_fd;
    sigset_t kp_siglist, kp_sigignore, kp_sigcatch;
    int kp_sigflag;
    struct timeval kp_start;
    char kp_comm[MAXCOMLEN + 1];
    uid_t kp_uid;
    short kp_ngroups;
    gid_t kp_groups[NGROUPS];
    uid_t kp_ruid, kp_svuid;
    gid_t kp_rgid, kp_svgid;
    pid_t kp_pid, kp_ppid, kp_pgid;
    int kp_jobc;
    pid_t kp_sid;
    char kp_login[(MAXLOGNAME + 7) / 8 * 8];
    dev_t kp_tdev;
    pid_t kp_tpgid, kp_tsid;
    u_short kp_exitstat;
    int kp_nthreads, kp_nice;
    u_int kp_swtime;
    size_t kp_vm_map_size;
    segsz_t kp_vm_rssize, kp_vm_swrss, kp_vm_tsize, kp_vm_dsize, kp_vm_ssize;
    u_int kp_vm_prssize;
    int kp_jailid;
    struct rusage kp_ru, kp_cru;
    int kp_auxflags;
    struct kinfo_lwp kp_lwp;
    uintptr_t kp_ktaddr;
    int kp_spare[2];
};
#define KI_CTTY 1
#define KI_SLEADER 2

#endif
