/**
 * Clocks: how fast the local APIC's timer and the time-stamp counter run, the periodic interrupt, the date (`clock.c`, `lapic.c`).
 *
 * Room: `kernel/platform/pc64/`; imports the local APIC and ACPI tables.
 *
 * The frequencies are measured against the ACPI power-management timer, as a kernel on a machine without CPUID leaf 15H must.
 *
 * @module
 */
import type { Exec, GateCpu } from "../../../hw/gates.ts";
import { findPmTimer } from "./acpi.ts";
import { lapicTimerStart, lapicTimerStop } from "./lapic.ts";

/** What was measured. */
export interface ClockRates {
  /** Counts a second of the local APIC's timer, divided by 1. */
  readonly lapicHz: number;
  /** Counts a second of the time-stamp counter. */
  readonly tscHz: number;
}

/** Frequency of the power-management timer (ACPI, "Power Management Timer"). */
const PM_TIMER_HZ = 3_579_545;
const PM_TIMER_MASK = 0xff_ffff;
/** Counts of the local APIC's timer to wait for. */
const CALIBRATE_COUNT = 1_000_000;
/** Used where there is no timer to measure against: what this machine's parts run at. */
const DEFAULT_HZ = 100_000_000;

/** Time-stamp counter. */
export function* rdtsc(cpu: GateCpu): Exec<bigint> {
  yield* cpu.perform("rdtsc");
  return cpu.result;
}

/** Measures. The timer's interrupt must be able to come in and do nothing. */
export function* calibrate(cpu: GateCpu): Exec<ClockRates> {
  const port = yield* findPmTimer(cpu);
  if (port === undefined) return { lapicHz: DEFAULT_HZ, tscHz: DEFAULT_HZ };
  const pmBefore = yield* cpu.inl(port);
  const tscBefore = yield* rdtsc(cpu);
  yield* lapicTimerStart(cpu, CALIBRATE_COUNT, false);
  cpu.setInterrupts(true);
  yield* cpu.hlt();
  cpu.setInterrupts(false);
  const pm = ((yield* cpu.inl(port)) - pmBefore) & PM_TIMER_MASK;
  const tsc = Number((yield* rdtsc(cpu)) - tscBefore);
  yield* lapicTimerStop(cpu);
  if (pm === 0) return { lapicHz: DEFAULT_HZ, tscHz: DEFAULT_HZ };
  // To 10 kHz: the interrupt's own time is in the measurement.
  const round = (hz: number) => Math.round(hz / 1e4) * 1e4;
  return {
    lapicHz: round(CALIBRATE_COUNT * PM_TIMER_HZ / pm),
    tscHz: round(tsc * PM_TIMER_HZ / pm),
  };
}

const CMOS_INDEX = 0x70, CMOS_DATA = 0x71;

/** Date of the real-time clock, seconds since 1970; read as BCD, 24 hours, like firmware leaves it. */
export function* readRtc(cpu: GateCpu): Exec<number> {
  const field = function* (index: number): Exec<number> {
    yield* cpu.outb(CMOS_INDEX, index);
    return yield* cpu.inb(CMOS_DATA);
  };
  const statusB = yield* field(0x0b);
  const binary = (statusB & 4) !== 0;
  const value = function* (index: number): Exec<number> {
    const raw = yield* field(index);
    return binary ? raw : (raw >> 4) * 10 + (raw & 15);
  };
  const second = yield* value(0), minute = yield* value(2), hour = yield* value(4);
  const day = yield* value(7), month = yield* value(8), year = 2000 + (yield* value(9));
  return daysFromCivil(year, month, day) * 86400 + hour * 3600 + minute * 60 + second;
}

/** Days from 1970-01-01 to a date of the Gregorian calendar. */
export function daysFromCivil(year: number, month: number, day: number): number {
  const y = month <= 2 ? year - 1 : year;
  const era = Math.floor(y / 400), yearOfEra = y - era * 400;
  const dayOfYear = Math.floor((153 * (month + (month > 2 ? -3 : 9)) + 2) / 5) + day - 1;
  const dayOfEra = yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear;
  return era * 146_097 + dayOfEra - 719_468;
}
