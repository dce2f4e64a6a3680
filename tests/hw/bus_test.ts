import { assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { AccessSize } from "../../hw/bus.ts";
import { PAGE_CODE, PAGE_RAM, PAGE_ROM, PAGE_WATCH } from "../../hw/state.ts";
import { testBus } from "./dev/board_fixture.ts";

class Recorder {
  readonly log: string[] = [];
  readMmio(offset: number, size: AccessSize): number {
    this.log.push(`r${size} ${offset.toString(16)}`);
    return 0x1234_5678;
  }
  writeMmio(offset: number, size: AccessSize, value: number): void {
    this.log.push(`w${size} ${offset.toString(16)} ${value.toString(16)}`);
  }
  readonly portWidth = 2 as const;
  readPort(port: number, size: AccessSize): number {
    this.log.push(`in${size} ${port.toString(16)}`);
    return port;
  }
  writePort(port: number, size: AccessSize, value: number): void {
    this.log.push(`out${size} ${port.toString(16)} ${value.toString(16)}`);
  }
}

describe("physical memory", () => {
  it("is RAM at every size and alignment", () => {
    const bus = testBus();
    bus.write(0x1001, 4, 0x89ab_cdef);
    assertEquals(bus.read(0x1001, 4), 0x89ab_cdef);
    assertEquals(bus.read(0x1002, 2), 0xabcd);
    assertEquals(bus.read(0x1004, 1), 0x89);
    bus.write(0x1fff, 2, 0xbeef);
    assertEquals([bus.read(0x1fff, 1), bus.read(0x2000, 1), bus.read(0x1fff, 2)], [0xef, 0xbe, 0xbeef]);
  });
  it("reads all ones where nothing is, and drops writes", () => {
    const bus = testBus();
    bus.write(0x8000_0000, 4, 5);
    assertEquals(bus.read(0x8000_0000, 4), 0xffff_ffff);
    assertEquals(bus.read(0x12_3456_7890, 2), 0xffff);
    assertEquals(bus.read(0xf_ffff, 2), 0xff00, "the last byte of RAM, then nothing");
  });
  it("drops writes to ROM and keeps reading it", () => {
    const bus = testBus();
    bus.write(0xf_0000, 1, 7);
    bus.setPageFlags(0xf_0000, 1, PAGE_ROM);
    bus.write(0xf_0000, 1, 9);
    bus.writeRam(0xe_ffff, Uint8Array.of(1, 2));
    assertEquals([bus.read(0xe_ffff, 1), bus.read(0xf_0000, 1)], [1, 7]);
    assertEquals(bus.isPlain(0xf_0000), true);
    assertEquals(bus.isPlainWritable(0xf_0000), false);
  });
  it("sends device regions what falls on them", () => {
    const bus = testBus(), device = new Recorder();
    bus.addMmio(0xd000_0000, 0x1000, device);
    assertEquals(bus.read(0xd000_0010, 2), 0x5678);
    bus.write(0xd000_0020, 1, 0x1ff);
    assertEquals(device.log, ["r2 10", "w1 20 ff"]);
    assertThrows(() => bus.addMmio(0xd000_0800, 0x1000, device), RangeError, "another device");
    assertThrows(() => bus.addMmio(0x8000, 0x1000, device), RangeError, "RAM is there");
  });
  it("hides RAM under a local APIC page only while it is there", () => {
    const bus = testBus(), device = new Recorder();
    bus.write(0x5000, 4, 0x77);
    const apic = Object.assign(device, { mmioBase: 0x5000 });
    bus.moveApicPage(0xfee0_0000, 0x5000);
    assertEquals(bus.isPlain(0x5000), false);
    assertEquals(bus.read(0x5000, 4), 0x77, "another processor's accesses go to RAM");
    bus.apic = apic;
    assertEquals(bus.read(0x5000, 4), 0x1234_5678);
    bus.moveApicPage(0x5000, 0xfee0_0000);
    assertEquals([bus.isPlain(0x5000), bus.pageFlags(0x5000)], [true, PAGE_RAM]);
  });
  it("tells the code cache and the watcher of stores that concern them, DMA too", () => {
    const bus = testBus(), told: string[] = [];
    bus.code = {
      overlaps: (at) => at >= 0x3800,
      invalidate: (at, bytes) => told.push(`code ${at.toString(16)} ${bytes}`),
    };
    bus.watchStore = (at, bytes) => told.push(`watch ${at.toString(16)} ${bytes}`);
    bus.setPageFlags(0x3000, 0x1000, PAGE_CODE);
    bus.setPageFlags(0x4000, 0x1000, PAGE_WATCH);
    bus.write(0x2ffc, 4, 0);
    bus.write(0x3004, 4, 0);
    bus.write(0x3ffe, 4, 0);
    bus.writeRam(0x3ff0, new Uint8Array(32));
    assertEquals(told, [
      "code 3ffe 1",
      "code 3fff 1",
      "watch 4000 1",
      "watch 4001 1",
      "code 3ff0 16",
      "watch 4000 16",
    ]);
  });
  it("gives a device 0xFF for what is not RAM", () => {
    const bus = testBus();
    bus.write(0xf_fffe, 2, 0x0201);
    assertEquals([...bus.readRam(0xf_fffe, 4)], [1, 2, 0xff, 0xff]);
    assertEquals([...bus.readRam(0x40_0000, 2)], [0xff, 0xff]);
  });
});

describe("ports", () => {
  it("give all ones when nobody is there", () => {
    const bus = testBus();
    assertEquals([bus.ioRead(0x2f8, 1), bus.ioRead(0x2f8, 2), bus.ioRead(0x2f8, 4)], [
      0xff,
      0xffff,
      0xffff_ffff,
    ]);
    bus.ioWrite(0x2f8, 4, 1);
  });
  it("split accesses that are wider than the device", () => {
    const bus = testBus(), device = new Recorder();
    bus.addPorts(0x100, 3, device);
    assertEquals(bus.ioRead(0x100, 2), 0x100);
    assertEquals(bus.ioRead(0x100, 4), 0xff02_0100);
    bus.ioWrite(0x100, 4, 0x4433_2211);
    assertEquals(device.log, [
      "in2 100",
      "in1 100",
      "in1 101",
      "in1 102",
      "out1 100 11",
      "out1 101 22",
      "out1 102 33",
    ]);
    assertThrows(() => bus.addPorts(0x102, 2, device), RangeError, "0x102");
  });
});
