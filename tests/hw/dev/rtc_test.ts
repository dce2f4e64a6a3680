import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { TICKS_PER_SECOND } from "../../../hw/clock.ts";
import { civilTime, Rtc, RTC_DEFAULT_START, secondsOf } from "../../../hw/dev/rtc.ts";
import { Line, TestClock } from "./board_fixture.ts";

const SECOND = TICKS_PER_SECOND;

function rtc(start = RTC_DEFAULT_START) {
  const clock = new TestClock(), line = new Line(), chip = new Rtc(clock, start, 256 << 20, line.set);
  const read = (index: number) => {
    chip.writePort(0x70, 1, index);
    return chip.readPort(0x71);
  };
  const write = (index: number, value: number) => {
    chip.writePort(0x70, 1, index);
    chip.writePort(0x71, 1, value);
  };
  const date = () => [0x32, 9, 8, 7, 4, 2, 0].map((i) => read(i).toString(16).padStart(2, "0")).join(" ");
  return { clock, line, chip, read, write, date };
}

describe("calendar", () => {
  it("agrees with the proleptic Gregorian calendar over centuries", () => {
    for (let day = -200_000; day < 200_000; day += 997) {
      const date = new Date(day * 86_400_000), t = civilTime(day * 86_400 + 3661);
      assertEquals([t.year, t.month, t.day, t.weekday], [
        date.getUTCFullYear(),
        date.getUTCMonth() + 1,
        date.getUTCDate(),
        date.getUTCDay() + 1,
      ]);
      assertEquals([t.hour, t.minute, t.second], [1, 1, 1]);
      assertEquals(secondsOf(t), day * 86_400 + 3661);
    }
  });
});

describe("the real-time clock", () => {
  it("starts where it is told and runs with the machine's clock", () => {
    const { clock, date } = rtc();
    assertEquals(date(), "20 13 07 01 00 00 00");
    clock.by(86_399 * SECOND);
    assertEquals(date(), "20 13 07 01 23 59 59");
    clock.by(SECOND);
    assertEquals(date(), "20 13 07 02 00 00 00");
  });
  it("counts in BCD or binary, in 24 or 12 hours", () => {
    const { clock, read, write } = rtc();
    clock.by(13 * 3600 * SECOND);
    write(0x0b, 0x00);
    assertEquals(read(4), 0x81);
    write(0x0b, 0x06);
    assertEquals(read(4), 13);
    clock.by(11 * 3600 * SECOND);
    write(0x0b, 0x00);
    assertEquals(read(4), 0x12, "midnight is 12 AM");
  });
  it("can be set, and stands still while SET is", () => {
    const { clock, write, date } = rtc();
    write(0x0b, 0x82);
    for (
      const [i, v] of [[0x32, 0x19], [9, 0x99], [8, 0x12], [7, 0x31], [4, 0x23], [2, 0x59], [
        0,
        0x58,
      ]] as const
    ) {
      write(i, v);
    }
    clock.by(10 * SECOND);
    assertEquals(date(), "19 99 12 31 23 59 58");
    write(0x0b, 0x02);
    clock.by(2 * SECOND);
    assertEquals(date(), "20 00 01 01 00 00 00");
  });
  it("announces an update 244 microseconds ahead", () => {
    const { clock, read } = rtc();
    clock.to(SECOND - 244 * (SECOND / 1e6) - 1);
    assertEquals(read(0x0a) & 0x80, 0);
    clock.to(SECOND - 244 * (SECOND / 1e6));
    assertEquals(read(0x0a) & 0x80, 0x80);
    clock.to(SECOND);
    assertEquals(read(0x0a) & 0x80, 0);
  });
  it("interrupts periodically at the selected rate", () => {
    const { clock, line, read, write } = rtc();
    write(0x0b, 0x42);
    let count = 0;
    for (let i = 0; i < 2000 && clock.next <= SECOND; i++) {
      clock.to(clock.next);
      assertEquals([line.level, read(0x0c)], [true, 0xc0 | (clock.time === SECOND ? 0x10 : 0)]);
      count++;
    }
    assertEquals(count, 1024);
    assertEquals(line.level, false);
  });
  it("sets flags without interrupts too, until register C is read", () => {
    const { clock, line, read } = rtc();
    clock.by(SECOND);
    assertEquals([read(0x0c), read(0x0c), line.rises], [0x50, 0, 0]);
  });
  it("interrupts at updates and at the alarm", () => {
    const { clock, line, read, write } = rtc();
    write(1, 0x03);
    write(3, 0xff);
    write(5, 0xff);
    write(0x0b, 0x22);
    clock.to(3 * SECOND - 1);
    assertEquals(line.level, false);
    clock.to(3 * SECOND);
    assertEquals([line.level, read(0x0c) & 0xb0], [true, 0xb0]);
    clock.to(62 * SECOND);
    assertEquals(line.level, false);
    clock.to(63 * SECOND);
    assertEquals(line.level, true);
    read(0x0c);
    write(0x0b, 0x12);
    clock.to(64 * SECOND);
    assertEquals(line.level, true);
  });
  it("tells the memory size", () => {
    const { read } = rtc();
    assertEquals(read(0x15) | (read(0x16) << 8), 639);
    assertEquals(read(0x17) | (read(0x18) << 8), 0xffff);
    assertEquals(read(0x34) | (read(0x35) << 8), 240 * 16);
    assertEquals(read(0x0d), 0x80);
  });
});
