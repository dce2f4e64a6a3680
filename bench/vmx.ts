/**
 * `deno task bench vmx`: what virtualization costs on this machine: VM exits and EPT violations a second, page walks in two dimensions
 * against one, a pointer chase as a guest against the same outside.
 *
 * Room: `bench/`; imports `hw/`, and from `lab/agree/` the making of a guest.
 *
 * @module
 */
import type { Cpu } from "../hw/cpu.ts";
import { EPTE } from "../hw/ept_format.ts";
import { GuestPhysicalTranslator } from "../hw/ept_translate.ts";
import { type EngineKind, Machine } from "../hw/machine.ts";
import { ACCESS, Walker } from "../hw/paging.ts";
import { RAM_BASE, S, SEG } from "../hw/state.ts";
import { setSegment, updateMode } from "../hw/sys/mode.ts";
import { becomeGuest, type GuestKind } from "../lab/agree/as_guest.ts";
import type { Micro } from "./micro.ts";

const MODEL = "icelake";
/** Physical layout of the guests: page tables, code, the chase's ring, two pages that EPT maps in turn, the hypervisor. */
const TABLES = 0x1_0000, CODE = 0x2_0000, RING = 0x20_0000, RING_BYTES = 0x10_0000;
const FIRST = 0x4_0000, SECOND = 0x4_1000, HYPERVISOR = 0x40_0000;
const MEMORY = 8 << 20;

/** A machine in 64-bit mode on an identity map of 4-KiB pages with A and D set, about to execute `code`. */
function machineWith(code: readonly number[], engine: EngineKind): Machine {
  const machine = new Machine({ memory: MEMORY, cpuModel: MODEL, engine });
  const cpu = machine.cpus[0]!;
  const view = new DataView(machine.memory.buffer, RAM_BASE);
  const put = (at: number, value: number) => view.setUint32(at, value | 0x67, true);
  put(TABLES, TABLES + 0x1000);
  put(TABLES + 0x1000, TABLES + 0x2000);
  for (let i = 0; i < MEMORY / 0x20_0000; i++) {
    put(TABLES + 0x2000 + i * 8, TABLES + 0x3000 + i * 0x1000);
    for (let p = 0; p < 512; p++) put(TABLES + 0x3000 + i * 0x1000 + p * 8, i * 0x20_0000 + p * 4096);
  }
  machine.memory.u8.set(code, RAM_BASE + CODE);
  cpu.set32(S.CR3, TABLES);
  cpu.set32(S.CR4, 0x620);
  cpu.set32(S.EFER, 0xd01);
  cpu.set32(S.CR0, 0x8001_0033 | 0);
  setSegment(cpu, SEG.CS, 8, 0, 0, -1, 0xa09b);
  for (const seg of [SEG.DS, SEG.ES, SEG.SS, SEG.FS, SEG.GS]) setSegment(cpu, seg, 0x10, 0, 0, -1, 0xc093);
  setSegment(cpu, SEG.TR, 0x30, 0, 0, 0x67, 0x8b);
  setSegment(cpu, SEG.LDTR, 0, 0, 0, 0, 0x1_0000);
  cpu.set32(S.ATTENTION, 0);
  cpu.rip = BigInt(CODE);
  updateMode(cpu);
  return machine;
}

/** Four bytes, little-endian. */
function u32(value: number): number[] {
  return [value & 255, (value >>> 8) & 255, (value >>> 16) & 255, value >>> 24];
}

/** Runs a machine for whole numbers of what `count` counts: how many steps one takes is found out first. */
function counted(machine: Machine, count: (cpu: Cpu) => number): (times: number) => number {
  const cpu = machine.cpus[0]!;
  const begin = count(cpu), first = 20_000;
  machine.run({ steps: first });
  const each = first / (count(cpu) - begin);
  if (!Number.isFinite(each)) throw new Error("the guest does not do what is to be counted");
  return (times) => {
    const from = count(cpu);
    machine.run({ steps: Math.round(times * each) });
    const done = count(cpu) - from;
    if (Math.abs(done - times) > 2 + times / 100) {
      throw new Error(`${done} events where ${times} were expected`);
    }
    return Number(cpu.gpr(0) & 0xffffn) + done;
  };
}

/** The guest calls the hypervisor, which steps over the call and goes on: VMREAD, ADD, VMWRITE, VMRESUME. */
function exits(engine: EngineKind): (times: number) => number {
  // vmcall; jmp to it
  const machine = machineWith([0x0f, 0x01, 0xc1, 0xeb, 0xfb], engine);
  const handler = [
    [0xba, ...u32(0x681e)], // mov edx, GUEST_RIP
    [0x0f, 0x78, 0xd0], // vmread rax, rdx
    [0x48, 0x83, 0xc0, 0x03], // add rax, 3
    [0x0f, 0x79, 0xd0], // vmwrite rdx, rax
    [0x0f, 0x01, 0xc3], // vmresume
    [0xf4],
  ].flat();
  becomeGuest(machine, { ept: "4K", vpid: 1, at: HYPERVISOR, handler });
  return counted(machine, (cpu) => cpu.transitions.exits);
}

/** The guest touches two pages in turn of which EPT has always the other one: the hypervisor swaps the entries, INVEPT, and resumes. */
function violations(engine: EngineKind): (times: number) => number {
  const machine = machineWith(
    [
      [0x48, 0x8b, 0x04, 0x25, ...u32(FIRST)], // mov rax, [FIRST]
      [0x48, 0x8b, 0x04, 0x25, ...u32(SECOND)], // mov rax, [SECOND]
      [0xeb, 0xee],
    ].flat(),
    engine,
  );
  const { view, tables } = eptOf(machine);
  const entry = (page: number) => tables + (page >>> 12) * 8;
  const descriptor = HYPERVISOR + 0x7000;
  const handler = [
    [0x48, 0x8b, 0x04, 0x25, ...u32(entry(FIRST))], // mov rax, [first entry]
    [0x48, 0x8b, 0x1c, 0x25, ...u32(entry(SECOND))], // mov rbx, [second entry]
    [0x48, 0x89, 0x1c, 0x25, ...u32(entry(FIRST))],
    [0x48, 0x89, 0x04, 0x25, ...u32(entry(SECOND))],
    [0xb9, ...u32(1)], // mov ecx, 1
    [0x66, 0x0f, 0x38, 0x80, 0x0c, 0x25, ...u32(descriptor)], // invept rcx, [descriptor]
    [0x0f, 0x01, 0xc3], // vmresume
    [0xf4],
  ].flat();
  becomeGuest(machine, { ept: "4K", vpid: 1, at: HYPERVISOR, handler });
  const cpu = machine.cpus[0]!;
  view.setBigUint64(descriptor, cpu.get64(S.VMX_EPTP), true);
  // Neither page has an address of its own: both are one page, mapped where it is asked for.
  view.setBigUint64(entry(SECOND), 0n, true);
  return counted(machine, (c) => c.counters.eptViolations);
}

/** Where {@link becomeGuest} puts the EPT page table of the first 2 MiB. */
function eptOf(machine: Machine): { readonly view: DataView; readonly tables: number } {
  return { view: new DataView(machine.memory.buffer, RAM_BASE), tables: HYPERVISOR + 0x8000 + 3 * 4096 };
}

/** Dependent loads around a ring of one line in each 64 bytes of 1 MiB, in a scattered order. */
function chase(engine: EngineKind, kind?: Pick<GuestKind, "ept" | "vpid">): (times: number) => number {
  const LOADS = 16;
  const code = [
    [0x48, 0xc7, 0xc0, ...u32(RING)], // mov rax, RING
    Array.from({ length: LOADS }, () => [0x48, 0x8b, 0x00]).flat(), // mov rax, [rax]
    [0x48, 0xff, 0xc3], // inc rbx
    [0xeb, 0x100 - (LOADS * 3 + 3 + 2)],
  ].flat();
  const machine = machineWith(code, engine);
  const view = new DataView(machine.memory.buffer, RAM_BASE);
  const lines = RING_BYTES / 64;
  for (let i = 0; i < lines; i++) {
    // An odd step visits all lines of a power of two.
    const from = (i * 4097) % lines, to = ((i + 1) * 4097) % lines;
    view.setBigUint64(RING + from * 64, BigInt(RING + to * 64), true);
  }
  if (kind !== undefined) becomeGuest(machine, { ...kind, at: HYPERVISOR });
  return counted(machine, (cpu) => Number(cpu.gpr(3)) * LOADS);
}

/** Walks of the guest's tables and of EPT, without any cache. */
function walks(nested: boolean): (times: number) => number {
  const machine = machineWith([0xeb, 0xfe], "interpreter");
  if (nested) becomeGuest(machine, { ept: "4K", vpid: 1, at: HYPERVISOR });
  const cpu = machine.cpus[0]!;
  const second = new GuestPhysicalTranslator(cpu, cpu.access.eptFeatures, {});
  const walker = new Walker(cpu, cpu.access.features, { pure: false, storeSlow: () => {}, second });
  return (times) => {
    let sum = 0;
    for (let i = 0; i < times; i++) {
      if (walker.walk(RING + (i & 63) * 4096, 0, ACCESS.READ) !== -1) throw new Error("a walk failed");
      sum += walker.page;
    }
    return sum + EPTE.R;
  };
}

/** The rows. */
export const VMX_MICROS: readonly Micro[] = [
  {
    name: "vmexit",
    about: "VMCALL, VMREAD, VMWRITE, VMRESUME",
    event: "VM exits",
    make: exits,
    target: { runner: "qemu", row: "syscall", ratio: 1 },
  },
  {
    name: "eptfault",
    about: "violation, entry written, INVEPT, VMRESUME",
    event: "EPT violations",
    make: violations,
  },
  {
    name: "walk1d",
    about: "page walks of 4 references",
    event: "walks",
    withoutEngine: true,
    make: () => walks(false),
  },
  {
    name: "walk2d",
    about: "page walks of 24 references",
    event: "walks",
    withoutEngine: true,
    make: () => walks(true),
  },
  {
    name: "chase",
    about: "a pointer chase over 1 MiB outside VMX",
    event: "loads",
    make: (engine) => chase(engine),
  },
  {
    name: "chasevpid",
    about: "the same as a guest without EPT",
    event: "loads",
    make: (engine) => chase(engine, { ept: "off", vpid: 1 }),
  },
  {
    name: "chaseept",
    about: "the same as a guest with EPT of 4-KiB pages",
    event: "loads",
    make: (engine) => chase(engine, { ept: "4K", vpid: 1 }),
  },
];
