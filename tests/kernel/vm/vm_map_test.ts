import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { Cx } from "../../../kernel/context.ts";
import type { Exec } from "../../../hw/gates.ts";
import { Proc } from "../../../kernel/proc/proc.ts";
import { RLIMIT_STACK } from "../../../kernel/proc/resource.ts";
import { vmMapLookupEntry } from "../../../kernel/vm/vm_map.ts";
import { vmMapFind, vmMapFindspace } from "../../../kernel/vm/vm_map_insert.ts";
import {
  vmMapCheckProtection,
  vmMapInherit,
  vmMapMadvise,
  vmMapProtect,
} from "../../../kernel/vm/vm_map_protect.ts";
import { vmMapRemove } from "../../../kernel/vm/vm_map_remove.ts";
import { SGROWSIZ, vmMapGrowstack, vmMapStack } from "../../../kernel/vm/vm_map_stack.ts";
import { vmMapUnwire } from "../../../kernel/vm/vm_map_wire.ts";
import { OBJT_DEFAULT, vmObjectAllocate } from "../../../kernel/vm/vm_object.ts";
import {
  KERN_INVALID_ADDRESS,
  KERN_INVALID_ARGUMENT,
  KERN_NO_SPACE,
  KERN_PROTECTION_FAILURE,
  KERN_SUCCESS,
  MADV_RANDOM,
  MADV_SETMAP,
  MAP_FIXED,
  VM_INHERIT_NONE,
  VM_INHERIT_SHARE,
  VM_PROT_ALL,
  VM_PROT_NONE,
  VM_PROT_READ,
  VM_PROT_RW,
} from "../../../kernel/vm/vm_param.ts";
import type { Vmspace } from "../../../kernel/vm/vmspace.ts";
import { anonymous, inVm, page, peek, poke } from "./vm_fixture.ts";

/** The entries as "first+count rights", pages from page 0. */
function layout(vm: Vmspace): string {
  const names = ["-", "r", "w", "rw", "x", "rx", "wx", "rwx"];
  return [...vm.vmMap.entries()].map(({ start, end, protection }) =>
    `${(start - page(0)) / 0x1000n}+${(end - start) / 0x1000n} ${names[protection]}`
  ).join(", ");
}

/** One space, an operation at a time, all rules checked after each. */
function map(body: (cx: Cx, vm: Vmspace, check: () => Exec<void>) => Exec<void>): void {
  inVm(function* (cx, spaces) {
    const vm = yield* spaces.enter(cx);
    yield* body(cx, vm, () => spaces.check(cx));
  });
}

describe("vm_map_insert", () => {
  it("lets adjacent anonymous memory grow one entry and one object", () =>
    map(function* (cx, vm) {
      yield* anonymous(cx, vm, 0, 2);
      yield* poke(cx, page(1), 7n);
      const objects = cx.k.vmObject.objectCount;
      yield* anonymous(cx, vm, 2, 3);
      assertEquals(layout(vm), "0+5 rw");
      assertEquals(yield* peek(cx, page(4)), 0n);
      assertEquals(yield* peek(cx, page(1)), 7n);
      assertEquals(cx.k.vmObject.objectCount, objects);
    }));
  it("gives the new part zeros where the object had pages of a mapping that is gone", () =>
    map(function* (cx, vm, check) {
      yield* anonymous(cx, vm, 0, 4);
      for (let n = 0; n < 4; n++) yield* poke(cx, page(n), 9n);
      yield* vmMapRemove(cx, vm.vmMap, page(2), page(4));
      yield* check();
      yield* anonymous(cx, vm, 2, 2);
      assertEquals([yield* peek(cx, page(2)), yield* peek(cx, page(3))], [0n, 0n]);
      yield* check();
    }));
  it("does not join entries that differ", () =>
    map(function* (cx, vm) {
      yield* anonymous(cx, vm, 0, 1);
      yield* anonymous(cx, vm, 1, 1, { prot: VM_PROT_READ });
      yield* anonymous(cx, vm, 2, 1, { prot: VM_PROT_READ, inheritance: VM_INHERIT_SHARE });
      yield* anonymous(cx, vm, 3, 1, { prot: VM_PROT_READ, object: vmObjectAllocate(cx, OBJT_DEFAULT, 1) });
      assertEquals(layout(vm), "0+1 rw, 1+1 r, 2+1 r, 3+1 r");
    }));
  it("refuses what overlaps, and what leaves the map", () =>
    map(function* (cx, vm) {
      yield* anonymous(cx, vm, 2, 2);
      const at = (addr: bigint, length: bigint) =>
        vmMapFind(cx, vm.vmMap, { addr, length, fitit: false, prot: VM_PROT_RW, max: VM_PROT_ALL });
      assertEquals((yield* at(page(1), 0x2000n)).rv, KERN_NO_SPACE);
      assertEquals((yield* at(page(3), 0x1000n)).rv, KERN_NO_SPACE);
      assertEquals((yield* at(0x7fff_ffff_e000n, 0x2000n)).rv, KERN_INVALID_ADDRESS);
      assertEquals((yield* at(0n, 0x2000n)).rv, KERN_INVALID_ADDRESS);
      assertEquals(layout(vm), "2+2 rw");
    }));
});

describe("vm_map_findspace", () => {
  it("finds the first gap that is large enough, aligned", () =>
    map(function* (cx, vm) {
      yield* anonymous(cx, vm, 0, 2);
      yield* anonymous(cx, vm, 3, 1);
      yield* anonymous(cx, vm, 6, 1);
      assertEquals(vmMapFindspace(vm.vmMap, page(0), 0x1000n), page(2));
      assertEquals(vmMapFindspace(vm.vmMap, page(0), 0x2000n), page(4));
      assertEquals(vmMapFindspace(vm.vmMap, page(0), 0x3000n), page(7));
      assertEquals(vmMapFindspace(vm.vmMap, page(0), 0x1000n, 0x20_0000n), page(512));
      assertEquals(vmMapFindspace(vm.vmMap, page(0), 1n << 47n), undefined);
    }));
  it("starts below the first gap also after something low has gone", () =>
    map(function* (cx, vm) {
      const low = vm.vmMap.min;
      const find = function* () {
        const got = yield* vmMapFind(cx, vm.vmMap, {
          addr: low,
          length: 0x1000n,
          fitit: true,
          prot: VM_PROT_RW,
          max: VM_PROT_ALL,
        });
        return got.addr;
      };
      const first = yield* find();
      assertEquals(first, low);
      assertEquals(yield* find(), low + 0x1000n);
      yield* vmMapRemove(cx, vm.vmMap, low, low + 0x1000n);
      assertEquals(yield* find(), low);
      assertEquals(yield* find(), low + 0x2000n);
    }));
});

describe("vm_map_protect", () => {
  it("cuts out the range, and joins it again when all is the same", () =>
    map(function* (cx, vm, check) {
      yield* anonymous(cx, vm, 0, 5);
      yield* poke(cx, page(2), 1n);
      assertEquals(yield* vmMapProtect(cx, vm.vmMap, page(2), page(3), VM_PROT_READ, false), KERN_SUCCESS);
      assertEquals(layout(vm), "0+2 rw, 2+1 r, 3+2 rw");
      yield* check();
      assertEquals(yield* poke(cx, page(2), 2n), false);
      assertEquals(yield* peek(cx, page(2)), 1n);
      assertEquals(yield* vmMapProtect(cx, vm.vmMap, page(2), page(3), VM_PROT_RW, false), KERN_SUCCESS);
      assertEquals(layout(vm), "0+5 rw");
      assertEquals(yield* poke(cx, page(2), 3n), true);
    }));
  it("changes nothing if part of the range may not have the rights", () =>
    map(function* (cx, vm) {
      yield* anonymous(cx, vm, 0, 1, { prot: VM_PROT_READ });
      yield* anonymous(cx, vm, 1, 1, { prot: VM_PROT_READ, max: VM_PROT_READ });
      assertEquals(
        yield* vmMapProtect(cx, vm.vmMap, page(0), page(2), VM_PROT_RW, false),
        KERN_PROTECTION_FAILURE,
      );
      assertEquals(layout(vm), "0+1 r, 1+1 r");
    }));
  it("takes even reading away, and gives it back with the content", () =>
    map(function* (cx, vm) {
      yield* anonymous(cx, vm, 0, 1);
      yield* poke(cx, page(0), 4n);
      yield* vmMapProtect(cx, vm.vmMap, page(0), page(1), VM_PROT_NONE, false);
      assertEquals(yield* peek(cx, page(0)), undefined);
      yield* vmMapProtect(cx, vm.vmMap, page(0), page(1), VM_PROT_READ, false);
      assertEquals(yield* peek(cx, page(0)), 4n);
    }));
  it("skips holes, and answers whether a range has none", () =>
    map(function* (cx, vm) {
      yield* anonymous(cx, vm, 0, 1);
      yield* anonymous(cx, vm, 2, 1);
      assertEquals(yield* vmMapProtect(cx, vm.vmMap, page(0), page(3), VM_PROT_READ, false), KERN_SUCCESS);
      assertEquals(layout(vm), "0+1 r, 2+1 r");
      assertEquals(yield* vmMapCheckProtection(cx, vm.vmMap, page(0), page(3), VM_PROT_READ), false);
      assertEquals(yield* vmMapCheckProtection(cx, vm.vmMap, page(0), page(1), VM_PROT_READ), true);
      assertEquals(yield* vmMapCheckProtection(cx, vm.vmMap, page(0), page(1), VM_PROT_RW), false);
    }));
});

describe("vm_map_inherit and fork", () => {
  it("copies, shares, or leaves out", () =>
    inVm(function* (cx, spaces) {
      const vm = yield* spaces.enter(cx);
      yield* anonymous(cx, vm, 0, 3);
      for (let n = 0; n < 3; n++) yield* poke(cx, page(n), BigInt(n));
      yield* vmMapInherit(cx, vm.vmMap, page(1), page(2), VM_INHERIT_SHARE);
      yield* vmMapInherit(cx, vm.vmMap, page(2), page(3), VM_INHERIT_NONE);
      const child = yield* spaces.fork(cx, vm);
      assertEquals(layout(child), "0+1 rw, 1+1 rw");
      yield* spaces.go(cx, child);
      yield* poke(cx, page(0), 10n);
      yield* poke(cx, page(1), 11n);
      assertEquals(yield* peek(cx, page(2)), undefined);
      yield* spaces.check(cx);
      yield* spaces.go(cx, vm);
      assertEquals([yield* peek(cx, page(0)), yield* peek(cx, page(1))], [0n, 11n]);
    }));
  it("shares a private mapping that had not been written before the fork", () =>
    inVm(function* (cx, spaces) {
      const vm = yield* spaces.enter(cx);
      yield* anonymous(cx, vm, 0, 1);
      yield* poke(cx, page(0), 1n);
      const first = yield* spaces.fork(cx, vm);
      // NEEDS_COPY now; sharing makes the shadow at once.
      yield* vmMapInherit(cx, vm.vmMap, page(0), page(1), VM_INHERIT_SHARE);
      const second = yield* spaces.fork(cx, vm);
      yield* spaces.check(cx);
      yield* spaces.go(cx, second);
      yield* poke(cx, page(0), 2n);
      yield* spaces.go(cx, vm);
      assertEquals(yield* peek(cx, page(0)), 2n);
      yield* spaces.go(cx, first);
      assertEquals(yield* peek(cx, page(0)), 1n);
    }));
  it("changes the map's timestamp", () =>
    inVm(function* (cx, spaces) {
      const vm = yield* spaces.enter(cx);
      const { timestamp } = vm.vmMap;
      yield* spaces.fork(cx, vm);
      assert(vm.vmMap.timestamp > timestamp);
    }));
});

describe("stacks", () => {
  it("grow down to the address that faults, and no further than they may", () =>
    map(function* (cx, vm, check) {
      const got = yield* vmMapStack(cx, vm.vmMap, page(0), 0x10_0000n, MAP_FIXED, VM_PROT_RW, VM_PROT_ALL);
      assertEquals(got.rv, KERN_SUCCESS);
      assertEquals(layout(vm), `${256 - Number(SGROWSIZ / 0x1000n)}+${SGROWSIZ / 0x1000n} rw`);
      const p = new Proc(91);
      assertEquals(yield* vmMapGrowstack(cx, p, vm, page(100)), KERN_SUCCESS);
      yield* check();
      const { found, entry } = vmMapLookupEntry(vm.vmMap, page(100));
      assert(found);
      assert(entry.start <= page(100) && entry.start > page(0));
      assertEquals(yield* vmMapGrowstack(cx, p, vm, page(0)), KERN_SUCCESS);
      assertEquals(vmMapLookupEntry(vm.vmMap, page(0)).found, true);
      assertEquals(yield* vmMapGrowstack(cx, p, vm, page(0) - 1n), KERN_SUCCESS);
      assertEquals(vmMapLookupEntry(vm.vmMap, page(0) - 1n).found, false);
    }));
  it("do not grow into what was mapped in their way", () =>
    map(function* (cx, vm) {
      yield* vmMapStack(cx, vm.vmMap, page(0), 0x10_0000n, MAP_FIXED, VM_PROT_RW, VM_PROT_ALL);
      yield* anonymous(cx, vm, 150, 1);
      const p = new Proc(91);
      // Nothing to grow there: the caller looks again, and finds nothing.
      assertEquals(yield* vmMapGrowstack(cx, p, vm, page(140)), KERN_SUCCESS);
      assertEquals(vmMapLookupEntry(vm.vmMap, page(140)).found, false);
      assertEquals(yield* vmMapGrowstack(cx, p, vm, page(151)), KERN_SUCCESS);
      assertEquals(vmMapLookupEntry(vm.vmMap, page(151)).found, true);
    }));
  it("do not grow above the limit", () =>
    map(function* (cx, vm) {
      yield* vmMapStack(cx, vm.vmMap, page(0), 0x400_0000n, MAP_FIXED, VM_PROT_RW, VM_PROT_ALL);
      vm.vmMaxsaddr = page(0);
      vm.vmMinsaddr = page(0x4000);
      vm.vmSsize = SGROWSIZ;
      const p = new Proc(91);
      const limit = p.pLimit.plRlimit[RLIMIT_STACK]!.rlimCur;
      assertEquals(yield* vmMapGrowstack(cx, p, vm, page(0x4000) - limit), KERN_SUCCESS);
      assertEquals(vm.vmSsize, limit);
      assertEquals(yield* vmMapGrowstack(cx, p, vm, page(0x4000) - limit - 1n), KERN_NO_SPACE);
    }));
  it("keep their reserve when findspace looks for room", () =>
    map(function* (cx, vm) {
      yield* vmMapStack(cx, vm.vmMap, page(0), 0x10_0000n, MAP_FIXED, VM_PROT_RW, VM_PROT_ALL);
      assertEquals(vmMapFindspace(vm.vmMap, page(0), 0x1000n), page(256));
    }));
  it("grow by themselves when the program touches them", () =>
    map(function* (cx, vm) {
      cx.lwp!.lwpProc.pVmspace = vm;
      // The thread is its process's only one.
      cx.td.tdProc = cx.lwp!.lwpProc;
      yield* vmMapStack(cx, vm.vmMap, page(0), 0x10_0000n, MAP_FIXED, VM_PROT_RW, VM_PROT_ALL);
      assertEquals(yield* poke(cx, page(10), 3n), true);
      assertEquals(yield* peek(cx, page(10)), 3n);
      cx.lwp!.lwpProc.pVmspace = undefined;
      cx.td.tdProc = undefined;
    }));
});

describe("vm_map_madvise", () => {
  it("cuts entries for behaviour, and refuses SETMAP on ordinary ones", () =>
    map(function* (cx, vm) {
      yield* anonymous(cx, vm, 0, 3);
      assertEquals(yield* vmMapMadvise(cx, vm.vmMap, page(1), page(2), MADV_RANDOM, 0n), KERN_SUCCESS);
      assertEquals(layout(vm), "0+1 rw, 1+1 rw, 2+1 rw");
      assertEquals(
        yield* vmMapMadvise(cx, vm.vmMap, page(1), page(2), MADV_SETMAP, 1n),
        KERN_INVALID_ARGUMENT,
      );
      assertEquals(yield* vmMapMadvise(cx, vm.vmMap, page(1), page(2), 99, 0n), KERN_INVALID_ARGUMENT);
    }));
});

describe("wiring", () => {
  it("brings pages in, keeps them off the queues, and lets them go again", () =>
    map(function* (cx, vm, check) {
      yield* anonymous(cx, vm, 0, 4);
      const { vWireCount } = cx.k.vmmeter;
      assertEquals(yield* vmMapUnwire(cx, vm.vmMap, page(0), page(4), false), KERN_SUCCESS);
      assertEquals(cx.k.vmmeter.vWireCount - vWireCount >= 4, true);
      yield* check();
      // Twice is once.
      assertEquals(yield* vmMapUnwire(cx, vm.vmMap, page(0), page(4), false), KERN_SUCCESS);
      assertEquals(yield* vmMapUnwire(cx, vm.vmMap, page(0), page(4), true), KERN_SUCCESS);
      yield* check();
    }));
  it("fails over a hole and leaves nothing wired", () =>
    map(function* (cx, vm) {
      yield* anonymous(cx, vm, 0, 1);
      yield* anonymous(cx, vm, 2, 1);
      assertEquals(yield* vmMapUnwire(cx, vm.vmMap, page(0), page(3), false), KERN_INVALID_ADDRESS);
      assertEquals([...vm.vmMap.entries()].some((entry) => entry.wiredCount > 0), false);
    }));
  it("survives losing and regaining all rights, and munmap", () =>
    map(function* (cx, vm, check) {
      yield* anonymous(cx, vm, 0, 2);
      yield* poke(cx, page(0), 5n);
      yield* vmMapUnwire(cx, vm.vmMap, page(0), page(2), false);
      yield* vmMapProtect(cx, vm.vmMap, page(0), page(2), VM_PROT_NONE, false);
      assertEquals(yield* peek(cx, page(0)), undefined);
      yield* check();
      yield* vmMapProtect(cx, vm.vmMap, page(0), page(2), VM_PROT_RW, false);
      assertEquals(yield* peek(cx, page(0)), 5n);
      yield* vmMapProtect(cx, vm.vmMap, page(0), page(1), VM_PROT_NONE, false);
      yield* vmMapRemove(cx, vm.vmMap, page(0), page(2));
    }));
  it("gives a child copies of wired pages, not the pages", () =>
    inVm(function* (cx, spaces) {
      const vm = yield* spaces.enter(cx);
      yield* anonymous(cx, vm, 0, 1);
      yield* poke(cx, page(0), 5n);
      yield* vmMapUnwire(cx, vm.vmMap, page(0), page(1), false);
      const child = yield* spaces.fork(cx, vm);
      yield* poke(cx, page(0), 6n);
      yield* spaces.go(cx, child);
      assertEquals(yield* peek(cx, page(0)), 5n);
      assertEquals([...child.vmMap.entries()].map((entry) => entry.wiredCount), [0]);
    }));
});
