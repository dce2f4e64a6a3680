/**
 * A machine whose kernel has vkernels, looked at from outside: the rules of the host's kernel, of every guest's, and of what the host has made of
 * the guests' page tables.
 *
 * Room: `lab/guest/`; reads kernels and the machine's RAM. Changes nothing.
 *
 * @module
 */
import type { Machine, MachineStop } from "../../hw/machine.ts";
import { RAM_BASE } from "../../hw/state.ts";
import type { GuestHooks, Kernel } from "../../kernel/kernel.ts";
import { checkInvariantsWith, type Read64 } from "../../kernel/pmap/invariants.ts";
import { parentPindex, type Pmap, pmapPtePindex } from "../../kernel/pmap/pmap.ts";
import { pvLocked } from "../../kernel/pmap/pv_entry.ts";
import { VM_MAX_USER_ADDRESS } from "../../kernel/platform/pc64/vmparam.ts";
import { chainPage } from "../../kernel/vm/vm_check.ts";
import { PAGE_SIZE } from "../../kernel/vm/vm_param.ts";
import { checkVpte } from "../../kernel/vm/vpte_check.ts";

/** A kernel that runs as a process. */
export interface WatchedGuest {
  readonly k: Kernel;
  readonly kind: string;
  /** Its process on the host. */
  readonly pid: number;
}

/** What is wrong, by a name that stays the same while it is the same. */
export type Findings = ReadonlyMap<string, string>;

/** The watch. */
export class GuestWatch {
  readonly machine: Machine;
  /** Vkernels of the host, in the order of their start; also those that have ended. Vkernels on vkernels are not looked at. */
  readonly guests: WatchedGuest[] = [];
  /** The kernel on the machine; set once it is made. */
  host!: Kernel;
  /** Host mappings of software page tables that have been compared so far. */
  compared = 0;

  /** A watch on a machine; {@link host} is set next, and {@link hooks} go to the host's options. */
  constructor(machine: Machine) {
    this.machine = machine;
  }

  /** For the host's `KernelOptions.guest`. */
  hooks(options: GuestHooks["options"] = () => ({})): GuestHooks {
    return {
      options,
      onKernel: (k, kind, pid) => {
        this.guests.push({ k, kind, pid });
      },
    };
  }

  /** Reads RAM of the machine. */
  readonly read64: Read64 = (pa) => this.machine.memory.u64[(RAM_BASE + pa) / 8]!;

  /** Vkernels whose processes are there and have memory. */
  get live(): WatchedGuest[] {
    return this.guests.filter(({ pid, k }) => {
      const proc = this.host.procs.allproc.get(pid);
      return proc?.pVkernel !== undefined && k.pmap.pmapInitialized;
    });
  }

  /** Reads a guest's RAM; what the host has no page for is zeros. */
  guestRead64(guest: WatchedGuest): Read64 {
    const map = this.host.procs.allproc.get(guest.pid)?.pVmspace?.vmMap;
    // Physical addresses of the others are the process's.
    const base = guest.kind === "vpte" ? guest.k.layout.dmapMin : 0n;
    return (pa) => {
      const va = base + BigInt(pa), entry = map?.rbRoot.lookupLE(va);
      if (entry === undefined || va >= entry.end) {
        throw new Error(`The vkernel ${guest.pid} has no memory at 0x${pa.toString(16)}`);
      }
      if (entry.object === undefined) return 0n;
      const offset = entry.offset + Number(va - entry.start);
      const m = chainPage(entry.object, Math.floor(offset / PAGE_SIZE));
      return m === undefined ? 0n : this.read64(m.physAddr + offset % PAGE_SIZE);
    };
  }

  /** Looks once. Findings of kernel mappings may be gone a moment later, and do not count then: see {@link persisting}. */
  look(): Map<string, string> {
    const found = new Map<string, string>();
    for (const text of checkInvariantsWith(this.host, this.read64)) {
      found.set(`host ${text}`, `host: ${text}`);
    }
    const { live } = this;
    for (const guest of live) {
      for (const text of checkInvariantsWith(guest.k, this.guestRead64(guest))) {
        found.set(`${guest.pid} ${text}`, `vkernel ${guest.pid} (${guest.kind}): ${text}`);
      }
    }
    const excuse = (pid: number, id: bigint | undefined, va: bigint) => {
      const guest = live.find((one) => one.pid === pid);
      return guest !== undefined && atWork(guest.k, id, va);
    };
    const { findings, compared } = checkVpte(this.host, this.read64, excuse);
    this.compared += compared;
    for (const { text } of findings) found.set(text, text);
    return found;
  }

  /** Findings that are there before and after the machine has run so many steps more. */
  persisting(steps = 20_000): string[] {
    let found: Findings = this.look();
    for (let times = 0; times < 4 && found.size > 0; times++) {
      this.machine.run({ steps });
      const again = this.look();
      found = new Map([...found].filter(([name]) => again.has(name)));
    }
    return [...found.values()];
  }
}

/**
 * Runs a machine, with a look every so many instructions, until it stops or something is wrong.
 *
 * @param wrong Told what.
 * @param most Bound on the run. Default: none.
 */
export function runWatched(
  watch: GuestWatch,
  every: number,
  wrong: (text: string) => void,
  most = Infinity,
): MachineStop {
  for (let done = 0;;) {
    const stop = watch.machine.run({ steps: Math.min(every, most - done) });
    done += every;
    if (stop.reason !== "steps") return stop;
    const found = watch.persisting();
    if (found.length > 0) wrong(found[0]!);
    if (found.length > 0 || done >= most) return stop;
  }
}

/** Whether a thread of a guest is in the middle of changing what maps an address. */
function atWork(k: Kernel, id: bigint | undefined, va: bigint): boolean {
  const pmap = id === undefined ? k.pmap.kernelPmap : pmapOf(k, id);
  // It is on its way in or out.
  if (pmap === undefined) return true;
  if (pmap.pmSpin.owner !== undefined || pmap.pmPmlpv === undefined || pvLocked(pmap.pmPmlpv)) return true;
  if (id !== undefined && va >= VM_MAX_USER_ADDRESS) return false;
  for (let pindex = pmapPtePindex(va), level = 0; level < 4; level++, pindex = parentPindex(pindex)) {
    const pv = pmap.pmPvroot.find(pindex);
    if (pv !== undefined && pvLocked(pv)) return true;
  }
  return false;
}

function pmapOf(k: Kernel, id: bigint): Pmap | undefined {
  for (const pmap of k.pmap.pmapList) {
    if (BigInt(pmap.pmPmlpv?.pvM?.physAddr ?? -1) === id) return pmap;
  }
  return undefined;
}
