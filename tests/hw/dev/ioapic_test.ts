import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { APIC } from "../../../hw/dev/apic.ts";
import { IoApic } from "../../../hw/dev/ioapic.ts";
import { testApics } from "./board_fixture.ts";

const LEVEL = 0x8000, REMOTE_IRR = 0x4000, MASKED = 0x1_0000;

function board() {
  const all = testApics(2);
  for (const apic of all.apics) apic.writeRegister(APIC.SVR, 0x1ff);
  const ioapic = new IoApic(all.apicBus);
  const write = (index: number, value: number) => {
    ioapic.writeMmio(0, 4, index);
    ioapic.writeMmio(0x10, 4, value >>> 0);
  };
  const read = (index: number) => {
    ioapic.writeMmio(0, 4, index);
    return ioapic.readMmio(0x10, 4);
  };
  const route = (pin: number, low: number, destination = 0) => {
    write(0x11 + 2 * pin, destination << 24);
    write(0x10 + 2 * pin, low);
  };
  return { ...all, ioapic, write, read, route };
}

describe("the I/O APIC", () => {
  it("has 24 masked pins, an ID and a version", () => {
    const { read, write } = board();
    assertEquals(read(1), 0x0017_0020);
    for (let pin = 0; pin < 24; pin++) assertEquals(read(0x10 + 2 * pin), MASKED);
    write(0, 0xff00_0000);
    assertEquals(read(0) >>> 0, 0x0f00_0000);
    assertEquals(read(0x40), 0, "no pin 24");
  });
  it("delivers edges once, to the destination", () => {
    const { ioapic, route, apics } = board();
    route(4, 0x34, 1);
    ioapic.setPin(4, true);
    ioapic.setPin(4, true);
    assertEquals(apics.map((a) => a.pendingVector()), [-1, 0x34]);
    apics[1]!.acknowledge();
    apics[1]!.eoi();
    assertEquals(apics[1]!.pendingVector(), -1);
    ioapic.setPin(4, false);
    ioapic.setPin(4, true);
    assertEquals(apics[1]!.pendingVector(), 0x34);
  });
  it("loses edges that come while the pin is masked", () => {
    const { ioapic, route, apics } = board();
    ioapic.setPin(4, true);
    route(4, 0x34);
    assertEquals(apics[0]!.pendingVector(), -1);
  });
  it("delivers a level until it is gone, once per EOI", () => {
    const { ioapic, route, read, apics: [apic] } = board();
    route(11, LEVEL | 0x55);
    ioapic.setPin(11, true);
    assertEquals(read(0x26), LEVEL | REMOTE_IRR | 0x55);
    apic!.acknowledge();
    assertEquals(apic!.readRegister(APIC.TMR + 0x20), 1 << 21);
    ioapic.setPin(11, true);
    assertEquals(apic!.pendingVector(), -1);
    apic!.eoi();
    assertEquals(apic!.acknowledge(), 0x55, "still asserted");
    ioapic.setPin(11, false);
    apic!.eoi();
    assertEquals([apic!.pendingVector(), read(0x26)], [-1, LEVEL | 0x55]);
  });
  it("delivers a level that stands when the pin is unmasked", () => {
    const { ioapic, route, apics } = board();
    route(11, LEVEL | MASKED | 0x55);
    ioapic.setPin(11, true);
    route(11, LEVEL | 0x55);
    assertEquals(apics[0]!.pendingVector(), 0x55);
  });
  it("has an EOI register for local APICs that suppress the broadcast", () => {
    const { ioapic, route, read, apics: [apic] } = board();
    apic!.writeRegister(APIC.SVR, 0x11ff);
    route(11, LEVEL | 0x55);
    ioapic.setPin(11, true);
    apic!.acknowledge();
    ioapic.setPin(11, false);
    apic!.eoi();
    assertEquals(read(0x26) & REMOTE_IRR, REMOTE_IRR);
    ioapic.writeMmio(0x40, 4, 0x55);
    assertEquals(read(0x26) & REMOTE_IRR, 0);
  });
  it("clears remote IRR when the pin becomes edge-triggered", () => {
    const { ioapic, route, read } = board();
    route(11, LEVEL | 0x55);
    ioapic.setPin(11, true);
    route(11, MASKED | 0x55);
    assertEquals(read(0x26), MASKED | 0x55);
  });
  it("makes NMIs", () => {
    const { ioapic, route, apics } = board();
    route(2, 0x400, 1);
    ioapic.setPin(2, true);
    assertEquals(apics.map((a) => a.nmiPending), [false, true]);
  });
});
