/**
 * What a host kernel knows of the vkernels that run on it (`struct vkernel_proc`, `vmspace_entry`, `vkernel_lwp` of `sys/sys/vkernel.h`), and
 * what it counts.
 *
 * Room: `kernel/vm/`; imports types, and the lists that the types need. What is done with it: `vm_vmspace.ts` (the system calls),
 * `vkernel_trap.ts` (the way back), `vm_fault_vpagetable.ts` (software page tables), `kernel/vmm/` (the same on VMX).
 *
 *     Proc.pVkernel ─► VkernelProc ─► VmspaceEntry (by id) ─► Vmspace        shared by the processes that fork made of one vkernel
 *     Lwp.lwpVkernel ─► VkernelLwp.ve ─► the VmspaceEntry that the thread is in now: it is in guest user mode
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { LwktToken } from "../lwkt/token.ts";
import type { Lwp } from "../proc/proc.ts";
import type { Vmspace } from "./vmspace.ts";

/** An address space that a vkernel made for one of its processes (`struct vmspace_entry`). */
export class VmspaceEntry {
  /** `id`: the vkernel's name for it, any word. */
  readonly id: bigint;
  /** `vmspace`. */
  readonly vmspace: Vmspace;
  /** `refs`: threads that are in it, and calls that work on it. */
  refs = 0;

  /** Made by vmspace_create. */
  constructor(id: bigint, vmspace: Vmspace) {
    this.id = id;
    this.vmspace = vmspace;
  }
}

/** What makes a process a vkernel (`struct vkernel_proc`). */
export class VkernelProc {
  /** `root`: its address spaces by id. */
  readonly root: Map<bigint, VmspaceEntry> = new Map();
  /** `token`: held by who changes `root`. */
  readonly token: LwktToken = new LwktToken("vkernel");
  /** `refs`: processes that have it; fork shares it. */
  refs = 1;
  /** `vkernel_cr3`: on VMX, the guest CR3 under which the vkernel itself runs. */
  vkernelCr3 = 0n;
}

/** A vkernel's thread (`struct vkernel_lwp`), made when it first runs guest code. */
export class VkernelLwp {
  /** `save_trapframe`: the vkernel's own registers while guest code runs. */
  saveTrapframe: Uint8Array<ArrayBuffer> = new Uint8Array(0);
  /** `save_vextframe`: its FS and GS base. */
  saveVextframe: Vextframe = { fsbase: 0n, gsbase: 0n };
  /** `user_trapframe`: where the guest's registers go afterwards. */
  userTrapframe = 0n;
  /** `user_vextframe`. */
  userVextframe = 0n;
  /** `ve`: the address space it is in. Guest user mode means: this, or {@link veVmm}, is not undefined. */
  ve: VmspaceEntry | undefined;
  /** On VMX: the guest CR3 that runs, the word that vmspace_ctl was given. Never taken for a pointer (`e1ea8b243e`). */
  veVmm: bigint | undefined;

  /** Guest code runs, or will when the thread returns to user mode. */
  get inGuest(): boolean {
    return this.ve !== undefined || this.veVmm !== undefined;
  }
}

/** What vmspace_ctl takes beside the trap frame (`struct vextframe`): two words. */
export interface Vextframe {
  /** FS base. */
  readonly fsbase: bigint;
  /** GS base. */
  readonly gsbase: bigint;
}

/** Bytes of a {@link Vextframe} in memory. */
export const VEXTFRAME_BYTES = 16;

/** What the VMM does of a vkernel's calls when the vkernel runs on it (`kernel/vmm/`). */
export interface VkernelVmm {
  /** Whether this thread runs on the VMM (`cx.lwp.lwpThread` has a vmm). */
  isVmm(lp: Lwp): boolean;
  /**
   * vmspace_ctl(RUN) has put the guest's registers into the frame: the next entry uses guest CR3 `id`.
   *
   * @returns 0, or the error number that vmspace_ctl gives; then nothing has changed.
   */
  enter(cx: Cx, lp: Lwp, id: bigint): Exec<number>;
  /** The thread leaves guest user mode: guest CR3 is the vkernel's again. */
  leave(cx: Cx, lp: Lwp): Exec<void>;
}

/** Counters and hooks of a host kernel for its vkernels. */
export class VkernelState {
  /** Address spaces that vkernels have now. */
  vmspaces = 0;
  /** Address spaces made (`vmspace_create`). */
  vmspaceCreates = 0;
  /** Address spaces destroyed, by call or by exit. */
  vmspaceDestroys = 0;
  /** Returns to guest user mode that were asked for and granted (`vmspace_ctl` RUN). */
  runs = 0;
  /** Ways back (`vkernel_trap`). */
  traps = 0;
  /** Ways back by `tf_trapno`. */
  readonly trapsByNumber: Map<number, number> = new Map();
  /** MADV_SETMAP. */
  setmaps = 0;
  /** MADV_INVAL, of either kind. */
  invals = 0;
  /** Faults that walked a software page table. */
  vpteWalks = 0;
  /** Entries of software page tables that walks read. */
  vpteReferences = 0;
  /** Entries whose A or M bit a walk set. */
  vpteSets = 0;
  /** Walks that found the access not allowed: the vkernel's own page faults, or its guests'. */
  vpteFailures = 0;
  /** Times that somebody waited for a range of a map (`vm_map_interlock`). */
  interlockWaits = 0;
  /**
   * The VMM, once it is up.
   *
   * @internal
   */
  vmm: VkernelVmm | undefined;
}
