/**
 * Machine code of a vkernel in ring 0: pc64's, but for the start, and one instruction more.
 *
 * Room: `kernel/platform/ring0/`; imports pc64's code.
 *
 *     hypercall    VMCALL; the first bytes of the image (HYPERCALL_VA)
 *     start        on the boot tables, interrupts off -> GATE hammer_time -> cpu_init -> GATE mi_startup
 *     ap_start     another processor; entered at its physical address, where the boot tables have it too -> GATE ap_init
 *     cothread     a host thread that only makes host calls; it stays on the boot tables
 *
 * @module
 */
import type { SupervisorCode } from "../supervisor.ts";
import { Assembler } from "../pc64/assembler.ts";
import {
  apHigh,
  cpuInit,
  type LocoreGates,
  readCpuFeature7,
  supervisorAddresses,
  supervisorCode,
  supervisorData,
} from "../pc64/locore.ts";
import { IMAGE, IMAGE_VA } from "./vmparam.ts";

const CR0_KERNEL = 0x8005_0033; // PG AM WP NE ET MP PE

/** Gate numbers that the code enters. */
export interface Ring0Gates extends LocoreGates {
  /** A cothread's body; RDI says which. */
  readonly cothread: number;
}

/** The image and its addresses. */
export interface Ring0Locore extends SupervisorCode {
  /** Bytes for `IMAGE`. */
  readonly image: Uint8Array<ArrayBuffer>;
  /** Bytes of code; the pages behind are data. */
  readonly textBytes: number;
  /** Linear address of the start. */
  readonly start: bigint;
  /** Physical addresses of `ap_start` and `cothread`. */
  readonly apStart: bigint;
  readonly cothread: bigint;
}

/** Builds the image. */
export function buildRing0Locore(gates: Ring0Gates): Ring0Locore {
  const a = new Assembler(IMAGE, IMAGE_VA);
  a.label("hypercall").db(0x0f, 0x01, 0xc1).ret(); // vmcall
  a.align(16).label("start").cli().cld();
  a.movImmediate32("rax", CR0_KERNEL).movToControl(0);
  readCpuFeature7(a);
  a.gate(gates.hammerTime).move("rdi", "rax");
  cpuInit(a, "bsp");
  a.gate(gates.miStartup); // becomes the processor's idle thread

  a.align(16).label("ap_start").cli().cld();
  a.movAddress("rax", "ap_high").db(0xff, 0xe0); // jmp rax
  a.label("ap_high").movImmediate32("rax", CR0_KERNEL).movToControl(0);
  apHigh(a);
  a.gate(gates.apInit);

  a.align(16).label("cothread").cli().cld().gate(gates.cothread).db(0x0f, 0x0b); // ud2: it never comes back
  supervisorCode(a, gates);
  a.align(4096);
  const textBytes = a.here;
  supervisorData(a);
  a.align(4096, 0);
  return {
    image: a.finish(),
    textBytes,
    ...supervisorAddresses(a),
    start: a.virtual("start"),
    apStart: BigInt(a.physical("ap_start")),
    cothread: BigInt(a.physical("cothread")),
  };
}
