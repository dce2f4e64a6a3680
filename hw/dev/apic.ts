/**
 * The local APIC of one processor, in xAPIC (memory-mapped) and x2APIC (MSR) mode.
 *
 * Room: `hw/dev/`; knows its processor, the message bus and the clock.
 * SDM vol. 3A, chapter "Advanced Programmable Interrupt Controller (APIC)". Where registers are named, they are named
 * as there.
 *
 * The processor's run loop asks {@link LocalApic.pendingVector} when ATTENTION_INTERRUPT is set, takes the vector
 * with {@link LocalApic.acknowledge}, and looks at `nmiPending`, `initPending` and `sipiVector` for the other
 * attention bits. Interrupts of the 8259 pair come through LINT0 in ExtINT mode, or straight through when the
 * APIC is globally disabled.
 *
 * @module
 */
import type { AccessSize, ApicPage } from "../bus.ts";
import type { Clock } from "../clock.ts";
import type { Cpu } from "../cpu.ts";
import { ATTENTION_INIT, ATTENTION_INTERRUPT, ATTENTION_NMI, S } from "../state.ts";
import { TRACE } from "../trace.ts";
import { type ApicBus, type ApicMessage, DELIVERY } from "./apic_bus.ts";
import {
  APIC,
  APIC_DEFAULT_BASE,
  APIC_ERROR,
  APIC_VERSION,
  BASE_BSP,
  BASE_EN,
  BASE_EXTD,
  IA32_APIC_BASE,
  IA32_TSC_DEADLINE,
  isDefined,
  isReadOnly,
  LVT_MASKED,
  LVT_PIN_LOW,
  LVT_PIN_REMOTE_IRR,
  LVT_PIN_TRIGGER_LEVEL,
  LVT_WRITABLE,
  SVR_ENABLED,
  SVR_NO_EOI_BROADCAST,
  x2apicReserved,
} from "./apic_registers.ts";
import { ApicTimer, type ApicTimerState } from "./apic_timer.ts";
import { VectorSet } from "./vector_set.ts";

export { APIC, APIC_DEFAULT_BASE, APIC_ERROR };

/** What a local APIC is built from. */
export interface LocalApicParts {
  /** The processor. */
  readonly cpu: Cpu;
  /** The machine's clock. */
  readonly clock: Clock;
  /** The bus between the APICs. */
  readonly bus: ApicBus;
  /** Whether the processor has x2APIC mode. */
  readonly x2apic: boolean;
  /** MAXPHYADDR. */
  readonly physicalAddressBits: number;
  /** Told when the page moves (from, to; −1 when unmapped). */
  readonly pageMoved: (from: number, to: number) => void;
}

/** What a snapshot keeps; IA32_APIC_BASE is in the processor's block. */
export interface LocalApicState {
  /** Address of the page, or −1. */
  readonly mmioBase: number;
  /** APIC ID. */
  readonly id: number;
  /** TPR, LDR, DFR, SVR, ESR, collected errors, ICR. */
  readonly words: readonly number[];
  /** IRR. */
  readonly irr: readonly number[];
  /** ISR. */
  readonly isr: readonly number[];
  /** TMR. */
  readonly tmr: readonly number[];
  /** Local vector table. */
  readonly lvt: readonly number[];
  /** Levels of the pins. */
  readonly lint: readonly boolean[];
  /** An NMI waits. */
  readonly nmiPending: boolean;
  /** An INIT waits. */
  readonly initPending: boolean;
  /** Vector of a start-up IPI that waits, or −1. */
  readonly sipiVector: number;
  /** The timer. */
  readonly timer: ApicTimerState;
}

/** One processor's local APIC. */
export class LocalApic implements ApicPage {
  /** Physical address of the register page, or −1 when it is not mapped. */
  mmioBase: number = APIC_DEFAULT_BASE;
  /** An NMI waits. The run loop takes it with {@link takeNmi}. */
  nmiPending = false;
  /** INIT was received. The run loop resets the processor and calls {@link acceptInit}. */
  initPending = false;
  /** Vector of a received start-up IPI, or −1. The processor starts at vector × 1000H in real mode. */
  sipiVector: number = -1;
  /** Result of {@link readMsr}. */
  msrLow = 0;
  /** Upper half of the result of {@link readMsr}. */
  msrHigh = 0;

  /** The processor. */
  readonly cpu: Cpu;
  /** The timer. */
  readonly timer: ApicTimer;
  readonly #bus: ApicBus;
  readonly #x2apicCapable: boolean;
  readonly #physicalAddressBits: number;
  readonly #pageMoved: (from: number, to: number) => void;

  #id: number;
  #tpr = 0;
  #ldr = 0;
  #dfr = 0xffff_ffff;
  #svr = 0xff;
  #esr = 0;
  #errors = 0;
  #icrLow = 0;
  #icrHigh = 0;
  readonly #irr = new VectorSet();
  readonly #isr = new VectorSet();
  readonly #tmr = new VectorSet();
  readonly #lvt = new Int32Array(6).fill(LVT_MASKED);
  readonly #lint = [false, false];

  /** Puts the APIC on its bus and resets it. */
  constructor(parts: LocalApicParts) {
    this.cpu = parts.cpu;
    this.#bus = parts.bus;
    this.#x2apicCapable = parts.x2apic;
    this.#physicalAddressBits = parts.physicalAddressBits;
    this.#pageMoved = parts.pageMoved;
    this.#id = parts.cpu.id;
    this.timer = new ApicTimer(
      parts.clock,
      `apic${parts.cpu.id}`,
      () => this.cpu.get64(S.TSC_ADJUST),
      () => this.#deliverLocal(this.#lvt[0]! & 0xff),
    );
    parts.bus.apics.push(this);
    this.cpu.set64(S.APIC_BASE, BigInt(APIC_DEFAULT_BASE + BASE_EN + (this.cpu.id === 0 ? BASE_BSP : 0)));
  }

  // ---- what the processor asks

  /**
   * Vector of the interrupt that the processor would take if RFLAGS.IF allowed it, or −1. An 8259 interrupt through
   * ExtINT comes before the APIC's own, which must have a priority class above the processor priority.
   */
  pendingVector(): number {
    if (this.#extIntPending) return this.#bus.pic!.peek();
    const vector = this.#irr.highest;
    // A software-disabled APIC accepts nothing new, but what it holds is still delivered.
    if (vector < 0) return -1;
    return (vector & 0xf0) > (this.ppr & 0xf0) ? vector : -1;
  }

  /** Takes the interrupt that {@link pendingVector} announced and returns its vector. */
  acknowledge(): number {
    let vector: number;
    if (this.#extIntPending) vector = this.#bus.pic!.acknowledge();
    else {
      vector = this.#irr.highest;
      this.#irr.delete(vector);
      this.#isr.add(vector);
    }
    this.refreshAttention();
    return vector;
  }

  /** Sets or clears ATTENTION_INTERRUPT by whether an interrupt is pending; RFLAGS.IF plays no part. */
  refreshAttention(): void {
    const attention = this.cpu.get32(S.ATTENTION);
    const pending = this.pendingVector() >= 0;
    this.cpu.set32(
      S.ATTENTION,
      pending ? attention | ATTENTION_INTERRUPT : attention & ~ATTENTION_INTERRUPT,
    );
  }

  /** Takes a pending NMI. */
  takeNmi(): void {
    this.nmiPending = false;
    this.cpu.set32(S.ATTENTION, this.cpu.get32(S.ATTENTION) & ~ATTENTION_NMI);
  }

  /** The APIC's part of INIT: all registers but the ID as at reset; IA32_APIC_BASE stays. */
  acceptInit(): void {
    this.initPending = false;
    this.#resetRegisters();
    this.#refreshInitAttention();
    this.#tell("init");
  }

  /** An INIT that caused a VM exit is gone; nothing was reset. */
  dropInit(): void {
    this.initPending = false;
    this.#refreshInitAttention();
  }

  /** Takes a pending start-up IPI; returns its vector, or −1. */
  takeSipi(): number {
    const vector = this.sipiVector;
    this.sipiVector = -1;
    this.#refreshInitAttention();
    if (vector >= 0) this.#tell("sipi");
    return vector;
  }

  /** Task-priority register, all eight bits; CR8 is its upper four. */
  get tpr(): number {
    return this.#tpr;
  }
  set tpr(value: number) {
    this.#tpr = value & 0xff;
    this.refreshAttention();
  }

  /** Processor-priority register. */
  get ppr(): number {
    const serviced = this.#isr.highest;
    const inService = serviced < 0 ? 0 : serviced & 0xf0;
    return (this.#tpr & 0xf0) >= inService ? this.#tpr : inService;
  }

  /** SVR bit 8, and the APIC is globally enabled. */
  get softwareEnabled(): boolean {
    return (this.#svr & SVR_ENABLED) !== 0 && this.globallyEnabled;
  }
  /** IA32_APIC_BASE.EN. */
  get globallyEnabled(): boolean {
    return (this.cpu.get32(S.APIC_BASE) & BASE_EN) !== 0;
  }
  /** x2APIC mode is on. */
  get x2apicMode(): boolean {
    return (this.cpu.get32(S.APIC_BASE) & BASE_EXTD) !== 0;
  }
  /** APIC ID: eight bits in xAPIC mode. */
  get apicId(): number {
    return this.#id;
  }

  /** End of interrupt: the highest vector in service is done; a level-triggered one is broadcast to the I/O APIC. */
  eoi(): void {
    const vector = this.#isr.highest;
    if (vector < 0) return;
    this.#isr.delete(vector);
    if (this.#tmr.has(vector)) {
      this.#lvt[3] = this.#lvt[3]! & ~(((this.#lvt[3]! & 0xff) === vector) ? LVT_PIN_REMOTE_IRR : 0);
      this.#lvt[4] = this.#lvt[4]! & ~(((this.#lvt[4]! & 0xff) === vector) ? LVT_PIN_REMOTE_IRR : 0);
      if (!(this.#svr & SVR_NO_EOI_BROADCAST)) this.#bus.endOfInterrupt(vector);
      for (let pin = 0; pin < 2; pin++) if (this.#lint[pin]) this.#lintChanged(pin, true, false);
    }
    this.refreshAttention();
  }

  // ---- messages and pins

  /** Whether a message's destination includes this APIC. A globally disabled APIC is not on the bus. */
  isAddressedBy(message: ApicMessage): boolean {
    if (!this.globallyEnabled) return false;
    const to = message.destination;
    if (message.wide ? to === 0xffff_ffff : to === 0xff) return true;
    if (!message.logical) return to === this.#id;
    if (this.x2apicMode) {
      const ldr = this.#logicalId;
      return (to >>> 16) === (ldr >>> 16) && (to & ldr & 0xffff) !== 0;
    }
    const mda = to & 0xff, ldr = this.#ldr >>> 24;
    if (this.#dfr >>> 28 === 0xf) return (mda & ldr) !== 0;
    return ((mda >>> 4) === 0xf || (mda >>> 4) === (ldr >>> 4)) && (mda & ldr & 0xf) !== 0;
  }

  /** Accepts a message that is addressed to this APIC. */
  receive(message: ApicMessage): void {
    switch (message.delivery) {
      case DELIVERY.fixed:
      case DELIVERY.lowestPriority:
        this.#accept(message.vector, message.level);
        break;
      case DELIVERY.nmi:
        this.raiseNmi();
        break;
      case DELIVERY.init:
        this.initPending = true;
        this.sipiVector = -1;
        this.#refreshInitAttention();
        break;
      case DELIVERY.startUp:
        // Only a processor that waits for one (or is about to, after INIT) takes notice.
        if (this.initPending || this.cpu.get32(S.ACTIVITY) === 3) {
          this.sipiVector = message.vector;
          this.#refreshInitAttention();
        }
        break;
      case DELIVERY.extInt:
      case DELIVERY.smi:
        break;
    }
  }

  /** An NMI arrives, from a message or a pin. */
  raiseNmi(): void {
    this.nmiPending = true;
    this.cpu.set32(S.ATTENTION, this.cpu.get32(S.ATTENTION) | ATTENTION_NMI);
  }

  /** Level of pin LINT0 (8259 output) or LINT1 (NMI line). */
  setLint(pin: number, level: boolean): void {
    const was = this.#lint[pin]!;
    this.#lint[pin] = level;
    this.#lintChanged(pin, level, !was && level);
  }

  // ---- register access

  readMmio(offset: number, size: AccessSize): number {
    if (size === 4 && (offset & 0xf) === 0) return this.readRegister(offset);
    if ((offset & 0xf) + size > 4) return 0;
    return this.readRegister(offset & ~0xf) >>> ((offset & 3) * 8);
  }

  /** Writes a register. */
  writeMmio(offset: number, size: AccessSize, value: number): void {
    // Deviation: the SDM leaves accesses other than aligned 32-bit ones undefined; they are dropped.
    if (size === 4 && (offset & 0xf) === 0) this.writeRegister(offset, value);
  }

  /** Reads a register of the xAPIC page, unsigned; reserved registers give 0 and set ESR. */
  readRegister(offset: number): number {
    if (offset >= APIC.ISR && offset < APIC.ESR) {
      const set = offset < APIC.TMR ? this.#isr : offset < APIC.IRR ? this.#tmr : this.#irr;
      return set.words[(offset & 0x70) >>> 4]! >>> 0;
    }
    switch (offset) {
      case APIC.ID:
        return this.x2apicMode ? this.#id : (this.#id << 24) >>> 0;
      case APIC.VERSION:
        return APIC_VERSION;
      case APIC.TPR:
        return this.#tpr;
      case APIC.APR:
        return this.#arbitrationPriority();
      case APIC.PPR:
        return this.ppr;
      case APIC.RRD:
      case APIC.EOI:
        return 0;
      case APIC.LDR:
        return this.x2apicMode ? this.#logicalId : this.#ldr;
      case APIC.DFR:
        return this.#dfr;
      case APIC.SVR:
        return this.#svr;
      case APIC.ESR:
        return this.#esr;
      case APIC.ICR_LOW:
        return this.#icrLow;
      case APIC.ICR_HIGH:
        return this.#icrHigh;
      case APIC.INITIAL_COUNT:
        return this.timer.initial;
      case APIC.CURRENT_COUNT:
        return this.timer.current;
      case APIC.DIVIDE:
        return this.timer.divide;
    }
    if (offset >= APIC.LVT_TIMER && offset <= APIC.LVT_ERROR) {
      return this.#lvt[(offset - APIC.LVT_TIMER) >>> 4]! >>> 0;
    }
    this.#error(APIC_ERROR.illegalRegister);
    return 0;
  }

  /** Writes a register of the xAPIC page. Read-only registers ignore it, reserved ones set ESR. */
  writeRegister(offset: number, value: number): void {
    switch (offset) {
      case APIC.ID:
        if (!this.x2apicMode) this.#id = value >>> 24;
        return;
      case APIC.TPR:
        this.tpr = value;
        return;
      case APIC.EOI:
        this.eoi();
        return;
      case APIC.LDR:
        if (!this.x2apicMode) this.#ldr = (value & 0xff00_0000) >>> 0;
        return;
      case APIC.DFR:
        if (!this.x2apicMode) this.#dfr = (value | 0x0fff_ffff) >>> 0;
        return;
      case APIC.SVR:
        this.#writeSvr(value);
        return;
      case APIC.ESR:
        this.#esr = this.#errors;
        this.#errors = 0;
        return;
      case APIC.ICR_LOW:
        this.#icrLow = value & 0x000c_cfff;
        this.#sendIpi();
        return;
      case APIC.ICR_HIGH:
        this.#icrHigh = (value & 0xff00_0000) >>> 0;
        return;
      case APIC.INITIAL_COUNT:
        this.timer.start(value >>> 0);
        return;
      case APIC.DIVIDE:
        this.timer.setDivide(value);
        return;
    }
    if (offset >= APIC.LVT_TIMER && offset <= APIC.LVT_ERROR) {
      this.#writeLvt((offset - APIC.LVT_TIMER) >>> 4, value);
    } else if (!isReadOnly(offset)) this.#error(APIC_ERROR.illegalRegister);
  }

  /**
   * RDMSR of IA32_APIC_BASE, IA32_TSC_DEADLINE or 800H … 8FFH. The value is left in `msrLow`, `msrHigh`.
   *
   * @returns false when the read is #GP(0).
   */
  readMsr(index: number): boolean {
    this.msrHigh = 0;
    if (index === IA32_APIC_BASE || index === IA32_TSC_DEADLINE) {
      const value = index === IA32_APIC_BASE ? this.cpu.get64(S.APIC_BASE) : this.timer.deadline;
      this.msrLow = Number(value & 0xffff_ffffn);
      this.msrHigh = Number(value >> 32n);
      return true;
    }
    if (!this.x2apicMode) return false;
    const offset = (index - 0x800) << 4;
    switch (offset) {
      case APIC.ICR_LOW:
        this.msrHigh = this.#icrHigh;
        break;
      case APIC.APR:
      case APIC.EOI:
      case APIC.RRD:
      case APIC.DFR:
      case APIC.ICR_HIGH:
      case APIC.SELF_IPI:
        return false;
      default:
        if (!isDefined(offset)) return false;
    }
    this.msrLow = this.readRegister(offset) >>> 0;
    return true;
  }

  /**
   * WRMSR of IA32_APIC_BASE, IA32_TSC_DEADLINE or 800H … 8FFH.
   *
   * @returns false when the write is #GP(0); then nothing has changed.
   */
  writeMsr(index: number, low: number, high: number): boolean {
    low >>>= 0;
    high >>>= 0;
    if (index === IA32_APIC_BASE) return this.#writeBase(low, high);
    if (index === IA32_TSC_DEADLINE) {
      this.timer.deadline = (BigInt(high) << 32n) | BigInt(low);
      return true;
    }
    if (!this.x2apicMode) return false;
    const offset = (index - 0x800) << 4;
    const reserved = x2apicReserved(offset);
    if (reserved === undefined || (low & reserved) !== 0) return false;
    if (offset === APIC.ICR_LOW) {
      this.#icrHigh = high;
      this.#icrLow = low & 0x000c_cfff;
      this.#sendIpi();
      return true;
    }
    if (high !== 0) return false;
    if (offset === APIC.SELF_IPI) this.#selfIpi(low & 0xff);
    else this.writeRegister(offset, low);
    return true;
  }

  // ---- life

  /** Power-up or machine reset. */
  reset(): void {
    const from = this.mmioBase;
    this.#id = this.cpu.id;
    this.cpu.set64(S.APIC_BASE, BigInt(APIC_DEFAULT_BASE + BASE_EN + (this.cpu.id === 0 ? BASE_BSP : 0)));
    this.mmioBase = APIC_DEFAULT_BASE;
    this.#resetRegisters();
    this.nmiPending = this.initPending = false;
    this.sipiVector = -1;
    this.#pageMoved(from, this.mmioBase);
  }

  /** Leaves the APIC as PC firmware does: enabled, LINT0 = ExtINT ("virtual wire"), LINT1 = NMI. */
  enterVirtualWire(): void {
    this.writeRegister(APIC.SVR, SVR_ENABLED | 0xff);
    this.writeRegister(APIC.LVT_LINT0, DELIVERY.extInt << 8);
    this.writeRegister(APIC.LVT_LINT1, DELIVERY.nmi << 8);
  }

  /** The state as plain data, for a snapshot. */
  save(): LocalApicState {
    return {
      mmioBase: this.mmioBase,
      id: this.#id,
      words: [
        this.#tpr,
        this.#ldr,
        this.#dfr,
        this.#svr,
        this.#esr,
        this.#errors,
        this.#icrLow,
        this.#icrHigh,
      ],
      irr: [...this.#irr.words],
      isr: [...this.#isr.words],
      tmr: [...this.#tmr.words],
      lvt: [...this.#lvt],
      lint: [...this.#lint],
      nmiPending: this.nmiPending,
      initPending: this.initPending,
      sipiVector: this.sipiVector,
      timer: this.timer.save(),
    };
  }

  /** Puts a saved state back. */
  load(state: LocalApicState): void {
    const from = this.mmioBase;
    this.mmioBase = state.mmioBase;
    this.#id = state.id;
    const [tpr = 0, ldr = 0, dfr = 0, svr = 0, esr = 0, errors = 0, icrLow = 0, icrHigh = 0] = state.words;
    this.#tpr = tpr;
    this.#ldr = ldr;
    this.#dfr = dfr;
    this.#svr = svr;
    this.#esr = esr;
    this.#errors = errors;
    this.#icrLow = icrLow;
    this.#icrHigh = icrHigh;
    this.#irr.words.set(state.irr);
    this.#isr.words.set(state.isr);
    this.#tmr.words.set(state.tmr);
    this.#lvt.set(state.lvt);
    this.#lint[0] = state.lint[0] ?? false;
    this.#lint[1] = state.lint[1] ?? false;
    this.nmiPending = state.nmiPending;
    this.initPending = state.initPending;
    this.sipiVector = state.sipiVector;
    this.timer.load(state.timer);
    this.#pageMoved(from, this.mmioBase);
  }

  // ---- the parts

  /** x2APIC logical ID: the cluster in the upper half, one bit in the lower. */
  get #logicalId(): number {
    return (((this.#id >>> 4) << 16) | (1 << (this.#id & 15))) >>> 0;
  }

  get #extIntPending(): boolean {
    const pic = this.#bus.pic;
    if (pic === null || !pic.output || !this.#lint[0]) return false;
    if (!this.globallyEnabled) return this.cpu.id === 0;
    const lint0 = this.#lvt[3]!;
    return (lint0 & LVT_MASKED) === 0 && ((lint0 >>> 8) & 7) === DELIVERY.extInt;
  }

  #accept(vector: number, level: boolean): void {
    if (!this.softwareEnabled) return;
    if (vector < 16) {
      this.#error(APIC_ERROR.receivedIllegalVector);
      return;
    }
    this.#irr.add(vector);
    if (level) this.#tmr.add(vector);
    else this.#tmr.delete(vector);
    this.refreshAttention();
  }

  /** A local interrupt source fires in fixed mode. */
  #deliverLocal(vector: number): void {
    this.#accept(vector, false);
  }

  #lintChanged(pin: number, level: boolean, rising: boolean): void {
    const entry = this.#lvt[3 + pin]!;
    if (!this.globallyEnabled) {
      // Without an APIC the pins are INTR and NMI of the bootstrap processor.
      if (pin === 1 && rising && this.cpu.id === 0) this.raiseNmi();
      this.refreshAttention();
      return;
    }
    if ((entry & LVT_MASKED) === 0) {
      switch ((entry >>> 8) & 7) {
        case DELIVERY.fixed:
          this.#lintFixed(pin, entry, level, rising);
          break;
        case DELIVERY.nmi:
          if (rising) this.raiseNmi();
          break;
        case DELIVERY.init:
          if (rising) {
            this.initPending = true;
            this.sipiVector = -1;
            this.#refreshInitAttention();
          }
          break;
      }
    }
    this.refreshAttention();
  }

  /** LINT1 is always edge-triggered (SDM vol. 3A, "Local Vector Table", trigger mode). */
  #lintFixed(pin: number, entry: number, level: boolean, rising: boolean): void {
    const active = (entry & LVT_PIN_LOW) === 0 ? level : !level;
    if (pin === 0 && (entry & LVT_PIN_TRIGGER_LEVEL)) {
      if (!active || (entry & LVT_PIN_REMOTE_IRR)) return;
      this.#lvt[3 + pin] = entry | LVT_PIN_REMOTE_IRR;
      this.#accept(entry & 0xff, true);
    } else if (rising) this.#accept(entry & 0xff, false);
  }

  #error(bit: number): void {
    if (this.#errors & bit) return;
    this.#errors |= bit;
    const entry = this.#lvt[5]!;
    // An error LVT with an illegal vector must not raise another error interrupt.
    if ((entry & LVT_MASKED) === 0 && (entry & 0xff) >= 16) this.#deliverLocal(entry & 0xff);
  }

  #writeSvr(value: number): void {
    const was = this.#svr;
    this.#svr = value & (0xff | SVR_ENABLED | SVR_NO_EOI_BROADCAST | 0x200);
    if ((was & SVR_ENABLED) !== 0 && (value & SVR_ENABLED) === 0) {
      for (let i = 0; i < 6; i++) this.#lvt[i] = this.#lvt[i]! | LVT_MASKED;
      this.timer.setMode((this.#lvt[0]! >>> 17) & 3, true);
    }
    this.refreshAttention();
  }

  #writeLvt(index: number, value: number): void {
    const kept = this.#lvt[index]! & LVT_PIN_REMOTE_IRR;
    let entry = value & LVT_WRITABLE[index]!;
    if ((this.#svr & SVR_ENABLED) === 0) entry |= LVT_MASKED;
    if ((entry & 0xff) < 16 && ((entry >>> 8) & 7) === DELIVERY.fixed && (entry & LVT_MASKED) === 0) {
      this.#error(APIC_ERROR.receivedIllegalVector);
    }
    const unmasked = (this.#lvt[index]! & LVT_MASKED) !== 0 && (entry & LVT_MASKED) === 0;
    this.#lvt[index] = index === 3 || index === 4
      ? entry | (entry & LVT_PIN_TRIGGER_LEVEL ? kept : 0)
      : entry;
    if (index === 0) this.timer.setMode((entry >>> 17) & 3, (entry & LVT_MASKED) !== 0);
    if ((index === 3 || index === 4) && unmasked && this.#lint[index - 3]) {
      this.#lintChanged(index - 3, true, false);
    }
    this.refreshAttention();
  }

  #sendIpi(): void {
    const low = this.#icrLow, delivery = (low >>> 8) & 7, vector = low & 0xff;
    const shorthand = (low >>> 18) & 3;
    const level = (low & 0x8000) !== 0;
    // INIT level de-assert only synchronises arbitration IDs, which nothing can observe.
    if (delivery === DELIVERY.init && level && (low & 0x4000) === 0) return;
    const fixed = delivery === DELIVERY.fixed || delivery === DELIVERY.lowestPriority;
    if (fixed && vector < 16) {
      this.#error(APIC_ERROR.sendIllegalVector);
      return;
    }
    // IPIs are edge-triggered whatever the trigger bit says (SDM: the bit counts for INIT de-assert only).
    const wide = this.x2apicMode;
    const message: ApicMessage = {
      vector,
      delivery,
      level: false,
      logical: (low & 0x800) !== 0,
      destination: wide ? this.#icrHigh : this.#icrHigh >>> 24,
      wide,
    };
    if (shorthand === 0) {
      this.#bus.send(message);
      return;
    }
    if (shorthand === 1) {
      // To self, only fixed mode is valid; the others are dropped.
      if (delivery === DELIVERY.fixed) this.receive(message);
      return;
    }
    const others = shorthand === 3;
    if (delivery === DELIVERY.lowestPriority && !others) {
      this.#bus.send({ ...message, logical: false, destination: 0xffff_ffff, wide: true });
      return;
    }
    for (const apic of this.#bus.apics) {
      if ((apic !== this || !others) && apic.globallyEnabled) apic.receive(message);
    }
  }

  #selfIpi(vector: number): void {
    if (vector < 16) this.#error(APIC_ERROR.sendIllegalVector);
    else this.#accept(vector, false);
  }

  #writeBase(low: number, high: number): boolean {
    const width = this.#physicalAddressBits;
    const reservedHigh = width > 32 ? ~((2 ** (width - 32)) - 1) : -1;
    if ((high & reservedHigh) !== 0 || (low & 0x2ff) !== 0) return false;
    const was = this.cpu.get32(S.APIC_BASE);
    const extended = (low & BASE_EXTD) !== 0, enabled = (low & BASE_EN) !== 0;
    const wasExtended = (was & BASE_EXTD) !== 0, wasEnabled = (was & BASE_EN) !== 0;
    if (extended && (!this.#x2apicCapable || !enabled)) return false;
    if (extended && !wasEnabled) return false;
    if (wasExtended && enabled && !extended) return false;

    const from = this.mmioBase;
    this.cpu.set64Halves(S.APIC_BASE, low, high);
    this.mmioBase = enabled && !extended ? high * 0x1_0000_0000 + ((low & 0xffff_f000) >>> 0) : -1;
    if (!enabled && wasEnabled) this.#resetRegisters();
    if (!wasEnabled && enabled) this.#id = this.cpu.id;
    if (extended && !wasExtended) {
      this.#id = this.cpu.id;
      this.#icrHigh = 0;
    }
    if (from !== this.mmioBase) this.#pageMoved(from, this.mmioBase);
    this.refreshAttention();
    return true;
  }

  #arbitrationPriority(): number {
    const requested = Math.max(this.#irr.highest, 0), serviced = Math.max(this.#isr.highest, 0);
    const classes = Math.max(requested & 0xf0, serviced & 0xf0);
    return (this.#tpr & 0xf0) >= classes ? this.#tpr : classes;
  }

  #resetRegisters(): void {
    this.#tpr = 0;
    this.#ldr = 0;
    this.#dfr = 0xffff_ffff;
    this.#svr = 0xff;
    this.#esr = 0;
    this.#errors = 0;
    this.#icrLow = 0;
    this.#icrHigh = 0;
    this.#irr.clear();
    this.#isr.clear();
    this.#tmr.clear();
    this.#lvt.fill(LVT_MASKED);
    this.timer.reset();
    this.refreshAttention();
  }

  #tell(what: string): void {
    const { cpu } = this;
    if (cpu.trace.wants & TRACE.machine) {
      cpu.trace.emit({ kind: "machine", cpu: cpu.id, time: cpu.now(), what });
    }
  }

  #refreshInitAttention(): void {
    const attention = this.cpu.get32(S.ATTENTION);
    const pending = this.initPending || this.sipiVector >= 0;
    this.cpu.set32(S.ATTENTION, pending ? attention | ATTENTION_INIT : attention & ~ATTENTION_INIT);
  }
}
