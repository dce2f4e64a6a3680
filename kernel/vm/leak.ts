/**
 * What the VM system has in use: the same before and after whatever has ended, or something was forgotten.
 *
 * Room: `kernel/vm/`; reads every part's counters.
 *
 * @module
 */
import type { Kernel } from "../kernel.ts";

/** Counts of what exists now. */
export interface VmUse {
  /** Pages that are neither free nor on CACHE. */
  readonly pages: number;
  /** Memory objects. */
  readonly objects: number;
  /** Map entries. */
  readonly entries: number;
  /** pv entries, page-table pages included. */
  readonly pvs: number;
  /** Address spaces. */
  readonly vmspaces: number;
  /** Wired pages. */
  readonly wired: number;
}

/**
 * Counts what exists now.
 *
 * Page-table roots that wait for the next address space count as in use: {@link "./vmspace.ts"}, vmspaceCacheDrain, gives them back first.
 */
export function vmUse(k: Kernel): VmUse {
  const v = k.vmmeter;
  return {
    pages: v.vPageCount - v.vFreeCount - v.vCacheCount,
    objects: k.vmObject.objectCount,
    entries: k.vmMap.entryCount,
    pvs: k.pmap.pvCount,
    vmspaces: k.vmMap.vmspaceCount,
    wired: v.vWireCount,
  };
}

/** What there is more of now than before, in words; empty when nothing leaked. */
export function vmLeaks(before: VmUse, after: VmUse): string[] {
  const names = Object.keys(before) as (keyof VmUse)[];
  return names.filter((name) => after[name] > before[name]).map((name) =>
    `${after[name] - before[name]} ${name} left (${before[name]} before, ${after[name]} after)`
  );
}
