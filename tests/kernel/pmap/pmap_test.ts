import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { gva } from "../../../hw/address.ts";
import { pmapEnter } from "../../../kernel/pmap/pmap_enter.ts";
import {
  pmapExtract,
  pmapFaultPageQuick,
  pmapMincore,
  pmapPrefaultOk,
} from "../../../kernel/pmap/pmap_extract.ts";
import { pmapPuninit, pmapRelease } from "../../../kernel/pmap/pmap_pinit.ts";
import {
  pmapClearModify,
  pmapClearReference,
  pmapIsModified,
  pmapPageProtect,
  pmapProtect,
  pmapTsReferenced,
} from "../../../kernel/pmap/pmap_protect.ts";
import { pmapRemove, pmapRemoveAll, pmapRemovePages } from "../../../kernel/pmap/pmap_remove.ts";
import { pmapSetlwpvm } from "../../../kernel/pmap/pmap_switch.ts";
import {
  PG_MAPPED,
  PG_REFERENCED,
  PG_UNMANAGED,
  PG_WRITEABLE,
  type VmPage,
  vmPageUnhold,
} from "../../../kernel/vm/vm_page.ts";
import { VM_PROT_EXECUTE, VM_PROT_READ, VM_PROT_RW, VM_PROT_WRITE } from "../../../kernel/vm/vm_param.ts";
import { runInKernel } from "../in_kernel.ts";
import {
  assertSound,
  enterSpace,
  entryBits,
  freePage,
  leaveSpace,
  newPage,
  newSpace,
  page,
  peek,
  poke,
} from "./pmap_fixture.ts";

const sanitized = { tlb: "sticky", sanitizer: true } as const;

describe("a pmap", () => {
  it("maps pages, finds them, and gives everything back", () => {
    runInKernel(sanitized, function* (cx) {
      const free = cx.k.vmmeter.vFreeCount, pvs = cx.k.pmap.pvCount;
      const vm = yield* newSpace(cx), pmap = vm.vmPmap;
      // Pages in different PT, PD and PDP pages.
      const addresses = [
        page(0),
        page(1),
        page(600),
        gva(0x4000_0000n),
        gva(0x80_0000_0000n),
        gva(0x7fff_ffff_e000n),
      ];
      const pages: VmPage[] = [];
      for (const [i, va] of addresses.entries()) {
        const m = yield* newPage(cx, BigInt(i));
        pages.push(m);
        yield* pmapEnter(cx, pmap, va, m, VM_PROT_RW, i === 2);
        assertEquals(yield* pmapExtract(cx, pmap, gva(va + 8n)), m.physAddr + 8);
        assertSound(cx);
      }
      assertEquals(pmap.pmStats.wiredCount, 1);
      // 6 mappings, PML4, 2 PDP besides … : counted by the checker; here only that the tables are there.
      assertEquals(pmap.pmStats.residentCount, pmap.pmPvroot.size);
      assertEquals(yield* pmapExtract(cx, pmap, page(5)), undefined);
      yield* pmapRemove(cx, pmap, gva(0x1000), gva(0x7fff_ffff_f000n));
      assertSound(cx);
      assertEquals(pmap.pmStats.wiredCount, 0);
      for (const m of pages) {
        assertEquals(m.flags & (PG_MAPPED | PG_WRITEABLE), 0);
        freePage(cx, m);
      }
      yield* pmapRelease(cx, pmap);
      assertEquals([pmap.pmStats.residentCount, pmap.pmStats.wiredCount], [1, 0]);
      assertSound(cx);
      yield* pmapPuninit(cx, pmap);
      assertEquals(cx.k.vmmeter.vFreeCount, free);
      assertEquals(cx.k.pmap.pvCount, pvs);
      assertSound(cx);
    });
  });

  it("is what the processor translates by: A and M, rights, faults", () => {
    const { machine } = runInKernel(sanitized, function* (cx) {
      const vm = yield* newSpace(cx), pmap = vm.vmPmap;
      yield* enterSpace(cx, vm);
      const m = yield* newPage(cx, 0x1234n);
      assertEquals(yield* peek(cx, page(0)), undefined);
      yield* pmapEnter(cx, pmap, page(0), m, VM_PROT_READ, false);
      assertEquals(yield* peek(cx, page(0)), 0x1234n);
      assertEquals(yield* poke(cx, page(0), 1n), false);
      assertEquals(yield* entryBits(cx, pmap, page(0)), "V A");

      // More rights are a removal and an insertion; M comes with the write alone.
      yield* pmapEnter(cx, pmap, page(0), m, VM_PROT_RW, false);
      assertEquals(yield* entryBits(cx, pmap, page(0)), "V RW A");
      assertEquals(yield* pmapIsModified(cx, m), false);
      assert(yield* poke(cx, page(0), 0x77n));
      assertEquals(yield* entryBits(cx, pmap, page(0)), "V RW A M");
      assertEquals(yield* pmapIsModified(cx, m), true);
      assertEquals(yield* peek(cx, page(0)), 0x77n);

      // The same once more is nothing, and keeps M.
      const interlocks = cx.k.pmap.invalInterlocks;
      yield* pmapEnter(cx, pmap, page(0), m, VM_PROT_RW, false);
      assertEquals(yield* entryBits(cx, pmap, page(0)), "V RW A M");
      assertEquals(cx.k.pmap.invalInterlocks, interlocks);

      // Another page in its place: what the mapping knew goes to the old page.
      const other = yield* newPage(cx, 0x99n);
      assertEquals(m.dirty, 0);
      yield* pmapEnter(cx, pmap, page(0), other, VM_PROT_RW, false);
      assertEquals(m.dirty, 0xff);
      assert((m.flags & PG_REFERENCED) !== 0);
      assertEquals(m.flags & PG_MAPPED, 0);
      assertEquals(yield* peek(cx, page(0)), 0x99n);
      assertSound(cx);

      yield* pmapRemovePages(cx, pmap, gva(0x1000), gva(0x7fff_ffff_f000n));
      assertEquals(yield* peek(cx, page(0)), undefined);
      assertSound(cx);
      freePage(cx, m);
      freePage(cx, other);
      leaveSpace(cx);
    });
    assertEquals(machine.sanitizer?.count, 0);
  });

  it("lowers rights and never raises them (pmap_protect)", () => {
    const { machine } = runInKernel(sanitized, function* (cx) {
      const vm = yield* newSpace(cx), pmap = vm.vmPmap;
      yield* enterSpace(cx, vm);
      const m = yield* newPage(cx, 5n);
      yield* pmapEnter(cx, pmap, page(0), m, VM_PROT_RW, false);
      assert(yield* poke(cx, page(0), 6n));
      yield* pmapProtect(cx, pmap, page(0), page(1), VM_PROT_READ);
      assertEquals(m.dirty, 0xff, "M went to the page");
      assertEquals(yield* poke(cx, page(0), 7n), false);
      assertEquals(yield* peek(cx, page(0)), 6n);
      yield* pmapProtect(cx, pmap, page(0), page(1), VM_PROT_RW);
      assertEquals(yield* poke(cx, page(0), 7n), false);
      // Without execution: NX, and a mapping without READ goes.
      yield* pmapEnter(cx, pmap, page(1), yield* newPage(cx, 8n), VM_PROT_READ | VM_PROT_EXECUTE, false);
      yield* pmapProtect(cx, pmap, page(1), page(2), VM_PROT_READ);
      assertSound(cx);
      yield* pmapProtect(cx, pmap, page(0), page(9), 0);
      assertEquals(yield* peek(cx, page(0)), undefined);
      assertEquals(yield* peek(cx, page(1)), undefined);
      assertEquals(m.flags & PG_MAPPED, 0);
      assertSound(cx);
      leaveSpace(cx);
    });
    assertEquals(machine.sanitizer?.count, 0);
  });

  it("knows all mappings of a page (page_protect, ts_referenced, clear_*)", () => {
    const { machine } = runInKernel(sanitized, function* (cx) {
      const vm = yield* newSpace(cx), pmap = vm.vmPmap;
      const other = (yield* newSpace(cx)).vmPmap;
      yield* enterSpace(cx, vm);
      const m = yield* newPage(cx, 5n);
      for (const n of [0, 1, 2]) yield* pmapEnter(cx, pmap, page(n), m, VM_PROT_RW, false);
      for (const n of [0, 1, 2, 3]) {
        yield* pmapEnter(cx, other, page(n), m, n === 0 ? VM_PROT_READ : VM_PROT_RW, false);
      }
      assertEquals(m.md.pvCount, 7);
      assertSound(cx);

      // A is set in advance; counting stops when it has seen enough.
      assertEquals(yield* pmapTsReferenced(cx, m), 5);
      assertEquals(yield* pmapTsReferenced(cx, m), 2);
      assertEquals(yield* pmapTsReferenced(cx, m), 0);
      yield* pmapRemove(cx, pmap, page(1), page(2));
      yield* pmapEnter(cx, pmap, page(1), m, VM_PROT_RW, false);
      assertEquals(yield* pmapTsReferenced(cx, m), 1);
      yield* pmapClearReference(cx, m);
      assertEquals(yield* entryBits(cx, pmap, page(1)), "V RW");

      assert(yield* poke(cx, page(1), 1n));
      assertEquals(yield* pmapIsModified(cx, m), true);
      yield* pmapClearModify(cx, m);
      assertEquals(yield* pmapIsModified(cx, m), false);
      assertEquals(m.dirty, 0);

      yield* pmapEnter(cx, pmap, page(5), m, VM_PROT_RW, false);
      assert(yield* poke(cx, page(5), 2n));
      yield* pmapPageProtect(cx, m, VM_PROT_READ);
      assertEquals(m.flags & (PG_WRITEABLE | PG_MAPPED), PG_MAPPED);
      assertEquals(m.dirty, 0xff);
      for (const n of [0, 1, 2, 5]) assertEquals(yield* poke(cx, page(n), 1n), false);
      for (const n of [0, 1, 2, 5]) assertEquals(yield* peek(cx, page(n)), 2n);
      assertSound(cx);

      yield* pmapPageProtect(cx, m, 0);
      assertEquals(m.flags & (PG_WRITEABLE | PG_MAPPED), 0);
      assertEquals(m.md.pvCount, 0);
      for (const n of [0, 1, 2, 5]) assertEquals(yield* peek(cx, page(n)), undefined);
      assertSound(cx);
      freePage(cx, m);
      leaveSpace(cx);
    });
    assertEquals(machine.sanitizer?.count, 0);
  });

  it("answers questions without faulting (fault_page_quick, prefault_ok, mincore)", () => {
    runInKernel({}, function* (cx) {
      const pmap = (yield* newSpace(cx)).vmPmap;
      const m = yield* newPage(cx, 5n);
      assertEquals(yield* pmapPrefaultOk(cx, pmap, page(0)), false, "no PT page");
      assertEquals(yield* pmapFaultPageQuick(cx, pmap, page(0), VM_PROT_READ), undefined);
      assertEquals(yield* pmapMincore(cx, pmap, page(0)), 0);
      yield* pmapEnter(cx, pmap, page(0), m, VM_PROT_READ, false);
      assertEquals(yield* pmapPrefaultOk(cx, pmap, page(0)), false, "mapped");
      assertEquals(yield* pmapPrefaultOk(cx, pmap, page(1)), true);
      assertEquals(yield* pmapMincore(cx, pmap, page(0)), 1 | 2 | 8);
      assertEquals(yield* pmapFaultPageQuick(cx, pmap, page(0), VM_PROT_WRITE), undefined);
      assertEquals(m.holdCount, 0);
      assertEquals(yield* pmapFaultPageQuick(cx, pmap, page(0), VM_PROT_READ), m);
      assertEquals([m.holdCount, m.dirty], [1, 0]);
      vmPageUnhold(cx, m);
      yield* pmapEnter(cx, pmap, page(0), m, VM_PROT_RW, false);
      assertEquals(yield* pmapFaultPageQuick(cx, pmap, page(0), VM_PROT_WRITE), m);
      assertEquals([m.holdCount, m.dirty], [1, 0xff]);
      vmPageUnhold(cx, m);
      assertEquals(yield* pmapMincore(cx, pmap, page(0)), 1 | 2 | 8 | 0x10);
      assertSound(cx);
      yield* pmapRemoveAll(cx, m);
      freePage(cx, m);
    });
  });

  it("maps unmanaged pages without pv entries, and counts them", () => {
    runInKernel({}, function* (cx) {
      const pmap = (yield* newSpace(cx)).vmPmap;
      const first = yield* newPage(cx, 5n), second = yield* newPage(cx, 6n);
      first.flags |= PG_UNMANAGED;
      second.flags |= PG_UNMANAGED;
      const pvs = cx.k.pmap.pvCount;
      yield* pmapEnter(cx, pmap, page(0), first, VM_PROT_RW, true);
      assertEquals(cx.k.pmap.pvCount, pvs + 3, "PT, PD and PDP");
      assertEquals([pmap.pmStats.residentCount, pmap.pmStats.wiredCount], [5, 1]);
      assertSound(cx);
      yield* pmapEnter(cx, pmap, page(0), second, VM_PROT_RW, false);
      assertEquals([pmap.pmStats.residentCount, pmap.pmStats.wiredCount], [5, 0]);
      assertEquals(yield* pmapExtract(cx, pmap, page(0)), second.physAddr);
      assertSound(cx);
      yield* pmapRemove(cx, pmap, page(0), page(4));
      assertEquals(pmap.pmStats.residentCount, 4);
      assertSound(cx);
      yield* pmapRelease(cx, pmap);
    });
  });

  it("uses a released root again, and is told of CPUs that have it", () => {
    const { machine } = runInKernel(sanitized, function* (cx) {
      const one = yield* newSpace(cx), two = yield* newSpace(cx);
      yield* enterSpace(cx, one);
      const lwp = cx.lwp!;
      assertEquals([one.vmPmap.pmActive, two.vmPmap.pmActive], [1, 0]);
      const m = yield* newPage(cx, 3n);
      yield* pmapEnter(cx, one.vmPmap, page(0), m, VM_PROT_RW, false);
      assertEquals(yield* peek(cx, page(0)), 3n);
      yield* pmapSetlwpvm(cx, lwp, two);
      assertEquals([one.vmPmap.pmActive, two.vmPmap.pmActive], [0, 1]);
      assertEquals(yield* peek(cx, page(0)), undefined);
      assertSound(cx);
      yield* pmapRemove(cx, one.vmPmap, page(0), page(1));
      yield* pmapRelease(cx, one.vmPmap);
      yield* pmapSetlwpvm(cx, lwp, one);
      assertEquals(yield* peek(cx, page(0)), undefined);
      freePage(cx, m);
      leaveSpace(cx);
    });
    assertEquals(machine.sanitizer?.count, 0);
  });
});
