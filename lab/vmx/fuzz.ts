/**
 * `deno task vmxfuzz --count N --seed S`: random VMCS images. Each is a valid one with some fields changed (or none left as it was); the
 * entry must succeed or fail as the tables of rules say, whatever the guest then does, and nothing may throw.
 *
 * Room: `lab/vmx/`; imports hw's public face, the rules and bench_machine.ts.
 *
 * @module
 */
import type { EngineKind } from "../../hw/machine.ts";
import { Random } from "../../hw/random.ts";
import { RAM_BASE, S } from "../../hw/state.ts";
import * as vmcs from "../../hw/vmcs.ts";
import { controlRules } from "../../hw/vmx/checks_controls.ts";
import { guestRules } from "../../hw/vmx/checks_guest.ts";
import { hostRules } from "../../hw/vmx/checks_host.ts";
import { vmxCapability } from "../../hw/vmx/capability.ts";
import { entryContext } from "../../hw/vmx/entry.ts";
import { firstFailure } from "../../hw/vmx/entry_checks.ts";
import { F, fieldNames } from "../../hw/vmx/fields.ts";
import { PLACES, setField, vmxBench } from "./bench_machine.ts";

/** What became of the entries. */
export interface FuzzResult {
  /** VMfailValid(7), VMfailValid(8), entry failures 33, 34 and 41, entries that succeeded. */
  readonly controls: number;
  readonly host: number;
  readonly guest: number;
  readonly msr: number;
  readonly entered: number;
  /** VM exits of the guests that were entered, by basic reason. */
  readonly exits: ReadonlyMap<number, number>;
}

/** Values that are at the edge of something. */
const EDGES = [
  0n,
  1n,
  2n,
  3n,
  7n,
  8n,
  0xfn,
  0x10n,
  0x1fn,
  0x20n,
  0x40n,
  0x80n,
  0x93n,
  0x9bn,
  0xf3n,
  0xffffn,
  0x1_0000n,
  0xa09bn,
  0xc093n,
]
  .concat([
    0xffff_ffffn,
    0x1_0000_0000n,
    0x7fff_ffff_ffffn,
    0x8000_0000_0000n,
    0xffff_8000_0000_0000n,
    0xffff_ffff_ffff_ffffn,
  ]);
/** Guest code: random instructions from here, with what exits among them. */
const MORSELS = [
  [0x90],
  [0xf4],
  [0x0f, 0xa2],
  [0x0f, 0x01, 0xc1],
  [0x0f, 0x0b],
  [0xcc],
  [0xcd, 0x80],
  [0xfb],
  [0xfa],
  [0x48, 0xcf],
  [0x0f, 0x20, 0xc0],
  [0x0f, 0x22, 0xc0],
  [0x0f, 0x22, 0xd8],
  [0x0f, 0x22, 0xe0],
  [0x44, 0x0f, 0x22, 0xc0],
  [0x0f, 0x30],
  [0x0f, 0x32],
  [0xec],
  [0xee],
  [0xf3, 0x90],
  [0x0f, 0x31],
  [0x8b, 0x04, 0x25, 0x80, 0x20, 0x01, 0x00],
  [0x89, 0x04, 0x25, 0x80, 0x20, 0x01, 0x00],
  [0x0f, 0x21, 0xf8],
  [0x0f, 0x01, 0xd4],
  [0xf3, 0xaa],
  [0x50],
  [0x58],
  [0x9d],
  [0x8e, 0xd0],
  [0x0f, 0x01, 0xf9],
  [0x0f, 0x06],
  [0x0f, 0x01, 0xf0],
  [0x0f, 0x78, 0xc8],
  [0x6c],
  [0xf1],
];

/** Runs `count` random images. @throws {Error} with the image's number when an entry is not what the rules say. */
export function fuzzVmcs(
  count: number,
  seed: number,
  engine: EngineKind = "interpreter",
  cpuModel = "icelake",
): FuzzResult {
  const { machine, cpu, view } = vmxBench(engine, { cpuModel });
  const random = new Random(seed);
  const { u8 } = machine.memory;
  const block = u8.slice(cpu.base, cpu.base + S.STEP);
  const ram = u8.slice(RAM_BASE, RAM_BASE + PLACES.PAGES + 0x8000);
  const capability = vmxCapability(cpu.model);
  const apic = cpu.apic.save();
  const result = { controls: 0, host: 0, guest: 0, msr: 0, entered: 0, exits: new Map<number, number>() };
  for (let i = 0; i < count; i++) {
    u8.set(block, cpu.base);
    for (let at = 0; at < ram.length; at += 4096) {
      if (at < PLACES.HOST_CODE || at > PLACES.GUEST_CODE) u8.set(ram.subarray(at, at + 4096), RAM_BASE + at);
    }
    cpu.apic.load(apic);
    cpu.preemptionTimer?.cancel();
    cpu.set32(S.VMX_MODE, 0);
    cpu.access.tlb.reset();
    u8.set(block, cpu.base);
    mutate();
    if (i % 64 === 0) writeCode();
    const c = entryContext(cpu);
    const control = firstFailure(controlRules, c),
      host = firstFailure(hostRules, c),
      guest = firstFailure(guestRules, c);
    view.setUint8(PLACES.HOST_CODE, 0x0f);
    view.setUint8(PLACES.HOST_CODE + 1, 0x01);
    view.setUint8(PLACES.HOST_CODE + 2, 0xc2);
    view.setUint8(PLACES.HOST_CODE + 3, 0xf4);
    machine.bus.code?.invalidate(PLACES.HOST_CODE, 4);
    cpu.set64Halves(S.RIP, PLACES.HOST_CODE, 0);
    const before = cpu.transitions.exits, entries = cpu.transitions.entries;
    machine.processors[0]!.run(1);
    const error = (cpu.rflags & 0x40) !== 0 && cpu.get32(S.VMX_MODE) === 1 && cpu.transitions.exits === before
      ? vmcs.get32(cpu, F.INSTRUCTION_ERROR)
      : 0;
    const reason = vmcs.get32(cpu, F.EXIT_REASON) >>> 0;
    const what = (): string =>
      `image ${i} of seed ${seed}: error ${error}, reason ${reason.toString(16)}, rules ${
        [control, host, guest].map((r) => r?.name ?? "-").join(" ")
      }`;
    if (control !== undefined) {
      if (error !== 7) throw new Error(what());
      result.controls++;
    } else if (host !== undefined) {
      if (error !== 8) throw new Error(what());
      result.host++;
    } else if (guest !== undefined) {
      if (reason !== 0x8000_0021 || cpu.transitions.entries !== entries) throw new Error(what());
      result.guest++;
    } else if (cpu.transitions.entries === entries) {
      if (reason !== 0x8000_0022) throw new Error(what());
      result.msr++;
    } else {
      result.entered++;
      if (random.between(0, 7) === 0) cpu.apic.raiseNmi();
      machine.processors[0]!.run(60);
      if (cpu.get32(S.VMX_MODE) === 1) {
        const basic = vmcs.get32(cpu, F.EXIT_REASON) & 0xffff;
        result.exits.set(basic, (result.exits.get(basic) ?? 0) + 1);
      }
    }
  }
  return result;

  /** Changes some fields of the VMCS; one image in eight is noise. */
  function mutate(): void {
    const noise = random.between(0, 7) === 0;
    if (noise) {
      for (const name of fieldNames) if (random.between(0, 3) === 0) setField(cpu, name, value());
      return;
    }
    const changes = random.between(0, 6);
    for (let n = 0; n < changes; n++) {
      setField(cpu, fieldNames[random.between(0, fieldNames.length - 1)]!, value());
    }
    // Controls that may be set, so that many entries succeed and many features meet.
    const controls = [
      ["PIN_BASED_CONTROLS", capability.pin],
      ["PROCESSOR_BASED_CONTROLS", capability.proc],
      ["SECONDARY_CONTROLS", capability.proc2],
    ] as const;
    for (const [name, range] of controls) {
      const bits = random.next() & random.next() & random.next() & range.mayBeOne;
      if (random.between(0, 1) === 0) {
        setField(cpu, name, range.trueMustBeOne | bits | (name === "PROCESSOR_BASED_CONTROLS" ? 1 << 31 : 0));
      }
    }
    if (random.between(0, 2) === 0) setField(cpu, "EXCEPTION_BITMAP", random.next());
    if (random.between(0, 2) === 0) {
      setField(cpu, "ENTRY_INTERRUPTION_INFORMATION", (1 << 31) | (random.next() & 0xfff));
    }
    for (
      const name of [
        "IO_BITMAP_A",
        "IO_BITMAP_B",
        "MSR_BITMAPS",
        "VIRTUAL_APIC_ADDRESS",
        "APIC_ACCESS_ADDRESS",
        "VMREAD_BITMAP",
        "VMWRITE_BITMAP",
        "EPTP_LIST_ADDRESS",
        "PML_ADDRESS",
        "VE_INFORMATION_ADDRESS",
        "POSTED_INTERRUPT_DESCRIPTOR",
      ] as const
    ) {
      setField(cpu, name, page());
    }
    setField(cpu, "VPID", 1);
    setField(cpu, "TSC_MULTIPLIER", 1n << 48n);
    setField(cpu, "EPT_POINTER", page() | 0x1en);
  }
  function page(): bigint {
    return BigInt(PLACES.PAGES + random.between(0, 6) * 0x1000);
  }
  function value(): bigint {
    const kind = random.between(0, 4);
    if (kind === 0) return EDGES[random.between(0, EDGES.length - 1)]!;
    if (kind === 1) return 1n << BigInt(random.between(0, 63));
    if (kind === 2) return page();
    if (kind === 3) return BigInt(random.next() >>> 0);
    return BigInt(random.next() >>> 0) << 32n | BigInt(random.next() >>> 0);
  }
  function writeCode(): void {
    for (let at = PLACES.GUEST_CODE; at < PLACES.GUEST_CODE + 256;) {
      for (const byte of MORSELS[random.between(0, MORSELS.length - 1)]!) view.setUint8(at++, byte);
    }
    machine.bus.code?.invalidate(PLACES.GUEST_CODE, 300);
  }
}

if (import.meta.main) {
  const option = (name: string, otherwise: number): number => {
    const i = Deno.args.indexOf(`--${name}`);
    return i < 0 ? otherwise : Number(Deno.args[i + 1]);
  };
  const count = option("count", 100_000), seed = option("seed", 1);
  for (const engine of ["interpreter", "reference"] as const) {
    const { exits, ...entries } = fuzzVmcs(Math.ceil(count / 2), seed, engine);
    console.log(engine, entries);
    console.log([...exits].sort(([a], [b]) => a - b).map(([reason, n]) => `${reason}: ${n}`).join("  "));
  }
}
