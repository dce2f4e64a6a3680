import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { Exec } from "../../../hw/gates.ts";
import type { Cx } from "../../../kernel/context.ts";
import { tsleep } from "../../../kernel/lwkt/sleep.ts";
import { kthreadCreate, lwktExit } from "../../../kernel/lwkt/thread.ts";
import { vmMapRemove } from "../../../kernel/vm/vm_map_remove.ts";
import {
  CHAINLK_EXCL,
  CHAINLK_MASK,
  OBJT_DEFAULT,
  type VmObject,
  vmObjectAllocate,
  vmObjectChainAcquire,
  vmObjectChainRelease,
  vmObjectDrop,
  vmObjectHold,
  vmObjectHoldShared,
  vmObjectPipAdd,
  vmObjectPipWait,
  vmObjectPipWakeup,
} from "../../../kernel/vm/vm_object.ts";
import { vmObjectShadow } from "../../../kernel/vm/vm_object_grow.ts";
import { vmObjectPageRemove } from "../../../kernel/vm/vm_object_pages.ts";
import { vmObjectDeallocate } from "../../../kernel/vm/vm_object_terminate.ts";
import { VM_ALLOC_NORMAL, VM_ALLOC_RETRY, VM_ALLOC_ZERO, vmPageWakeup } from "../../../kernel/vm/vm_page.ts";
import { vmPageGrab } from "../../../kernel/vm/vm_page_cache.ts";
import type { Vmspace } from "../../../kernel/vm/vmspace.ts";
import { anonymous, inVm, page, peek, poke } from "./vm_fixture.ts";

/** The object of a space's first entry. */
function topOf(vm: Vmspace): VmObject {
  return [...vm.vmMap.entries()][0]!.object!;
}

function chainLength(vm: Vmspace): number {
  let length = 0;
  for (let object: VmObject | undefined = topOf(vm); object !== undefined; object = object.backingObject) {
    length++;
  }
  return length;
}

function* addPage(cx: Cx, object: VmObject, pindex: number): Exec<void> {
  const m = yield* vmPageGrab(cx, object, pindex, VM_ALLOC_NORMAL | VM_ALLOC_RETRY | VM_ALLOC_ZERO);
  vmPageWakeup(cx, m!);
}

describe("collapse", () => {
  it("merges the object below when its last other user goes", () =>
    inVm(function* (cx, spaces) {
      const vm = yield* spaces.enter(cx);
      yield* anonymous(cx, vm, 0, 4);
      for (let n = 0; n < 4; n++) yield* poke(cx, page(n), BigInt(n + 1));
      const child = yield* spaces.fork(cx, vm);
      yield* poke(cx, page(0), 10n);
      assertEquals(chainLength(vm), 2);
      const { objectCollapses } = cx.k.vmObject;
      yield* spaces.end(cx, child);
      assertEquals([chainLength(vm), cx.k.vmObject.objectCollapses - objectCollapses], [1, 1]);
      const shown: (bigint | undefined)[] = [];
      for (let n = 0; n < 4; n++) shown.push(yield* peek(cx, page(n)));
      assertEquals(shown, [10n, 2n, 3n, 4n]);
      assertEquals(topOf(vm).residentPageCount, 4);
    }));
  it("bypasses an object of which the parent has every page", () =>
    inVm(function* (cx, spaces) {
      const vm = yield* spaces.enter(cx);
      yield* anonymous(cx, vm, 0, 2);
      yield* poke(cx, page(0), 1n);
      yield* poke(cx, page(1), 2n);
      const first = yield* spaces.fork(cx, vm);
      yield* poke(cx, page(0), 3n);
      yield* poke(cx, page(1), 4n);
      assertEquals(chainLength(vm), 2);
      const { objectBypasses } = cx.k.vmObject;
      yield* spaces.fork(cx, vm);
      assertEquals([chainLength(vm), cx.k.vmObject.objectBypasses - objectBypasses], [1, 1]);
      yield* spaces.check(cx);
      yield* spaces.go(cx, first);
      assertEquals([yield* peek(cx, page(0)), yield* peek(cx, page(1))], [1n, 2n]);
    }));
  it("keeps the chain of a process that forks and lets the child take over, again and again, short", () =>
    inVm(function* (cx, spaces) {
      let vm = yield* spaces.enter(cx);
      yield* anonymous(cx, vm, 0, 8);
      for (let n = 0; n < 8; n++) yield* poke(cx, page(n), 0n);
      for (let i = 0; i < 16; i++) {
        const child = yield* spaces.fork(cx, vm);
        yield* spaces.go(cx, child);
        yield* poke(cx, page(i % 8), BigInt(i));
        yield* spaces.end(cx, vm);
        vm = child;
        assert(chainLength(vm) <= 2, `generation ${i}: ${chainLength(vm)} objects`);
      }
      yield* spaces.check(cx);
      for (let n = 0; n < 8; n++) assertEquals(yield* peek(cx, page(n)), BigInt(n + 8));
    }));
  it("leaves objects with a handle alone", () =>
    inVm(function* (cx, spaces) {
      const file = vmObjectAllocate(cx, OBJT_DEFAULT, 2);
      file.handle = {};
      const { object } = yield* vmObjectShadow(cx, file, 0, 2, false);
      assertEquals([object.backingObject, file.refCount, file.shadowCount], [file, 1, 1]);
      spaces.refs.set(object, 1);
      yield* spaces.check(cx);
      spaces.refs.clear();
      yield* vmObjectDeallocate(cx, object);
    }));
});

describe("vm_object_shadow", () => {
  it("uses an object again that nobody else can see", () =>
    inVm(function* (cx) {
      const object = vmObjectAllocate(cx, OBJT_DEFAULT, 4);
      assertEquals(yield* vmObjectShadow(cx, object, 0x1000, 2, false), { object, offset: 0x1000 });
      object.refCount++;
      const shadow = yield* vmObjectShadow(cx, object, 0x1000, 2, false);
      assertEquals([shadow.object.backingObject, shadow.object.backingObjectOffset, shadow.offset], [
        object,
        0x1000,
        0,
      ]);
      yield* vmObjectDeallocate(cx, shadow.object);
      assertEquals([object.refCount, object.shadowCount], [1, 0]);
      yield* vmObjectDeallocate(cx, object);
    }));
});

describe("removing part of a mapping", () => {
  it("frees its pages at once if nobody else can see them", () =>
    inVm(function* (cx, spaces) {
      const vm = yield* spaces.enter(cx);
      yield* anonymous(cx, vm, 0, 6);
      for (let n = 0; n < 6; n++) yield* poke(cx, page(n), 1n);
      const object = topOf(vm);
      yield* vmMapRemove(cx, vm.vmMap, page(2), page(4));
      assertEquals([...object.rbMemq].map((m) => m.pindex), [0, 1, 4, 5]);
      yield* spaces.check(cx);
      yield* vmMapRemove(cx, vm.vmMap, page(4), page(6));
      assertEquals(object.size, 4);
    }));
  it("keeps them if a child may look", () =>
    inVm(function* (cx, spaces) {
      const vm = yield* spaces.enter(cx);
      yield* anonymous(cx, vm, 0, 4);
      for (let n = 0; n < 4; n++) yield* poke(cx, page(n), 5n);
      const child = yield* spaces.fork(cx, vm);
      yield* vmMapRemove(cx, vm.vmMap, page(1), page(3));
      yield* spaces.go(cx, child);
      assertEquals(yield* peek(cx, page(2)), 5n);
    }));
});

describe("vm_object_page_remove", () => {
  it("leaves dirty pages when only clean ones shall go", () =>
    inVm(function* (cx) {
      const object = vmObjectAllocate(cx, OBJT_DEFAULT, 4);
      yield* vmObjectHold(cx, object);
      for (let n = 0; n < 4; n++) yield* addPage(cx, object, n);
      object.rbMemq.find(2)!.dirty = 0xff;
      yield* vmObjectPageRemove(cx, object, 1, 4, true);
      assertEquals([...object.rbMemq].map((m) => m.pindex), [0, 2]);
      yield* vmObjectPageRemove(cx, object, 0, 4, false);
      assertEquals(object.residentPageCount, 0);
      vmObjectDrop(cx, object);
      yield* vmObjectDeallocate(cx, object);
    }));
});

describe("the chain lock", () => {
  it("is kept over a sleep, lets sharers in together, and prefers who wants it alone", () =>
    inVm(function* (cx) {
      const log: string[] = [];
      const object = vmObjectAllocate(cx, OBJT_DEFAULT, 1);
      yield* vmObjectHoldShared(cx, object);
      yield* vmObjectChainAcquire(cx, object, true);
      const other = function* (own: Cx, name: string, shared: boolean): Exec<void> {
        if (shared) yield* vmObjectHoldShared(own, object);
        else yield* vmObjectHold(own, object);
        yield* vmObjectChainAcquire(own, object, shared);
        log.push(name);
        yield* tsleep(own, {}, 0, "chain", 2);
        vmObjectChainRelease(own, object);
        vmObjectDrop(own, object);
        yield* lwktExit(own);
      };
      yield* kthreadCreate(cx, (own) => other(own, "sharer", true), "sharer");
      yield* tsleep(cx, {}, 0, "chain", 1);
      assertEquals([log, object.chainlk & CHAINLK_MASK], [["sharer"], 2]);
      yield* kthreadCreate(cx, (own) => other(own, "alone", false), "alone");
      yield* tsleep(cx, {}, 0, "chain", 1);
      yield* kthreadCreate(cx, (own) => other(own, "late sharer", true), "late");
      yield* tsleep(cx, {}, 0, "chain", 4);
      assertEquals(log, ["sharer"]);
      vmObjectChainRelease(cx, object);
      vmObjectDrop(cx, object);
      yield* tsleep(cx, {}, 0, "chain", 1);
      assertEquals([log, (object.chainlk & CHAINLK_EXCL) !== 0], [["sharer", "alone"], true]);
      yield* tsleep(cx, {}, 0, "chain", 8);
      assertEquals([log, object.chainlk], [["sharer", "alone", "late sharer"], 0]);
      yield* vmObjectDeallocate(cx, object);
    }));
});

describe("paging in progress", () => {
  it("keeps who ends the object waiting", () =>
    inVm(function* (cx) {
      const object = vmObjectAllocate(cx, OBJT_DEFAULT, 1);
      vmObjectPipAdd(object, 2);
      let waited = false;
      yield* kthreadCreate(cx, function* (own): Exec<void> {
        yield* vmObjectHold(own, object);
        yield* vmObjectPipWait(own, object, "test");
        waited = true;
        vmObjectDrop(own, object);
        yield* lwktExit(own);
      }, "waiter");
      yield* tsleep(cx, {}, 0, "pip", 2);
      vmObjectPipWakeup(cx, object);
      yield* tsleep(cx, {}, 0, "pip", 2);
      assertEquals(waited, false);
      vmObjectPipWakeup(cx, object);
      yield* tsleep(cx, {}, 0, "pip", 2);
      assertEquals(waited, true);
      yield* vmObjectDeallocate(cx, object);
    }));
});
