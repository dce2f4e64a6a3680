import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { checkInvariants } from "../../../kernel/pmap/invariants.ts";
import { PMAP_EMULATE_AD_BITS, PMAP_HVM } from "../../../kernel/pmap/pmap_bits.ts";
import { pmapEnter } from "../../../kernel/pmap/pmap_enter.ts";
import { pmapExtract, pmapFaultPageQuick } from "../../../kernel/pmap/pmap_extract.ts";
import { pmapPinit, pmapPuninit, pmapRelease, vmxEptPmapPinit } from "../../../kernel/pmap/pmap_pinit.ts";
import {
  pmapIsModified,
  pmapPageProtect,
  pmapProtect,
  pmapTsReferenced,
} from "../../../kernel/pmap/pmap_protect.ts";
import { entryIn, pmapPte, pteFrame } from "../../../kernel/pmap/pmap_pte.ts";
import { pmapRemove } from "../../../kernel/pmap/pmap_remove.ts";
import { kernelRoot, pmapCr3 } from "../../../kernel/pmap/pmap_switch.ts";
import { VM_PROT_READ, VM_PROT_RW } from "../../../kernel/vm/vm_param.ts";
import { runInKernel } from "../in_kernel.ts";
import { assertSound, freePage, newPage, newSpace, page } from "./pmap_fixture.ts";

describe("an EPT pmap", () => {
  it("is the same pmap with other bits", () => {
    runInKernel({}, function* (cx) {
      const pmap = (yield* newSpace(cx)).vmPmap;
      yield* vmxEptPmapPinit(cx, pmap, true);
      assertEquals(pmap.pmFlags, PMAP_HVM | PMAP_EMULATE_AD_BITS);
      assertEquals(pmapCr3(cx, pmap), kernelRoot(cx), "an EPT root is never in CR3");
      const m = yield* newPage(cx, 1n);
      yield* pmapEnter(cx, pmap, page(0), m, VM_PROT_RW, true);
      const ptep = (yield* pmapPte(cx, pmap, page(0)))!;
      // R|W|X, write back, A, W, MANAGED; and the tables above R|W|X with A and D, bits 3 to 7 zero.
      assertEquals(yield* cx.cpu.load64(ptep), BigInt(m.physAddr) | 0xd77n);
      const root = pmap.pmPmlpv!.pvM!.physAddr;
      const above = yield* cx.cpu.load64(entryIn(cx.k, root, 0));
      assertEquals(above & 0xfffn, 0x307n);
      assertEquals((yield* cx.cpu.load64(entryIn(cx.k, pteFrame(above), 0))) & 0xfffn, 0x307n);
      assertEquals(yield* pmapExtract(cx, pmap, page(0)), m.physAddr);
      assertEquals(yield* pmapFaultPageQuick(cx, pmap, page(0), VM_PROT_READ), undefined, "no U to test");
      assertSound(cx);

      // The hardware's dirty bit is bit 9 here.
      yield* cx.cpu.store64(ptep, (yield* cx.cpu.load64(ptep)) | 0x200n);
      assertEquals(yield* pmapIsModified(cx, m), true);
      assertEquals(yield* pmapTsReferenced(cx, m), 1);
      const generation = pmap.pmInvgen;
      yield* pmapPageProtect(cx, m, VM_PROT_READ);
      assertEquals(pmap.pmInvgen, generation + 1, "the run loop must INVEPT");
      assertEquals([m.dirty, yield* cx.cpu.load64(ptep)], [0xff, BigInt(m.physAddr) | 0xc75n]);
      // Execution cannot be taken away; nothing changes, nobody is told.
      yield* pmapProtect(cx, pmap, page(0), page(1), VM_PROT_READ);
      assertEquals(pmap.pmInvgen, generation + 1);
      yield* pmapRemove(cx, pmap, page(0), page(1));
      assertEquals(pmap.pmInvgen, generation + 2);
      freePage(cx, m);
      assertSound(cx);

      // Released and used again it is an ordinary one: its old root without the kernel's half must not get into CR3.
      yield* pmapRelease(cx, pmap);
      yield* pmapPinit(cx, pmap);
      assertEquals(pmap.pmFlags, 0);
      cx.k.pmap.pmapList.add(pmap);
      assertEquals(checkInvariants(cx, true), []);
      yield* pmapRelease(cx, pmap);
      yield* pmapPuninit(cx, pmap);
    });
  });
});
