/* Counters of the virtual-memory system. */
#ifndef _SYS_VMMETER_H
#define _SYS_VMMETER_H

#include <sys/types.h>

struct vmmeter {
    u_int v_swtch, v_trap, v_syscall, v_intr, v_ipi, v_timer, v_soft;
    u_int v_vm_faults, v_cow_faults, v_cow_optim, v_zfod, v_ozfod;
    u_int v_swapin, v_swapout, v_swappgsin, v_swappgsout, v_vnodein, v_vnodeout, v_vnodepgsin, v_vnodepgsout;
    u_int v_intrans, v_reactivated, v_pdwakeups, v_pdpages, v_dfree, v_pfree, v_tfree;
    u_int v_forks, v_vforks, v_rforks, v_exec, v_kthreads, v_forkpages, v_vforkpages, v_rforkpages, v_kthreadpages;
    u_int v_intrans_coll, v_intrans_wait, v_forwarded_ints, v_forwarded_hits, v_forwarded_misses, v_sendsys,
        v_waitsys;
    u_int v_smpinvltlb, v_ppwakeups, v_lock_colls;
    char v_lock_name[16];
    u_int v_reserved6, v_reserved7;
};

struct vmstats {
    u_int v_page_size, v_page_count, v_free_reserved, v_free_target, v_free_min, v_free_count, v_wire_count;
    u_int v_active_count, v_inactive_target, v_inactive_count, v_cache_count, v_cache_min, v_cache_max;
    u_int v_pageout_free_min, v_interrupt_free_min, v_free_severe, v_dma_avail, v_dma_pages;
    u_int v_unused[8];
};

struct vmtotal {
    long t_rq, t_dw, t_pw, t_sl, t_sw, t_vm, t_avm, t_rm, t_arm, t_vmshr, t_avmshr, t_rmshr, t_armshr, t_free;
};

#endif
