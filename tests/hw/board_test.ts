import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { Board } from "../../hw/board.ts";
import { MemoryDisk } from "../../hw/dev/virtio_blk.ts";
import { testBus, TestClock } from "./dev/board_fixture.ts";

function board() {
  const bus = testBus(), clock = new TestClock(), told: string[] = [];
  const b = new Board({
    bus,
    clock,
    cpus: 2,
    disk: new MemoryDisk(new Uint8Array(512)),
    events: {
      serial: (byte) => told.push(`serial ${byte}`),
      debugConsole: (byte) => told.push(`debug ${byte}`),
      exit: (status) => told.push(`exit ${status}`),
      reset: () => told.push("reset"),
      powerOff: () => told.push("off"),
    },
  });
  return { bus, clock, board: b, told };
}

describe("the board", () => {
  it("has every device at the ports where a PC has it", () => {
    const { bus, told } = board();
    const present = [
      0x20,
      0x21,
      0x40,
      0x43,
      0x60,
      0x61,
      0x64,
      0x71,
      0x80,
      0x92,
      0xa0,
      0xa1,
      0x3f8,
      0x3ff,
      0x4d0,
      0x4d1,
    ];
    for (const port of [...present, 0x600, 0x60b, 0xcf8, 0xcfc, 0xf4, 0xe9]) bus.ioWrite(port, 1, 0x20);
    assertEquals(bus.ioRead(0x3ff, 1), 0x20, "scratch register of COM1");
    assertEquals(bus.ioRead(0x2ff, 1), 0xff, "there is no COM2");
    assertEquals(bus.ioRead(0xe9, 1), 0xe9);
    assertEquals(told, ["serial 32", "exit 65", "debug 32"]);
  });
  it("ends the run by the debug exit, at any width", () => {
    const { bus, told } = board();
    bus.ioWrite(0xf4, 1, 0);
    bus.ioWrite(0xf4, 2, 0x1234);
    bus.ioWrite(0xf4, 4, 0xffff_ffff);
    assertEquals(told, ["exit 1", "exit 9321", "exit 4294967295"]);
  });
  it("wires line 0 to pin 2 of the I/O APIC and the others straight", () => {
    const { bus, board: b } = board();
    const levels: number[] = [];
    for (const line of [0, 1, 4, 8, 9, 11]) {
      b.irq.set(line, true);
      levels.push(b.ioapic.save().pins.lastIndexOf(true));
      b.irq.set(line, false);
    }
    assertEquals(levels, [2, 1, 4, 8, 9, 11]);
    assertEquals(bus.read(0xfec0_0000, 4), 0);
  });
  it("leaves low memory and the chips as firmware does", () => {
    const { bus, board: b, clock } = board();
    b.startFirmware();
    assertEquals([bus.read(0x400, 2), bus.read(0x413, 2), bus.read(0x40e, 2)], [0x3f8, 639, 0x9fc0]);
    assertEquals(
      [bus.read(4 * 0x21, 4), bus.read(0xf_ff53, 1)],
      [0xf000_ff53, 0xcf],
      "vectors point at an IRET",
    );
    assertEquals([bus.ioRead(0x21, 1), bus.ioRead(0xa1, 1)], [0xfb, 0xff], "all masked but the cascade");
    assertEquals([bus.ioRead(0x4d0, 1), bus.ioRead(0x4d1, 1)], [0, 0x0a], "SCI and disk are level-triggered");
    clock.by(54_926_500);
    assertEquals(b.ioapic.save().pins[2], true, "18.2 times a second");
    b.lockRom();
    bus.write(0xf_ff53, 1, 0);
    bus.write(0xffff_ff53, 1, 0);
    assertEquals([bus.read(0xf_ff53, 1), bus.read(0xffff_ff53, 1)], [0xcf, 0xcf]);
  });
  it("comes back from a snapshot, as plain data", () => {
    const a = board(), c = board();
    a.board.startFirmware();
    a.bus.ioWrite(0x3ff, 1, 0x77);
    a.bus.ioWrite(0x21, 1, 0x12);
    a.bus.ioWrite(0x61, 1, 3);
    const state = a.board.save();
    c.board.load(JSON.parse(JSON.stringify(state)));
    assertEquals(c.board.save(), state);
    assertEquals([0x3ff, 0x21].map((p) => c.bus.ioRead(p, 1)), [0x77, 0x12]);
  });
});
