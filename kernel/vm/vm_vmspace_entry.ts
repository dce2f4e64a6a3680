/**
 * Life of a vkernel's address spaces (`vmspace_entry`; `vkernel_inherit`, `vkernel_exit` of `sys/vm/vm_vmspace.c`).
 *
 * Room: `kernel/vm/`; imports vmspaces. Used by the system calls, by fork, exec and exit.
 *
 * Rules:
 *
 * 1. Whoever finds an entry and may sleep before he is done with it takes a reference in the same step (`98e80c6197` and its
 *    followers, 2017). {@link vkernelFindVmspace} does both.
 * 2. An entry with references is not destroyed. One that is being destroyed is in no tree any more before anything can sleep.
 *
 * @module
 */
import { gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { ERRNO } from "../kern/errno.ts";
import { kassert } from "../kern/panic.ts";
import { lwktGettoken, lwktReltoken } from "../lwkt/token.ts";
import { pmapPinit2 } from "../pmap/pmap_pinit.ts";
import type { Proc } from "../proc/proc.ts";
import { VkernelProc, VmspaceEntry } from "./vkernel_state.ts";
import { VMSPACE_EXIT1, vmspaceAlloc, vmspaceRel } from "./vmspace.ts";

/**
 * Most address spaces of all vkernels together; each takes at least a page, like a process of which there may be as many. Not DragonFly's,
 * which has no bound.
 */
export const VMSPACES_MAX = 1000;

/** Finds an entry and takes a reference (`vkernel_find_vmspace`). */
export function vkernelFindVmspace(cx: Cx, vkp: VkernelProc, id: bigint): VmspaceEntry | undefined {
  const ve = vkp.root.get(id);
  if (ve !== undefined && !cx.k.bug("vmspace-entry-refs")) ve.refs++;
  return ve;
}

/** Gives a reference of {@link vkernelFindVmspace} back. */
export function vmspaceEntryDrop(cx: Cx, ve: VmspaceEntry): void {
  kassert(
    (ve.vmspace.vmFlags & VMSPACE_EXIT1) === 0,
    "vmspace_entry: the address space was destroyed while a call was at work on it",
  );
  if (cx.k.bug("vmspace-entry-refs")) return;
  kassert(ve.refs > 0, "vmspace_entry: no reference");
  ve.refs--;
}

/** Makes a process a vkernel, and an empty address space with this id: 0, EEXIST or EAGAIN. */
export function* vmspaceEntryCreate(cx: Cx, p: Proc, id: bigint): Exec<number> {
  const { vkernel } = cx.k;
  p.pVkernel ??= new VkernelProc();
  const vkp = p.pVkernel;
  if (vkp.root.has(id)) return ERRNO.EEXIST;
  if (vkernel.vmspaces >= VMSPACES_MAX) return ERRNO.EAGAIN;
  vkernel.vmspaces++;
  const own = p.pVmspace!;
  const vmspace = yield* vmspaceAlloc(cx, gva(0n), own.vmMap.max);
  pmapPinit2(cx, vmspace.vmPmap);
  yield* lwktGettoken(cx, vkp.token);
  // Another thread may have been quicker.
  const taken = vkp.root.has(id);
  if (!taken) {
    vkp.root.set(id, new VmspaceEntry(id, vmspace));
    vkernel.vmspaceCreates++;
  }
  lwktReltoken(cx, vkp.token);
  if (!taken) return 0;
  yield* vmspaceRel(cx, vmspace);
  vkernel.vmspaces--;
  return ERRNO.EEXIST;
}

/** Destroys an address space: 0, ENOENT or EBUSY (somebody is in it, or at work on it). */
export function* vmspaceEntryDestroy(cx: Cx, vkp: VkernelProc, id: bigint): Exec<number> {
  yield* lwktGettoken(cx, vkp.token);
  const ve = vkp.root.get(id);
  const error = ve === undefined ? ERRNO.ENOENT : ve.refs > 0 ? ERRNO.EBUSY : 0;
  if (ve !== undefined && error === 0) yield* deleteEntry(cx, vkp, ve);
  lwktReltoken(cx, vkp.token);
  return error;
}

/** `vmspace_entry_delete`: out of the tree first, before anything sleeps. */
function* deleteEntry(cx: Cx, vkp: VkernelProc, ve: VmspaceEntry): Exec<void> {
  vkp.root.delete(ve.id);
  yield* vmspaceRel(cx, ve.vmspace);
  cx.k.vkernel.vmspaces--;
  cx.k.vkernel.vmspaceDestroys++;
}

/** A child has its parent's address spaces too (`vkernel_inherit`). */
export function vkernelInherit(p1: Proc, p2: Proc): void {
  const vkp = p1.pVkernel;
  if (vkp === undefined) return;
  vkp.refs++;
  p2.pVkernel = vkp;
}

/**
 * The process is no vkernel any more: it exits, or becomes another program (`vkernel_exit`). With the last of those that share them the
 * address spaces go. No thread of the process is in one.
 */
export function* vkernelExit(cx: Cx, p: Proc): Exec<void> {
  const vkp = p.pVkernel;
  if (vkp === undefined) return;
  p.pVkernel = undefined;
  for (const lp of p.pLwps.values()) {
    kassert(lp.lwpVkernel?.inGuest !== true, "vkernel_exit: a thread is in guest user mode");
  }
  if (--vkp.refs > 0) return;
  for (const ve of [...vkp.root.values()]) {
    kassert(ve.refs === 0, "vkernel_exit: an address space is in use");
    yield* deleteEntry(cx, vkp, ve);
  }
}
