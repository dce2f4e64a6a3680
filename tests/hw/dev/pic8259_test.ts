import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { Pic8259 } from "../../../hw/dev/pic8259.ts";
import { Line } from "./board_fixture.ts";

/** A pair initialised as PC operating systems do: vectors 20H and 28H, everything unmasked. */
function pair(icw4 = 1) {
  const line = new Line(), pic = new Pic8259(line.set);
  const out = (port: number, ...values: number[]) => values.forEach((v) => pic.writePort(port, 1, v));
  out(0x20, 0x11);
  out(0x21, 0x20, 4, icw4, 0);
  out(0xa0, 0x11);
  out(0xa1, 0x28, 2, icw4, 0);
  return { pic, line, out };
}

describe("the 8259 pair", () => {
  it("announces the highest priority first and holds back lower ones until the EOI", () => {
    const { pic, line, out } = pair();
    pic.setLine(4, true);
    pic.setLine(1, true);
    assertEquals([line.level, pic.acknowledge()], [true, 0x21]);
    assertEquals(line.level, false, "IRQ 4 is below IRQ 1 in service");
    out(0x20, 0x20);
    assertEquals([line.level, pic.acknowledge()], [true, 0x24]);
  });
  it("passes the slave's requests through input 2", () => {
    const { pic, line, out } = pair();
    pic.setLine(8, true);
    assertEquals(pic.acknowledge(), 0x28);
    out(0x20, 0x0b);
    out(0xa0, 0x0b);
    assertEquals([pic.readPort(0x20), pic.readPort(0xa0)], [4, 1], "in service on both chips");
    out(0xa0, 0x20);
    out(0x20, 0x20);
    assertEquals([pic.readPort(0x20), pic.readPort(0xa0), line.level], [0, 0, false]);
  });
  it("gives spurious IRQ 7 when the request went away, with nothing in service", () => {
    const { pic, out } = pair();
    pic.setLine(3, true);
    pic.setLine(3, false);
    assertEquals(pic.acknowledge(), 0x27);
    out(0x20, 0x0b);
    assertEquals(pic.readPort(0x20), 0);
  });
  it("needs a new edge, unless ELCR makes the line level-triggered", () => {
    const { pic, line, out } = pair();
    out(0x4d1, 0xff);
    assertEquals(pic.readPort(0x4d1), 0xde, "IRQ 8 and 13 stay edges");
    pic.setLine(5, true);
    pic.setLine(11, true);
    assertEquals(pic.acknowledge(), 0x2b);
    out(0xa0, 0x20);
    out(0x20, 0x20);
    assertEquals([line.level, pic.acknowledge()], [true, 0x2b], "still asserted");
    pic.setLine(11, false);
    out(0xa0, 0x20);
    out(0x20, 0x20);
    assertEquals(pic.acknowledge(), 0x25);
    out(0x20, 0x20);
    assertEquals(line.level, false, "the line is high but there was no edge");
  });
  it("masks", () => {
    const { pic, line, out } = pair();
    out(0x21, 0x10);
    pic.setLine(4, true);
    assertEquals([line.level, pic.readPort(0x21)], [false, 0x10]);
    out(0x21, 0);
    assertEquals(line.level, true);
  });
  it("ends interrupts by itself with AEOI", () => {
    const { pic, line, out } = pair(3);
    pic.setLine(0, true);
    pic.setLine(6, true);
    assertEquals([pic.acknowledge(), pic.acknowledge(), line.level], [0x20, 0x26, false]);
    out(0x20, 0x0b);
    assertEquals(pic.readPort(0x20), 0);
  });
  it("rotates priorities and ends specific interrupts", () => {
    const { pic, out } = pair();
    out(0x20, 0xc0 | 3); // IRQ 3 is now the lowest, IRQ 4 the highest
    pic.setLine(1, true);
    pic.setLine(4, true);
    assertEquals(pic.acknowledge(), 0x24);
    out(0x20, 0xe0 | 4); // specific EOI with rotation
    pic.setLine(5, true);
    assertEquals(pic.acknowledge(), 0x25);
    out(0x20, 0x60 | 5);
    assertEquals(pic.acknowledge(), 0x21);
  });
  it("lets lower priorities through in special mask mode", () => {
    const { pic, line, out } = pair();
    pic.setLine(1, true);
    pic.acknowledge();
    pic.setLine(4, true);
    assertEquals(line.level, false);
    out(0x21, 0x02);
    out(0x20, 0x68);
    assertEquals([line.level, pic.acknowledge()], [true, 0x24]);
  });
  it("answers polls", () => {
    const { pic, out } = pair();
    out(0x20, 0x0c);
    assertEquals(pic.readPort(0x20), 0);
    pic.setLine(6, true);
    out(0x20, 0x0c);
    assertEquals(pic.readPort(0x20), 0x86);
    out(0x20, 0x0b);
    assertEquals(pic.readPort(0x20), 0x40);
  });
  it("comes back from a snapshot", () => {
    const { pic } = pair();
    pic.setLine(4, true);
    const line = new Line(), other = new Pic8259(line.set);
    other.load(pic.save());
    assertEquals([line.level, other.acknowledge()], [true, 0x24]);
  });
});
