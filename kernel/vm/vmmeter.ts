/**
 * Counters and limits of the VM system (`sys/sys/vmmeter.h`: `struct vmmeter`, `struct vmstats`), with DragonFly's names.
 *
 * Room: `kernel/vm/`; imports nothing. Everybody counts here, at the place where DragonFly counts.
 *
 * DragonFly keeps one of these for each processor and folds them together now and then. A counter here is changed within one
 * step of a continuation, so one structure for all processors is exact at any time; nothing is folded.
 *
 * @module
 */

/** Events since boot, and the present state of memory in pages. */
export class Vmmeter {
  // ---- struct vmmeter: events

  /** Context switches. */
  vSwtch = 0;
  /** Calls to trap. */
  vTrap = 0;
  /** System calls. */
  vSyscall = 0;
  /** Device interrupts. */
  vIntr = 0;
  /** Inter-processor interrupts received. */
  vIpi = 0;
  /** Timer interrupts. */
  vTimer = 0;
  /** Software interrupts. */
  vSoft = 0;
  /** Address faults taken. */
  vVmFaults = 0;
  /** Faults that made a private copy. */
  vCowFaults = 0;
  /** Copy-on-write faults that took the page over instead. */
  vCowOptim = 0;
  /** Pages filled with zeros on demand. */
  vZfod = 0;
  /** Of these, pages that were known to be zero already. */
  vOzfod = 0;
  /** Swap pager: read operations. */
  vSwapin = 0;
  /** Swap pager: write operations. */
  vSwapout = 0;
  /** Swap pager: pages read. */
  vSwappgsin = 0;
  /** Swap pager: pages written. */
  vSwappgsout = 0;
  /** Vnode pager: read operations. */
  vVnodein = 0;
  /** Vnode pager: write operations. */
  vVnodeout = 0;
  /** Vnode pager: pages read. */
  vVnodepgsin = 0;
  /** Vnode pager: pages written. */
  vVnodepgsout = 0;
  /** Faults that waited for a page that was busy. */
  vIntrans = 0;
  /** Pages that the pageout daemon found in use and reactivated. */
  vReactivated = 0;
  /** Times that the pageout daemon woke up. */
  vPdwakeups = 0;
  /** Pages that it looked at. */
  vPdpages = 0;
  /** Pages that it freed. */
  vDfree = 0;
  /** Pages freed by exiting processes. */
  vPfree = 0;
  /** Pages freed, all in all. */
  vTfree = 0;
  /** Calls of fork. */
  vForks = 0;
  /** Calls of vfork. */
  vVforks = 0;
  /** Calls of rfork. */
  vRforks = 0;
  /** Kernel threads made. */
  vKthreads = 0;
  /** Pages of the address spaces that were forked. */
  vForkpages = 0;
  /** The same for vfork. */
  vVforkpages = 0;
  /** The same for rfork. */
  vRforkpages = 0;
  /** Processes that were killed because memory and swap were used up. */
  vOomkills = 0;

  // ---- struct vmstats: pages

  /** Bytes in a page. */
  readonly vPageSize = 4096;
  /** Pages that the VM system has. */
  vPageCount = 0;
  /** Pages kept for those who must not wait: ordinary allocations stop here. */
  vFreeReserved = 0;
  /** Pages that the pageout daemon tries to have free. */
  vFreeTarget = 0;
  /** Pages that should be free; below, processes wait. */
  vFreeMin = 0;
  /** Below this memory is so short that faults wait before they start. */
  vFreeSevere = 0;
  /** Pages kept for the pageout daemon's own needs. */
  vPageoutFreeMin = 0;
  /** Pages kept for interrupts. */
  vInterruptFreeMin = 0;
  /** Pages on the FREE queues. */
  vFreeCount = 0;
  /** Pages that are wired. */
  vWireCount = 0;
  /** Pages on the ACTIVE queues. */
  vActiveCount = 0;
  /** Pages that the daemon would like on the INACTIVE queues. */
  vInactiveTarget = 0;
  /** Pages on the INACTIVE queues. */
  vInactiveCount = 0;
  /** Least pages that should be on the CACHE queues or free. */
  vCacheMin = 0;
  /** Most pages on the CACHE queues. */
  vCacheMax = 0;
  /** Pages on the CACHE queues. */
  vCacheCount = 0;
}
