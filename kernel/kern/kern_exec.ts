/**
 * Starting and ending programs (`kern_exec.c`, `kern_exit.c`).
 *
 * Room: `kernel/kern/`; imports vm, pmap and the platform. One program runs at a time; when it ends the next one starts.
 *
 * @module
 */
import { gva, type Hpa, PAGE_SIZE } from "../../hw/address.ts";
import type { Exec, GateCpu } from "../../hw/gates.ts";
import type { Kernel, Proc, ProcessEnd, Program } from "../kernel.ts";
import { OutOfPages, type Pmap, pmapEnter, pmapPinit, pmapRelease } from "../pmap/pmap.ts";
import { acpiPowerOff } from "../platform/pc64/acpi.ts";
import { kprint } from "../platform/pc64/console.ts";
import { encodeTrapframe, TF_BYTES, TF_FLAG_FRESH } from "../platform/pc64/frame.ts";
import {
  DMPML4I,
  KPML4I,
  physToDmap,
  SELECTOR,
  USER_STACK_BYTES,
  USRSTACK,
} from "../platform/pc64/vmparam.ts";
import { vmPageAllocZero } from "../vm/vm_page.ts";
import { type ElfSegment, parseElf64 } from "./imgact_elf.ts";

/** Most bytes of argument and environment strings together (`ARG_MAX`, scaled to the stack). */
export const ARG_MAX = 0x1_0000;

/** RFLAGS of a fresh program: IF and the bit that is always set. */
const USER_RFLAGS = 0x202n;
/** Number of the RSP register. */
const RSP = 4;
/** Auxiliary vector: end, and page size. */
const AT_NULL = 0n;
const AT_PAGESZ = 6n;

/**
 * Starts the next program that can be started: on return RSP is at its frame, so that doreti enters it. When none is left, stops
 * the machine's processor.
 */
export function* startNextProgram(k: Kernel, cpu: GateCpu): Exec<void> {
  for (;;) {
    const index = k.nextProgram++;
    const program = k.options.programs[index];
    if (program === undefined) return yield* halt(k, cpu);
    const reason = yield* execve(k, cpu, program, index);
    if (reason === undefined) return;
    yield* kprint(cpu, `exec: cannot run "${program.name}": ${reason}\n`);
    k.ends.push({ kind: "not started", reason });
  }
}

/** Ends the running program (`exit1`) and starts the next one. */
export function* exit1(k: Kernel, cpu: GateCpu, end: ProcessEnd): Exec<void> {
  const proc = k.curproc;
  if (proc !== undefined) {
    k.curproc = undefined;
    yield* cpu.loadCr3(BigInt(k.pmap.pml4));
    vmspaceRelease(k, cpu, proc.pmap, proc.pages);
  }
  k.ends.push(end);
  yield* startNextProgram(k, cpu);
}

/** Nothing is left to run: powers the machine off, or stands still if it has no such thing. */
function* halt(k: Kernel, cpu: GateCpu): Exec<void> {
  if (k.options.verbose !== false) yield* kprint(cpu, "exuvia: all programs have ended, powering off\n");
  k.halted = true;
  yield* acpiPowerOff(cpu);
  for (;;) yield* cpu.hlt();
}

/** Builds the program's address space and its first frame; a text says why it cannot run. */
function* execve(k: Kernel, cpu: GateCpu, program: Program, index: number): Exec<string | undefined> {
  const module = k.modules[index];
  if (module === undefined) return "the loader did not bring it";
  const file = yield* cpu.loadBytes(physToDmap(module.start), module.end - module.start);
  const image = parseElf64(file);
  if (typeof image === "string") return image;
  const argv = program.argv ?? [program.name];
  const strings = [...argv, ...(program.envp ?? [])].reduce((sum, s) => sum + s.length * 3 + 1, 0);
  if (strings > ARG_MAX) return `its arguments and environment are longer than ${ARG_MAX} bytes`;

  const pages: Hpa[] = [];
  let pmap: Pmap | undefined;
  try {
    const slots = [...Array.from({ length: 64 }, (_, i) => DMPML4I + i), KPML4I];
    pmap = yield* pmapPinit(cpu, k.pages, { pmap: k.pmap, slots });
    for (const segment of image.segments) yield* mapSegment(k, cpu, { pmap, pages, segment, file });
    const stack = buildStack(argv, program.envp ?? []);
    yield* mapStack(k, cpu, { pmap, pages, stack: stack.bytes });
    const proc: Proc = { pid: k.nextPid++, name: program.name, pmap, pages };
    k.curproc = proc;
    yield* cpu.loadCr3(BigInt(pmap.pml4));
    yield* firstFrame(k, cpu, { entry: image.entry, rsp: stack.rsp });
    return undefined;
  } catch (error) {
    if (!(error instanceof OutOfPages)) throw error;
    if (pmap !== undefined) vmspaceRelease(k, cpu, pmap, pages);
    return "there is not enough memory for it";
  }
}

/** Frees an address space. No processor has it active; what TypeScript ran in it must not go on in whatever gets its pages next. */
function vmspaceRelease(k: Kernel, cpu: GateCpu, pmap: Pmap, pages: Hpa[]): void {
  cpu.gates.dropAddressSpace(pmap.pml4);
  for (const page of pages.splice(0)) k.pages.release(page);
  pmapRelease(k.pages, pmap);
}

interface SegmentMapping {
  readonly pmap: Pmap;
  readonly pages: Hpa[];
  readonly segment: ElfSegment;
  readonly file: Uint8Array;
}

function* mapSegment(k: Kernel, cpu: GateCpu, { pmap, pages, segment, file }: SegmentMapping): Exec<void> {
  const first = segment.va & ~BigInt(PAGE_SIZE - 1);
  const end = segment.va + BigInt(segment.memoryBytes);
  const protection = { write: segment.write, execute: segment.execute, user: true };
  for (let va = first; va < end; va += BigInt(PAGE_SIZE)) {
    const pa = yield* userPage(k, cpu, pages);
    yield* pmapEnter(cpu, k.pages, pmap, { va: gva(va), pa, protection });
    // The part of the file's bytes that falls into this page.
    const from = Math.max(0, Number(va - segment.va));
    const to = Math.min(segment.fileBytes, Number(va - segment.va) + PAGE_SIZE);
    if (from >= to) continue;
    const inPage = Number(segment.va + BigInt(from) - va);
    const bytes = file.subarray(segment.fileOffset + from, segment.fileOffset + to);
    yield* cpu.storeBytes(gva(physToDmap(pa) + BigInt(inPage)), bytes);
  }
}

function* userPage(k: Kernel, cpu: GateCpu, pages: Hpa[]): Exec<Hpa> {
  const page = yield* vmPageAllocZero(cpu, k.pages);
  if (page === undefined) throw new OutOfPages("No page is left for a program");
  pages.push(page);
  return page;
}

/** Maps the user stack; `stack` are the bytes at its top. */
function* mapStack(
  k: Kernel,
  cpu: GateCpu,
  { pmap, pages, stack }: { readonly pmap: Pmap; readonly pages: Hpa[]; readonly stack: Uint8Array },
): Exec<void> {
  const protection = { write: true, execute: false, user: true };
  const bottom = USRSTACK - BigInt(USER_STACK_BYTES);
  for (let offset = 0; offset < USER_STACK_BYTES; offset += PAGE_SIZE) {
    const pa = yield* userPage(k, cpu, pages);
    yield* pmapEnter(cpu, k.pages, pmap, { va: gva(bottom + BigInt(offset)), pa, protection });
    const from = offset - (USER_STACK_BYTES - stack.length);
    if (from + PAGE_SIZE <= 0) continue;
    const inPage = Math.max(0, -from);
    yield* cpu.storeBytes(
      gva(physToDmap(pa) + BigInt(inPage)),
      stack.subarray(Math.max(0, from), from + PAGE_SIZE),
    );
  }
}

/**
 * What stands at the top of a new stack, as the System V ABI has it:
 *
 *     rsp -> argc, argv[0] … NULL, envp[0] … NULL, auxiliary vector, strings
 */
export function buildStack(
  argv: readonly string[],
  envp: readonly string[],
): { readonly bytes: Uint8Array; readonly rsp: bigint } {
  const encoder = new TextEncoder();
  const strings = [...argv, ...envp].map((s) => encoder.encode(s.replaceAll("\0", "") + "\0"));
  const stringBytes = strings.reduce((sum, s) => sum + s.length, 0);
  const words = 1 + argv.length + 1 + envp.length + 1 + 4;
  const total = Math.ceil((words * 8 + stringBytes) / 16) * 16;
  const rsp = USRSTACK - BigInt(total);
  const bytes = new Uint8Array(total);
  const view = new DataView(bytes.buffer);
  let at = words * 8;
  const pointers = strings.map((s) => {
    bytes.set(s, at);
    const pointer = rsp + BigInt(at);
    at += s.length;
    return pointer;
  });
  const vector = [
    BigInt(argv.length),
    ...pointers.slice(0, argv.length),
    0n,
    ...pointers.slice(argv.length),
    0n,
    AT_PAGESZ,
    BigInt(PAGE_SIZE),
    AT_NULL,
    0n,
  ];
  vector.forEach((word, i) => view.setBigUint64(i * 8, word, true));
  return { bytes, rsp };
}

/** Puts the program's first frame at the top of the kernel stack and RSP at it. */
function* firstFrame(k: Kernel, cpu: GateCpu, { entry, rsp }: { entry: bigint; rsp: bigint }): Exec<void> {
  const me = k.cpus[cpu.cpu.id];
  if (me === undefined) cpu.panic("exec: this processor has no kernel stack");
  const frame = gva(me.stackTop - BigInt(TF_BYTES));
  yield* cpu.storeBytes(
    frame,
    encodeTrapframe({
      rdi: rsp,
      xflags: 1n,
      flags: BigInt(TF_FLAG_FRESH),
      rip: entry,
      cs: BigInt(SELECTOR.UCODE),
      rflags: USER_RFLAGS,
      rsp,
      ss: BigInt(SELECTOR.UDATA),
    }),
  );
  cpu.setGpr(RSP, frame);
}
