/**
 * Kernel stacks, switches of threads and user registers, as all platforms have them (`vm_machdep.c`): a pcb on top of each kernel stack, the
 * user's frame below it, and a little machine code that swaps stack pointers.
 *
 * Room: `kernel/platform/`; imports the layouts of frame and pcb, pmap and kmem.
 *
 * @module
 */
import { type Gva, gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { panic } from "../kern/panic.ts";
import type { Kernel } from "../kernel.ts";
import type { Thread } from "../lwkt/thread.ts";
import { pmapBootAlloc } from "../pmap/pmap_bootstrap.ts";
import { pmapSwitch } from "../pmap/pmap_switch.ts";
import type { Lwp } from "../proc/proc.ts";
import { kmemAllocStack } from "../vm/vm_kern.ts";
import { TF_BYTES } from "./pc64/frame.ts";
import { cleanFpu, PCB, PCB_BYTES, PCB_USER, sanitizeFpu } from "./pc64/pcb.ts";
import { KSTACK_BYTES } from "./pc64/vmparam.ts";
import type { UserState } from "./platform.ts";

const RDI = 7, RSI = 6;

/** Linear addresses of the machine code for threads. */
export interface ThreadCode {
  /** `cpu_heavy_switch`: RDI = pcb of the old thread, RSI = of the new one. */
  readonly cpuHeavySwitch: bigint;
  /** Where a new thread begins. */
  readonly forkTrampoline: bigint;
  /** `fxsave64` and `fxrstor64` of the FPU image in the pcb at RDI. */
  readonly fpuSave: bigint;
  readonly fpuLoad: bigint;
}

/** The part of a platform that concerns threads. */
export abstract class ThreadPlatform {
  /** Kernel memory comes from kernel_map by now, not from the boot allocator. */
  kmemReady = false;
  /** The kernel. */
  protected readonly k: Kernel;
  /** The machine code. */
  abstract readonly locore: ThreadCode;
  /** Kernel stacks of threads that have ended: kept for the next ones, as DragonFly's per-processor cache does. */
  readonly #stacks: Gva[] = [];

  /** Made with its kernel. */
  constructor(k: Kernel) {
    this.k = k;
  }

  /** Where the pcb of a processor's idle thread stands: at the top of its first stack. */
  protected abstract idleStackTop(id: number): Gva;

  // ---- threads

  *allocKstack(cx: Cx): Exec<{ readonly pcb: Gva; readonly kstack: Gva }> {
    const kstack = this.#stacks.pop() ??
      (this.kmemReady
        ? yield* kmemAllocStack(cx, KSTACK_BYTES)
        : yield* pmapBootAlloc(cx.k, cx.cpu, KSTACK_BYTES));
    return { kstack, pcb: gva(kstack + BigInt(KSTACK_BYTES - PCB_BYTES)) };
  }

  get kstacksCached(): number {
    return this.#stacks.length + this.k.lwkt.reap.length;
  }

  *freeKstack(_cx: Cx, td: Thread): Exec<void> {
    this.#stacks.push(td.tdKstack);
  }

  *cpuInitThread(cx: Cx, td: Thread): Exec<void> {
    const { cpu } = cx;
    const at = (offset: number) => gva(td.tdPcb + BigInt(offset));
    // Below the pcb: room for the frame by which an lwp leaves, and under it the return address of the first switch.
    const frame = gva(td.tdPcb - BigInt(TF_BYTES));
    const rsp = gva(frame - 8n);
    yield* cpu.zeroBytes(td.tdPcb, PCB_BYTES);
    yield* cpu.store64(rsp, this.locore.forkTrampoline);
    yield* cpu.store64(at(PCB.rsp), rsp);
    yield* cpu.store64(at(PCB.kernelStack), td.tdPcb);
    if (td.tdLwp !== undefined) {
      yield* cpu.store64(at(PCB.flags), BigInt(PCB_USER));
      yield* cpu.storeBytes(at(PCB.fpu), cleanFpu());
      td.tdLwp.lwpMdRegs = frame;
    }
  }

  /** The pcb of a processor's idle thread, which runs already. */
  *initIdlePcb(cx: Cx, id: number): Exec<void> {
    const pcb = this.idleStackTop(id);
    yield* cx.cpu.zeroBytes(pcb, PCB_BYTES);
    yield* cx.cpu.store64(gva(pcb + BigInt(PCB.kernelStack)), pcb);
  }

  *cpuForkLwp(cx: Cx, lwp: Lwp, frame: Uint8Array, state: UserState): Exec<void> {
    const td = lwp.lwpThread;
    if (td === undefined || frame.length !== TF_BYTES) {
      return panic(cx, "cpu_fork: no thread, or not a frame");
    }
    const { cpu } = cx;
    yield* cpu.storeBytes(gva(td.tdPcb - BigInt(TF_BYTES)), frame);
    lwp.lwpMdRegs = gva(td.tdPcb - BigInt(TF_BYTES));
    if (state.fpu !== undefined) {
      yield* cpu.storeBytes(gva(td.tdPcb + BigInt(PCB.fpu)), sanitizeFpu(state.fpu));
    }
    lwp.lwpTls = state.tls;
    yield* cpu.store64(gva(td.tdPcb + BigInt(PCB.fsBase)), state.tls);
    yield* cpu.store64(gva(td.tdPcb + BigInt(PCB.gsBase)), lwp.lwpGsbase);
  }

  *cpuSwitch(cx: Cx, from: Thread, to: Thread): Exec<void> {
    yield* pmapSwitch(cx, from, to);
    cx.cpu.setGpr(RDI, from.tdPcb);
    cx.cpu.setGpr(RSI, to.tdPcb);
    yield* cx.cpu.call(gva(this.locore.cpuHeavySwitch));
  }

  frameOf(cx: Cx): Gva {
    const frame = cx.lwp?.lwpMdRegs;
    return frame ?? panic(cx, "a trap frame was asked for where there is none");
  }

  *saveFpu(cx: Cx): Exec<Uint8Array<ArrayBuffer>> {
    const pcb = cx.td.tdPcb;
    cx.cpu.setGpr(RDI, pcb);
    yield* cx.cpu.call(gva(this.locore.fpuSave));
    return yield* cx.cpu.loadBytes(gva(pcb + BigInt(PCB.fpu)), 512);
  }

  *restoreFpu(cx: Cx, fpu: Uint8Array | undefined): Exec<void> {
    // The image in the pcb must not be overwritten by a switch between the two steps.
    const td = cx.td;
    const enabled = cx.interruptsEnabled;
    cx.setInterrupts(false);
    yield* cx.cpu.storeBytes(
      gva(td.tdPcb + BigInt(PCB.fpu)),
      fpu === undefined ? cleanFpu() : sanitizeFpu(fpu),
    );
    cx.cpu.setGpr(RDI, td.tdPcb);
    yield* cx.cpu.call(gva(this.locore.fpuLoad));
    cx.setInterrupts(enabled);
  }
}
