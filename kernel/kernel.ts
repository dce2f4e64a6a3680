/**
 * What a running kernel consists of: the state that its parts share. No part keeps state of its own outside it.
 *
 * Room: `kernel/`; imports types of the parts. Who may change a field is in its comment.
 *
 * @module
 */
import type { Gva, Hpa } from "../hw/address.ts";
import type { FaultReport } from "./trap/report.ts";
import type { Locore } from "./platform/pc64/locore.ts";
import type { Pmap } from "./pmap/pmap.ts";
import type { VmPages } from "./vm/vm_page.ts";

/** A program to run: its file, its arguments and its environment. */
export interface Program {
  /** For people, and `argv[0]` where no arguments are given. */
  readonly name: string;
  /** The bytes of an ELF64 file. */
  readonly file: Uint8Array;
  /** Arguments, `argv[0]` first. Default: the name alone. */
  readonly argv?: readonly string[];
  /** Environment strings, `NAME=value`. */
  readonly envp?: readonly string[];
}

/** Turns bytes of machine code into lines for people. */
export type Disassembler = (code: Uint8Array, rip: bigint) => readonly string[];

/** What the kernel is told by whoever boots it. */
export interface KernelOptions {
  /** Programs to run one after the other. */
  readonly programs: readonly Program[];
  /** Kernel messages at the start (`dmesg`). Default: true. */
  readonly verbose?: boolean;
  /** Disassembles code in fault reports; asked for at the first fault. Without one, reports show bytes. */
  readonly disassembler?: () => Disassembler | undefined;
  /** Told of every fault that ended a program. */
  readonly onFault?: (report: FaultReport) => void;
}

/** How a program ended. */
export type ProcessEnd =
  | { readonly kind: "exit"; readonly status: number }
  | { readonly kind: "fault"; readonly report: FaultReport }
  | { readonly kind: "not started"; readonly reason: string };

/** A process (`struct proc`), as much of it as there is. */
export interface Proc {
  /** `p_pid`. */
  readonly pid: number;
  /** For people. */
  readonly name: string;
  /**
   * Its address space.
   *
   * @internal
   */
  readonly pmap: Pmap;
  /** Pages that are mapped in it and belong to it alone. */
  readonly pages: Hpa[];
}

/** One processor as the kernel knows it (`struct mdglobaldata`). */
export interface KernelCpu {
  /** `gd_cpuid`. */
  readonly id: number;
  /** Linear address of its per-CPU data. */
  readonly globaldata: Gva;
  /** Top of its kernel stack. */
  readonly stackTop: Gva;
}

/** A kernel on one machine. */
export class Kernel {
  /** What it was told. */
  readonly options: KernelOptions;
  /**
   * The machine code; set when the gates are registered.
   *
   * @internal
   */
  locore!: Locore;
  /**
   * Free pages; set by hammerTime.
   *
   * @internal
   */
  pages!: VmPages;
  /**
   * The kernel's own tables; set by hammerTime.
   *
   * @internal
   */
  pmap!: Pmap;
  /** Bytes of RAM that the loader reported. */
  memoryBytes = 0;
  /** Where the loader put the programs' files; the same order as `options.programs`. */
  readonly modules: { readonly start: Hpa; readonly end: Hpa }[] = [];
  /** Processors that run, by `gd_cpuid`. A processor adds itself. */
  readonly cpus: KernelCpu[] = [];
  /** Next free address of the kernel's own mappings (`kmem_alloc`). */
  kvaNext: bigint = 0xffff_ff80_0000_1000n;
  /** The running process, if any. Changed by exec and exit. */
  curproc: Proc | undefined;
  /** `p_pid` of the next process. */
  nextPid = 1;
  /** Index in `options.programs` of the next program to start. */
  nextProgram = 0;
  /** How the programs ended, in their order. */
  readonly ends: ProcessEnd[] = [];
  /** The last program has ended and the processors stand still. */
  halted = false;

  /** Made by `bootKernel`. */
  constructor(options: KernelOptions) {
    this.options = options;
  }

  /** Exit status for the host: that of the last program, 128 + vector-like 139 after a fault, 126 if it could not start. */
  get exitStatus(): number {
    const last = this.ends.at(-1);
    switch (last?.kind) {
      case "exit":
        return last.status & 0xff;
      case "fault":
        return 139;
      case "not started":
        return 126;
      default:
        return 0;
    }
  }
}
