/**
 * Address spaces of processes (`struct vmspace`; `vmspace_*` of `sys/vm/vm_map.c`), the structure and its life. Fork stands in
 * `vmspace_fork.ts`.
 *
 * Room: `kernel/vm/`; imports the map and the pmap.
 *
 * An address space dies in two stages, because the last thread of a process still runs on its tables when the process exits:
 *
 *     vmRefcnt  1 → 0    stage 1   nobody runs in it on purpose any more: all mappings go
 *     vmHoldcnt 1 → 0    stage 2   nobody looks at it any more: the tables go
 *
 * Each reference is a hold too, so stage 1 comes before stage 2 (the nesting of July 2014, `93f86408bb`; before, the two counts
 * were separate and could run out in the wrong order). Nothing can make a reference out of a vmspace whose count has reached 0.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import { lwktGettoken, lwktReltoken } from "../lwkt/token.ts";
import { Pmap } from "../pmap/pmap.ts";
import { pmapPinit, pmapPinit2, pmapPuninit, pmapRelease } from "../pmap/pmap_pinit.ts";
import { pmapRemovePages } from "../pmap/pmap_remove.ts";
import { pmapReplacevm } from "../pmap/pmap_switch.ts";
import type { Proc } from "../proc/proc.ts";
import { VmMap } from "./vm_map.ts";
import { vmMapRemove } from "./vm_map_remove.ts";

/** `vm_flags`: stage 1 has begun. */
export const VMSPACE_EXIT1 = 0x0001;
/** `vm_flags`: stage 2 has begun. */
export const VMSPACE_EXIT2 = 0x0002;
/** Address spaces whose page-table root is kept for the next one. */
export const VMSPACE_CACHE_MAX = 8;

/** An address space (`struct vmspace`). */
export class Vmspace {
  /** `vm_map`. */
  readonly vmMap: VmMap;
  /** `vm_pmap`. */
  readonly vmPmap: Pmap;
  /** `vm_refcnt`: processes (and emulated ones) that have it as theirs. */
  vmRefcnt = 1;
  /** `vm_holdcnt`: those, and whoever only looks. */
  vmHoldcnt = 1;
  /** `vm_flags`, VMSPACE_*. */
  vmFlags = 0;
  /** `vm_tsize`: bytes of text. */
  vmTsize = 0n;
  /** `vm_dsize`: bytes of data, what brk moves. */
  vmDsize = 0n;
  /** `vm_ssize`: bytes of stack. */
  vmSsize = 0n;
  /** `vm_taddr`: where text begins. */
  vmTaddr = 0n as Gva;
  /** `vm_daddr`: where data begins. */
  vmDaddr = 0n as Gva;
  /** `vm_maxsaddr`: lowest address the stack may grow to. */
  vmMaxsaddr = 0n as Gva;
  /** `vm_minsaddr`: top of the stack. */
  vmMinsaddr = 0n as Gva;
  /** In VMM mode: root of the page tables by which its own code's addresses are meant (`vkernel_cr3`). */
  vmGuestCr3: bigint | undefined;
  /** `vm_swrss`: pages resident before the last swap-out. */
  vmSwrss = 0;

  /** Made by {@link vmspaceAlloc}. */
  constructor(min: Gva, max: Gva, pmap: Pmap) {
    this.vmPmap = pmap;
    this.vmMap = new VmMap(min, max, pmap);
  }
}

/** Pmaps whose address space is gone, with their root page (the object cache of vmspaces). */
export class VmspaceState {
  /** At most {@link VMSPACE_CACHE_MAX}; taken from the end. */
  readonly cache: Pmap[] = [];
}

/** Makes an empty address space with one reference (`vmspace_alloc`). Before it is used: {@link pmapPinit2}. */
export function* vmspaceAlloc(cx: Cx, min: Gva, max: Gva): Exec<Vmspace> {
  const pmap = cx.k.vmspace.cache.pop() ?? new Pmap();
  yield* pmapPinit(cx, pmap);
  const vm = new Vmspace(min, max, pmap);
  cx.k.vmMap.vmspaceCount++;
  return vm;
}

/** A reference more (`vmspace_ref`). The caller has one, or otherwise knows that there is one. */
export function vmspaceRef(vm: Vmspace): void {
  kassert(vm.vmRefcnt > 0 && (vm.vmFlags & VMSPACE_EXIT1) === 0, "vmspace_ref: address space is ending");
  vm.vmHoldcnt++;
  vm.vmRefcnt++;
}

/** A reference less (`vmspace_rel`); with the last one the mappings go. */
export function* vmspaceRel(cx: Cx, vm: Vmspace): Exec<void> {
  kassert(vm.vmRefcnt > 0, "vmspace_rel: no reference");
  if (--vm.vmRefcnt === 0) yield* vmspaceTerminate1(cx, vm);
  yield* holdDrop(cx, vm);
}

/**
 * The process exits (`vmspace_relexit`): its reference ends, a hold stays until {@link vmspaceExitfree}, because its threads still run
 * on the tables.
 */
export function* vmspaceRelexit(cx: Cx, vm: Vmspace): Exec<void> {
  vm.vmHoldcnt++;
  yield* vmspaceRel(cx, vm);
}

/** The process has been reaped and none of its threads exists (`vmspace_exitfree`). */
export function* vmspaceExitfree(cx: Cx, p: Proc): Exec<void> {
  const vm = p.pVmspace;
  if (vm === undefined) return;
  p.pVmspace = undefined;
  yield* holdDrop(cx, vm);
}

/** Keeps the structure and takes the map's token, to look at somebody's address space (`vmspace_hold`). */
export function* vmspaceHold(cx: Cx, vm: Vmspace): Exec<void> {
  if (!cx.k.bug("vmspace-refs")) vm.vmHoldcnt++;
  yield* lwktGettoken(cx, vm.vmMap.token);
}

/** Ends {@link vmspaceHold} (`vmspace_drop`). */
export function* vmspaceDrop(cx: Cx, vm: Vmspace): Exec<void> {
  lwktReltoken(cx, vm.vmMap.token);
  if (cx.k.bug("vmspace-refs")) {
    kassert((vm.vmFlags & VMSPACE_EXIT2) === 0, "vmspace_drop: address space is gone");
  } else yield* holdDrop(cx, vm);
}

/** One hold less; the last one ends stage 2. */
function* holdDrop(cx: Cx, vm: Vmspace): Exec<void> {
  kassert(vm.vmHoldcnt > 0, "vmspace_drop: no hold");
  if (--vm.vmHoldcnt === 0) yield* vmspaceTerminate2(cx, vm);
}

/** Stage 1 of `vmspace_terminate`: all mappings go. Threads that are exiting may still have the pmap loaded. */
function* vmspaceTerminate1(cx: Cx, vm: Vmspace): Exec<void> {
  vm.vmFlags |= VMSPACE_EXIT1;
  const { vmMap: map, vmPmap: pmap } = vm;
  yield* lwktGettoken(cx, map.token);
  // Without wired pages the page tables can be emptied in one go; unwiring wants to see each PTE.
  if (pmap.pmStats.wiredCount === 0) yield* pmapRemovePages(cx, pmap, map.min, map.max);
  yield* vmMapRemove(cx, map, map.min, map.max);
  if (pmap.pmStats.wiredCount !== 0) yield* pmapRemovePages(cx, pmap, map.min, map.max);
  lwktReltoken(cx, map.token);
}

/** Stage 2: what came back since stage 1, and the page tables. */
function* vmspaceTerminate2(cx: Cx, vm: Vmspace): Exec<void> {
  kassert((vm.vmFlags & VMSPACE_EXIT1) !== 0, "vmspace_terminate: stage 2 before stage 1");
  kassert((vm.vmFlags & VMSPACE_EXIT2) === 0, "vmspace_terminate: stage 2 twice");
  vm.vmFlags |= VMSPACE_EXIT2;
  const { vmMap: map, vmPmap: pmap } = vm;
  // Taking the lock waits out everybody who still has it.
  yield* vmMapRemove(cx, map, map.min, map.max);
  const twin = pmap.pmTwin;
  if (twin !== undefined) {
    pmap.pmTwin = undefined;
    yield* pmapRelease(cx, twin);
    yield* pmapPuninit(cx, twin);
  }
  yield* pmapRelease(cx, pmap);
  cx.k.vmMap.vmspaceCount--;
  const { cache } = cx.k.vmspace;
  if (cache.length < VMSPACE_CACHE_MAX) cache.push(pmap);
  else yield* pmapPuninit(cx, pmap);
}

/** Gives the pages of cached page-table roots back, for the leak check. */
export function* vmspaceCacheDrain(cx: Cx): Exec<void> {
  for (let pmap = cx.k.vmspace.cache.pop(); pmap !== undefined; pmap = cx.k.vmspace.cache.pop()) {
    yield* pmapPuninit(cx, pmap);
  }
}

/** A new, empty address space for a process that execs (`vmspace_exec`). */
export function* vmspaceExec(cx: Cx, p: Proc): Exec<void> {
  const old = p.pVmspace;
  if (old === undefined) throw new Error("vmspace_exec: the process has no address space");
  const vm = yield* vmspaceAlloc(cx, old.vmMap.min, old.vmMap.max);
  pmapPinit2(cx, vm.vmPmap);
  yield* pmapReplacevm(cx, p, vm);
  yield* vmspaceRel(cx, old);
}
