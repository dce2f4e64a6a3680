/**
 * Hunts for what went wrong in the VMM: translations that outlive what they were made from, VMCSs on two processors, bits that the hardware sets
 * last.
 *
 * Room: `lab/bugs/`; imports the stage and the kernel.
 *
 * Each guest is a process whose few instructions run in non-root operation. Its page tables map its memory at its own addresses, so that linear and
 * guest-physical ones are the same; a second set of tables is for a guest of its own.
 *
 * @module
 */
import { type Gva, gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../../kernel/context.ts";
import { copyout, suword } from "../../kernel/kern/copy.ts";
import { type SyscallArgs, type SyscallResult, type Sysent } from "../../kernel/kern/sysent.ts";
import { lwktSetcpuSelf, lwktYield } from "../../kernel/lwkt/thread.ts";
import { Assembler } from "../../kernel/platform/pc64/assembler.ts";
import { encodeTrapframe, TF_BYTES } from "../../kernel/platform/pc64/frame.ts";
import { SELECTOR } from "../../kernel/platform/pc64/vmparam.ts";
import { PG_RW_IDX, PG_U_IDX, PG_V_IDX, REGULAR_FORMAT } from "../../kernel/pmap/pmap_bits.ts";
import { kernWait } from "../../kernel/proc/kern_exit.ts";
import { VMM_GUEST_RUN, VMM_OPTIONS, VMM_OPTIONS_BYTES } from "../../kernel/vmm/vmm.ts";
import { MAP, SYS } from "./mill.ts";
import { type Stage, system } from "./stage.ts";

const { pmapBits } = REGULAR_FORMAT;
const VRWU = pmapBits[PG_V_IDX]! | pmapBits[PG_RW_IDX]! | pmapBits[PG_U_IDX]!;
const NR = {
  exit: 1,
  getpid: 20,
  kill: 37,
  munmap: 73,
  mmap: 197,
  create: 486,
  ctl: 488,
  lwpCreate: 495,
  guestCtl: 534,
  sync: 535,
  migrate: 600,
} as const;

const PAGE = 4096n;
/** The guest's memory, 64 pages of it. */
const MEMORY = 0x1000_0000n, PAGES = 64n;
const at = (page: number): bigint => MEMORY + BigInt(page) * PAGE;
/** Its pages. */
const TABLES = [0, 1, 2, 3] as const, TABLES2 = [4, 5, 6, 7] as const;
const STACK = at(16),
  STACK2 = at(20),
  CODE = at(24),
  CODE2 = at(25),
  FRAME = at(26),
  WORDS = at(27),
  DATA = at(40);

/** migrate(cpu): not a call of any system; the hunts' way to choose a processor. */
function* migrate(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  yield* lwktSetcpuSelf(cx, cx.k.lwkt.gds[uap.int(0) % cx.k.ncpus]!);
  return { value: 0n };
}

/** A system call with constant arguments. */
function call(a: Assembler, number: number, ...args: readonly bigint[]): Assembler {
  const registers = ["rdi", "rsi", "rdx", "r10", "r8", "r9"] as const;
  args.forEach((arg, i) => a.movImmediate(registers[i]!, BigInt.asUintN(64, arg)));
  return a.movImmediate32("rax", number).db(0x0f, 0x05);
}
function exit(a: Assembler, status: number): Assembler {
  return call(a, NR.exit, BigInt(status));
}
/** `mov qword [address], value`; uses RBX and RCX. */
function store(a: Assembler, address: bigint, value: bigint): Assembler {
  return a.movImmediate("rbx", address).movImmediate("rcx", value).store("rbx", 0, "rcx");
}
/** Goes to `label` if the word at `address` is not `value`; uses RAX, RBX and RCX. */
function unless(a: Assembler, address: bigint, value: bigint, label: string): Assembler {
  a.movImmediate("rbx", address).load("rax", "rbx", 0).movImmediate("rcx", value);
  return a.db(0x48, 0x39, 0xc8).jumpIf("nz", label); // cmp rax, rcx
}
/** Repeats a piece so many times; RBP counts. */
function times(a: Assembler, label: string, count: number, piece: () => void): Assembler {
  a.movImmediate32("rbp", count).label(label);
  piece();
  return a.db(0xff, 0xcd).jumpIf("nz", label); // dec ebp
}

function* must(cx: Cx, what: string, number: number, ...words: bigint[]): Exec<void> {
  const error = yield* system(cx, number, ...words);
  if (error !== 0) throw new Error(`${what} failed with error ${error}`);
}

/** Tables that map pages of the memory at their own addresses. */
function* map(
  cx: Cx,
  tables: readonly [number, number, number, number],
  pages: readonly bigint[],
): Exec<void> {
  for (let i = 0; i < 3; i++) {
    const slot = (MEMORY >> BigInt(39 - 9 * i)) & 511n;
    yield* suword(cx, at(tables[i]!) + slot * 8n, at(tables[i + 1]!) | VRWU);
  }
  for (const page of pages) yield* suword(cx, at(tables[3]) + ((page >> 12n) & 511n) * 8n, page | VRWU);
}

/** The address of the entry for a page in a set of tables. */
function entry(tables: readonly number[], page: bigint): bigint {
  return at(tables[3]!) + ((page >> 12n) & 511n) * 8n;
}

/** What a guest is made of. */
interface GuestCode {
  /** The vkernel's code. */
  readonly main: (a: Assembler) => void;
  /** Code of its own guest, in the second tables, with the page {@link DATA}. */
  readonly inner?: (a: Assembler) => void;
}

/** Makes a child that becomes a guest on a processor; its number. It ends with its code's exit. */
function guest(cx: Cx, stage: Stage, cpu: number, { main, inner }: GuestCode): Exec<number> {
  return stage.child(cx, "copy", cpu, function* (inside) {
    const p = inside.proc!, table = new Map(p.pSysent!.svTable);
    table.set(NR.migrate, [NR.migrate, "migrate", 1, migrate] satisfies Sysent);
    p.pSysent = { ...p.pSysent!, svTable: table };
    inside.k.vmMap.vkernelEnable = true;
    const flags = MAP.ANON | MAP.PRIVATE | MAP.FIXED;
    yield* must(inside, "mmap", SYS.mmap, MEMORY, PAGES * PAGE, 7n, flags, -1n, 0n, 0n);
    const all = Array.from({ length: Number(PAGES) }, (_, i) => at(i));
    yield* map(inside, TABLES, all);
    yield* map(inside, TABLES2, [CODE2, DATA]);
    yield* copyout(inside, CODE, assemble(CODE, main));
    if (inner !== undefined) {
      yield* copyout(inside, CODE2, assemble(CODE2, inner));
      yield* must(inside, "vmspace_create", NR.create, at(TABLES2[0]), 0n, 0n);
      yield* copyout(inside, FRAME, encodeTrapframe({ rip: CODE2, rflags: 0x202n }));
    }
    const options = new Uint8Array(VMM_OPTIONS_BYTES), view = new DataView(options.buffer);
    view.setBigUint64(VMM_OPTIONS.guestCr3, at(TABLES[0]), true);
    options[VMM_OPTIONS.master] = 1;
    yield* copyout(inside, WORDS, options);
    const own = encodeTrapframe({
      rip: CODE,
      rsp: STACK,
      rflags: 0x202n,
      xflags: 1n,
      cs: BigInt(SELECTOR.UCODE),
      ss: BigInt(SELECTOR.UDATA),
    });
    const frame: Gva = gva(inside.td.tdPcb - BigInt(TF_BYTES));
    yield* inside.cpu.storeBytes(frame, own);
    inside.lwp!.lwpMdRegs = frame;
    yield* must(inside, "vmm_guest_ctl", NR.guestCtl, BigInt(VMM_GUEST_RUN), WORDS);
  });
}

function assemble(where: bigint, build: (a: Assembler) => void): Uint8Array<ArrayBuffer> {
  const a = new Assembler(Number(where), where);
  build(a);
  return a.finish();
}

/** Waits for so many guests; their statuses must be 0. */
function* ends(cx: Cx, stage: Stage, guests: number): Exec<void> {
  for (let left = guests; left > 0 && stage.failure === undefined; left--) {
    const found = yield* kernWait(cx, -1, 0);
    if (found === 0 || "error" in found) return;
    if (found.status !== 0) stage.fail(`data: a guest has ended with status 0x${found.status.toString(16)}`);
  }
}

/** A thread goes to another processor, where a page of its memory gets another frame, and comes back. */
export function* comeBack(cx: Cx, stage: Stage): Exec<void> {
  yield* guest(cx, stage, 0, {
    main(a) {
      times(a, "again", 3, () => {
        call(a, NR.migrate, 0n);
        store(a, DATA, 1n);
        call(a, NR.migrate, 1n);
        call(a, NR.munmap, DATA, PAGE);
        call(a, NR.mmap, DATA, PAGE, 3n, MAP.ANON | MAP.PRIVATE | MAP.FIXED, -1n, 0n);
        store(a, DATA, 2n);
        call(a, NR.migrate, 0n);
        unless(a, DATA, 2n, "wrong");
      });
      exit(a, 0);
      exit(a.label("wrong"), 7);
    },
  });
  yield* ends(cx, stage, 1);
}

/** Guests one after the other, each with an EPT root of its own, at an address where another's was. */
export function* sameRoot(cx: Cx, stage: Stage): Exec<void> {
  for (let i = 0; i < 10 && stage.failure === undefined; i++) {
    yield* guest(cx, stage, 0, {
      main(a) {
        unless(a, DATA, 0n, "wrong");
        store(a, DATA, BigInt(i + 1));
        unless(a, DATA, BigInt(i + 1), "wrong");
        exit(a, 0);
        exit(a.label("wrong"), 7);
      },
    });
    yield* ends(cx, stage, 1);
  }
}

/** Several guests on few processors, each going from one to the other. */
export function* swapThreads(cx: Cx, stage: Stage): Exec<void> {
  const guests = 4;
  const { counters } = cx.k.vmm;
  for (let i = 0; i < guests; i++) {
    yield* guest(cx, stage, i, {
      main(a) {
        times(a, "again", 20, () => {
          call(a, NR.getpid);
          call(a, NR.migrate, BigInt(i));
          call(a, NR.getpid);
          call(a, NR.migrate, BigInt(i + 1));
        });
        exit(a, 0);
      },
    });
  }
  yield* ends(cx, stage, guests);
  // Each VMCS is cleared when it is made, when it is given back, and for each migration.
  const needed = guests * 2 + counters.migrations;
  // The bug of 2014 is one of the time in which all of them were made.
  if (counters.vmclears > needed && !cx.k.bug("vmx-loaded-before-clear")) {
    stage.fail(`cost: ${counters.vmclears} VMCLEARs where ${needed} were needed`);
  }
}

/** One thread takes a page out of a guest's tables again and again, while the guest, on another processor, stores to it. */
export function* lateModified(cx: Cx, stage: Stage): Exec<void> {
  const slot = entry(TABLES2, DATA), word = WORDS + 0x800n, params = WORDS + 0x900n;
  yield* guest(cx, stage, 0, {
    main(a) {
      // struct lwp_params: func, arg, stack, tid1, tid2
      a.movAddress("rcx", "runner").movImmediate("rbx", params).store("rbx", 0, "rcx");
      store(a, params + 16n, STACK2);
      call(a, NR.lwpCreate, params);
      a.movImmediate32("r12", 0); // the last value seen
      times(a, "again", 20, () => {
        store(a, slot, DATA | VRWU);
        a.movImmediate32("rcx", 60).label("spin").db(0xff, 0xc9).jumpIf("nz", "spin");
        store(a, word, 0n);
        call(a, NR.sync, slot, word);
        a.movImmediate("rbx", DATA).load("r13", "rbx", 0);
        a.db(0x4d, 0x39, 0xe5).jumpIf("z", "same"); // cmp r13, r12
        a.movImmediate("rbx", word).load("rax", "rbx", 0).db(0xa8, 0x40).jumpIf("z", "lost"); // test al, M
        a.label("same").move("r12", "r13");
        a.movImmediate32("rcx", 60).label("rest").db(0xff, 0xc9).jumpIf("nz", "rest");
        a.movImmediate("rbx", DATA).load("rax", "rbx", 0).db(0x4c, 0x39, 0xe8).jumpIf("nz", "stale"); // cmp rax, r13
      });
      a.db(0x4d, 0x85, 0xe4).jumpIf("z", "idle"); // test r12, r12: the guest has run at all
      exit(a, 0);
      exit(a.label("lost"), 7);
      exit(a.label("stale"), 8);
      exit(a.label("idle"), 9);
      a.label("runner");
      call(a, NR.migrate, 1n);
      a.label("run");
      call(a, NR.ctl, at(TABLES2[0]), 1n, FRAME, FRAME + 0x100n).jump("run");
    },
    inner(a) {
      a.movImmediate("rbx", DATA).label("more");
      a.load("rcx", "rbx", 0).db(0x48, 0xff, 0xc1).store("rbx", 0, "rcx").jump("more"); // inc rcx
    },
  });
  yield* ends(cx, stage, 1);
}

/** A vkernel is killed while a guest of its own runs. */
export function* killedInside(cx: Cx, stage: Stage): Exec<void> {
  const pid = yield* guest(cx, stage, 0, {
    main(a) {
      a.label("run");
      call(a, NR.ctl, at(TABLES2[0]), 1n, FRAME, FRAME + 0x100n).jump("run");
    },
    inner(a) {
      a.label("more").jump("more");
    },
  });
  const { vkernel } = cx.k;
  yield* stage.until(cx, () => vkernel.runs > 0);
  yield* system(cx, NR.kill, BigInt(pid), 9n);
  yield* kernWait(cx, pid, 0);
  yield* lwktYield(cx);
}
