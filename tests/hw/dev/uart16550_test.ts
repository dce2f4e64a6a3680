import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { Uart16550 } from "../../../hw/dev/uart16550.ts";
import { Line } from "./board_fixture.ts";

function uart() {
  const sent: number[] = [], line = new Line();
  const chip = new Uart16550((byte) => sent.push(byte), line.set);
  const out = (register: number, value: number) => chip.writePort(0x3f8 + register, 1, value);
  const read = (register: number) => chip.readPort(0x3f8 + register);
  return { chip, sent, line, out, read };
}

describe("the 16550", () => {
  it("sends at once and is always ready", () => {
    const { sent, out, read } = uart();
    for (const c of "ok") out(0, c.charCodeAt(0));
    assertEquals([String.fromCharCode(...sent), read(5)], ["ok", 0x60]);
  });
  it("keeps divisor and interrupt enables apart by DLAB", () => {
    const { out, read, sent } = uart();
    out(1, 5);
    out(3, 0x83);
    out(0, 0x34);
    out(1, 0x12);
    assertEquals([read(0), read(1)], [0x34, 0x12]);
    out(3, 0x03);
    assertEquals([read(1), sent.length], [5, 0]);
    out(7, 0xa5);
    assertEquals(read(7), 0xa5);
  });
  it("receives through the FIFO and never loses waiting input", () => {
    const { chip, out, read } = uart();
    out(2, 1);
    chip.receive(Array.from({ length: 100 }, (_, i) => i));
    const got = [];
    while (read(5) & 1) got.push(read(0));
    assertEquals(got, Array.from({ length: 100 }, (_, i) => i));
  });
  it("interrupts for received data through OUT2 only, and names the cause", () => {
    const { chip, line, out, read } = uart();
    out(1, 1);
    out(2, 0x41); // FIFO, trigger at 4
    chip.receive([1, 2, 3]);
    assertEquals(line.level, false, "OUT2 is off");
    out(4, 8);
    assertEquals([line.level, read(2)], [true, 0xcc], "below the trigger: timeout");
    chip.receive([4]);
    assertEquals(read(2), 0xc4);
    for (let i = 0; i < 4; i++) read(0);
    assertEquals([line.level, read(2)], [false, 0xc1]);
  });
  it("drops the interrupt line between characters and below the trigger, so that edges are seen", () => {
    const { chip, line, out, read } = uart();
    out(4, 8);
    out(1, 1);
    chip.receive([1, 2, 3]);
    for (let i = 0; i < 3; i++) read(0);
    assertEquals([line.rises, line.level], [3, false]);
    out(2, 0x81); // FIFO, trigger at 8
    chip.receive(Array.from({ length: 10 }, (_, i) => i));
    const rises = line.rises;
    for (let i = 0; i < 9; i++) read(0);
    assertEquals([line.rises - rises, read(2), line.level], [1, 0xcc, true]);
  });
  it("interrupts for an empty transmitter; reading IIR ends it", () => {
    const { line, out, read } = uart();
    out(4, 8);
    out(1, 2);
    assertEquals([line.level, read(2), line.level], [true, 0x02, false]);
    assertEquals(read(2), 0x01);
    out(0, 65);
    assertEquals([line.level, read(2)], [true, 0x02]);
  });
  it("loops back data and modem lines", () => {
    const { sent, out, read } = uart();
    out(2, 1);
    read(6);
    out(4, 0x1a); // loop, RTS, OUT2
    assertEquals(read(6) & 0xf0, 0x90);
    out(0, 0x5a);
    assertEquals([read(5) & 1, read(0), sent.length], [1, 0x5a, 0]);
    for (let i = 0; i < 17; i++) out(0, i);
    assertEquals(read(5) & 2, 2, "overrun of the 17th");
  });
  it("reports changes of the modem lines once", () => {
    const { out, read } = uart();
    assertEquals(read(6), 0xb0);
    out(4, 0x10);
    assertEquals([read(6), read(6)], [0x0b, 0]);
  });
  it("clears the FIFO when told, or when it is switched", () => {
    const { chip, out, read } = uart();
    out(2, 1);
    chip.receive([1, 2, 3]);
    out(2, 3);
    assertEquals(read(5) & 1, 0);
  });
  it("comes back from a snapshot", () => {
    const a = uart(), b = uart();
    a.out(2, 1);
    a.chip.receive(Array.from({ length: 20 }, (_, i) => i));
    b.chip.load(a.chip.save());
    assertEquals(Array.from({ length: 20 }, () => b.read(0)), Array.from({ length: 20 }, (_, i) => i));
  });
});
