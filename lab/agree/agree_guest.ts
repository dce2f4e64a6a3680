/**
 * The same random code outside VMX operation and in VMX non-root operation: results must be equal, and exits come only where non-root
 * operation always has them.
 *
 *     deno run -A lab/agree/agree_guest.ts --count N --seed S
 *
 * Room: `lab/agree/`; imports hw's public face.
 *
 * @module
 */
import { type EngineKind, Machine, type MachineOptions } from "../../hw/machine.ts";
import { Random } from "../../hw/random.ts";
import { RAM_BASE, S } from "../../hw/state.ts";
import * as vmcs from "../../hw/vmcs.ts";
import { REASON } from "../../hw/vmx/contract.ts";
import { vmEntry } from "../../hw/vmx/entry.ts";
import { F } from "../../hw/vmx/fields.ts";
import { becomeGuest, eptEntry, type GuestKind, visibleState } from "./as_guest.ts";
import { GUEST_BYTES, type GuestMode, loadRandomGuest } from "./random_guest.ts";

/** RAM of both machines: the random guest's, and as much again for the hypervisor. */
const MEMORY = 2 * GUEST_BYTES;
const HYPERVISOR = GUEST_BYTES + 0x10_0000;

/** Exits that come although no control asks for them (SDM vol. 3C, "Instructions That Cause VM Exits Unconditionally"), and what the hidden bits of CR0 and CR4 cause. */
const UNCONDITIONAL: ReadonlySet<number> = new Set([
  REASON.TRIPLE_FAULT,
  REASON.TASK_SWITCH,
  REASON.CPUID,
  REASON.GETSEC,
  REASON.INVD,
  REASON.XSETBV,
  REASON.CR_ACCESS,
  REASON.VMCALL,
  REASON.VMCLEAR,
  REASON.VMLAUNCH,
  REASON.VMPTRLD,
  REASON.VMPTRST,
  REASON.VMREAD,
  REASON.VMRESUME,
  REASON.VMWRITE,
  REASON.VMXOFF,
  REASON.VMXON,
  REASON.INVEPT,
  REASON.INVVPID,
]);

/** Instructions that non-root operation treats specially, or could; random bytes seldom make them. */
const SPECIAL: readonly (readonly number[])[] = [
  [0x0f, 0xa2], // CPUID
  [0x0f, 0x31], // RDTSC
  [0x0f, 0x01, 0xf9], // RDTSCP
  [0x0f, 0x20, 0xc0], // MOV EAX, CR0
  [0x0f, 0x20, 0xe2], // MOV EDX, CR4
  [0x0f, 0x20, 0xd8], // MOV EAX, CR3
  [0x0f, 0x22, 0xd8], // MOV CR3, EAX
  [0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8], // the same value
  [0x0f, 0x21, 0xf8], // MOV EAX, DR7
  [0x0f, 0x06], // CLTS
  [0x0f, 0x01, 0xe0], // SMSW EAX
  [0x0f, 0x01, 0xf0], // LMSW AX
  [0x0f, 0x01, 0x38], // INVLPG
  [0x0f, 0x01, 0x00], // SGDT
  [0x0f, 0x00, 0xc8], // STR EAX
  [0x0f, 0x09], // WBINVD
  [0xf3, 0x90], // PAUSE
  [0xfb], // STI
  [0x0f, 0x01, 0xc1], // VMCALL
  [0x0f, 0x01, 0xc4], // VMXOFF
  [0xb9, 0x10, 0x00, 0x00, 0x00, 0x0f, 0x32], // MOV ECX, 10H; RDMSR (time-stamp counter)
  [0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32], // IA32_EFER
  [0x0f, 0xc7, 0xf0], // RDRAND EAX
  [0xcd, 0x21], // INT 21H
  [0xe4, 0x21], // IN AL, 21H
  [0xcc], // INT3
];
/** Where random guests have their code. */
const CODE = 0x8000, CODE_BYTES = 0x8000;

/** Strews {@link SPECIAL} over the code. */
function strew(machine: Machine, seed: number): void {
  const random = new Random(seed ^ 0x7777);
  for (let i = 0; i < 1500; i++) {
    const bytes = SPECIAL[random.next() % SPECIAL.length]!;
    machine.memory.u8.set(bytes, RAM_BASE + CODE + random.next() % (CODE_BYTES - 8));
  }
}

/** Places where each guest is stopped and looked at. */
const STOPS = 25;
/** Steps of a guest whose memory is mapped on demand. */
const DEMAND_STEPS = 400;

/** What a comparison found. */
export interface GuestComparison {
  /** Steps that both made. */
  readonly steps: number;
  /** Exit that ended it; −1 when there was none. */
  readonly exit: number;
  /** Exits that the hypervisor answered. */
  readonly exits: number;
  /** What differed; empty when nothing did. */
  readonly differences: readonly string[];
}

/** The kinds of guest that are compared. */
export const GUEST_KINDS: Readonly<Record<string, Omit<GuestKind, "at">>> = {
  "EPT 4K, VPID": { ept: "4K", vpid: 1 },
  "EPT 2M, A/D": { ept: "2M", vpid: 0, accessedDirty: true },
  "VPID alone": { ept: "off", vpid: 7 },
  "neither": { ept: "off", vpid: 0 },
};

/** A machine that is about to execute a random guest's code. */
function machineFor(seed: number, mode: GuestMode, options: MachineOptions): Machine {
  const machine = new Machine({ cpuModel: "icelake", ...options, memory: MEMORY });
  loadRandomGuest(machine, seed, mode);
  strew(machine, seed);
  // What non-root operation asks for is the same outside.
  const cpu = machine.cpus[0]!;
  cpu.set32(S.CR0, cpu.get32(S.CR0) | 0x20);
  return machine;
}

/** Runs one random guest both ways, stopped at random places. */
export function compareAsGuest(
  seed: number,
  mode: GuestMode,
  kind: Omit<GuestKind, "at">,
  options: MachineOptions = {},
): GuestComparison {
  const native = machineFor(seed, mode, options), guest = machineFor(seed, mode, options);
  becomeGuest(guest, { ...kind, at: HYPERVISOR });
  const a = native.cpus[0]!, b = guest.cpus[0]!;
  const random = new Random(seed ^ 0x1234);
  let steps = 0;
  for (let stop = 0; stop < STOPS; stop++) {
    const chunk = 1 + random.next() % 60;
    const before = b.get64(S.RETIRED);
    guest.run({ steps: chunk });
    if (b.get32(S.VMX_MODE) !== 2) {
      const exit = vmcs.get32(b, F.EXIT_REASON) & 0xffff;
      const touched = exit === REASON.EPT_VIOLATION && isOutside(vmcs.get64(b, F.GUEST_PHYSICAL_ADDRESS));
      const unmapped = (exit === REASON.RDMSR || exit === REASON.WRMSR) &&
        !hasBitmapBit(Number(b.gpr(1) & 0xffff_ffffn));
      if (!UNCONDITIONAL.has(exit) && !touched && !unmapped) {
        return { steps, exit, exits: 0, differences: [`exit ${exit}, which nothing asks for`] };
      }
      // The native machine must come by the state that the exit has saved.
      for (let i = 0; i <= chunk; i++) {
        if (a.rip === vmcs.get64(b, F.GUEST_RIP) && sameRegisters(a, b)) {
          return { steps: steps + i, exit, exits: 0, differences: [] };
        }
        native.run({ steps: 1 });
      }
      return {
        steps,
        exit,
        exits: 0,
        differences: [`the state at exit ${exit} is not one that the code comes by outside`],
      };
    }
    native.run({ steps: chunk });
    steps += Number(b.get64(S.RETIRED) - before);
    const halted = a.get32(S.ACTIVITY) !== 0;
    const differences = compare(native, guest, halted || stop % 8 === 0 || stop === STOPS - 1);
    if (differences.length > 0) return { steps, exit: -1, exits: 0, differences };
    if (halted) break;
  }
  return { steps, exit: -1, exits: 0, differences: [] };
}

/**
 * As {@link compareAsGuest} for a guest whose memory is mapped on demand, right by right: each instruction and each delivery of an event that
 * EPT refuses must have changed nothing, and come again. The hypervisor injects events whose delivery was refused; the time-stamp counter's
 * offset hides the ticks that exits take. The guest goes one step at a time.
 */
export function compareOnDemand(
  seed: number,
  mode: GuestMode,
  vpid: number,
  options: MachineOptions = {},
): GuestComparison {
  const native = machineFor(seed, mode, options), guest = machineFor(seed, mode, options);
  const kind: GuestKind = { ept: "4K", vpid, absent: true, accessedDirty: seed % 2 === 0, at: HYPERVISOR };
  becomeGuest(guest, kind);
  const b = guest.cpus[0]!;
  const view = new DataView(guest.memory.buffer, RAM_BASE);
  let steps = 0, hidden = 0n, exits = 0;
  const done = (exit: number, differences: readonly string[]): GuestComparison => ({
    steps,
    exit,
    exits,
    differences,
  });
  while (steps < DEMAND_STEPS) {
    guest.run({ steps: 1 });
    steps++;
    let again = false;
    while (b.get32(S.VMX_MODE) !== 2) {
      const exit = vmcs.get32(b, F.EXIT_REASON) & 0xffff;
      const address = Number(vmcs.get64(b, F.GUEST_PHYSICAL_ADDRESS));
      if (exit !== REASON.EPT_VIOLATION || address >= GUEST_BYTES) {
        const allowed = UNCONDITIONAL.has(exit) || exit === REASON.RDMSR || exit === REASON.WRMSR ||
          (exit === REASON.EPT_VIOLATION && isOutside(BigInt(address)));
        return done(exit, allowed ? [] : [`exit ${exit}, which nothing asks for`]);
      }
      exits++;
      const entry = eptEntry(kind, address), need = vmcs.get32(b, F.EXIT_QUALIFICATION) & 7;
      const rights = view.getUint32(entry, true) & 7;
      if ((need & ~rights) === 0) {
        return done(exit, [`an EPT violation that EPT does not mean, at ${address.toString(16)}`]);
      }
      view.setUint32(entry, (address & ~0xfff) | 0x30 | rights | need | (need & 2 ? 1 : 0), true);
      const vectoring = vmcs.get32(b, F.IDT_VECTORING_INFORMATION);
      if (vectoring < 0) {
        vmcs.set32(b, F.ENTRY_INTERRUPTION_INFORMATION, vectoring & ~0x1000);
        vmcs.set32(b, F.ENTRY_EXCEPTION_ERROR_CODE, vmcs.get32(b, F.IDT_VECTORING_ERROR_CODE));
        vmcs.set32(b, F.ENTRY_INSTRUCTION_LENGTH, vmcs.get32(b, F.EXIT_INSTRUCTION_LENGTH));
      } else {
        // The instruction comes again: the step that exited did not count outside.
        steps--;
        hidden++;
        again = true;
        vmcs.set64(b, F.TSC_OFFSET, BigInt.asUintN(64, -hidden));
      }
      const error = vmEntry(b);
      if (error !== 0) return done(exit, [`VM entry failed with error ${error}`]);
    }
    // In between RF is 1: the instruction is to come again.
    if (again) continue;
    if (steps % 50 !== 0 && steps !== DEMAND_STEPS && b.get32(S.ACTIVITY) === 0) continue;
    native.run({ steps: steps - Number(native.cpus[0]!.get64(S.RETIRED)) });
    const differences = compare(native, guest, b.get32(S.ACTIVITY) !== 0 || steps === DEMAND_STEPS);
    if (differences.length > 0) return done(-1, differences);
    if (b.get32(S.ACTIVITY) !== 0) break;
  }
  return done(-1, []);
}

/** Whether EPT gives the guest nothing at a guest-physical address: the hypervisor's memory, and what lies above 4 GiB, where a guest's random table entries lead. */
function isOutside(address: bigint): boolean {
  return address >= BigInt(HYPERVISOR) && address < BigInt(HYPERVISOR + GUEST_BYTES) || address >= 1n << 32n;
}

/** Whether the MSR bitmaps have a bit for this MSR; one that they have not exits always. */
function hasBitmapBit(msr: number): boolean {
  return msr <= 0x1fff || (msr >= 0xc000_0000 && msr <= 0xc000_1fff);
}

/** General-purpose registers but RSP, which an exit has replaced. */
function sameRegisters(a: Machine["cpus"][0], b: Machine["cpus"][0]): boolean {
  for (let n = 0; n < 16; n++) {
    if (n === 4 ? a.gpr(4) !== vmcs.get64(b, F.GUEST_RSP) : a.gpr(n) !== b.gpr(n)) return false;
  }
  return true;
}

/** What differs of the processors, and of RAM if asked for. */
function compare(native: Machine, guest: Machine, withRam: boolean): string[] {
  const differences: string[] = [];
  const want = visibleState(native.cpus[0]!), got = visibleState(guest.cpus[0]!);
  for (const [name, value] of want) {
    const other = got.get(name)!;
    if (other !== value) {
      differences.push(`${name}: ${value.toString(16)} outside, ${other.toString(16)} as a guest`);
    }
  }
  if (!withRam) return differences;
  const x = native.memory.u32, y = guest.memory.u32;
  for (let i = RAM_BASE >>> 2; i < (RAM_BASE + GUEST_BYTES) >>> 2 && differences.length < 20; i++) {
    if (x[i] !== y[i]) {
      const at = (i * 4 - RAM_BASE).toString(16);
      differences.push(`RAM ${at}: ${x[i]!.toString(16)} outside, ${y[i]!.toString(16)} as a guest`);
    }
  }
  return differences;
}

/** The command: exits 1 on the first difference. */
function main(args: readonly string[]): number {
  const value = (name: string, fallback: number) => {
    const at = args.indexOf(name);
    const number = at < 0 ? fallback : Number(args[at + 1]);
    if (!Number.isInteger(number) || number < 0) throw new RangeError(`${name} takes a whole number`);
    return number;
  };
  const count = value("--count", 100), seed = value("--seed", 1);
  const engines: readonly EngineKind[] = ["interpreter", "reference"];
  const exits = new Map<number, number>();
  let steps = 0, guests = 0, answered = 0;
  const take = (
    name: string,
    at: number,
    mode: GuestMode,
    engine: EngineKind,
    found: GuestComparison,
  ): boolean => {
    if (found.differences.length > 0) {
      console.log(JSON.stringify({ seed: at, mode, kind: name, engine, ...found }, null, 2));
      return false;
    }
    guests++;
    steps += found.steps;
    answered += found.exits;
    exits.set(found.exit, (exits.get(found.exit) ?? 0) + 1);
    return true;
  };
  for (let i = 0; i < count; i++) {
    for (const mode of [0, 1, 2] as const) {
      for (const [name, kind] of Object.entries(GUEST_KINDS)) {
        // Real mode, and protected mode without paging, need an unrestricted guest.
        if (mode !== 2 && kind.ept === "off") continue;
        const engine = engines[(seed + i) % 2]!;
        if (!take(name, seed + i, mode, engine, compareAsGuest(seed + i, mode, kind, { engine }))) return 1;
      }
      for (const engine of engines) {
        const found = compareOnDemand(seed + i, mode, engine === "reference" ? 0 : 1, { engine });
        if (!take("mapped on demand", seed + i, mode, engine, found)) return 1;
      }
    }
  }
  const told = [...exits].filter(([exit]) => exit >= 0).map(([exit, n]) => `${exit} (${n})`).join(", ");
  console.log(
    `${guests} random guests, ${steps} steps: the same outside and in non-root operation; ` +
      `${answered} EPT violations on the way; exits that ended it: ${told}`,
  );
  return 0;
}

if (import.meta.main) Deno.exit(main(Deno.args));
