/**
 * Machine code of a vkernel: threads, and the entries that the host gives it (`swtch.s`, `fork_tramp.s` of `sys/platform/vkernel64`).
 *
 * Room: `kernel/platform/vkernel64/`; imports the assembler and the pcb. It runs at ring 3.
 *
 *     signal          GATE intr or fault -> back into the host's trampoline, which returns to what was interrupted
 *     lwp_create      GATE ap_init or a cothread's body; never comes back
 *     cpu_heavy_switch, fork_trampoline   as in pc64, without what only ring 0 has
 *
 * @module
 */
import { Assembler } from "../pc64/assembler.ts";
import { PCB, PCB_USER } from "../pc64/pcb.ts";
import type { ThreadCode } from "../threads.ts";
import { LOCORE_VA } from "./vmparam.ts";

/** Gate numbers that the code enters. */
export interface VkLocoreGates {
  /** A signal that stands for an interrupt. */
  readonly intr: number;
  /** A signal for what the vkernel did wrong itself. */
  readonly fault: number;
  /** First TypeScript of a new kernel thread. */
  readonly lwktTrampoline: number;
  /** First TypeScript of another processor. */
  readonly apInit: number;
  /** First TypeScript of a cothread; RDI says which. */
  readonly cothread: number;
}

/** The image and its addresses. */
export interface VkLocore extends ThreadCode {
  /** Bytes for {@link LOCORE_VA}. */
  readonly image: Uint8Array<ArrayBuffer>;
  readonly intr: bigint;
  readonly fault: bigint;
  readonly apInit: bigint;
  readonly cothread: bigint;
}

/** Builds the code. */
export function buildVkLocore(gates: VkLocoreGates): VkLocore {
  const a = new Assembler(Number(LOCORE_VA), LOCORE_VA);
  a.label("intr").gate(gates.intr).ret();
  a.align(16).label("fault").gate(gates.fault).ret();
  a.align(16).label("ap_init").gate(gates.apInit).db(0x0f, 0x0b); // ud2: it never comes back
  a.align(16).label("cothread").gate(gates.cothread).db(0x0f, 0x0b);
  a.align(16).label("cpu_heavy_switch");
  a.store("rdi", PCB.rsp, "rsp").store("rdi", PCB.r15, "r15");
  a.testByte("rdi", PCB.flags, PCB_USER).jumpIf("z", "switch_load").fxsave("rdi", PCB.fpu);
  a.label("switch_load").load("rsp", "rsi", PCB.rsp).load("r15", "rsi", PCB.r15);
  a.testByte("rsi", PCB.flags, PCB_USER).jumpIf("z", "switch_done").fxrstor("rsi", PCB.fpu);
  a.label("switch_done").ret();
  a.align(16).label("fork_trampoline").gate(gates.lwktTrampoline).db(0x0f, 0x0b);
  a.align(16).label("fpu_save").fxsave("rdi", PCB.fpu).ret();
  a.label("fpu_load").fxrstor("rdi", PCB.fpu).ret();
  return {
    image: a.finish(),
    intr: a.virtual("intr"),
    fault: a.virtual("fault"),
    apInit: a.virtual("ap_init"),
    cothread: a.virtual("cothread"),
    cpuHeavySwitch: a.virtual("cpu_heavy_switch"),
    forkTrampoline: a.virtual("fork_trampoline"),
    fpuSave: a.virtual("fpu_save"),
    fpuLoad: a.virtual("fpu_load"),
  };
}
