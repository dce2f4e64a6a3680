/**
 * The platform pc64: what the kernel asks of its machine, on the machine itself.
 *
 * Room: `kernel/platform/pc64/`; imports the folder's parts, pmap and lwkt. DragonFly: `machdep.c`, `vm_machdep.c`, `intr_machdep.c`.
 *
 * @module
 */
import { type Gva, type Hpa, PAGE_SIZE } from "../../../hw/address.ts";
import { type Exec, type GateCpu, NOTHING } from "../../../hw/gates.ts";
import type { Cx } from "../../context.ts";
import { virtioBlkAttach } from "../../dev/virtio_blk.ts";
import type { BlockDevice } from "../../kern/bio.ts";
import type { Kernel } from "../../kernel.ts";
import { panic } from "../../kern/panic.ts";
import { type Globaldata, RQF } from "../../lwkt/globaldata.ts";
import type { Platform } from "../platform.ts";
import { SupervisorPlatform } from "../supervisor.ts";
import { acpiPowerOff } from "./acpi.ts";
import { type ClockRates, rdtsc } from "./clock.ts";
import { cnwrite, COM1, LSR_DATA_READY } from "./console.ts";
import { interrupt, runPending } from "./intr.ts";
import { ioapicEnable, ISA_IRQS, lapicFixedIpi, VECTOR_IPIQ } from "./lapic.ts";
import type { Locore } from "./locore.ts";
import { DEVICE_PAGES, deviceVa } from "./vmparam.ts";

/** Interrupt request of the first serial port. */
const IRQ_COM1 = 4;
/** Port and value that reset the machine. */
const RESET_PORT = 0xcf9, RESET_HARD = 0x06;

/** An interrupt handler. */
interface IntrHandler {
  readonly name: string;
  readonly fn: (cx: Cx) => void | Exec<void>;
}

/** The machine under the kernel. */
export class Pc64 extends SupervisorPlatform implements Platform {
  readonly name = "pc64";
  /** The machine code. */
  readonly locore: Locore;
  /** Measured at the start. */
  rates: ClockRates = { lapicHz: 0, tscHz: 0 };
  rtcBoottime = 0;
  get tscHz(): number {
    return this.rates.tscHz;
  }
  /** Interrupt handlers by ISA request; more than one may share it. */
  readonly intr: IntrHandler[][] = Array.from({ length: ISA_IRQS }, () => []);
  /** Interrupts taken, by vector. */
  readonly intrCount: number[] = Array.from({ length: 256 }, () => 0);
  /** Console bytes are going out: another continuation only adds to the queue. */
  #draining = false;
  #input: ((cx: Cx, byte: number) => void) | undefined;
  #inputFull: () => boolean = () => false;
  /** The receiver's interrupt is off, because nobody can take more. */
  #inputHeld = false;
  /** What was typed before the port was set up. */
  earlyInput: readonly number[] = [];

  constructor(k: Kernel, locore: Locore) {
    super(k);
    this.locore = locore;
  }

  // ---- processors and threads

  mycpu(cpu: GateCpu): Globaldata {
    return this.k.lwkt.gds[cpu.cpu.id]!;
  }

  cpuPause(_cx: Cx): Exec<void> {
    return NOTHING;
  }

  // ---- interrupts

  interrupt(cx: Cx, vector: number, user: boolean): Exec<void> {
    return interrupt(cx, this, vector, user);
  }
  protected override sendIpi(cx: Cx, id: number): Exec<void> {
    return lapicFixedIpi(cx.cpu, id, VECTOR_IPIQ);
  }
  runPending(cx: Cx): Exec<void> {
    return runPending(cx, this);
  }
  /** Runs the handlers of a request. */
  *runHandlers(cx: Cx, irq: number): Exec<void> {
    for (const { fn } of this.intr[irq] ?? []) {
      const running = fn(cx);
      if (running !== undefined) yield* running;
    }
  }
  uptimeNs(cx: Cx): number {
    cx.cpu.performNow("rdtsc");
    return Math.floor(Number(cx.cpu.result) * (1e9 / this.rates.tscHz));
  }
  *registerInt(cx: Cx, irq: number, name: string, fn: (cx: Cx) => void | Exec<void>): Exec<void> {
    this.intr[irq]!.push({ name, fn });
    yield* ioapicEnable(cx.cpu, irq);
  }

  // ---- console, power

  consoleDrain(cx: Cx): Exec<void> {
    return this.#draining || cx.k.messages.pending.length === 0 ? NOTHING : this.#drain(cx);
  }
  *#drain(cx: Cx): Exec<void> {
    const { pending } = cx.k.messages;
    this.#draining = true;
    for (let bytes = pending.shift(); bytes !== undefined; bytes = pending.shift()) {
      yield* cnwrite(cx.cpu, bytes);
    }
    this.#draining = false;
  }
  *cnWrite(cx: Cx, bytes: Uint8Array): Exec<void> {
    cx.k.messages.pending.push(bytes);
    while (this.#draining && cx.k.messages.pending.length > 0) yield;
    yield* this.consoleDrain(cx);
  }
  /** Console output whatever the state: for panics. */
  *cnPanic(cx: Cx, text: string): Exec<void> {
    this.#draining = false;
    yield* this.consoleDrain(cx);
    yield* cnwrite(cx.cpu, new TextEncoder().encode(text.replaceAll("\n", "\r\n")));
  }
  cnRegisterInput(fn: (cx: Cx, byte: number) => void, full: () => boolean = () => false): void {
    this.#input = fn;
    this.#inputFull = full;
  }
  /** The receiver's interrupt on again: what waits in its FIFO raises it at once. */
  *cnResumeInput(cx: Cx): Exec<void> {
    if (this.#inputHeld) {
      this.#inputHeld = false;
      yield* cx.cpu.outb(COM1 + 1, 0x01);
    }
  }
  *cnStartInput(cx: Cx): Exec<void> {
    for (const byte of this.earlyInput) this.#input?.(cx, byte);
    this.earlyInput = [];
    yield* this.registerInt(cx, IRQ_COM1, "sio0", (at) => this.#takeInput(at));
    yield* cx.cpu.outb(COM1 + 1, 0x01); // received data available
    yield* cx.cpu.outb(COM1 + 4, 0x0b); // DTR, RTS, OUT2: the interrupt reaches its pin
    const enabled = cx.cpu.interruptsEnabled;
    cx.cpu.setInterrupts(false);
    yield* this.#takeInput(cx);
    cx.cpu.setInterrupts(enabled);
  }
  *#takeInput(cx: Cx): Exec<void> {
    while ((yield* cx.cpu.inb(COM1 + 5)) & LSR_DATA_READY) {
      if (this.#inputFull()) {
        // Flow control: the line waits with the rest.
        this.#inputHeld = true;
        yield* cx.cpu.outb(COM1 + 1, 0x00);
        return;
      }
      const byte = yield* cx.cpu.inb(COM1);
      this.#input?.(cx, byte);
    }
  }
  *powerOff(cx: Cx): Exec<never> {
    yield* this.consoleDrain(cx);
    cx.k.halted = true;
    yield* acpiPowerOff(cx.cpu);
    cx.cpu.setInterrupts(false);
    for (;;) yield* cx.cpu.hlt();
  }
  *reset(cx: Cx): Exec<never> {
    yield* this.consoleDrain(cx);
    yield* cx.cpu.outb(RESET_PORT, RESET_HARD);
    cx.cpu.setInterrupts(false);
    for (;;) yield* cx.cpu.hlt();
  }

  // ---- devices

  attachDisk(cx: Cx): Exec<BlockDevice | undefined> {
    return virtioBlkAttach(cx);
  }
  *mapDevice(cx: Cx, physical: Hpa, bytes: number): Exec<Gva> {
    const last = physical + bytes - 1;
    const mapped = DEVICE_PAGES.some((page) => physical >= page && last < page + PAGE_SIZE);
    if (!mapped) panic(cx, `pmap_mapdev: 0x${physical.toString(16)} is no device of this board`);
    return deviceVa(physical);
  }

  /** Time-stamp counter, for the start. */
  tsc(cx: Cx): Exec<bigint> {
    return rdtsc(cx.cpu);
  }
}

/** Asks for a rescheduling of user threads on a processor, from its own clock interrupt (`need_user_resched`). */
export function needUserResched(gd: Globaldata): void {
  gd.gdReqflags |= RQF.AST_USER_RESCHED;
}
