/**
 * What memory is used for, in figures (`sys/vm/vm_meter.c`, and the counts of `vm_map.c` that the pageout daemon chooses by).
 *
 * Room: `kernel/vm/`; reads objects, maps and counters.
 *
 * @module
 */
import type { Kernel } from "../kernel.ts";
import { SWAP_META_PAGES } from "./swap_meta.ts";
import { OBJT_DEFAULT, OBJT_SWAP } from "./vm_object.ts";
import { VM_MAPTYPE_NORMAL, VM_MAPTYPE_VPAGETABLE } from "./vm_param.ts";
import type { Vmspace } from "./vmspace.ts";

/** Anonymous pages of an address space that are resident (`vmspace_anonymous_count`): those of the objects that its entries name. */
export function vmspaceAnonymousCount(vm: Vmspace): number {
  let count = 0;
  for (const { maptype, object } of vm.vmMap.entries()) {
    if (maptype !== VM_MAPTYPE_NORMAL && maptype !== VM_MAPTYPE_VPAGETABLE) continue;
    if (object?.type === OBJT_DEFAULT || object?.type === OBJT_SWAP) count += object.residentPageCount;
  }
  return count;
}

/** Pages of an address space that are on swap, approximately: a share of its objects' swap metadata (`vmspace_swap_count`). */
export function vmspaceSwapCount(vm: Vmspace): number {
  let count = 0;
  for (const { maptype, object, start, end } of vm.vmMap.entries()) {
    if (maptype !== VM_MAPTYPE_NORMAL && maptype !== VM_MAPTYPE_VPAGETABLE) continue;
    if (object === undefined || object.swblockCount === 0) continue;
    const pages = Number((end - start) >> 12n);
    count += Math.floor(object.swblockCount * SWAP_META_PAGES * pages / object.size) + 1;
  }
  return count;
}

/** `struct vmtotal`, in pages: what `vm.vmtotal` answers. */
export interface Vmtotal {
  /** Virtual memory of all objects. */
  readonly tVm: number;
  /** Resident pages of all objects. */
  readonly tRm: number;
  /** The same of objects that more than one uses. */
  readonly tVmshr: number;
  /** Resident pages of these. */
  readonly tRmshr: number;
  /** Pages that are free or can be had at once. */
  readonly tFree: number;
}

/** Adds up all objects (`do_vmtotal`). */
export function vmTotal(k: Kernel): Vmtotal {
  let tVm = 0, tRm = 0, tVmshr = 0, tRmshr = 0;
  for (const { refCount, size, residentPageCount } of k.vmObject.objectList) {
    if (refCount === 0) continue;
    tVm += size;
    tRm += residentPageCount;
    if (refCount > 1) {
      tVmshr += size;
      tRmshr += residentPageCount;
    }
  }
  return { tVm, tRm, tVmshr, tRmshr, tFree: k.vmmeter.vFreeCount + k.vmmeter.vCacheCount };
}

/** The number behind each name of the `vm` subtree of sysctl. */
export const vmSysctls: readonly (readonly [name: string, value: (k: Kernel) => number])[] = [
  ["vm.stats.sys.v_swtch", (k) => k.vmmeter.vSwtch],
  ["vm.stats.sys.v_trap", (k) => k.vmmeter.vTrap],
  ["vm.stats.sys.v_syscall", (k) => k.vmmeter.vSyscall],
  ["vm.stats.sys.v_intr", (k) => k.vmmeter.vIntr],
  ["vm.stats.sys.v_ipi", (k) => k.vmmeter.vIpi],
  ["vm.stats.sys.v_timer", (k) => k.vmmeter.vTimer],
  ["vm.stats.sys.v_soft", (k) => k.vmmeter.vSoft],
  ["vm.stats.vm.v_vm_faults", (k) => k.vmmeter.vVmFaults],
  ["vm.stats.vm.v_cow_faults", (k) => k.vmmeter.vCowFaults],
  ["vm.stats.vm.v_cow_optim", (k) => k.vmmeter.vCowOptim],
  ["vm.stats.vm.v_zfod", (k) => k.vmmeter.vZfod],
  ["vm.stats.vm.v_ozfod", (k) => k.vmmeter.vOzfod],
  ["vm.stats.vm.v_swapin", (k) => k.vmmeter.vSwapin],
  ["vm.stats.vm.v_swapout", (k) => k.vmmeter.vSwapout],
  ["vm.stats.vm.v_swappgsin", (k) => k.vmmeter.vSwappgsin],
  ["vm.stats.vm.v_swappgsout", (k) => k.vmmeter.vSwappgsout],
  ["vm.stats.vm.v_vnodein", (k) => k.vmmeter.vVnodein],
  ["vm.stats.vm.v_vnodeout", (k) => k.vmmeter.vVnodeout],
  ["vm.stats.vm.v_vnodepgsin", (k) => k.vmmeter.vVnodepgsin],
  ["vm.stats.vm.v_vnodepgsout", (k) => k.vmmeter.vVnodepgsout],
  ["vm.stats.vm.v_intrans", (k) => k.vmmeter.vIntrans],
  ["vm.stats.vm.v_reactivated", (k) => k.vmmeter.vReactivated],
  ["vm.stats.vm.v_pdwakeups", (k) => k.vmmeter.vPdwakeups],
  ["vm.stats.vm.v_pdpages", (k) => k.vmmeter.vPdpages],
  ["vm.stats.vm.v_dfree", (k) => k.vmmeter.vDfree],
  ["vm.stats.vm.v_pfree", (k) => k.vmmeter.vPfree],
  ["vm.stats.vm.v_tfree", (k) => k.vmmeter.vTfree],
  ["vm.stats.vm.v_forks", (k) => k.vmmeter.vForks],
  ["vm.stats.vm.v_vforks", (k) => k.vmmeter.vVforks],
  ["vm.stats.vm.v_rforks", (k) => k.vmmeter.vRforks],
  ["vm.stats.vm.v_kthreads", (k) => k.vmmeter.vKthreads],
  ["vm.stats.vm.v_forkpages", (k) => k.vmmeter.vForkpages],
  ["vm.stats.vm.v_vforkpages", (k) => k.vmmeter.vVforkpages],
  ["vm.stats.vm.v_rforkpages", (k) => k.vmmeter.vRforkpages],
  ["vm.stats.vm.v_page_size", (k) => k.vmmeter.vPageSize],
  ["vm.stats.vm.v_page_count", (k) => k.vmmeter.vPageCount],
  ["vm.stats.vm.v_free_reserved", (k) => k.vmmeter.vFreeReserved],
  ["vm.stats.vm.v_free_target", (k) => k.vmmeter.vFreeTarget],
  ["vm.stats.vm.v_free_min", (k) => k.vmmeter.vFreeMin],
  ["vm.stats.vm.v_free_severe", (k) => k.vmmeter.vFreeSevere],
  ["vm.stats.vm.v_free_count", (k) => k.vmmeter.vFreeCount],
  ["vm.stats.vm.v_wire_count", (k) => k.vmmeter.vWireCount],
  ["vm.stats.vm.v_active_count", (k) => k.vmmeter.vActiveCount],
  ["vm.stats.vm.v_inactive_target", (k) => k.vmmeter.vInactiveTarget],
  ["vm.stats.vm.v_inactive_count", (k) => k.vmmeter.vInactiveCount],
  ["vm.stats.vm.v_cache_min", (k) => k.vmmeter.vCacheMin],
  ["vm.stats.vm.v_cache_max", (k) => k.vmmeter.vCacheMax],
  ["vm.stats.vm.v_cache_count", (k) => k.vmmeter.vCacheCount],
  ["vm.stats.vm.v_pageout_free_min", (k) => k.vmmeter.vPageoutFreeMin],
  ["vm.stats.vm.v_interrupt_free_min", (k) => k.vmmeter.vInterruptFreeMin],
  ["vm.v_free_min", (k) => k.vmmeter.vFreeMin],
  ["vm.v_free_target", (k) => k.vmmeter.vFreeTarget],
  ["vm.v_free_reserved", (k) => k.vmmeter.vFreeReserved],
  ["vm.v_free_severe", (k) => k.vmmeter.vFreeSevere],
  ["vm.v_inactive_target", (k) => k.vmmeter.vInactiveTarget],
  ["vm.v_cache_min", (k) => k.vmmeter.vCacheMin],
  ["vm.v_cache_max", (k) => k.vmmeter.vCacheMax],
  ["vm.v_pageout_free_min", (k) => k.vmmeter.vPageoutFreeMin],
  ["vm.max_wired", (k) => k.vmPages.vmPageMaxWired],
  ["vm.oom_kills", (k) => k.vmmeter.vOomkills],
  ["vm.swap_size", (k) => k.swap.vmSwapSize],
  ["vm.swap_max", (k) => k.swap.vmSwapMax],
  ["vm.swap_anon_use", (k) => k.swap.vmSwapAnonUse],
  ["vm.swap_cache_use", () => 0],
  ["vm.swap_free", (k) => k.swap.vmSwapSize],
  ["vm.nswapdev", (k) => k.swap.devices.length],
];
