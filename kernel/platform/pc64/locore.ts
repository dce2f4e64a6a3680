/**
 * The kernel's machine code: 32-bit multiboot entry, the way to long mode, vectors, system-call entry, return to user, and
 * the trampoline that other processors start in. What DragonFly has in `locore.s`, `exception.S`, `mpboot.S`.
 *
 * Room: `kernel/platform/pc64/`; imports the assembler, the layout and the frame. All decisions are in TypeScript: the code here
 * saves registers, enters a gate and restores registers.
 *
 * Life of the image:
 *
 *     start (32-bit, EBX at the multiboot information)
 *       -> long mode on boot tables (1 GiB at 0, in the direct map and at KERNBASE)
 *       -> GATE hammer_time: builds page tables and the boot processor's GDT, IDT, TSS; RDI at its globaldata
 *       -> cpu_init: loads them
 *       -> GATE mi_startup: starts the other processors, the kernel's threads and process 1, and is idle from then on
 *     any vector, SYSCALL
 *       -> frame on the kernel stack -> GATE trap or syscall2 -> doreti
 *     a thread's first switch
 *       -> fork_trampoline -> GATE lwkt_trampoline: the thread's function, or back for an lwp -> doreti
 *
 * @module
 */
import { Assembler } from "./assembler.ts";
import { GD } from "./globaldata.ts";
import { T_FAST_SYSCALL, TF, TF_REGISTERS, TF_SAVED_BYTES } from "./frame.ts";
import { PCB, PCB_USER } from "./pcb.ts";
import type { SupervisorCode } from "../supervisor.ts";
import { vmxStub } from "./vmx_stub.ts";
import { DMPML4I, KERNBASE, KERNLOAD, KPML4I, MPTRAMPOLINE, SELECTOR } from "./vmparam.ts";

/** Gate numbers that the code of every kernel in ring 0 enters. */
export interface SupervisorGates {
  /** Any exception or interrupt. */
  readonly trap: number;
  /** A system call. */
  readonly syscall2: number;
  /** First TypeScript of a new thread; comes back for an lwp, whose frame is then on the stack. */
  readonly lwktTrampoline: number;
}

/** Gate numbers that the code enters. */
export interface LocoreGates extends SupervisorGates {
  /** Early start of the boot processor: gives the direct-map address of its globaldata. */
  readonly hammerTime: number;
  /** The rest of the start, on the kernel's own tables. */
  readonly miStartup: number;
  /** The same for another processor. */
  readonly apInit: number;
}

/** The image and what TypeScript must know of it. */
export interface Locore extends SupervisorCode {
  /** An ELF32 multiboot image. */
  readonly image: Uint8Array<ArrayBuffer>;
  /** Bytes of code, from KERNLOAD; the pages behind are data. */
  readonly textBytes: number;
  /** Bytes in memory, from KERNLOAD. */
  readonly bytes: number;
  /** Linear address of `doreti`. */
  readonly doreti: bigint;
  /** Entry into a guest (vmx_stub.ts): RDI = its frame, ESI = whether its VMCS has been launched. */
  readonly vmxEnter: bigint;
  /** Where exits from guests go. */
  readonly vmxExit: bigint;
  /** The start-up page's bytes, to be copied to MPTRAMPOLINE. */
  readonly trampoline: Uint8Array<ArrayBuffer>;
}

const MSR_EFER = 0xc000_0080;
const MSR_STAR = 0xc000_0081;
const MSR_LSTAR = 0xc000_0082;
const MSR_SFMASK = 0xc000_0084;
const MSR_FSBASE = 0xc000_0100;
const MSR_GSBASE = 0xc000_0101;
const MSR_KGSBASE = 0xc000_0102;

const CR0_KERNEL = 0x8005_0033; // PG AM WP NE ET MP PE
const CR4_BOOT = 0x6a0; // PAE PGE OSFXSR OSXMMEXCPT
const EFER_KERNEL = 0x901; // NXE LME SCE

/** Selector of the boot GDT's 32-bit code segment. */
const BOOT_CODE32 = 0x18;

const MULTIBOOT_MAGIC = 0x1bad_b002;
/** Modules on page boundaries, memory information. */
const MULTIBOOT_FLAGS = 0x3;

/** Vectors that push an error code (SDM vol. 3A, "Exception and Interrupt Reference"). */
const WITH_ERROR_CODE = new Set([8, 10, 11, 12, 13, 14, 17, 21]);
/** Vectors that may hit between SYSCALL and SWAPGS and so must look at the GS base itself: NMI, #DF, #MC. */
const PARANOID = new Set([2, 8, 18]);

const PTE_TABLE = 0x03; // P W
const PTE_PAGE_2M = 0x83n; // P W PS

/** Builds the image. */
export function buildLocore(gates: LocoreGates): Locore {
  const a = new Assembler(KERNLOAD, KERNBASE + BigInt(KERNLOAD));
  multibootHeader(a);
  entry32(a);
  entry64(a, gates);
  supervisorCode(a, gates);
  vmxStub(a);
  a.align(16);
  const trampolineStart = a.here;
  trampoline16(a);
  const trampolineEnd = a.here;
  a.align(4096);
  const textBytes = a.here;
  data(a);
  const flat = a.finish();
  return {
    image: wrapElf32(flat, a.physical("start")),
    textBytes,
    bytes: flat.length,
    ...supervisorAddresses(a),
    doreti: a.virtual("doreti"),
    vmxEnter: a.virtual("vmx_enter"),
    vmxExit: a.virtual("vmx_exit"),
    trampoline: flat.slice(trampolineStart, trampolineEnd),
  };
}

/** Vectors, system calls, the way back, threads: what every kernel in ring 0 has. */
export function supervisorCode(a: Assembler, gates: SupervisorGates): void {
  vectors(a, gates);
  syscallEntry(a, gates);
  returnToUser(a);
  threads(a, gates);
}

/** Addresses of {@link supervisorCode} and {@link supervisorData}. */
export function supervisorAddresses(a: Assembler): SupervisorCode {
  return {
    vectors: Array.from({ length: 256 }, (_, n) => a.virtual(`vector${n}`)),
    fastSyscall: a.virtual("fast_syscall"),
    cpuHeavySwitch: a.virtual("cpu_heavy_switch"),
    forkTrampoline: a.virtual("fork_trampoline"),
    fpuSave: a.virtual("fpu_save"),
    fpuLoad: a.virtual("fpu_load"),
    basesLoad: a.virtual("bases_load"),
    apGlobaldata: a.virtual("ap_globaldata"),
    kernelPml4: a.virtual("kernel_pml4"),
    cpuFeature7: a.virtual("cpu_feature7"),
  };
}

/** Words that the start of a processor reads. */
export function supervisorData(a: Assembler): void {
  a.align(8, 0).label("ap_globaldata").dq(0n);
  a.label("kernel_pml4").dq(0n);
  a.label("cpu_feature7").dq(0n);
}

function multibootHeader(a: Assembler): void {
  a.dd(MULTIBOOT_MAGIC).dd(MULTIBOOT_FLAGS).dd(-(MULTIBOOT_MAGIC + MULTIBOOT_FLAGS));
}

/** 32-bit entries of the boot processor and of the others (EBP = 0 or 1); both end at start64. */
function entry32(a: Assembler): void {
  a.align(16).label("start");
  a.cli().cld();
  a.movImmediate32("rbp", 0);
  a.jump("long_mode");
  a.label("ap_start32");
  a.db(0x66, 0xb8).dw(SELECTOR.KDATA); // mov ax, KDATA
  a.db(0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0); // mov ds, es, ss
  a.movImmediate32("rbp", 1);
  a.label("long_mode");
  a.movImmediate32("rax", CR4_BOOT).movToControl(4);
  a.db(0xb8).address("boot_pml4", "physical32").movToControl(3); // mov eax, boot_pml4
  a.movImmediate32("rcx", MSR_EFER).movImmediate32("rax", EFER_KERNEL).movImmediate32("rdx", 0).wrmsr();
  a.movImmediate32("rax", CR0_KERNEL).movToControl(0);
  a.db(0x0f, 0x01, 0x15).address("boot_gdtr", "physical32"); // lgdt
  a.db(0xea).address("start64", "physical32").dw(SELECTOR.KCODE); // jmp far
}

/** First 64-bit code, at its physical address; then at its linear one. */
function entry64(a: Assembler, gates: LocoreGates): void {
  a.align(16).label("start64");
  a.movImmediate32("rax", SELECTOR.KDATA);
  a.db(0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0); // mov ds, es, ss
  a.movAddress("rax", "high").db(0xff, 0xe0); // jmp rax
  a.label("high");
  a.db(0x89, 0xdf); // mov edi, ebx: multiboot information, before CPUID overwrites RBX
  a.db(0x85, 0xed).jumpIf("nz", "ap_high"); // test ebp, ebp
  readCpuFeature7(a);
  a.movAddress("rsp", "boot_stack_top");
  a.gate(gates.hammerTime).move("rdi", "rax");
  cpuInit(a, "bsp");
  a.gate(gates.miStartup); // becomes the processor's idle thread

  a.label("ap_high");
  apHigh(a);
  a.gate(gates.apInit); // becomes the processor's idle thread
}

/** Another processor: onto the kernel's tables, and what its globaldata says. */
export function apHigh(a: Assembler): void {
  a.movAddress("rax", "kernel_pml4").load("rax", "rax", 0).movToControl(3);
  a.movAddress("rax", "ap_globaldata").load("rdi", "rax", 0);
  cpuInit(a, "ap");
}

/** CPUID leaf 7's EBX to its word. */
export function readCpuFeature7(a: Assembler): void {
  a.movImmediate32("rax", 7).movImmediate32("rcx", 0).db(0x0f, 0xa2); // cpuid
  a.movAddress("rax", "cpu_feature7").db(0x89, 0x18); // mov [rax], ebx
}

/** Loads what globaldata at RDI says: CR4, GDT, IDT, TSS, GS base, SYSCALL registers, stack. */
export function cpuInit(a: Assembler, which: string): void {
  a.load("rax", "rdi", GD.cr4).movToControl(4);
  a.load("rsp", "rdi", GD.kernelStack);
  a.lgdt("rdi", GD.gdtr).lidt("rdi", GD.idtr);
  a.pushImmediate(SELECTOR.KCODE).movAddress("rax", `cpu_init_${which}`).push("rax").db(0x48, 0xcb); // retfq
  a.label(`cpu_init_${which}`);
  a.movImmediate32("rax", SELECTOR.KDATA);
  a.db(0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0); // mov ds, es, ss
  a.movImmediate32("rax", 0).db(0x8e, 0xe0, 0x8e, 0xe8); // mov fs, gs
  a.movImmediate32("rax", SELECTOR.TSS).ltr();
  a.writeMsrFrom(MSR_GSBASE, GD.self);
  a.writeMsrFrom(MSR_KGSBASE, GD.zero);
  a.writeMsrFrom(MSR_STAR, GD.star);
  a.writeMsrFrom(MSR_LSTAR, GD.lstar);
  a.writeMsrFrom(MSR_SFMASK, GD.sfmask);
}

function saveRegisters(a: Assembler): void {
  a.adjustStack(-TF_SAVED_BYTES);
  for (const name of TF_REGISTERS) a.storeStack(TF[name], name);
}

function vectors(a: Assembler, gates: SupervisorGates): void {
  for (let n = 0; n < 256; n++) {
    a.align(16).label(`vector${n}`);
    if (!WITH_ERROR_CODE.has(n)) a.pushImmediate(0); // tf_err
    a.pushImmediate(0).pushImmediate(0); // tf_flags, tf_addr
    a.pushImmediate(n).jump(PARANOID.has(n) ? "paranoid" : "alltraps"); // tf_trapno
  }

  a.align(16).label("alltraps");
  saveRegisters(a);
  a.movImmediate32("rbx", 0);
  a.testStack(TF.cs, 3).jumpIf("z", "alltraps_kernel");
  a.swapgs().movImmediate32("rbx", 1);
  a.label("alltraps_kernel");
  a.storeStack(TF.xflags, "rbx").movFromCr2().storeStack(TF.addr, "rax");
  a.cld().move("rdi", "rsp").gate(gates.trap).jump("doreti");

  // The privilege level does not tell whose GS base is in force; its sign does, since the kernel's addresses are negative.
  a.align(16).label("paranoid");
  saveRegisters(a);
  a.movImmediate32("rbx", 0);
  a.movImmediate32("rcx", MSR_GSBASE).rdmsr().db(0x85, 0xd2).jumpIf("s", "alltraps_kernel"); // test edx, edx
  a.swapgs().movImmediate32("rbx", 1).jump("alltraps_kernel");
}

/** SYSCALL: RCX = user RIP, R11 = user RFLAGS, interrupts masked, still on the user's stack. */
function syscallEntry(a: Assembler, gates: SupervisorGates): void {
  a.align(16).label("fast_syscall");
  a.swapgs().storeGs(GD.scratchRsp, "rsp").loadGs("rsp", GD.kernelStack);
  a.pushImmediate(SELECTOR.UDATA).pushGs(GD.scratchRsp).push("r11").pushImmediate(SELECTOR.UCODE).push("rcx");
  a.pushImmediate(2).pushImmediate(0).pushImmediate(0).pushImmediate(T_FAST_SYSCALL); // tf_err = length of SYSCALL
  saveRegisters(a);
  a.movImmediate32("rbx", 1).storeStack(TF.xflags, "rbx");
  a.cld().move("rdi", "rsp").gate(gates.syscall2).jump("doreti");
}

/** Leaves by the frame at RSP. IRETQ and not SYSRET: a frame may hold any RIP, and SYSRET to a non-canonical one faults in ring 0. */
function returnToUser(a: Assembler): void {
  a.align(16).label("doreti");
  a.cli().loadStack("rbx", TF.xflags).db(0x85, 0xdb).jumpIf("z", "doreti_kernel"); // test ebx, ebx
  a.swapgs();
  a.label("doreti_kernel");
  for (const name of TF_REGISTERS) a.loadStack(name, TF[name]);
  a.adjustStack(TF.rip).iretq();
}

/** Threads: the switch, and where a new one begins. */
function threads(a: Assembler, gates: SupervisorGates): void {
  a.align(16).label("cpu_heavy_switch");
  a.store("rdi", PCB.rsp, "rsp").store("rdi", PCB.r15, "r15");
  a.testByte("rdi", PCB.flags, PCB_USER).jumpIf("z", "switch_load").fxsave("rdi", PCB.fpu);
  a.label("switch_load").move("rdi", "rsi");
  a.load("rax", "rdi", PCB.kernelStack).storeGs(GD.kernelStack, "rax");
  a.loadGs("rcx", GD.tss).store("rcx", TSS_RSP0, "rax");
  a.load("rsp", "rdi", PCB.rsp).load("r15", "rdi", PCB.r15);
  a.testByte("rdi", PCB.flags, PCB_USER).jumpIf("z", "switch_done").fxrstor("rdi", PCB.fpu);
  a.label("bases_load");
  a.writeMsrFrom(MSR_FSBASE, PCB.fsBase).writeMsrFrom(MSR_KGSBASE, PCB.gsBase);
  a.label("switch_done").ret();

  a.align(16).label("fork_trampoline").gate(gates.lwktTrampoline).jump("doreti");
  a.align(16).label("fpu_save").fxsave("rdi", PCB.fpu).ret();
  a.label("fpu_load").fxrstor("rdi", PCB.fpu).ret();
}

/** Where a start-up IPI begins, in 16-bit real mode at MPTRAMPOLINE. */
function trampoline16(a: Assembler): void {
  const start = a.here;
  a.label("mp_trampoline");
  a.cli().db(0x8c, 0xc8, 0x8e, 0xd8); // mov ax, cs; mov ds, ax
  a.db(0x66, 0x0f, 0x01, 0x16); // o32 lgdt [disp16]
  const gdtrAt = a.here;
  a.dw(0);
  a.db(0x0f, 0x20, 0xc0, 0x66, 0x83, 0xc8, 0x01, 0x0f, 0x22, 0xc0); // mov eax, cr0; or eax, 1; mov cr0, eax
  a.db(0x66, 0xea).address("ap_start32", "physical32").dw(BOOT_CODE32); // jmp far
  a.align(8, 0);
  const gdtrOffset = a.here - start;
  a.patch16(gdtrAt, gdtrOffset);
  a.dw(BOOT_GDT.length * 8 - 1).address("boot_gdt", "physical32");
  if (a.here - start > 4096) throw new Error(`The trampoline at ${MPTRAMPOLINE} does not fit its page`);
}

/** Descriptors of the boot GDT: null, 64-bit code, data, 32-bit code. */
const BOOT_GDT = [0n, 0x00af_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn, 0x00cf_9b00_0000_ffffn] as const;

/** Offset of RSP0 in the TSS. */
const TSS_RSP0 = 4;
/** Bytes of the stack that the boot processor has until it is on its own tables. */
const BOOT_STACK_BYTES = 4096;

function data(a: Assembler): void {
  a.label("boot_pml4");
  const tables: Record<number, string> = {
    0: "boot_pdpt",
    [DMPML4I]: "boot_pdpt",
    [KPML4I]: "boot_pdpt_high",
  };
  for (let i = 0; i < 512; i++) tableEntry(a, tables[i]);
  a.label("boot_pdpt");
  for (let i = 0; i < 512; i++) tableEntry(a, i === 0 ? "boot_pd" : undefined);
  a.label("boot_pdpt_high");
  for (let i = 0; i < 512; i++) tableEntry(a, i === 510 ? "boot_pd" : undefined);
  a.label("boot_pd");
  for (let i = 0; i < 512; i++) a.dq((BigInt(i) << 21n) | PTE_PAGE_2M);
  a.space(BOOT_STACK_BYTES).label("boot_stack_top");
  a.label("boot_gdt");
  for (const descriptor of BOOT_GDT) a.dq(descriptor);
  a.label("boot_gdtr").dw(BOOT_GDT.length * 8 - 1).address("boot_gdt", "physical32");
  supervisorData(a);
  a.align(4096, 0);
}

function tableEntry(a: Assembler, label: string | undefined): void {
  if (label === undefined) a.dq(0n);
  else a.address(label, "physical32", PTE_TABLE).dd(0);
}

/** An ELF32 file with one segment: what a multiboot loader wants. */
function wrapElf32(flat: Uint8Array, entry: number): Uint8Array<ArrayBuffer> {
  const headerBytes = 52 + 32;
  // The multiboot header must stand in the first 8 KiB of the file; the segment starts on the next 4 bytes.
  const offset = 0x80;
  const out = new Uint8Array(offset + flat.length);
  const view = new DataView(out.buffer);
  out.set([0x7f, 0x45, 0x4c, 0x46, 1, 1, 1]); // ELF, 32-bit, little-endian
  view.setUint16(16, 2, true); // ET_EXEC
  view.setUint16(18, 3, true); // EM_386
  view.setUint32(20, 1, true);
  view.setUint32(24, entry, true);
  view.setUint32(28, 52, true); // program headers
  view.setUint16(40, 52, true);
  view.setUint16(42, 32, true);
  view.setUint16(44, 1, true);
  const fields = [1, offset, KERNLOAD, KERNLOAD, flat.length, flat.length, 7, 4];
  fields.forEach((value, i) => view.setUint32(52 + i * 4, value, true));
  if (headerBytes > offset) throw new Error("The ELF header does not fit before the segment");
  out.set(flat, offset);
  return out;
}
