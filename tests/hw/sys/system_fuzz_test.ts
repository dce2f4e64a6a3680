/**
 * Random system instructions in every mode: no JavaScript exception may come out, and both engines must do the same.
 */
import type { EngineKind } from "../../../hw/machine.ts";
import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { Random } from "../../../hw/random.ts";
import { S, SEG } from "../../../hw/state.ts";
import { updateMode } from "../../../hw/sys/mode.ts";
import { AT, type Mode, SEL, SystemFixture } from "./system_fixture.ts";

/** Opcodes of system instructions; `m` is followed by a random ModRM byte. */
const OPCODES: readonly string[] = (
  "06 07 0e 16 17 1e 1f 0fa0 0fa1 0fa8 0fa9 8cm 8em c4m c5m 0fb2m 0fb4m 0fb5m 0f20m 0f22m 0f21m 0f23m 0f06 0f00m 0f01m " +
  "0f02m 0f03m 63m 9a ea ffm ca cb cf 48cf 48cb cd cc ce f1 0f05 0f07 480f07 0f34 0f35 480f35 0f01f8 f30faem f3480faem " +
  "fa fb 0f01ca 0f01cb 9c 9d 669c 669d f4 e4 e5 e6 e7 ec ed ee ef 6c 6d 6e 6f f36c f36e 66ed 660f3882m 0f08 0f09 0fa2 " +
  "0f31 0f01f9 0f33 0f32 0f30 0f01c8 0f01c9 0faa 0f01ee 0f01ef 0fffm 0f0b c8 c9 50 58 8bm 89m 01m 31m 83m f7m"
).split(" ");

/** Values that registers like to have: selectors, addresses, MSR numbers, patterns. */
const VALUES: readonly bigint[] = [
  ...Object.values(SEL),
  ...Object.values(AT),
  0,
  1,
  0x10,
  0xc000_0080,
  0xc000_0082,
  0x1b,
  0x277,
  0x802,
  0x8000_0011,
  0x40,
  0x6f0,
].map(BigInt).concat([-1n, 0x8000_0000_0000n, 0xffff_8000_0000_0000n, 1n << 63n, 0x1_0000_0000n]);

/** Programs per mode; every one builds two machines. */
const PROGRAMS = 5;
const SKIPPED_PORTS = "e6 e7 ee ef 6e 6f f36e"; // writes could end the machine

function program(random: Random): string {
  const byte = () => (random.next() & 0xff).toString(16).padStart(2, "0");
  let hex = "";
  for (let i = 0; i < 24; i++) {
    const opcode = OPCODES[random.next() % OPCODES.length]!;
    if (SKIPPED_PORTS.split(" ").includes(opcode)) continue;
    if (random.next() % 6 === 0) hex += ["66", "67", "f0", "f3", "f2", "2e"][random.next() % 6]!;
    hex += opcode.replace("m", byte());
    for (let n = random.next() % 5; n > 0; n--) hex += byte();
  }
  return hex;
}

/** Puts a processor that came to a halt back where it began, somewhere else in the program. */
function revive(f: SystemFixture, start: Uint8Array, random: Random, at: number): void {
  f.cpu.memory.u8.set(start, f.cpu.base + S.RIP);
  f.cpu.set32(S.ACTIVITY, 0);
  f.cpu.set32(S.BLOCKING, 0);
  f.cpu.set32(S.PENDINGDB, 0);
  f.cpu.set32(S.ATTENTION, 0);
  f.cpu.access.tlb.flushAll();
  updateMode(f.cpu);
  f.cpu.setGpr(random.next() % 16, VALUES[random.next() % VALUES.length]!);
  f.cpu.setGpr(4, BigInt(f.cpu.cpl === 3 ? AT.USER_STACK : AT.STACK0));
  f.cpu.rip = BigInt((at === AT.CODE && f.cpu.segBase(SEG.CS) !== 0n ? 0 : at) + (random.next() % 96));
}

/** Runs one random program; the trace of states and the final hash. */
function run(seed: number, mode: Mode, engine: EngineKind): string[] {
  const random = new Random(seed);
  const f = new SystemFixture(mode, engine, seed % 2 ? "icelake" : "skylake");
  const ring = mode !== "real" && random.next() % 3 === 0 ? 3 : 0;
  if (ring === 3) f.setRing(3, mode);
  for (const selector of [SEL.GATE, SEL.TASK_GATE, SEL.LDT]) {
    f.view.setUint32(AT.GDT + selector, random.next(), true);
    f.view.setUint32(AT.GDT + selector + 4, random.next(), true);
  }
  f.descriptor(SEL.TSS2, AT.TSS2, 0x67, 0x89, 0);
  for (let i = 0; i < 0x68; i += 4) f.view.setUint32(AT.TSS2 + i, random.next() & 0x1_00ff, true);
  for (let i = 0; i < 64; i++) {
    const value = VALUES[random.next() % VALUES.length]!;
    for (const at of [AT.DATA, AT.STACK0, AT.USER_STACK, AT.RSP0 - 256]) {
      f.view.setBigUint64(at + i * 8, BigInt.asUintN(64, value), true);
    }
  }
  for (let v = 0; v < 256; v++) f.view.setUint8(AT.HANDLERS + v, v % 3 === 0 ? 0xcf : 0xf4);
  for (let n = 0; n < 16; n++) f.cpu.setGpr(n, VALUES[random.next() % VALUES.length]!);
  f.cpu.setGpr(4, BigInt(ring === 3 ? AT.USER_STACK : AT.STACK0));
  const at = mode === "real" ? AT.CODE : ring === 3 ? AT.USER_CODE : AT.CODE;
  f.place(at, program(random));
  f.cpu.rip = BigInt(mode === "real" ? 0 : at);
  const start = f.cpu.memory.u8.slice(f.cpu.base + S.RIP, f.cpu.base + S.RETIRED);
  const states: string[] = [];
  for (let i = 0; i < 120; i++) {
    f.step(1);
    states.push(
      `${f.cpu.rip.toString(16)} ${f.cpu.rflags.toString(16)} ${
        f.cpu.segSel(SEG.CS).toString(16)
      } ${f.cpu.cpl} ` +
        `${f.cpu.gpr(4).toString(16)} ${f.cpu.gpr(0).toString(16)} ${f.cpu.get32(S.ACTIVITY)}`,
    );
    if (f.cpu.get32(S.ACTIVITY) !== 0 || random.next() % 16 === 0) revive(f, start, random, at);
  }
  states.push(f.machine.hash());
  return states;
}

describe("random system instructions", () => {
  for (const mode of ["long", "protected", "real"] as const) {
    it(`do the same on both engines, starting in ${mode} mode`, () => {
      for (let seed = 1; seed <= PROGRAMS; seed++) {
        const expected = run(seed, mode, "reference"), actual = run(seed, mode, "interpreter");
        assertEquals({ seed, states: actual }, { seed, states: expected });
      }
    });
  }
});
