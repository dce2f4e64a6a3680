/**
 * Changing address spaces: at a switch of threads (`cpu_heavy_restore`, `cpu_lwkt_restore` in `swtch.s`), at exec and exit (`pmap_setlwpvm`,
 * `pmap_replacevm`).
 *
 * Room: `kernel/pmap/`. Reference: section 5.8.
 *
 * The order is everything. A CPU sets its bit in the new pmap's `pmActive` **before** it loads CR3 and clears it in the old one **after**:
 * whatever its TLB may hold belongs to a pmap whose set it is in, and an invalidation never misses it. If the new pmap is locked, the
 * invalidation under way does not know this CPU; it waits until the entry has been changed, and only then loads CR3.
 *
 * Kernel threads run on the kernel's own tables; so does a thread whose pmap CR3 cannot point at (EPT).
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import { type Hpa, hpa } from "../../hw/address.ts";
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import { lwktProcessIpiq } from "../lwkt/ipiq.ts";
import { critEnter, critExit, type Thread } from "../lwkt/thread.ts";
import { physToDmap } from "../platform/layout.ts";
import type { Lwp, Proc } from "../proc/proc.ts";
import type { Vmspace } from "../vm/vmspace.ts";
import type { Pmap } from "./pmap.ts";
import { EPT_PMAP, TYPE_IDX } from "./pmap_bits.ts";

/** Physical address of the kernel's root (`KPML4phys`). */
export function kernelRoot(cx: Cx): Hpa {
  const { pmPml4 } = cx.k.pmap.kernelPmap;
  kassert(pmPml4 !== undefined, "pmap: the kernel has no page tables yet");
  return hpa(Number(pmPml4 - physToDmap(cx.k, hpa(0))));
}

/** What CR3 is while a pmap is in force (`pcb_cr3`): its root, or the kernel's if it is no regular one. */
export function pmapCr3(cx: Cx, pmap: Pmap): Hpa {
  if (pmap.pmapBits[TYPE_IDX] === EPT_PMAP) return kernelRoot(cx);
  const root = pmap.pmPmlpv?.pvM;
  kassert(root !== undefined, "pmap: a pmap without a root would be loaded");
  return root.physAddr;
}

/** The pmap that a thread needs; undefined for a kernel thread. */
function pmapOf(td: Thread): Pmap | undefined {
  return td.tdLwp?.lwpVmspace?.vmPmap;
}

/**
 * The address-space half of a switch of threads. Interrupts are off.
 *
 * Nothing ends the step after CR3 has been loaded: the running continuation is still the old thread's and belongs to the old root. What the
 * old thread had loaded is remembered by CPU, since a thread that exits has no lwp any more.
 */
export function* pmapSwitch(cx: Cx, _oldTd: Thread, newTd: Thread): Exec<void> {
  const { loaded } = cx.k.pmap;
  const { gdCpuid: cpu, gdCpumask: mask } = cx.gd;
  const oldPmap = loaded[cpu], newPmap = pmapOf(newTd);
  if (newPmap === oldPmap) {
    // The bit has been set all the time: no invalidation has been missed, the TLB is good.
    if (newPmap !== undefined && cx.k.bug("pmap-skip-cr3")) yield* skipCr3(cx, newPmap, mask);
    return;
  }
  if (newPmap !== undefined) yield* activate(cx, newPmap, mask);
  yield* cx.k.platform.loadCr3(cx, newPmap === undefined ? kernelRoot(cx) : pmapCr3(cx, newPmap));
  if (oldPmap !== undefined) deactivate(oldPmap, mask);
  loaded[cpu] = newPmap;
}

/**
 * Historical bug (`95270b7ecb`, January 2017): switching between two threads of one address space, the CPU clears its bit, sets it again, and
 * keeps CR3 and so its TLB. An invalidation in the gap misses it.
 */
function* skipCr3(cx: Cx, pmap: Pmap, mask: number): Exec<void> {
  deactivate(pmap, mask);
  yield* cx.racePoint();
  yield* activate(cx, pmap, mask);
}

/** Sets this CPU's bit; if an invalidation is under way, waits for its end (`pmap_interlock_wait`). CR3 must be loaded in the same step. */
function* activate(cx: Cx, pmap: Pmap, mask: number): Exec<void> {
  pmap.pmActive |= mask;
  if (pmap.pmTwin !== undefined) pmap.pmTwin.pmActive |= mask;
  yield* cx.racePoint();
  yield* pmapInterlockWait(cx, pmap);
  if (pmap.pmTwin !== undefined) yield* pmapInterlockWait(cx, pmap.pmTwin);
}

/** Clears this CPU's bit. */
function deactivate(pmap: Pmap, mask: number): void {
  pmap.pmActive &= ~mask;
  if (pmap.pmTwin !== undefined) pmap.pmTwin.pmActive &= ~mask;
}

/** Waits until no invalidation of the pmap is under way (`pmap_interlock_wait`). In a critical section. */
export function* pmapInterlockWait(cx: Cx, pmap: Pmap): Exec<void> {
  while (pmap.pmActiveLock) {
    // Its master may be waiting for this CPU on behalf of another pmap.
    yield* lwktProcessIpiq(cx, false);
    yield* cx.pause();
  }
}

/**
 * Gives an lwp another address space (`pmap_setlwpvm`); if it is the current one, loads it. The caller looks after references to the vmspaces.
 */
export function* pmapSetlwpvm(cx: Cx, lwp: Lwp, newvm: Vmspace): Exec<void> {
  if (lwp.lwpVmspace === newvm) return;
  critEnter(cx);
  lwp.lwpVmspace = newvm;
  if (cx.lwp === lwp) yield* loadHere(cx, newvm.vmPmap);
  yield* critExit(cx);
}

/** Loads a pmap for the running thread. */
function* loadHere(cx: Cx, newPmap: Pmap): Exec<void> {
  const { loaded } = cx.k.pmap;
  const { gdCpuid: cpu, gdCpumask: mask } = cx.gd;
  const oldPmap = loaded[cpu];
  if (oldPmap === newPmap) return;
  yield* activate(cx, newPmap, mask);
  yield* cx.k.platform.loadCr3(cx, pmapCr3(cx, newPmap));
  if (oldPmap !== undefined) deactivate(oldPmap, mask);
  loaded[cpu] = newPmap;
}

/** Gives a process and its only thread another address space (`pmap_replacevm`): exec. The caller releases the old one. */
export function* pmapReplacevm(cx: Cx, p: Proc, newvm: Vmspace): Exec<void> {
  if (p.pVmspace === newvm) return;
  kassert(p.pNthreads <= 1, `pmap_replacevm: process ${p.pPid} has ${p.pNthreads} threads`);
  const lwp = p.firstLwp;
  p.pVmspace = newvm;
  if (lwp !== undefined) yield* pmapSetlwpvm(cx, lwp, newvm);
}
