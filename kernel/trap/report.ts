/**
 * A fault told to people: what was tried, what the page tables say to it, the registers, the code.
 *
 * Room: `kernel/trap/`; imports hw's explanation of a walk. A report is a plain record; rendering is separate.
 *
 * @module
 */
import { explainWalk, type WalkExplanation } from "../../hw/explain_walk.ts";
import type { GateCpu } from "../../hw/gates.ts";
import { gpa, rootGpaToHpa } from "../../hw/address.ts";
import type { Cx } from "../context.ts";
import type { Trapframe } from "../platform/pc64/frame.ts";

/** Names of the exceptions (SDM vol. 3A, "Exception and Interrupt Reference"), by vector. */
const NAMES: Readonly<Record<number, string>> = {
  0: "divide error (#DE)",
  1: "debug exception (#DB)",
  3: "breakpoint (#BP)",
  4: "overflow (#OF)",
  5: "bound range exceeded (#BR)",
  6: "invalid opcode (#UD)",
  7: "device not available (#NM)",
  8: "double fault (#DF)",
  10: "invalid TSS (#TS)",
  11: "segment not present (#NP)",
  12: "stack fault (#SS)",
  13: "general protection (#GP)",
  14: "page fault (#PF)",
  16: "x87 floating-point error (#MF)",
  17: "alignment check (#AC)",
  18: "machine check (#MC)",
  19: "SIMD floating-point exception (#XM)",
};

/** Vector of the page fault. */
const PAGE_FAULT = 14;
/** Longest instruction. */
const CODE_BYTES = 15;

/** A fault of a program, or of the kernel. */
export interface FaultReport {
  /** `gd_cpuid`. */
  readonly cpu: number;
  /** Exception vector. */
  readonly vector: number;
  /** The exception's name. */
  readonly name: string;
  /** Name of the process, "kernel" for the kernel itself. */
  readonly process: string;
  /** Its number, 0 for the kernel. */
  readonly pid: number;
  /** Address of the faulting instruction. */
  readonly rip: bigint;
  /** Error code, 0 for exceptions without. */
  readonly errorCode: bigint;
  /** For a page fault: the address that was accessed, and how. */
  readonly access?: {
    readonly address: bigint;
    readonly kind: "read" | "write" | "fetch";
    readonly user: boolean;
  };
  /** For a page fault: what the tables say. */
  readonly walk?: WalkExplanation;
  /** The frame: registers as they were. */
  readonly frame: Readonly<Trapframe>;
  /** Bytes at RIP; none when they cannot be read. */
  readonly code: Uint8Array<ArrayBuffer>;
}

/** Makes the report of a fault. Looks, and changes nothing. */
export function describeFault(cx: Cx, frame: Trapframe): FaultReport {
  const { cpu } = cx;
  const proc = cx.k.lwkt.gds.length === 0 ? undefined : cx.proc;
  const vector = Number(frame.trapno);
  const report = {
    cpu: cpu.cpu.id,
    vector,
    name: NAMES[vector] ?? `exception ${vector}`,
    process: proc?.pComm ?? "kernel",
    pid: proc?.pPid ?? 0,
    rip: frame.rip,
    errorCode: frame.err,
    frame,
    code: codeAt(cpu, frame.rip, (frame.cs & 3n) === 3n),
  };
  if (vector !== PAGE_FAULT) return report;
  const error = Number(frame.err);
  const write = (error & 2) !== 0, user = (error & 4) !== 0, fetch = (error & 16) !== 0;
  return {
    ...report,
    access: { address: frame.addr, kind: fetch ? "fetch" : write ? "write" : "read", user },
    // A guest's own tables are not in CR3 here.
    ...(proc !== undefined && cx.lwp?.lwpVmm !== undefined
      ? {}
      : { walk: explainWalk(cpu.cpu, frame.addr, { write, user, fetch }) }),
  };
}

/** Up to 15 bytes at RIP, by way of the tables and without touching a TLB or a device. */
function codeAt(cpu: GateCpu, rip: bigint, user: boolean): Uint8Array<ArrayBuffer> {
  const bytes: number[] = [];
  for (let i = 0n; i < BigInt(CODE_BYTES); i++) {
    const { outcome } = explainWalk(cpu.cpu, BigInt.asUintN(64, rip + i), { fetch: true, user });
    if (outcome.kind !== "mapped") break;
    const pa = rootGpaToHpa(gpa(outcome.physical));
    if (!cpu.cpu.bus.isPlain(pa)) break;
    bytes.push(cpu.cpu.bus.read(pa, 1));
  }
  return Uint8Array.from(bytes);
}

function hex(value: bigint, digits = 16): string {
  return `0x${value.toString(16).padStart(digits, "0")}`;
}

/** The report as text, lines ending in a line feed. */
export function renderReport(report: FaultReport, disassembly?: readonly string[]): string {
  const lines: string[] = [];
  const { frame, access, walk } = report;
  lines.push(`fault: ${report.name} in "${report.process}" (pid ${report.pid}) on cpu${report.cpu}`);
  if (access !== undefined) {
    lines.push(
      `  access     ${access.kind} of ${hex(access.address)} in ${access.user ? "user" : "kernel"} mode, ` +
        `error code 0x${report.errorCode.toString(16)} (${errorBits(Number(report.errorCode))})`,
    );
  } else lines.push(`  error code 0x${report.errorCode.toString(16)}`);
  for (const entry of walk?.entries ?? []) {
    const flags = [
      entry.present ? "P" : "not present",
      ...(entry.present
        ? [
          entry.writable ? "W" : "-",
          entry.user ? "U" : "-",
          entry.executeDisable ? "NX" : "X",
          entry.accessed ? "A" : "-",
          entry.leaf ? (entry.dirty ? "D" : "-") : "",
        ]
        : []),
    ].filter((flag) => flag !== "").join(" ");
    lines.push(
      `  walk       ${entry.name.padEnd(6)}[${String(entry.index).padStart(3)}] = ${
        hex(entry.value)
      }  ${flags}`,
    );
  }
  const outcome = walk?.outcome;
  if (outcome !== undefined) {
    lines.push(
      `  because    ${outcome.kind === "mapped" ? "the page is mapped and allows it now" : outcome.reason}`,
    );
  }
  lines.push(...registerLines(frame));
  lines.push(...codeLines(report, disassembly));
  return lines.join("\n") + "\n";
}

function errorBits(code: number): string {
  const names = [
    code & 1 ? "present" : "not present",
    code & 16 ? "fetch" : code & 2 ? "write" : "read",
    code & 4 ? "user" : "supervisor",
  ];
  if (code & 8) names.push("reserved bit");
  if (code & 32) names.push("protection key");
  return names.join(", ");
}

function registerLines(frame: Readonly<Trapframe>): string[] {
  const order = [
    ["rax", "rbx", "rcx", "rdx"],
    ["rsi", "rdi", "rbp", "rsp"],
    ["r8", "r9", "r10", "r11"],
    ["r12", "r13", "r14", "r15"],
    ["rip", "rflags", "cs", "ss"],
  ] as const;
  return order.map((row) =>
    "  " + row.map((name) => `${name.padEnd(6)} ${frame[name].toString(16).padStart(16, "0")}`).join("  ")
  );
}

function codeLines(report: FaultReport, disassembly: readonly string[] | undefined): string[] {
  if (report.code.length === 0) return [`  code       nothing can be fetched at ${hex(report.rip)}`];
  if (disassembly !== undefined) return disassembly.map((line) => `  code       ${line}`);
  const bytes = Array.from(report.code, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
  return [`  code       ${bytes}`];
}
