/**
 * What device tests share: a clock that the test moves, a small memory with its bus, and processors without an engine.
 *
 * @module
 */
import { Bus } from "../../../hw/bus.ts";
import { Clock } from "../../../hw/clock.ts";
import { Cpu } from "../../../hw/cpu.ts";
import { defaultModel } from "../../../hw/cpuid.ts";
import { LocalApic } from "../../../hw/dev/apic.ts";
import { ApicBus } from "../../../hw/dev/apic_bus.ts";
import { MachineMemory } from "../../../hw/memory.ts";
import { S } from "../../../hw/state.ts";

/** A clock whose time the test sets. */
export class TestClock extends Clock {
  time = 0;
  constructor() {
    super();
    this.now = () => this.time;
  }
  /** Moves to `tick`, firing what is due on the way, each at its tick. */
  to(tick: number): void {
    while (this.next <= tick) {
      this.time = Math.max(this.time, this.next);
      this.advance(this.time);
    }
    this.time = tick;
  }
  by(ticks: number): void {
    this.to(this.time + ticks);
  }
}

/** Memory of 1 MiB (or more) and its bus. */
export function testBus(ramBytes = 0x10_0000): Bus {
  return new Bus(new MachineMemory(ramBytes));
}

/** Processors with local APICs on one message bus. */
export function testApics(count: number, clock = new TestClock()) {
  const bus = testBus();
  const apicBus = new ApicBus();
  const cpus = Array.from({ length: count }, (_, id) => {
    const cpu = new Cpu({ id, memory: bus.memory, bus, model: defaultModel });
    cpu.set32(S.RFLAGS, 2);
    cpu.apic = new LocalApic({
      cpu,
      clock,
      bus: apicBus,
      x2apic: true,
      physicalAddressBits: 39,
      pageMoved: (from, to) => bus.moveApicPage(from, to),
    });
    return cpu;
  });
  return { bus, apicBus, clock, cpus, apics: cpus.map((cpu) => cpu.apic) };
}

/** Follows a line and counts its rising edges. */
export class Line {
  level = false;
  rises = 0;
  readonly set = (level: boolean): void => {
    if (level && !this.level) this.rises++;
    this.level = level;
  };
}
