/**
 * Bringing the machine under the kernel: memory, page tables, each processor's tables (`machdep.c`, `hammer_time`).
 *
 * Room: `kernel/platform/pc64/`; imports pmap, vm, and the tables of this folder.
 *
 * @module
 */
import { type Gva, gva, type Hpa, hpa, PAGE_SIZE } from "../../../hw/address.ts";
import type { Exec, GateCpu } from "../../../hw/gates.ts";
import type { Kernel } from "../../kernel.ts";
import { pmapBootAlloc, pmapBootstrap, pmapInitPat } from "../../pmap/pmap_bootstrap.ts";
import { cninit } from "./console.ts";
import { GD } from "./globaldata.ts";
import type { CpuTables, SupervisorPlatform } from "../supervisor.ts";
import type { Pc64 } from "./pc64.ts";
import { PCB_BYTES } from "./pcb.ts";
import { encodeGdt, encodeIdt, encodePseudoDescriptor, encodeTss, IDT_BYTES, IST } from "./segments.ts";
import {
  DEVICE_PAGES,
  deviceVa,
  DMPML4I,
  GDT_BYTES,
  KERNBASE,
  KERNLOAD,
  KPML4I,
  KSTACK_BYTES,
  physToDmap,
  SELECTOR,
} from "./vmparam.ts";

/** Supervisor-mode execution prevention: CPUID leaf 7 EBX bit, CR4 bit. */
const CPUID7_SMEP = 1 << 7;
const CR4_SMEP = 0x10_0000n;
const CR4_KERNEL = 0x6a0n;
/** RFLAGS bits that SYSCALL clears: TF, IF, DF, IOPL, NT, AC. */
const SFMASK = 0x4_7700n;
/** The mask that the kernel uses for both 8259s. */
const ALL_MASKED = 0xff;

/**
 * First TypeScript that runs: RDI = physical address of the multiboot information, on the boot tables. Gives the
 * address of the boot processor's globaldata.
 */
export function* hammerTime(k: Kernel, pc64: Pc64, cpu: GateCpu): Exec<bigint> {
  const end = yield* readMultiboot(k, pc64, cpu, hpa(Number(cpu.gpr(7) & 0xffff_ffffn)));
  pc64.earlyInput = yield* cninit(cpu);
  yield* cpu.outb(0x21, ALL_MASKED);
  yield* cpu.outb(0xa1, ALL_MASKED);
  const image = (from: number, to: number, write: boolean) => ({
    va: gva(KERNBASE + BigInt(KERNLOAD + from)),
    pa: hpa(KERNLOAD + from),
    bytes: to - from,
    write,
    execute: !write,
  });
  const device = { bytes: PAGE_SIZE, write: true, execute: false, uncached: true };
  const { textBytes, bytes } = pc64.locore;
  const pml4 = yield* pmapBootstrap(k, cpu, {
    available: [{ start: hpa(end), end: hpa(k.memoryBytes) }],
    memoryBytes: k.memoryBytes,
    directMap: true,
    kernelSlots: [DMPML4I, KPML4I],
    static: [
      image(0, textBytes, false),
      image(textBytes, Math.ceil(bytes / PAGE_SIZE) * PAGE_SIZE, true),
      ...DEVICE_PAGES.map((pa) => ({ va: deviceVa(pa), pa, ...device })),
    ],
  });
  yield* pmapInitPat(cpu);
  yield* cpu.loadCr3(BigInt(pml4));
  yield* cpu.store64(gva(pc64.locore.kernelPml4), BigInt(pml4));
  const bsp = yield* cpuSetup(k, pc64, cpu, 0);
  return bsp.globaldata;
}

/** Learns from the loader how much memory there is and where the archives are; gives the first free physical address. */
function* readMultiboot(k: Kernel, pc64: Pc64, cpu: GateCpu, info: Hpa): Exec<number> {
  const word = (offset: number) => cpu.load32(physToDmap(hpa(info + offset)));
  const upperKib = yield* word(8);
  k.memoryBytes = 0x10_0000 + upperKib * 1024;
  const count = yield* word(20);
  const table = yield* word(24);
  let end = KERNLOAD + pc64.locore.bytes;
  for (let i = 0; i < count; i++) {
    const start = yield* cpu.load32(physToDmap(hpa(table + i * 16)));
    const stop = yield* cpu.load32(physToDmap(hpa(table + i * 16 + 4)));
    k.rootArchives.push({ start, end: stop });
    end = Math.max(end, stop);
  }
  end = Math.max(end, info < 0x10_0000 ? 0 : info + PAGE_SIZE, table < 0x10_0000 ? 0 : table + count * 16);
  return Math.ceil(end / PAGE_SIZE) * PAGE_SIZE;
}

/** Builds a processor's GDT, TSS, stacks and globaldata. The IDT is the boot processor's for all. */
export function* cpuSetup(
  k: Kernel,
  pc64: SupervisorPlatform,
  cpu: GateCpu,
  id: number,
): Exec<CpuTables> {
  const globaldata = yield* pmapBootAlloc(k, cpu, PAGE_SIZE);
  const tables = yield* pmapBootAlloc(k, cpu, PAGE_SIZE);
  const tss = gva(tables + BigInt(GDT_BYTES));
  const kstack = yield* pmapBootAlloc(k, cpu, KSTACK_BYTES);
  const stackTop = gva(kstack + BigInt(KSTACK_BYTES) - BigInt(PCB_BYTES));
  const istTops: Gva[] = [];
  for (let i = 0; i < 3; i++) {
    istTops.push(gva((yield* pmapBootAlloc(k, cpu, KSTACK_BYTES)) + BigInt(KSTACK_BYTES)));
  }
  const first = pc64.tables[0];
  const idt = first === undefined
    ? yield* pmapBootAlloc(k, cpu, IDT_BYTES)
    : gva(yield* cpu.load64(gva(first.globaldata + BigInt(GD.idtr + 2))));

  yield* cpu.storeBytes(tables, encodeGdt(tss));
  yield* cpu.storeBytes(tss, encodeTss(stackTop, istTops));
  if (id === 0) {
    const ist = new Map<number, number>([[2, IST.NMI], [8, IST.DF], [18, IST.MC]]);
    yield* cpu.storeBytes(idt, encodeIdt(pc64.locore.vectors, ist));
  }

  const at = (offset: number) => gva(globaldata + BigInt(offset));
  yield* cpu.storeBytes(at(GD.gdtr), encodePseudoDescriptor(tables, GDT_BYTES));
  yield* cpu.storeBytes(at(GD.idtr), encodePseudoDescriptor(idt, IDT_BYTES));
  const smep = (yield* cpu.load32(gva(pc64.locore.cpuFeature7))) & CPUID7_SMEP;
  const words: readonly (readonly [number, bigint])[] = [
    [GD.cr4, CR4_KERNEL | (smep ? CR4_SMEP : 0n)],
    [GD.self, globaldata],
    [GD.star, (BigInt(SELECTOR.UCODE32) << 48n) | (BigInt(SELECTOR.KCODE) << 32n)],
    [GD.lstar, pc64.locore.fastSyscall],
    [GD.sfmask, SFMASK],
    [GD.kernelStack, stackTop],
    [GD.cpuid, BigInt(id)],
    [GD.tss, tss],
  ];
  for (const [offset, value] of words) yield* cpu.store64(at(offset), value);
  return pc64.tables[id] = { globaldata, kstack, stackTop };
}

/** Names of the protections in force, for the start's message. */
export function* cpuProtections(pc64: SupervisorPlatform, cpu: GateCpu): Exec<string> {
  const smep = (yield* cpu.load32(gva(pc64.locore.cpuFeature7))) & CPUID7_SMEP;
  return `NX, WP${smep ? ", SMEP" : ""}`;
}
