/**
 * What a VM exit means (section 15.7 of the reference).
 *
 * Room: `kernel/vmm/`; imports faults, signals and the system calls' entry. Interrupts are on.
 *
 *     exception            the guest's own: #UD on the bytes of SYSCALL is a system call, everything else a vkernel_trap or a signal
 *     external interrupt   it has been taken by now
 *     CPUID                carried out
 *     EPT violation        a page fault of the process at the guest-physical address
 *     all else             what the instruction would have been at CPL 3: #UD or #GP
 *
 * Deviation: in DragonFly every exception but #UD, #PF, #NM and int3 ends the vkernel, and every #UD is a system call. Here no guest program can
 * end its vkernel.
 *
 * @module
 */
import { type Gva, gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import { describeEptEntry, type ExplainedEptAccess, explainEpt } from "../../hw/explain_ept.ts";
import type { Cx } from "../context.ts";
import { copyin } from "../kern/copy.ts";
import { ktrace } from "../kern/ktr.ts";
import { kprintf, log } from "../kern/subr_prf.ts";
import { T_FAST_SYSCALL, TF } from "../platform/pc64/frame.ts";
import { trapsignal } from "../proc/kern_sig.ts";
import { BUS_ADRERR, SIGBUS } from "../proc/signal.ts";
import { syscallAt, vmmTrap } from "../trap/trap.ts";
import { VM_FAULT_DIRTY, VM_FAULT_NORMAL, vmFault } from "../vm/vm_fault.ts";
import {
  KERN_INVALID_ADDRESS,
  KERN_SUCCESS,
  VM_PROT_EXECUTE,
  VM_PROT_READ,
  VM_PROT_WRITE,
  type VmProt,
} from "../vm/vm_param.ts";
import { eptEmulateAccessedDirty } from "./ept_ad.ts";
import type { VmxThread } from "./vmm_state.ts";
import { EPT_QUAL, EXIT_NAMES, EXIT_REASON, INTR_INFO } from "./vmx_defs.ts";
import { vmxFullDies, vmxFullDone, vmxFullExit } from "./vmx_full.ts";
import { cpuid } from "./vmx_instr.ts";

const VECTOR = { BP: 3, UD: 6, GP: 13, PF: 14 } as const;
/** `syscall`. */
const SYSCALL_BYTES = [0x0f, 0x05];
const ALL_ONES = 0xffff_ffff_ffff_ffffn;
/** Exits of instructions that CPL 3 may not execute and that would be #GP there: I/O, MSRs, HLT, INVD, RDPMC, control registers. */
const GP_EXITS = new Set<number>([
  EXIT_REASON.HLT,
  EXIT_REASON.INVD,
  EXIT_REASON.RDPMC,
  EXIT_REASON.CR_ACCESS,
  EXIT_REASON.MOV_DR,
  EXIT_REASON.IO,
  EXIT_REASON.RDMSR,
  EXIT_REASON.WRMSR,
]);

/** Deals with the exit that `vti.exit` tells of; the guest's registers are in the frame at `at`. */
export function* vmxHandleExit(cx: Cx, vti: VmxThread, at: Gva): Exec<void> {
  const { exit } = vti;
  switch (exit.reason) {
    case EXIT_REASON.EXT_INTR:
      // The interrupt comes at the boundary; for the clock it is one of user mode.
      vti.interrupted = true;
      yield;
      vti.interrupted = false;
      return;
    case EXIT_REASON.EPT_VIOLATION:
      return yield* eptViolation(cx, vti, at);
    case EXIT_REASON.EPT_MISCONFIG:
      return yield* refuse(cx, vti, at, "EPT misconfiguration", {});
    case EXIT_REASON.CPUID:
      yield* emulateCpuid(cx, at);
      return vti.full === undefined
        ? yield* advance(cx, at, exit.instructionLength)
        : yield* vmxFullDone(cx, vti, vti.full, at);
  }
  if (vti.full !== undefined) return yield* vmxFullExit(cx, vti, vti.full, at);
  if (exit.reason === EXIT_REASON.EXCEPTION) return yield* exception(cx, vti, at);
  // None of them is carried out; none has moved RIP.
  ktrace(cx, "vmexit refused", exit.reason);
  yield* raise(cx, at, GP_EXITS.has(exit.reason) ? VECTOR.GP : VECTOR.UD, 0);
}

/** Moves the guest's RIP on. */
export function* advance(cx: Cx, at: Gva, bytes: number): Exec<void> {
  const rip = gva(at + BigInt(TF.rip));
  yield* cx.cpu.store64(rip, (yield* cx.cpu.load64(rip)) + BigInt(bytes));
}

/** An exception of the guest: to its vkernel, or a signal. */
function* raise(cx: Cx, at: Gva, vector: number, error: number, address?: bigint): Exec<void> {
  yield* cx.cpu.store64(gva(at + BigInt(TF.trapno)), BigInt(vector));
  yield* cx.cpu.store64(gva(at + BigInt(TF.err)), BigInt(error >>> 0));
  if (address !== undefined) yield* cx.cpu.store64(gva(at + BigInt(TF.addr)), address);
  yield* vmmTrap(cx, at, vector);
}

/** The guest's RIP is no address: #GP, as its fetch would be. */
export function* vmxNonCanonicalRip(cx: Cx, vti: VmxThread, at: Gva): Exec<void> {
  if (vti.full !== undefined) return yield* vmxFullDies(cx, vti, "RIP is not canonical", at);
  yield* raise(cx, at, VECTOR.GP, 0);
}

/** Exit reason 0. */
function* exception(cx: Cx, vti: VmxThread, at: Gva): Exec<void> {
  const { exit } = vti, { counters } = cx.k.vmm;
  const vector = exit.interruption & INTR_INFO.VECTOR, type = exit.interruption & INTR_INFO.TYPE;
  if (type === INTR_INFO.TYPE_NMI) {
    kprintf(cx, `cpu${cx.cpu.cpu.id}: NMI\n`);
    return;
  }
  counters.exceptions[vector] = (counters.exceptions[vector] ?? 0) + 1;
  if (type === INTR_INFO.TYPE_SOFT_EXCEPTION || type === INTR_INFO.TYPE_PRIV_SOFT_EXCEPTION) {
    // INT3 and INT1 are traps: RIP is still theirs.
    yield* advance(cx, at, exit.instructionLength);
  }
  if (vector === VECTOR.UD && (yield* isSyscall(cx, at))) return yield* systemCall(cx, at);
  const error = exit.interruption & INTR_INFO.DELIVER_CODE ? exit.interruptionError : 0;
  yield* raise(cx, at, vector, error, vector === VECTOR.PF ? exit.qualification : undefined);
}

/** Whether RIP is at a SYSCALL: by the guest's own tables, which must allow it to be read. */
function* isSyscall(cx: Cx, at: Gva): Exec<boolean> {
  const rip = yield* cx.cpu.load64(gva(at + BigInt(TF.rip)));
  const bytes = yield* copyin(cx, rip, SYSCALL_BYTES.length);
  return bytes !== undefined && SYSCALL_BYTES.every((byte, i) => bytes[i] === byte);
}

/** SYSCALL: registers as the instruction leaves them; a system call of the process, or of a guest of its own. */
function* systemCall(cx: Cx, at: Gva): Exec<void> {
  const { counters } = cx.k.vmm;
  const word = (offset: number) => gva(at + BigInt(offset));
  const rip = (yield* cx.cpu.load64(word(TF.rip))) + BigInt(SYSCALL_BYTES.length);
  yield* cx.cpu.store64(word(TF.rip), rip);
  yield* cx.cpu.store64(word(TF.rcx), rip);
  yield* cx.cpu.store64(word(TF.r11), yield* cx.cpu.load64(word(TF.rflags)));
  const inGuest = cx.lwp!.lwpVkernel?.inGuest === true;
  if (!inGuest && (yield* cx.cpu.load64(word(TF.rax))) === ALL_ONES) {
    // "Flush my TLB": the exit has done it.
    counters.hypercalls++;
    return;
  }
  counters.syscalls++;
  yield* cx.cpu.store64(word(TF.err), BigInt(SYSCALL_BYTES.length));
  yield* cx.cpu.store64(word(TF.trapno), BigInt(T_FAST_SYSCALL));
  yield* syscallAt(cx, at);
}

/** CPUID: what the processor says, VMX left out, since a guest does not have it. */
function* emulateCpuid(cx: Cx, at: Gva): Exec<void> {
  const word = (offset: number) => gva(at + BigInt(offset));
  const leaf = Number((yield* cx.cpu.load64(word(TF.rax))) & 0xffff_ffffn);
  const subleaf = Number((yield* cx.cpu.load64(word(TF.rcx))) & 0xffff_ffffn);
  const [rax, rbx, rcx, rdx] = cpuid(cx, leaf, subleaf);
  yield* cx.cpu.store64(word(TF.rax), rax);
  yield* cx.cpu.store64(word(TF.rbx), rbx);
  yield* cx.cpu.store64(word(TF.rcx), leaf === 1 ? rcx & ~(1n << 5n) : rcx);
  yield* cx.cpu.store64(word(TF.rdx), rdx);
}

/** A guest-physical address that the EPT does not have, or not with these rights: a fault of the process there. */
function* eptViolation(cx: Cx, vti: VmxThread, at: Gva): Exec<void> {
  const { exit } = vti, { counters } = cx.k.vmm;
  const qualification = Number(exit.qualification & 0xfffn);
  const type: VmProt = qualification & EPT_QUAL.WRITE
    ? VM_PROT_WRITE
    : qualification & EPT_QUAL.EXECUTE
    ? VM_PROT_EXECUTE
    : VM_PROT_READ;
  ktrace(cx, "ept fault", Number(exit.guestPhysical), qualification);
  const { vmMap: map, vmPmap: pmap } = vti.lwp.lwpVmspace!;
  const page = gva(exit.guestPhysical & ~0xfffn);
  const ept = pmap.pmTwin ?? pmap;
  if (yield* eptEmulateAccessedDirty(cx, ept, page, type)) {
    counters.adEmulated++;
    return;
  }
  const flags = type === VM_PROT_WRITE ? VM_FAULT_DIRTY : VM_FAULT_NORMAL;
  const rv = page >= map.max ? KERN_INVALID_ADDRESS : yield* vmFault(cx, map, page, type, flags);
  if (rv === KERN_SUCCESS) {
    counters.eptFaults++;
    // The access that comes now is known: it need not exit once more to be noted.
    if (type === VM_PROT_WRITE) yield* eptEmulateAccessedDirty(cx, ept, page, type);
    return;
  }
  yield* refuse(cx, vti, at, "EPT violation", {
    read: (qualification & EPT_QUAL.READ) !== 0,
    write: (qualification & EPT_QUAL.WRITE) !== 0,
    fetch: (qualification & EPT_QUAL.EXECUTE) !== 0,
  });
}

/**
 * The guest used an address that the process does not have, or its EPT is damaged: told in the log, and SIGBUS for the process, whose guest it is
 * (a guest's program reaches such an address only if its kernel gave it).
 */
function* refuse(
  cx: Cx,
  vti: VmxThread,
  at: Gva,
  what: string,
  access: ExplainedEptAccess,
): Exec<void> {
  const { exit, lwp, vp } = vti;
  const { pPid, pComm } = lwp.lwpProc;
  const told = explainEpt(cx.cpu.cpu, Number(exit.guestPhysical), access, {
    eptp: vp.eptp,
    modeBased: false,
  });
  const reason = told.outcome.kind === "mapped" ? "the entry allows it now" : told.outcome.reason;
  log(
    cx,
    `vmm: pid ${pPid} (${pComm}): ${what} at guest-physical 0x${exit.guestPhysical.toString(16)}, ` +
      `linear 0x${exit.guestLinear.toString(16)}: ${reason}\n`,
  );
  for (const entry of told.entries) log(cx, `vmm:   ${describeEptEntry(entry)}\n`);
  if (vti.full !== undefined) return yield* vmxFullDies(cx, vti, what, at);
  yield* trapsignal(cx, SIGBUS, BUS_ADRERR, exit.guestPhysical, exit.reason);
}

/** Name of an exit reason, for people. */
export function exitName(reason: number): string {
  return EXIT_NAMES[reason] ?? `exit ${reason}`;
}
