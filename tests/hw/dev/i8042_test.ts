import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { I8042 } from "../../../hw/dev/i8042.ts";
import { Line } from "./board_fixture.ts";

function controller() {
  const line = new Line();
  let resets = 0;
  const chip = new I8042(line.set, () => resets++);
  const out = (port: number, value: number) => chip.writePort(port, 1, value);
  const answers = () => {
    const bytes = [];
    while (chip.readPort(0x64) & 1) bytes.push(chip.readPort(0x60));
    return bytes;
  };
  return { chip, line, out, answers, resets: () => resets };
}

describe("the 8042", () => {
  it("tests itself and its keyboard port", () => {
    const { out, answers, chip } = controller();
    assertEquals(chip.readPort(0x64), 0x14);
    out(0x64, 0xaa);
    assertEquals(chip.readPort(0x64), 0x1d);
    assertEquals(answers(), [0x55]);
    out(0x64, 0xab);
    assertEquals(answers(), [0]);
  });
  it("has a configuration byte that software can change", () => {
    const { out, answers } = controller();
    out(0x64, 0x20);
    assertEquals(answers(), [0x05]);
    out(0x64, 0x60);
    out(0x60, 0x24);
    out(0x64, 0x20);
    assertEquals(answers(), [0x24]);
  });
  it("resets the machine by a pulse of line 0, the output port, or port 92H", () => {
    const { out, resets } = controller();
    out(0x64, 0xff);
    assertEquals(resets(), 0, "no line pulsed");
    out(0x64, 0xfe);
    assertEquals(resets(), 1);
    out(0x64, 0xd1);
    out(0x60, 0x02);
    assertEquals(resets(), 2);
    out(0x92, 0x03);
    assertEquals(resets(), 3);
  });
  it("shows one A20 gate in both places", () => {
    const { chip, out, answers } = controller();
    assertEquals([chip.a20, chip.readPort(0x92)], [true, 2]);
    out(0x64, 0xdd);
    assertEquals([chip.a20, chip.readPort(0x92)], [false, 0]);
    out(0x92, 2);
    out(0x64, 0xd0);
    assertEquals(answers(), [3]);
  });
  it("answers for the keyboard, with IRQ 1", () => {
    const { line, out, answers } = controller();
    out(0x60, 0xff);
    assertEquals(line.level, true);
    assertEquals(answers(), [0xfa, 0xaa]);
    assertEquals([line.level, line.rises], [false, 2]);
    out(0x60, 0xf2);
    assertEquals(answers(), [0xfa, 0xab, 0x83]);
    out(0x60, 0xed);
    out(0x60, 0x07);
    assertEquals(answers(), [0xfa, 0xfa]);
    out(0x60, 0x99);
    assertEquals(answers(), [0xfe]);
  });
  it("does not grow without bound", () => {
    const { out, answers } = controller();
    for (let i = 0; i < 1000; i++) out(0x60, 0xee);
    assertEquals(answers().length, 16);
  });
});
