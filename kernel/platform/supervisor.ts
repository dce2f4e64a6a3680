/**
 * A kernel in ring 0 of an x86-64 processor, whatever board is around it: translation, interrupt masking, user segment bases, requests to other
 * processors.
 *
 * Room: `kernel/platform/`; imports threads, the layouts of pcb and frame. Its kinds: pc64/pc64.ts on the machine, ring0/ring0.ts as a guest of
 * another kernel.
 *
 * @module
 */
import { type Gva, gva, type Hpa } from "../../hw/address.ts";
import { type Exec, type GateCpu, NOTHING } from "../../hw/gates.ts";
import { S } from "../../hw/state.ts";
import type { Cx } from "../context.ts";
import type { Globaldata } from "../lwkt/globaldata.ts";
import type { Thread } from "../lwkt/thread.ts";
import type { Pmap } from "../pmap/pmap.ts";
import { type PmapFormat, REGULAR_FORMAT } from "../pmap/pmap_bits.ts";
import { PCB } from "./pc64/pcb.ts";
import { type ThreadCode, ThreadPlatform } from "./threads.ts";

const RDI = 7;

/** Machine code of a kernel in ring 0: linear addresses. */
export interface SupervisorCode extends ThreadCode {
  /** The vectors' entries, 0 … 255. */
  readonly vectors: readonly bigint[];
  /** The SYSCALL entry. */
  readonly fastSyscall: bigint;
  /** Loads the segment bases in the pcb at RDI. */
  readonly basesLoad: bigint;
  /** The word that tells a starting processor where its globaldata is. */
  readonly apGlobaldata: bigint;
  /** The word that tells a starting processor the kernel's tables. */
  readonly kernelPml4: bigint;
  /** The word with CPUID leaf 7's EBX. */
  readonly cpuFeature7: bigint;
}

/** What a processor was given at its start. */
export interface CpuTables {
  /** Linear address of its globaldata. */
  readonly globaldata: Gva;
  /** Lowest address of its first kernel stack, the idle thread's. */
  readonly kstack: Gva;
  /** Top of that stack. */
  readonly stackTop: Gva;
}

/** The part of a platform that concerns a kernel in ring 0. */
export abstract class SupervisorPlatform extends ThreadPlatform {
  abstract override readonly locore: SupervisorCode;
  /** What each processor was given, by number. */
  readonly tables: CpuTables[] = [];
  /** Processors that are to be interrupted for their queues, by the processor that asked. */
  readonly #ipiWanted: number[] = [];

  protected override idleStackTop(id: number): Gva {
    return this.tables[id]!.stackTop;
  }

  /** `mycpu` of whoever runs on this processor; undefined before it has joined. */
  abstract mycpu(cpu: GateCpu): Globaldata;
  /** Takes a vector above the exceptions; interrupts are off. @param user It came in user mode. */
  abstract interrupt(cx: Cx, vector: number, user: boolean): Exec<void>;
  /** Interrupts a processor for its queues. */
  protected abstract sendIpi(cx: Cx, id: number): Exec<void>;

  // ---- processors and threads

  switchedFrom(_cx: Cx, _from: Thread): void {}

  interruptsEnabled(cx: Cx): boolean {
    return cx.cpu.interruptsEnabled;
  }
  setInterrupts(cx: Cx, enabled: boolean): void {
    cx.cpu.setInterrupts(enabled);
  }

  *cpuHalt(cx: Cx): Exec<void> {
    cx.cpu.setInterrupts(true);
    yield* cx.cpu.hlt();
  }

  // ---- user registers

  *setTls(cx: Cx, base: bigint): Exec<void> {
    cx.lwp!.lwpTls = base;
    yield* this.#loadBases(cx);
  }
  getTls(cx: Cx): bigint {
    return cx.lwp!.lwpTls;
  }
  *setGsbase(cx: Cx, base: bigint): Exec<void> {
    cx.lwp!.lwpGsbase = base;
    yield* this.#loadBases(cx);
  }
  getGsbase(cx: Cx): bigint {
    return cx.lwp!.lwpGsbase;
  }

  *#loadBases(cx: Cx): Exec<void> {
    const td = cx.td, lwp = cx.lwp!;
    yield* cx.cpu.store64(gva(td.tdPcb + BigInt(PCB.fsBase)), lwp.lwpTls);
    yield* cx.cpu.store64(gva(td.tdPcb + BigInt(PCB.gsBase)), lwp.lwpGsbase);
    cx.cpu.setGpr(RDI, td.tdPcb);
    yield* cx.cpu.call(gva(this.locore.basesLoad));
  }

  // ---- translation

  readonly pmapFormat: PmapFormat = REGULAR_FORMAT;
  readonly userAccess = undefined;

  /** While {@link cpuSwitch} changes address spaces the running continuation stays with its own. */
  *loadCr3(cx: Cx, root: Hpa): Exec<void> {
    const switching = cx.gd.gdPrevthread !== undefined;
    if (!switching) cx.cpu.rebind = true;
    yield* cx.cpu.perform("writeCr", 3n, BigInt(root));
    // The end of the step is where the continuation is bound to the new root: a switch of threads must not come before it.
    if (!switching) yield;
  }
  cr3(cx: Cx): Hpa {
    return Number(cx.cpu.cpu.get64(S.CR3) & 0x000f_ffff_ffff_f000n) as Hpa;
  }
  readonly remoteInval = undefined;
  invlpg(cx: Cx, va: Gva, _pmap: Pmap): Exec<void> {
    cx.cpu.performNow("invlpg", va);
    return NOTHING;
  }
  invltlb(cx: Cx, _pmap: Pmap): Exec<void> {
    cx.cpu.performNow("writeCr", 3n, cx.cpu.cpu.get64(S.CR3));
    return NOTHING;
  }
  cpuVmspaceAlloc(_cx: Cx, _pmap: Pmap): Exec<void> {
    return NOTHING;
  }
  /** Continuations that belong to the address space must not go on in whatever gets its root next. */
  cpuVmspaceFree(cx: Cx, pmap: Pmap): Exec<void> {
    cx.cpu.gates.dropAddressSpace(pmap.pmPmlpv!.pvM!.physAddr, cx.cpu.space.ept);
    return NOTHING;
  }

  // ---- other processors

  requestIpi(cx: Cx, target: Globaldata): void {
    const me = cx.gd.gdCpuid;
    this.#ipiWanted[me] = (this.#ipiWanted[me] ?? 0) | target.gdCpumask;
  }
  flushIpis(cx: Cx): Exec<void> {
    return this.#ipiWanted[cx.gd.gdCpuid] ? this.#sendIpis(cx) : NOTHING;
  }
  *#sendIpis(cx: Cx): Exec<void> {
    for (;;) {
      const me = cx.gd.gdCpuid;
      const mask = this.#ipiWanted[me] ?? 0;
      if (mask === 0) return;
      const id = 31 - Math.clz32(mask);
      this.#ipiWanted[me] = mask & ~(1 << id);
      yield* this.sendIpi(cx, id);
    }
  }
}
