import { assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { MemoryDisk, REQUEST_TICKS, VirtioBlk } from "../../../hw/dev/virtio_blk.ts";
import { Line, testBus, TestClock } from "./board_fixture.ts";

const NEXT = 1, WRITE = 2, INDIRECT = 4;
const DESC = 0x1000,
  AVAIL = 0x2000,
  USED = 0x3000,
  HEADER = 0x4000,
  DATA = 0x5000,
  STATUS = 0x7000,
  TABLE = 0x8000;

/** A device that a driver has set up with a queue of 8, and helpers of that driver. */
function driver(disk = new MemoryDisk(Uint8Array.from({ length: 4096 }, (_, i) => i >> 9))) {
  const bus = testBus(), clock = new TestClock(), line = new Line();
  const device = new VirtioBlk(bus, clock, disk, line.set);
  const w = (at: number, value: number) => device.writeMmio(at, 4, value >>> 0);
  const r = (at: number) => device.readMmio(at, 4);
  w(0x70, 1);
  w(0x70, 3);
  w(0x24, 1);
  w(0x20, 1);
  w(0x70, 11);
  w(0x30, 0);
  w(0x38, 8);
  w(0x80, DESC);
  w(0x90, AVAIL);
  w(0xa0, USED);
  w(0x44, 1);
  w(0x70, 15);
  let available = 0;
  const describe = (
    table: number,
    i: number,
    address: number,
    length: number,
    flags: number,
    next = i + 1,
  ) => {
    bus.write(table + 16 * i, 4, address);
    bus.write(table + 16 * i + 4, 4, 0);
    bus.write(table + 16 * i + 8, 4, length);
    bus.write(table + 16 * i + 12, 2, flags);
    bus.write(table + 16 * i + 14, 2, next);
  };
  const header = (type: number, sector: number) => {
    bus.write(HEADER, 4, type);
    bus.write(HEADER + 8, 4, sector);
    bus.write(HEADER + 12, 4, 0);
  };
  const submit = (head = 0) => {
    bus.write(AVAIL + 4 + 2 * (available % 8), 2, head);
    available++;
    bus.write(AVAIL + 2, 2, available & 0xffff);
    w(0x50, 0);
  };
  /** Submits a request of header, data, status and waits for it. */
  const request = (type: number, sector: number, bytes: number, flags: number) => {
    header(type, sector);
    describe(DESC, 0, HEADER, 16, NEXT);
    describe(DESC, 1, DATA, bytes, NEXT | flags);
    describe(DESC, 2, STATUS, 1, WRITE);
    bus.write(STATUS, 1, 0xee);
    submit();
    clock.by(REQUEST_TICKS);
    return bus.read(STATUS, 1);
  };
  return { bus, clock, line, device, disk, w, r, describe, header, submit, request };
}

describe("the virtio block device", () => {
  it("identifies itself and its capacity", () => {
    const { r, device } = driver();
    assertEquals([r(0), r(4), r(8)], [0x7472_6976, 2, 2]);
    assertEquals([r(0x100), r(0x104), device.readMmio(0x114, 4), device.readMmio(0x100, 1)], [8, 0, 512, 8]);
    assertEquals(r(0x34), 256);
  });
  it("refuses features that it did not offer", () => {
    const { w, r } = driver();
    w(0x70, 0);
    w(0x24, 0);
    w(0x20, 0x8000_0000);
    w(0x70, 11);
    assertEquals(r(0x70) & 8, 0);
    w(0x70, 0);
    w(0x24, 1);
    w(0x20, 1);
    w(0x70, 11);
    assertEquals(r(0x70) & 8, 8);
  });
  it("reads after a while, and interrupts", () => {
    const { bus, line, request, r, w } = driver();
    assertEquals(request(0, 3, 1024, WRITE), 0);
    assertEquals([bus.read(DATA, 1), bus.read(DATA + 512, 1)], [3, 4]);
    assertEquals([bus.read(USED + 2, 2), bus.read(USED + 4, 4), bus.read(USED + 8, 4)], [1, 0, 1025]);
    assertEquals([line.level, r(0x60)], [true, 1]);
    w(0x64, 1);
    assertEquals([line.level, r(0x60)], [false, 0]);
  });
  it("does nothing before its time", () => {
    const { bus, clock, describe, header, submit } = driver();
    header(0, 0);
    describe(DESC, 0, HEADER, 16, NEXT);
    describe(DESC, 1, STATUS, 513, WRITE);
    submit();
    clock.by(REQUEST_TICKS - 1);
    assertEquals(bus.read(USED + 2, 2), 0);
    clock.by(1);
    assertEquals(bus.read(USED + 2, 2), 1);
  });
  it("writes, flushes, and names itself", () => {
    const { bus, disk, request } = driver();
    bus.writeRam(DATA, new Uint8Array(512).fill(0x5a));
    assertEquals(request(1, 7, 512, 0), 0);
    assertEquals([...new Set(disk.data.subarray(7 * 512))], [0x5a]);
    assertEquals(request(4, 0, 0, 0), 0);
    assertEquals(request(8, 0, 20, WRITE), 0);
    assertEquals(String.fromCharCode(...bus.readRam(DATA, 11)), "exuvia-disk");
  });
  it("fails what is not on the disk, not whole sectors, unknown, or a write to a read-only disk", () => {
    const { request } = driver();
    assertEquals(request(0, 8, 512, WRITE), 1);
    assertEquals(request(0, 7, 1024, WRITE), 1);
    assertEquals(request(0, 0, 100, WRITE), 1);
    assertEquals(request(77, 0, 512, WRITE), 2);
    const readOnly = driver(new MemoryDisk(new Uint8Array(1024), { readOnly: true }));
    readOnly.w(0x14, 0);
    assertEquals(readOnly.r(0x10) & 0x20, 0x20);
    assertEquals(readOnly.request(1, 0, 512, 0), 1);
    assertThrows(() => new MemoryDisk(new Uint8Array(100)), RangeError, "multiple of 512");
  });
  it("answers with an error where the medium is bad, and then nothing has moved", () => {
    const disk = Object.assign(new MemoryDisk(new Uint8Array(2048).fill(7)), {
      fails: (_: string, offset: number, bytes: number) => offset <= 1024 && offset + bytes > 1024,
    });
    const { request } = driver(disk);
    assertEquals(request(1, 1, 512, 0), 0);
    assertEquals(request(1, 2, 512, 0), 1);
    assertEquals(request(0, 2, 512, WRITE), 1);
    assertEquals([disk.data[512], disk.data[1024]], [0, 7]);
  });
  it("follows indirect tables", () => {
    const { bus, clock, describe, header, submit } = driver();
    header(0, 5);
    describe(TABLE, 0, HEADER, 16, NEXT);
    describe(TABLE, 1, DATA, 512, NEXT | WRITE);
    describe(TABLE, 2, STATUS, 1, WRITE);
    describe(DESC, 0, TABLE, 48, INDIRECT);
    submit();
    clock.by(REQUEST_TICKS);
    assertEquals([bus.read(DATA, 1), bus.read(STATUS, 1), bus.read(USED + 2, 2)], [5, 0, 1]);
  });
  it("asks for a reset when the rings make no sense, and survives", () => {
    const cases: [string, (d: ReturnType<typeof driver>) => void][] = [
      ["a loop", (d) => d.describe(DESC, 0, HEADER, 16, NEXT, 0)],
      ["an index beyond the queue", (d) => d.describe(DESC, 0, HEADER, 16, NEXT, 200)],
      ["an indirect table in an indirect table", (d) => {
        d.describe(DESC, 0, TABLE, 16, INDIRECT);
        d.describe(TABLE, 0, TABLE, 16, INDIRECT);
      }],
      ["an empty indirect table", (d) => d.describe(DESC, 0, TABLE, 0, INDIRECT)],
      ["more than the queue holds", (d) => d.bus.write(AVAIL + 2, 2, 100)],
    ];
    for (const [name, prepare] of cases) {
      const d = driver();
      prepare(d);
      if (name.startsWith("more")) d.w(0x50, 0);
      else d.submit();
      d.clock.by(REQUEST_TICKS);
      assertEquals([d.r(0x70) & 0x40, d.r(0x60), d.line.level], [0x40, 2, true], name);
      d.w(0x70, 0);
      assertEquals([d.r(0x70), d.line.level], [0, false], name);
    }
  });
  it("survives addresses outside RAM and lengths of 4 GiB", () => {
    const d = driver();
    d.header(0, 0);
    d.describe(DESC, 0, HEADER, 16, NEXT);
    d.describe(DESC, 1, 0xf000_0000, 512, NEXT | WRITE);
    d.describe(DESC, 2, STATUS, 1, WRITE);
    d.submit();
    d.clock.by(REQUEST_TICKS);
    assertEquals(d.bus.read(STATUS, 1), 0);
    d.describe(DESC, 1, 0, 0xffff_ffff, NEXT | WRITE);
    d.submit();
    d.clock.by(REQUEST_TICKS);
    assertEquals(d.bus.read(STATUS, 1), 1);
    d.w(0x80, 0xffff_fff0);
    d.w(0x84, 0xffff_ffff);
    d.submit();
    d.clock.by(REQUEST_TICKS);
  });
});
