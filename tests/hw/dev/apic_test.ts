import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { APIC, APIC_ERROR, type LocalApic } from "../../../hw/dev/apic.ts";
import { Pic8259 } from "../../../hw/dev/pic8259.ts";
import { ATTENTION_INIT, ATTENTION_INTERRUPT, ATTENTION_NMI, S } from "../../../hw/state.ts";
import { Line, testApics } from "./board_fixture.ts";

const MASKED = 0x1_0000;
const enable = (apic: LocalApic) => apic.writeRegister(APIC.SVR, 0x1ff);
const self = (apic: LocalApic, vector: number) => apic.writeRegister(APIC.ICR_LOW, 0x4_4000 | vector);
const error = (apic: LocalApic) => {
  apic.writeRegister(APIC.ESR, 0);
  return apic.readRegister(APIC.ESR);
};

function one() {
  const all = testApics(1);
  enable(all.apics[0]!);
  return { ...all, apic: all.apics[0]!, cpu: all.cpus[0]! };
}
function several(n: number) {
  const all = testApics(n);
  all.apics.forEach(enable);
  return all;
}

describe("the local APIC: priorities", () => {
  it("delivers by priority class above the processor priority", () => {
    const { apic, cpu } = one();
    for (const v of [0x31, 0x41, 0x4f]) self(apic, v);
    assertEquals(apic.pendingVector(), 0x4f);
    assertEquals(cpu.get32(S.ATTENTION) & ATTENTION_INTERRUPT, ATTENTION_INTERRUPT);
    assertEquals(apic.acknowledge(), 0x4f);
    assertEquals(apic.ppr, 0x40);
    assertEquals(apic.pendingVector(), -1, "41H is in the class of what is in service");
    assertEquals(cpu.get32(S.ATTENTION), 0);
    apic.eoi();
    assertEquals(apic.pendingVector(), 0x41);
    apic.tpr = 0x40;
    assertEquals(apic.pendingVector(), -1);
    apic.tpr = 0x3f;
    assertEquals([apic.pendingVector(), apic.ppr], [0x41, 0x3f]);
  });
  it("shows IRR, ISR, PPR in its registers", () => {
    const { apic } = one();
    self(apic, 0xe5);
    assertEquals(apic.readRegister(APIC.IRR + 0x70), 0x20);
    apic.acknowledge();
    assertEquals([apic.readRegister(APIC.IRR + 0x70), apic.readRegister(APIC.ISR + 0x70)], [0, 0x20]);
    assertEquals(apic.readRegister(APIC.PPR), 0xe0);
  });
  it("merges two requests of one vector, but keeps one beside the one in service", () => {
    const { apic } = one();
    self(apic, 0x50);
    self(apic, 0x50);
    apic.acknowledge();
    self(apic, 0x50);
    apic.eoi();
    assertEquals(apic.acknowledge(), 0x50);
    apic.eoi();
    assertEquals(apic.pendingVector(), -1);
  });
});

describe("the local APIC: registers", () => {
  it("has its reset values", () => {
    const { apics: [apic] } = testApics(1);
    assertEquals(apic!.readRegister(APIC.SVR), 0xff);
    assertEquals(apic!.readRegister(APIC.DFR), 0xffff_ffff);
    for (let at = APIC.LVT_TIMER as number; at <= APIC.LVT_ERROR; at += 16) {
      assertEquals(apic!.readRegister(at), MASKED);
    }
    assertEquals(apic!.readRegister(APIC.VERSION), 0x0105_0015);
  });
  it("masks and keeps masked all LVT entries while software-disabled", () => {
    const { apic } = one();
    apic.writeRegister(APIC.LVT_TIMER, 0x55);
    assertEquals(apic.readRegister(APIC.LVT_TIMER), 0x55);
    apic.writeRegister(APIC.SVR, 0xff);
    assertEquals(apic.readRegister(APIC.LVT_TIMER), MASKED | 0x55);
    apic.writeRegister(APIC.LVT_TIMER, 0x66);
    assertEquals(apic.readRegister(APIC.LVT_TIMER), MASKED | 0x66);
    self(apic, 0x77);
    assertEquals(apic.pendingVector(), -1, "a disabled APIC accepts nothing");
  });
  it("records errors and shows them after a write to ESR", () => {
    const { apic } = one();
    self(apic, 0x0f);
    assertEquals(apic.readRegister(APIC.ESR), 0);
    assertEquals(error(apic), APIC_ERROR.sendIllegalVector);
    assertEquals(error(apic), 0);
    apic.readRegister(0x3d0);
    assertEquals(error(apic), APIC_ERROR.illegalRegister);
    apic.writeRegister(APIC.LVT_ERROR, 0xfe);
    self(apic, 3);
    assertEquals(apic.acknowledge(), 0xfe, "the error interrupt");
  });
  it("takes 32-bit accesses on 16-byte boundaries", () => {
    const { bus, apic } = one();
    bus.apic = apic;
    bus.write(0xfee0_0080, 4, 0x20);
    bus.write(0xfee0_0084, 4, 0x50);
    bus.write(0xfee0_0080, 1, 0x30);
    assertEquals([bus.read(0xfee0_0080, 4), bus.read(0xfee0_0080, 1)], [0x20, 0x20]);
    assertEquals(bus.read(0xfee0_0021, 2), 0);
    assertEquals(bus.read(0xfee0_0020, 4), 0);
  });
});

describe("the local APIC: interprocessor interrupts", () => {
  const destination = (apic: LocalApic, to: number, low: number) => {
    apic.writeRegister(APIC.ICR_HIGH, to << 24);
    apic.writeRegister(APIC.ICR_LOW, low);
  };
  const pending = (apics: readonly LocalApic[]) => apics.map((a) => a.pendingVector());

  it("reach one processor by physical ID, all by FFH", () => {
    const { apics } = several(3);
    destination(apics[0]!, 2, 0x4050);
    assertEquals(pending(apics), [-1, -1, 0x50]);
    destination(apics[0]!, 0xff, 0x4060);
    assertEquals(pending(apics), [0x60, 0x60, 0x60]);
  });
  it("reach sets in flat and cluster logical mode", () => {
    const { apics } = several(4);
    apics.forEach((a, i) => a.writeRegister(APIC.LDR, 1 << (24 + i)));
    destination(apics[0]!, 0b1010, 0x4850);
    assertEquals(pending(apics), [-1, 0x50, -1, 0x50]);
    apics.forEach((a, i) => {
      a.writeRegister(APIC.DFR, 0x0fff_ffff);
      a.writeRegister(APIC.LDR, ((i >> 1 << 4) | 1 << (i & 1)) << 24);
    });
    destination(apics[0]!, 0x12, 0x4860);
    assertEquals(pending(apics), [-1, 0x50, -1, 0x60]);
    destination(apics[0]!, 0xf1, 0x4870);
    assertEquals(pending(apics), [0x70, 0x50, 0x70, 0x60]);
  });
  it("have shorthands for self, all, and all but self", () => {
    const { apics } = several(3);
    apics[1]!.writeRegister(APIC.ICR_LOW, 0x4_4041);
    assertEquals(pending(apics), [-1, 0x41, -1]);
    apics[1]!.writeRegister(APIC.ICR_LOW, 0xc_4052);
    assertEquals(pending(apics), [0x52, 0x41, 0x52]);
    apics[1]!.writeRegister(APIC.ICR_LOW, 0x8_4063);
    assertEquals(pending(apics), [0x63, 0x63, 0x63]);
  });
  it("go to the lowest priority, in turn among equals", () => {
    const { apics } = several(3);
    apics.forEach((a) => a.writeRegister(APIC.LDR, 0x0100_0000));
    apics[0]!.tpr = 0x20;
    const winners = [];
    for (let v = 0x81; v < 0x85; v++) {
      destination(apics[0]!, 1, 0x4900 | v);
      winners.push(apics.findIndex((a) => a.pendingVector() === v));
    }
    assertEquals(winners, [1, 2, 1, 2]);
  });
  it("carry NMI, INIT and start-up", () => {
    const { apics, cpus } = several(2);
    cpus[1]!.set32(S.ACTIVITY, 3);
    destination(apics[0]!, 1, 0x4400);
    assertEquals([apics[1]!.nmiPending, cpus[1]!.get32(S.ATTENTION) & ATTENTION_NMI], [true, ATTENTION_NMI]);
    destination(apics[0]!, 1, 0x4608);
    assertEquals([apics[1]!.sipiVector, cpus[1]!.get32(S.ATTENTION) & ATTENTION_INIT], [8, ATTENTION_INIT]);
    destination(apics[0]!, 1, 0xc500);
    assertEquals([apics[1]!.initPending, apics[1]!.sipiVector], [true, -1], "INIT forgets the start-up");
    destination(apics[0]!, 1, 0x4609);
    assertEquals(apics[1]!.sipiVector, 9, "INIT then start-up, both before the processor looks");
    apics[1]!.acceptInit();
    assertEquals([apics[1]!.takeSipi(), cpus[1]!.get32(S.ATTENTION) & ATTENTION_INIT], [9, 0]);
  });
  it("ignore INIT level de-assert, and start-up of a processor that runs", () => {
    const { apics } = several(2);
    destination(apics[0]!, 1, 0x8500);
    destination(apics[0]!, 1, 0x4608);
    assertEquals([apics[1]!.initPending, apics[1]!.sipiVector], [false, -1]);
  });
});

describe("the local APIC: timer", () => {
  it("counts down at the crystal clock through the divider, once", () => {
    const { apic, clock } = one();
    apic.writeRegister(APIC.LVT_TIMER, 0x60);
    apic.writeRegister(APIC.DIVIDE, 0x3); // by 16
    apic.writeRegister(APIC.INITIAL_COUNT, 1000);
    clock.by(1600);
    assertEquals(apic.readRegister(APIC.CURRENT_COUNT), 900);
    clock.to(15_999);
    assertEquals([apic.pendingVector(), apic.readRegister(APIC.CURRENT_COUNT)], [-1, 1]);
    clock.to(16_000);
    assertEquals([apic.pendingVector(), apic.readRegister(APIC.CURRENT_COUNT)], [0x60, 0]);
    apic.acknowledge();
    clock.by(1_000_000);
    assertEquals(apic.pendingVector(), -1);
  });
  it("repeats in periodic mode, and rolls on silently while masked", () => {
    const { apic, clock } = one();
    apic.writeRegister(APIC.DIVIDE, 0xb); // by 1
    apic.writeRegister(APIC.LVT_TIMER, 0x2_0060);
    apic.writeRegister(APIC.INITIAL_COUNT, 100);
    let seen = 0;
    for (let t = 1; t <= 1000; t++) {
      clock.to(t);
      if (apic.pendingVector() === 0x60) {
        assertEquals(t % 100, 0);
        apic.acknowledge();
        apic.eoi();
        seen++;
      }
    }
    assertEquals(seen, 10);
    apic.writeRegister(APIC.LVT_TIMER, 0x2_0060 | MASKED);
    assertEquals(clock.next, Infinity);
    clock.to(1_000_030);
    assertEquals(apic.readRegister(APIC.CURRENT_COUNT), 70);
    apic.writeRegister(APIC.LVT_TIMER, 0x2_0060);
    clock.by(70);
    assertEquals(apic.pendingVector(), 0x60);
  });
  it("goes on from where it stands when the divider changes", () => {
    const { apic, clock } = one();
    apic.writeRegister(APIC.DIVIDE, 0xb);
    apic.writeRegister(APIC.INITIAL_COUNT, 1000);
    clock.by(400);
    apic.writeRegister(APIC.DIVIDE, 0x0); // by 2
    clock.by(200);
    assertEquals(apic.readRegister(APIC.CURRENT_COUNT), 500);
  });
  it("fires when the TSC reaches the deadline, wherever the TSC was moved", () => {
    const { apic, clock, cpu } = one();
    apic.writeRegister(APIC.LVT_TIMER, 0x4_0061);
    cpu.set64(S.TSC_ADJUST, 1_000_000n);
    assert(apic.writeMsr(0x6e0, 1_002_000, 0));
    assert(apic.readMsr(0x6e0));
    assertEquals(apic.msrLow, 1_002_000);
    apic.writeRegister(APIC.INITIAL_COUNT, 5);
    assertEquals(apic.readRegister(APIC.CURRENT_COUNT), 0, "the count has no meaning in this mode");
    clock.to(1999);
    assertEquals(apic.pendingVector(), -1);
    clock.to(2000);
    assertEquals(apic.acknowledge(), 0x61);
    apic.eoi();
    apic.readMsr(0x6e0);
    assertEquals(apic.msrLow, 0);
    apic.writeMsr(0x6e0, 1, 0);
    clock.to(2000);
    assertEquals(apic.pendingVector(), 0x61, "a deadline in the past fires at once");
    apic.acknowledge();
    apic.eoi();
    apic.writeMsr(0x6e0, 2_000_000, 0);
    cpu.set64(S.TSC_ADJUST, 1_990_000n);
    apic.timer.tscChanged();
    clock.to(10_000);
    assertEquals(apic.pendingVector(), 0x61);
    apic.writeMsr(0x6e0, 0, 0x8000_0000);
    assertEquals(clock.next, Infinity, "a deadline in a century");
  });
  it("is disarmed by a change into or out of deadline mode", () => {
    const { apic, clock } = one();
    apic.writeRegister(APIC.LVT_TIMER, 0x60);
    apic.writeRegister(APIC.INITIAL_COUNT, 100);
    apic.writeRegister(APIC.LVT_TIMER, 0x4_0060);
    assertEquals(clock.next, Infinity);
    apic.writeMsr(0x6e0, 500, 0);
    apic.writeRegister(APIC.LVT_TIMER, 0x60);
    assertEquals(clock.next, Infinity);
    apic.readMsr(0x6e0);
    assertEquals(apic.msrLow, 0);
  });
});

describe("the local APIC: pins", () => {
  it("passes the 8259 through LINT0 in ExtINT mode, and past the APIC when that is off", () => {
    const { apic, apicBus } = one();
    const pic = new Pic8259((level) => apicBus.setPicOutput(level));
    apicBus.pic = pic;
    for (const [port, value] of [[0x20, 0x13], [0x21, 0x20], [0x21, 1], [0x21, 0]] as const) {
      pic.writePort(port, 1, value);
    }
    pic.setLine(1, true);
    assertEquals(apic.pendingVector(), -1, "LINT0 is masked");
    apic.enterVirtualWire();
    assertEquals(apic.pendingVector(), 0x21);
    apic.tpr = 0xff;
    assertEquals(apic.acknowledge(), 0x21, "ExtINT does not ask for the priority");
    pic.writePort(0x20, 1, 0x20);
    pic.setLine(1, false);
    assert(apic.writeMsr(0x1b, 0xfee0_0100, 0));
    pic.setLine(3, true);
    assertEquals(apic.acknowledge(), 0x23);
  });
  it("makes an NMI of LINT1's rising edge", () => {
    const { apic, apicBus } = one();
    apic.enterVirtualWire();
    apicBus.setNmiLine(true);
    apicBus.setNmiLine(true);
    assertEquals(apic.nmiPending, true);
    apic.takeNmi();
    apicBus.setNmiLine(true);
    assertEquals(apic.nmiPending, false);
  });
  it("delivers a level on LINT0 again after its EOI while it lasts", () => {
    const { apic, apicBus } = one();
    const line = new Line();
    apicBus.pic = new Pic8259(line.set);
    apic.writeRegister(APIC.LVT_LINT0, 0x8044);
    apic.setLint(0, true);
    assertEquals([apic.acknowledge(), apic.readRegister(APIC.LVT_LINT0)], [0x44, 0xc044]);
    apic.eoi();
    assertEquals(apic.pendingVector(), 0x44);
    apic.setLint(0, false);
    apic.acknowledge();
    apic.eoi();
    assertEquals([apic.pendingVector(), apic.readRegister(APIC.LVT_LINT0)], [-1, 0x8044]);
  });
});

describe("the local APIC: modes", () => {
  it("enters x2APIC mode only from xAPIC mode, and leaves it only through disabled", () => {
    const { apic } = one();
    assertEquals(apic.writeMsr(0x1b, 0xfee0_0500, 0), false, "EXTD without EN");
    assertEquals(apic.writeMsr(0x1b, 0xfee0_0901, 0), false, "a reserved bit");
    assertEquals(apic.writeMsr(0x1b, 0xfee0_0900, 0x80), false, "above MAXPHYADDR");
    assertEquals(apic.readMsr(0x802), false, "no x2APIC registers in xAPIC mode");
    assert(apic.writeMsr(0x1b, 0xfee0_0d00, 0));
    assertEquals(apic.mmioBase, -1);
    assertEquals(apic.writeMsr(0x1b, 0xfee0_0900, 0), false, "x2APIC to xAPIC");
    assert(apic.writeMsr(0x1b, 0xfee0_0100, 0));
    assertEquals(apic.writeMsr(0x1b, 0xfee0_0d00, 0), false, "disabled to x2APIC");
    assert(apic.writeMsr(0x1b, 0xfee0_0900, 0));
    assertEquals(apic.readRegister(APIC.SVR), 0xff, "disabling resets");
  });
  it("moves its page", () => {
    const { apic, bus } = one();
    assert(apic.writeMsr(0x1b, 0x0008_0900, 0));
    bus.apic = apic;
    assertEquals(bus.isPlain(0x8_0000), false);
    assertEquals(bus.read(0x8_0030, 4), 0x0105_0015);
    assertEquals(bus.read(0xfee0_0030, 4), 0xffff_ffff);
  });
  it("checks reserved bits of x2APIC registers", () => {
    const { apics } = several(16);
    const apic = apics[9]!;
    assert(apic.writeMsr(0x1b, 0xfee0_0c00, 0));
    const write = (index: number, low: number, high = 0) => apic.writeMsr(index, low, high);
    assertEquals(write(0x808, 0x100), false);
    assertEquals(write(0x808, 0x10, 1), false);
    assert(write(0x808, 0x10));
    assertEquals(write(0x80b, 1), false, "EOI takes 0 only");
    assertEquals(write(0x828, 1), false, "ESR takes 0 only");
    assertEquals(write(0x802, 1), false, "the ID is read-only");
    assertEquals(write(0x80d, 1), false, "so is LDR");
    assertEquals(write(0x80e, 0), false, "there is no DFR");
    assertEquals(write(0x831, 0), false, "nor a second half of ICR");
    assertEquals(write(0x832, 0x8_0000), false);
    assertEquals(apic.readMsr(0x83f), false, "self-IPI is write-only");
    assertEquals(apic.readMsr(0x80b), false);
    assertEquals(apic.readMsr(0x8ff), false);
    assert(apic.readMsr(0x802));
    assertEquals(apic.msrLow, 9);
    assert(apic.readMsr(0x80d));
    assertEquals(apic.msrLow, 1 << 9);
    write(0x808, 0);
    assert(write(0x83f, 0x55));
    assertEquals(apic.pendingVector(), 0x55);
  });
  it("sends to 32-bit destinations in one write", () => {
    const { apics } = several(3);
    for (const apic of apics) assert(apic.writeMsr(0x1b, 0xfee0_0c00, 0));
    assert(apics[0]!.writeMsr(0x830, 0x4050, 2));
    assert(apics[0]!.writeMsr(0x830, 0x4060, 0xffff_ffff));
    assert(apics[0]!.writeMsr(0x830, 0x4870, 0b011));
    assertEquals(apics.map((a) => a.pendingVector()), [0x70, 0x70, 0x60]);
    assert(apics[0]!.readMsr(0x830));
    assertEquals([apics[0]!.msrLow, apics[0]!.msrHigh], [0x4870, 3]);
  });
  it("comes back from a snapshot", () => {
    const a = one(), b = one();
    a.apic.writeRegister(APIC.LVT_TIMER, 0x2_0060);
    a.apic.writeRegister(APIC.INITIAL_COUNT, 50);
    a.apic.tpr = 0x30;
    self(a.apic, 0x71);
    b.apic.load(a.apic.save());
    b.clock.load(a.clock.save());
    b.clock.to(100);
    assertEquals([b.apic.tpr, b.apic.acknowledge(), b.apic.readRegister(APIC.IRR + 0x30)], [0x30, 0x71, 1]);
  });
});
