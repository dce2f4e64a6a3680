import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { TICKS_PER_SECOND } from "../../../hw/clock.ts";
import { clocksAt, Pit8254, PIT_HZ, tickOfClock } from "../../../hw/dev/pit8254.ts";
import { Line, TestClock } from "./board_fixture.ts";

function pit() {
  const clock = new TestClock(), line = new Line(), chip = new Pit8254(clock, line.set);
  const out = (port: number, ...values: number[]) => values.forEach((v) => chip.writePort(port, 1, v));
  /** Moves the clock to the n-th period of the input clock from now. */
  const clocks = (n: number) => clock.to(tickOfClock(clocksAt(clock.time, PIT_HZ) + n, PIT_HZ));
  const count = (channel: number) => {
    out(0x43, channel << 6);
    return chip.readPort(0x40 + channel) | (chip.readPort(0x40 + channel) << 8);
  };
  return { clock, line, chip, out, clocks, count };
}

describe("clock arithmetic", () => {
  it("is exact and inverse, also after years", () => {
    for (const c of [0, 1, 2, PIT_HZ - 1, PIT_HZ, PIT_HZ * 86_400 * 30 + 12_345]) {
      const tick = tickOfClock(c, PIT_HZ);
      assertEquals(clocksAt(tick, PIT_HZ), c);
      if (tick > 0) assertEquals(clocksAt(tick - 1, PIT_HZ), c - 1);
    }
    assertEquals(clocksAt(TICKS_PER_SECOND, PIT_HZ), PIT_HZ);
  });
});

describe("the 8254", () => {
  it("divides in mode 2 and interrupts once a period", () => {
    const { clock, line, out } = pit();
    out(0x43, 0x34);
    out(0x40, 1193 & 0xff, 1193 >> 8);
    line.rises = 0;
    clock.by(TICKS_PER_SECOND);
    // 1193182 / 1193 periods in a second.
    assertEquals(line.rises, 1000);
  });
  it("counts down in mode 2 from N to 1", () => {
    const { out, clocks, count } = pit();
    out(0x43, 0x34);
    out(0x40, 5, 0);
    clocks(1);
    const seen = [];
    for (let i = 0; i < 7; i++) {
      seen.push(count(0));
      clocks(1);
    }
    assertEquals(seen, [5, 4, 3, 2, 1, 5, 4]);
  });
  it("makes a square wave in mode 3, odd counts high one clock longer", () => {
    const { out, clocks, chip } = pit();
    out(0x61, 1);
    out(0x43, 0xb6);
    out(0x42, 5, 0);
    clocks(1);
    let wave = "";
    for (let i = 0; i < 10; i++) {
      wave += chip.readPort(0x61) & 0x20 ? "1" : "0";
      clocks(1);
    }
    assertEquals(wave, "1110011100");
  });
  it("raises OUT once in mode 0, N + 1 clocks after the write", () => {
    const { out, clocks, chip, count } = pit();
    out(0x61, 1);
    out(0x43, 0xb0);
    out(0x42, 10, 0);
    clocks(10);
    assertEquals(chip.readPort(0x61) & 0x20, 0);
    clocks(1);
    assertEquals(chip.readPort(0x61) & 0x20, 0x20);
    clocks(3);
    assertEquals(count(2), 0xfffd, "it counts on");
  });
  it("holds the count of mode 0 while the gate is low", () => {
    const { out, clocks, count } = pit();
    out(0x61, 1);
    out(0x43, 0xb0);
    out(0x42, 100, 0);
    clocks(11);
    assertEquals(count(2), 90);
    out(0x61, 0);
    clocks(50);
    assertEquals(count(2), 90);
    out(0x61, 1);
    clocks(10);
    assertEquals(count(2), 80);
  });
  it("waits for the gate in mode 1 and can be triggered again", () => {
    const { out, clocks, chip } = pit();
    const level = () => (chip.readPort(0x61) & 0x20) >> 5;
    out(0x61, 0);
    out(0x43, 0xb2);
    out(0x42, 4, 0);
    clocks(9);
    assertEquals(level(), 1);
    out(0x61, 1);
    clocks(3);
    assertEquals(level(), 0);
    out(0x61, 0);
    out(0x61, 1);
    clocks(4);
    assertEquals(level(), 0);
    clocks(1);
    assertEquals(level(), 1);
  });
  it("strobes for one clock in modes 4 and 5", () => {
    for (const mode of [4, 5]) {
      const { out, clocks, chip } = pit();
      out(0x43, 0xb0 | (mode << 1));
      if (mode === 4) out(0x61, 1);
      out(0x42, 3, 0);
      if (mode === 5) out(0x61, 1);
      let wave = "";
      for (let i = 0; i < 7; i++) {
        wave += chip.readPort(0x61) & 0x20 ? "1" : "0";
        clocks(1);
      }
      assertEquals(wave, "1111011", `mode ${mode}`);
    }
  });
  it("latches counts and status", () => {
    const { out, clocks, chip } = pit();
    out(0x43, 0x34);
    out(0x40, 0x00, 0x10);
    clocks(1);
    out(0x43, 0xc2); // read back count and status of counter 0
    clocks(100);
    assertEquals(chip.readPort(0x40), 0xb4, "OUT high, loaded, both bytes, mode 2");
    assertEquals(chip.readPort(0x40) | (chip.readPort(0x40) << 8), 0x1000);
    assertEquals(chip.readPort(0x40) | (chip.readPort(0x40) << 8), 0x1000 - 100, "unlatched again");
  });
  it("tells of a count that is not loaded yet", () => {
    const { out, chip } = pit();
    out(0x43, 0x34);
    out(0x43, 0xe2);
    assertEquals(chip.readPort(0x40) & 0x40, 0x40);
  });
  it("counts in BCD and single bytes", () => {
    const { out, clocks, chip } = pit();
    out(0x61, 1);
    out(0x43, 0x91); // counter 2, low byte, mode 0, BCD
    out(0x42, 0x12);
    clocks(4);
    assertEquals(chip.readPort(0x42), 0x09);
  });
  it("takes a new divisor over at the end of the period", () => {
    const { out, clocks, count } = pit();
    out(0x43, 0x34);
    out(0x40, 10, 0);
    clocks(4);
    out(0x40, 100, 0);
    clocks(3);
    assertEquals(count(0), 4);
    clocks(4);
    assertEquals(count(0), 100);
  });
  it("toggles the refresh bit of port 61H", () => {
    const { clock, chip } = pit();
    const before = chip.readPort(0x61) & 0x10;
    clock.by(15_000);
    assert((chip.readPort(0x61) & 0x10) !== before);
  });
});
