import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { TICKS_PER_SECOND } from "../../../hw/clock.ts";
import { PciPorts } from "../../../hw/dev/pci.ts";
import { PM_TIMER_HZ, PowerManagement } from "../../../hw/dev/pm_timer.ts";
import { Line, TestClock } from "./board_fixture.ts";

function power() {
  const clock = new TestClock(), line = new Line();
  let offs = 0;
  const chip = new PowerManagement(clock, line.set, () => offs++);
  return { clock, line, chip, offs: () => offs };
}

describe("the PM timer", () => {
  it("counts at 3.579545 MHz in 32 bits", () => {
    const { clock, chip } = power();
    clock.to(TICKS_PER_SECOND);
    assertEquals(chip.readPort(0x608, 4), PM_TIMER_HZ);
    clock.to(1200 * TICKS_PER_SECOND);
    assertEquals(chip.readPort(0x608, 4) >>> 0, (PM_TIMER_HZ * 1200) % 2 ** 32);
  });
  it("reports the change of its top bit, and interrupts if enabled", () => {
    const { clock, line, chip } = power();
    chip.writePort(0x602, 2, 1);
    const half = Math.ceil(2 ** 31 / PM_TIMER_HZ * TICKS_PER_SECOND);
    clock.to(half - 1);
    assertEquals([line.level, chip.readPort(0x600, 2)], [false, 0]);
    clock.to(half);
    assertEquals([line.level, chip.readPort(0x600, 2)], [true, 1]);
    chip.writePort(0x600, 2, 1);
    assertEquals([line.level, chip.readPort(0x600, 2)], [false, 0]);
    clock.to(2 * half);
    assertEquals(line.level, true);
  });
});

describe("ACPI fixed hardware", () => {
  it("powers off on S5 only", () => {
    const { chip, offs } = power();
    assertEquals(chip.readPort(0x604, 2), 1, "SCI_EN is always set");
    chip.writePort(0x604, 2, 0x2000 | (1 << 10));
    assertEquals(offs(), 0);
    chip.writePort(0x604, 2, 0x2000 | (5 << 10));
    assertEquals(offs(), 1);
  });
  it("has a power button", () => {
    const { chip, line } = power();
    chip.writePort(0x602, 2, 0x100);
    chip.pressPowerButton();
    assertEquals([line.level, chip.readPort(0x600, 4)], [true, 0x0100_0100]);
    chip.writePort(0x600, 2, 0x100);
    assertEquals(line.level, false);
  });
});

describe("PCI ports", () => {
  it("find no device, and keep the address", () => {
    const pci = new PciPorts(() => {});
    pci.writePort(0xcf8, 4, 0x8000_0843);
    assertEquals(pci.readPort(0xcf8, 4) >>> 0, 0x8000_0840);
    assertEquals(pci.readPort(0xcfc, 4) >>> 0, 0xffff_ffff);
  });
  it("reset when bit 2 of CF9H rises", () => {
    let resets = 0;
    const pci = new PciPorts(() => resets++);
    pci.writePort(0xcf9, 1, 2);
    assertEquals(resets, 0);
    pci.writePort(0xcf9, 1, 6);
    assertEquals(resets, 1);
  });
});
