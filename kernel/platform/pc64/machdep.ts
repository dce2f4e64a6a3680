/**
 * Bringing the machine under the kernel: memory, page tables, each processor's tables (`machdep.c`, `hammer_time`).
 *
 * Room: `kernel/platform/pc64/`; imports pmap, vm, and the tables of this folder.
 *
 * @module
 */
import { type Gva, gva, type Hpa, hpa, PAGE_SIZE } from "../../../hw/address.ts";
import type { Exec, GateCpu } from "../../../hw/gates.ts";
import type { Kernel, KernelCpu } from "../../kernel.ts";
import { pmapEnter, pmapEnterLarge, pmapPinit } from "../../pmap/pmap.ts";
import { type PhysRange, vmPageAllocZero, VmPages } from "../../vm/vm_page.ts";
import { cninit, kprint } from "./console.ts";
import { GD } from "./globaldata.ts";
import { encodeGdt, encodeIdt, encodePseudoDescriptor, encodeTss, IDT_BYTES, IST } from "./segments.ts";
import {
  GDT_BYTES,
  KERNBASE,
  KERNLOAD,
  KSTACK_BYTES,
  LAPIC_VA,
  MPTRAMPOLINE,
  physToDmap,
  SELECTOR,
} from "./vmparam.ts";

/** Supervisor-mode execution prevention: CPUID leaf 7 EBX bit, CR4 bit. */
const CPUID7_SMEP = 1 << 7;
const CR4_SMEP = 0x10_0000n;
const CR4_KERNEL = 0x6a0n;
/** RFLAGS bits that SYSCALL clears: TF, IF, DF, IOPL, NT, AC. */
const SFMASK = 0x4_7700n;
/** Physical address of the local APIC's page. */
const LAPIC_PA = hpa(0xfee0_0000);
/** The mask that the kernel uses for both 8259s. */
const ALL_MASKED = 0xff;
const LARGE_PAGE = 0x20_0000;

const KERNEL_DATA = { write: true, execute: false, user: false } as const;
const KERNEL_TEXT = { write: false, execute: true, user: false } as const;

/**
 * First TypeScript that runs: RDI = physical address of the multiboot information, on the boot tables. Gives the
 * address of the boot processor's globaldata.
 */
export function* hammerTime(k: Kernel, cpu: GateCpu): Exec<bigint> {
  yield* readMultiboot(k, cpu, hpa(Number(cpu.gpr(7) & 0xffff_ffffn)));
  yield* cninit(cpu);
  yield* cpu.outb(0x21, ALL_MASKED);
  yield* cpu.outb(0xa1, ALL_MASKED);
  yield* pmapBootstrap(k, cpu);
  const bsp = yield* cpuSetup(k, cpu, 0);
  k.cpus[0] = bsp;
  return bsp.globaldata;
}

/** Learns from the loader how much memory there is and where the programs are. */
function* readMultiboot(k: Kernel, cpu: GateCpu, info: Hpa): Exec<void> {
  const word = (offset: number) => cpu.load32(physToDmap(hpa(info + offset)));
  const upperKib = yield* word(8);
  k.memoryBytes = 0x10_0000 + upperKib * 1024;
  const count = yield* word(20);
  const table = yield* word(24);
  let end = KERNLOAD + k.locore.bytes;
  for (let i = 0; i < count; i++) {
    const start = yield* cpu.load32(physToDmap(hpa(table + i * 16)));
    const stop = yield* cpu.load32(physToDmap(hpa(table + i * 16 + 4)));
    k.modules.push({ start: hpa(start), end: hpa(stop) });
    end = Math.max(end, stop);
  }
  end = Math.max(end, info < 0x10_0000 ? 0 : info + PAGE_SIZE, table < 0x10_0000 ? 0 : table + count * 16);
  const available: PhysRange[] = [{ start: end, end: k.memoryBytes }];
  k.pages = new VmPages(available);
}

/** The kernel's tables: all RAM in the direct map, the image (code read-only, data not executable), the local APIC. */
function* pmapBootstrap(k: Kernel, cpu: GateCpu): Exec<void> {
  const { pages } = k;
  const pmap = k.pmap = yield* pmapPinit(cpu, pages, undefined);
  for (let pa = 0; pa < k.memoryBytes; pa += LARGE_PAGE) {
    yield* pmapEnterLarge(cpu, pages, pmap, {
      va: physToDmap(hpa(pa)),
      pa: hpa(pa),
      protection: KERNEL_DATA,
    });
  }
  for (let offset = 0; offset < k.locore.bytes; offset += PAGE_SIZE) {
    const pa = hpa(KERNLOAD + offset);
    const protection = offset < k.locore.textBytes ? KERNEL_TEXT : KERNEL_DATA;
    yield* pmapEnter(cpu, pages, pmap, { va: gva(KERNBASE + BigInt(pa)), pa, protection });
  }
  yield* pmapEnter(cpu, pages, pmap, { va: LAPIC_VA, pa: LAPIC_PA, protection: KERNEL_DATA, uncached: true });
  yield* cpu.store64(gva(k.locore.kernelPml4), BigInt(pmap.pml4));
  yield* cpu.loadCr3(BigInt(pmap.pml4));
  // The kernel slot must have its first table before other address spaces copy the slot.
  yield* kmemAlloc(k, cpu, PAGE_SIZE);
}

/** Maps fresh zeroed pages in the kernel's own window and leaves an unmapped page behind them (`kmem_alloc`, guarded). */
export function* kmemAlloc(k: Kernel, cpu: GateCpu, bytes: number): Exec<Gva> {
  const start = gva(k.kvaNext);
  for (let offset = 0; offset < bytes; offset += PAGE_SIZE) {
    const page = yield* vmPageAllocZero(cpu, k.pages);
    if (page === undefined) cpu.panic("kmem_alloc: no page is left for the kernel");
    const va = gva(start + BigInt(offset));
    yield* pmapEnter(cpu, k.pages, k.pmap, { va, pa: page, protection: KERNEL_DATA });
  }
  k.kvaNext = start + BigInt(bytes) + BigInt(PAGE_SIZE);
  return start;
}

/** A kernel stack's top. The page below the stack is not mapped: an overflow is a double fault, on a stack of its own. */
function* kernelStack(k: Kernel, cpu: GateCpu): Exec<Gva> {
  return gva((yield* kmemAlloc(k, cpu, KSTACK_BYTES)) + BigInt(KSTACK_BYTES));
}

/** Builds a processor's GDT, TSS, stacks and globaldata. The IDT is the boot processor's for all. */
export function* cpuSetup(k: Kernel, cpu: GateCpu, id: number): Exec<KernelCpu> {
  const globaldata = yield* kmemAlloc(k, cpu, PAGE_SIZE);
  const tables = yield* kmemAlloc(k, cpu, PAGE_SIZE);
  const tss = gva(tables + BigInt(GDT_BYTES));
  const stackTop = yield* kernelStack(k, cpu);
  const istTops: Gva[] = [];
  for (let i = 0; i < 3; i++) istTops.push(yield* kernelStack(k, cpu));
  const idt = k.cpus[0] === undefined
    ? yield* kmemAlloc(k, cpu, IDT_BYTES)
    : gva(yield* cpu.load64(gva(k.cpus[0].globaldata + BigInt(GD.idtr + 2))));

  yield* cpu.storeBytes(tables, encodeGdt(tss));
  yield* cpu.storeBytes(tss, encodeTss(stackTop, istTops));
  if (id === 0) {
    const ist = new Map<number, number>([[2, IST.NMI], [8, IST.DF], [18, IST.MC]]);
    yield* cpu.storeBytes(idt, encodeIdt(k.locore.vectors, ist));
  }

  const at = (offset: number) => gva(globaldata + BigInt(offset));
  yield* cpu.storeBytes(at(GD.gdtr), encodePseudoDescriptor(tables, GDT_BYTES));
  yield* cpu.storeBytes(at(GD.idtr), encodePseudoDescriptor(idt, IDT_BYTES));
  const smep = (yield* cpu.load32(gva(k.locore.cpuFeature7))) & CPUID7_SMEP;
  const words: readonly (readonly [number, bigint])[] = [
    [GD.cr4, CR4_KERNEL | (smep ? CR4_SMEP : 0n)],
    [GD.self, globaldata],
    [GD.star, (BigInt(SELECTOR.UCODE32) << 48n) | (BigInt(SELECTOR.KCODE) << 32n)],
    [GD.lstar, k.locore.fastSyscall],
    [GD.sfmask, SFMASK],
    [GD.kernelStack, stackTop],
    [GD.cpuid, BigInt(id)],
  ];
  for (const [offset, value] of words) yield* cpu.store64(at(offset), value);
  return { id, globaldata, stackTop };
}

/** What the kernel says at its start. */
export function* cpuStartup(k: Kernel, cpu: GateCpu): Exec<void> {
  if (k.options.verbose === false) return;
  const mib = Math.floor(k.memoryBytes / 0x10_0000);
  yield* kprint(
    cpu,
    `exuvia: kernel at 0x${(KERNBASE + BigInt(KERNLOAD)).toString(16)}, ${mib} MiB of memory\n`,
  );
  yield* kprint(
    cpu,
    `exuvia: direct map at 0x${
      physToDmap(hpa(0)).toString(16)
    }, ${k.pages.free} of ${k.pages.total} pages free\n`,
  );
  const smep = (yield* cpu.load32(gva(k.locore.cpuFeature7))) & CPUID7_SMEP;
  yield* kprint(
    cpu,
    `cpu0: long mode, NX, WP${smep ? ", SMEP" : ""}; trampoline at 0x${MPTRAMPOLINE.toString(16)}\n`,
  );
}
