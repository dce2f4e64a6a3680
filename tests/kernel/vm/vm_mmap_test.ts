import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { Exec } from "../../../hw/gates.ts";
import type { Cx } from "../../../kernel/context.ts";
import { ERRNO } from "../../../kernel/kern/errno.ts";
import { SyscallWords } from "../../../kernel/kern/sysent.ts";
import { vmMmapSyscalls } from "../../../kernel/vm/vm_mmap.ts";
import {
  MADV_SETMAP,
  MAP_ANON,
  MAP_FIXED,
  MAP_PRIVATE,
  MAP_SHARED,
  MAP_STACK,
  MAP_TRYFIXED,
  MAP_VPAGETABLE,
  MCL_CURRENT,
  MCL_FUTURE,
  MINCORE_INCORE,
  MS_ASYNC,
  MS_INVALIDATE,
  VM_INHERIT_NONE,
  VM_PROT_NONE,
  VM_PROT_READ,
  VM_PROT_RW,
} from "../../../kernel/vm/vm_param.ts";
import { VM_MAXDSIZ, vmUnixSyscalls } from "../../../kernel/vm/vm_unix.ts";
import type { Vmspace } from "../../../kernel/vm/vmspace.ts";
import { inVm, page, peek, poke } from "./vm_fixture.ts";

const { EBADF, EFAULT, EINVAL, ENOMEM, EOPNOTSUPP, EPERM } = ERRNO;
const ANON = MAP_ANON | MAP_PRIVATE;
const WHOLE = 0xffff_ffff_ffff_f000n;

/** Calls a system call: its value, or minus the error number. */
function* call(cx: Cx, name: string, ...args: (bigint | number)[]): Exec<bigint> {
  const row = [...vmMmapSyscalls, ...vmUnixSyscalls].find((each) => each[1] === name);
  if (row === undefined) throw new Error(`no system call ${name}`);
  const words = args.map((arg) => BigInt.asUintN(64, BigInt(arg)));
  const result = yield* row[3](cx, new SyscallWords(row[0], words));
  return "error" in result ? -BigInt(result.error) : result.value;
}

/** A process with an empty address space. */
function process(body: (cx: Cx, vm: Vmspace) => Exec<void>): void {
  inVm(function* (cx, spaces) {
    const vm = yield* spaces.enter(cx);
    const { lwpProc } = cx.lwp!;
    lwpProc.pVmspace = vm;
    cx.td.tdProc = lwpProc;
    vm.vmTaddr = page(0);
    vm.vmDaddr = page(16);
    yield* body(cx, vm);
    lwpProc.pVmspace = undefined;
    cx.td.tdProc = undefined;
  });
}

function mmap(
  cx: Cx,
  addr: bigint,
  len: bigint,
  prot: number,
  flags: number,
  fd = -1,
  pos = 0n,
): Exec<bigint> {
  return call(cx, "mmap", addr, len, prot, flags, fd, 0, pos);
}

describe("mmap", () => {
  it("chooses an address behind the heap's room, or takes the one it is told", () =>
    process(function* (cx) {
      const at = yield* mmap(cx, 0n, 0x1001n, VM_PROT_RW, ANON);
      assertEquals(at, page(16) + VM_MAXDSIZ);
      assertEquals(yield* poke(cx, (at + 0x1000n) as typeof at & ReturnType<typeof page>, 1n), true);
      assertEquals(yield* mmap(cx, page(1), 0x1000n, VM_PROT_RW, ANON | MAP_FIXED), page(1));
      assertEquals(yield* mmap(cx, page(1), 0x1000n, VM_PROT_RW, ANON | MAP_TRYFIXED), -BigInt(ENOMEM));
      // A hint elsewhere is honoured as far as there is room.
      assertEquals(yield* mmap(cx, 0x6000_0000_0001n, 0x1000n, VM_PROT_RW, ANON), 0x6000_0000_1000n);
    }));
  it("replaces what is there if the address is fixed", () =>
    process(function* (cx) {
      yield* mmap(cx, page(0), 0x3000n, VM_PROT_RW, ANON | MAP_FIXED);
      yield* poke(cx, page(1), 5n);
      yield* mmap(cx, page(1), 0x1000n, VM_PROT_READ, ANON | MAP_FIXED);
      assertEquals(yield* peek(cx, page(1)), 0n);
      assertEquals(yield* poke(cx, page(1), 5n), false);
    }));
  it("refuses nonsense", () =>
    process(function* (cx) {
      const wrong: [string, bigint, bigint, number, number, number, bigint, number][] = [
        ["length 0", 0n, 0n, VM_PROT_RW, ANON, -1, 0n, EINVAL],
        ["anonymous with a file", 0n, 1n, VM_PROT_RW, ANON, 3, 0n, EINVAL],
        ["anonymous with an offset", 0n, 1n, VM_PROT_RW, ANON, -1, 0x1000n, EINVAL],
        ["no such file", 0n, 1n, VM_PROT_RW, MAP_PRIVATE, 77, 0n, EBADF],
        ["length that wraps", 0n, WHOLE, VM_PROT_RW, ANON, -1, 0n, ENOMEM],
        ["fixed and too long", page(0), WHOLE, VM_PROT_RW, ANON | MAP_FIXED, -1, 0n, EINVAL],
        ["fixed and not aligned", page(0) + 1n, 1n, VM_PROT_RW, ANON | MAP_FIXED, -1, 0n, EINVAL],
        ["fixed in the kernel", 0xffff_8000_0000_0000n, 1n, VM_PROT_RW, ANON | MAP_FIXED, -1, 0n, EINVAL],
        ["fixed at 0", 0n, 1n, VM_PROT_RW, ANON | MAP_FIXED, -1, 0n, EINVAL],
        ["negative offset", 0n, 1n, VM_PROT_RW, MAP_PRIVATE, 3, -0x1000n, EINVAL],
        ["a stack that may not be written", 0n, 1n, VM_PROT_READ, MAP_STACK, -1, 0n, EINVAL],
        ["a software page table", 0n, 1n, VM_PROT_RW, ANON | MAP_VPAGETABLE, -1, 0n, EOPNOTSUPP],
      ];
      for (const [what, addr, len, prot, flags, fd, pos, error] of wrong) {
        assertEquals(yield* mmap(cx, addr, len, prot, flags, fd, pos), -BigInt(error), what);
      }
    }));
  it("gives stacks that grow", () =>
    process(function* (cx) {
      const at = yield* mmap(cx, 0n, 0x10_0000n, VM_PROT_RW, MAP_STACK);
      assertEquals(at > 0n, true);
      assertEquals(yield* poke(cx, (at + 0x8n) as ReturnType<typeof page>, 1n), true);
    }));
});

describe("munmap, mprotect, minherit, madvise", () => {
  it("refuse ranges that wrap or leave user space", () =>
    process(function* (cx) {
      for (
        const name of ["munmap", "mprotect", "minherit", "madvise", "msync", "mlock", "munlock", "mincore"]
      ) {
        assertEquals(yield* call(cx, name, page(0), WHOLE, 0), -BigInt(EINVAL), name);
        assertEquals(yield* call(cx, name, 0xffff_ffff_ffff_f000n, 0x1000n, 0), -BigInt(EINVAL), name);
      }
    }));
  it("munmap wants all of the range to be mapped", () =>
    process(function* (cx) {
      yield* mmap(cx, page(0), 0x1000n, VM_PROT_RW, ANON | MAP_FIXED);
      assertEquals(yield* call(cx, "munmap", page(0), 0x2000n), -BigInt(EINVAL));
      assertEquals(yield* peek(cx, page(0)), 0n);
      assertEquals(yield* call(cx, "munmap", page(0), 1n), 0n);
      assertEquals(yield* peek(cx, page(0)), undefined);
      assertEquals(yield* call(cx, "munmap", page(0), 0n), 0n);
    }));
  it("mprotect and the others answer as documented", () =>
    process(function* (cx) {
      yield* mmap(cx, page(0), 0x2000n, VM_PROT_RW, ANON | MAP_FIXED);
      assertEquals(yield* call(cx, "mprotect", page(0), 0x1000n, VM_PROT_NONE), 0n);
      assertEquals(yield* peek(cx, page(0)), undefined);
      assertEquals(yield* call(cx, "minherit", page(0), 0x1000n, VM_INHERIT_NONE), 0n);
      assertEquals(yield* call(cx, "minherit", page(0), 0x1000n, 9), -BigInt(EINVAL));
      assertEquals(yield* call(cx, "madvise", page(0), 0x1000n, 99), -BigInt(EINVAL));
      assertEquals(yield* call(cx, "mcontrol", page(0), 0x1000n, MADV_SETMAP, 5n), -BigInt(EINVAL));
    }));
});

describe("msync and mincore", () => {
  it("msync wants known flags and no holes", () =>
    process(function* (cx) {
      yield* mmap(cx, page(0), 0x1000n, VM_PROT_RW, MAP_ANON | MAP_SHARED | MAP_FIXED);
      assertEquals(yield* call(cx, "msync", page(0), 0x1000n, 0), 0n);
      assertEquals(yield* call(cx, "msync", page(0), 0n, 0), 0n);
      assertEquals(yield* call(cx, "msync", page(0), 0x1000n, MS_ASYNC | MS_INVALIDATE), -BigInt(EINVAL));
      assertEquals(yield* call(cx, "msync", page(0), 0x2000n, 0), -BigInt(EINVAL));
    }));
  it("mincore says what is resident, with zeros for holes", () =>
    process(function* (cx) {
      yield* mmap(cx, page(0), 0x2000n, VM_PROT_RW, ANON | MAP_FIXED);
      yield* mmap(cx, page(3), 0x2000n, VM_PROT_RW, ANON | MAP_FIXED);
      yield* poke(cx, page(1), 1n);
      yield* poke(cx, page(4), 0n);
      assertEquals(yield* call(cx, "mincore", page(0), 0x4000n, page(4)), 0n);
      const bytes = (yield* peek(cx, page(4)))!;
      const incore = [0n, 8n, 16n, 24n].map((shift) => Number((bytes >> shift) & BigInt(MINCORE_INCORE)));
      assertEquals(incore, [0, 1, 0, 0]);
      assertEquals(yield* call(cx, "mincore", page(0), 0x4000n, page(9)), -BigInt(EFAULT));
    }));
});

describe("mlock", () => {
  it("is for the super-user, and all or nothing", () =>
    process(function* (cx, vm) {
      yield* mmap(cx, page(0), 0x2000n, VM_PROT_RW, ANON | MAP_FIXED);
      assertEquals(yield* call(cx, "mlock", page(0), 0x2000n), 0n);
      assertEquals(yield* call(cx, "mlock", page(0), 0x3000n), -BigInt(ENOMEM));
      assertEquals(yield* call(cx, "munlock", page(0), 0x2000n), 0n);
      assertEquals([...vm.vmMap.entries()].map((entry) => entry.wiredCount), [0]);
      const p = cx.proc!;
      const root = p.pUcred;
      p.pUcred = { ...root, crUid: 1 };
      assertEquals(yield* call(cx, "mlock", page(0), 0x2000n), -BigInt(EPERM));
      p.pUcred = root;
    }));
  it("mlockall wires what is there and what will be", () =>
    process(function* (cx, vm) {
      yield* mmap(cx, page(0), 0x1000n, VM_PROT_RW, ANON | MAP_FIXED);
      assertEquals(yield* call(cx, "mlockall", 0), -BigInt(EINVAL));
      assertEquals(yield* call(cx, "mlockall", MCL_CURRENT | MCL_FUTURE), 0n);
      yield* mmap(cx, page(2), 0x1000n, VM_PROT_RW, ANON | MAP_FIXED);
      yield* mmap(cx, page(4), 0x1000n, VM_PROT_NONE, ANON | MAP_FIXED);
      assertEquals([...vm.vmMap.entries()].map((entry) => entry.wiredCount), [1, 1, 1]);
      assertEquals(yield* peek(cx, page(4)), undefined);
      assertEquals(yield* call(cx, "munlockall"), 0n);
      assertEquals([...vm.vmMap.entries()].map((entry) => entry.wiredCount), [0, 0, 0]);
    }));
});

describe("brk", () => {
  it("moves the end of the heap within its limits", () =>
    process(function* (cx, vm) {
      assertEquals(yield* call(cx, "break", page(18)), 0n);
      assertEquals(yield* poke(cx, page(17), 1n), true);
      assertEquals(yield* peek(cx, page(18)), undefined);
      assertEquals(yield* call(cx, "sbrk", 0x1000n), page(18));
      assertEquals(yield* poke(cx, page(18), 1n), true);
      assertEquals(yield* call(cx, "break", page(16)), 0n);
      assertEquals([vm.vmMap.nentries, yield* peek(cx, page(17))], [0, undefined]);
      assertEquals(yield* call(cx, "break", page(15)), -BigInt(EINVAL));
      assertEquals(yield* call(cx, "break", page(16) + (129n << 20n)), -BigInt(ENOMEM));
      assertEquals(yield* call(cx, "break", WHOLE), -BigInt(ENOMEM));
      assertEquals(yield* call(cx, "sbrk", -0x10_0000_0000n), -BigInt(EINVAL));
    }));
  it("does not run over a mapping in its way", () =>
    process(function* (cx) {
      yield* mmap(cx, page(18), 0x1000n, VM_PROT_RW, ANON | MAP_FIXED);
      assertEquals(yield* call(cx, "break", page(20)), -BigInt(ENOMEM));
      assertEquals(yield* call(cx, "break", page(18)), 0n);
    }));
});
