/**
 * What a kernel has in use, for leak checks: the same before and after whatever has ended, or something was forgotten.
 *
 * Room: `lab/`; reads the kernel's counters.
 *
 * @module
 */
import { PAGE_SIZE } from "../hw/address.ts";
import type { Machine } from "../hw/machine.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { KSTACK_BYTES } from "../kernel/platform/pc64/vmparam.ts";
import { OBJT_VNODE } from "../kernel/vm/vm_object.ts";
import { PQ_FREE } from "../kernel/vm/vm_pageq.ts";
import { vmLeaks, type VmUse, vmUse } from "../kernel/vm/leak.ts";

/** Counts of what exists now. */
export interface KernelUse {
  readonly vm: VmUse;
  /** Open files. */
  readonly files: number;
  /** Processes and zombies. */
  readonly processes: number;
  /** Kernel threads and lwps. */
  readonly threads: number;
  /** Timed calls that are armed. */
  readonly callouts: number;
}

/** What the kernel on a machine uses, and what of the machine. */
export interface MachineUse {
  readonly kernel: KernelUse;
  /** Continuations of gates, each in words. */
  readonly continuations: readonly string[];
  /** Gates that are registered, each in words. */
  readonly gates: readonly string[];
  /** Ended threads whose stacks and continuations wait for somebody to look after them. */
  readonly ended: number;
}

/** Counts on a machine with gates. */
export function machineUse(machine: Machine, k: Kernel): MachineUse {
  const gates = machine.gates!;
  return {
    kernel: kernelUse(k),
    continuations: gates.describeLive(),
    gates: gates.describeGates(),
    ended: k.lwkt.reap.length,
  };
}

/** What there is more of than before, in words: for the host of vkernels, after they have ended. */
export function machineLeaks(before: MachineUse, after: MachineUse): string[] {
  const leaks = kernelLeaks(before.kernel, after.kernel);
  const more = (name: "continuations" | "gates", allowed: number) => {
    const left = after[name].length - before[name].length;
    if (left > allowed) {
      leaks.push(`${left} ${name} left: ${without(after[name], before[name]).slice(0, 8).join("; ")}`);
    }
  };
  more("continuations", after.ended);
  more("gates", 0);
  return leaks;
}

/** What of a list is not in another, each as often as it is there more. */
function without(list: readonly string[], others: readonly string[]): string[] {
  const known = [...others];
  return list.filter((one) => {
    const at = known.indexOf(one);
    if (at >= 0) known.splice(at, 1);
    return at < 0;
  });
}

/** Counts. */
export function kernelUse(k: Kernel): KernelUse {
  const vm = vmUse(k);
  // Stacks that wait for the next threads are nobody's; each is an entry of kernel_map.
  const stackPages = k.platform.kstacksCached * (KSTACK_BYTES / PAGE_SIZE);
  // A file's object stays while nobody has the file open: for the next reader.
  let cachedFiles = 0;
  for (const object of k.vmObject.objectList) {
    if (object.type === OBJT_VNODE && object.refCount === 0) cachedFiles++;
  }
  let callouts = 0;
  for (const slot of k.callouts.wheel.values()) callouts += slot.size;
  return {
    vm: {
      ...vm,
      pages: pagesInUse(k) - stackPages,
      objects: vm.objects - cachedFiles,
      wired: vm.wired - stackPages,
      entries: vm.entries - k.platform.kstacksCached,
    },
    files: k.vfs.filehead.size,
    processes: k.procs.allproc.size,
    threads: k.lwkt.allThreads.size,
    callouts,
  };
}

/** What there is more of than before, in words. */
export function kernelLeaks(before: KernelUse, after: KernelUse): string[] {
  const leaks = vmLeaks(before.vm, after.vm);
  for (const name of ["files", "processes", "threads", "callouts"] as const) {
    if (after[name] > before[name]) leaks.push(`${after[name] - before[name]} ${name} left`);
  }
  return leaks;
}

/** Pages that are not free and do not hold a file's data, which may stay for the next reader. */
function pagesInUse(k: Kernel): number {
  let pages = 0;
  for (const m of k.vmPages.vmPageArray) {
    if (m === undefined || m.object?.type === OBJT_VNODE) continue;
    if (m.queue - m.pc !== PQ_FREE) pages++;
  }
  return pages;
}
