import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { ept2regular, regular2ept } from "../../../kernel/pmap/ept_convert.ts";
import {
  PAT_UNCACHEABLE,
  PAT_UNCACHED,
  PAT_WRITE_BACK,
  PAT_WRITE_COMBINING,
  PAT_WRITE_PROTECTED,
  PAT_WRITE_THROUGH,
} from "../../../kernel/pmap/pmap_bits.ts";
import { pmapEnter } from "../../../kernel/pmap/pmap_enter.ts";
import { pmapExtract } from "../../../kernel/pmap/pmap_extract.ts";
import { pmapPte } from "../../../kernel/pmap/pmap_pte.ts";
import { pmapRemove } from "../../../kernel/pmap/pmap_remove.ts";
import { VM_PROT_ALL, VM_PROT_EXECUTE, VM_PROT_READ, VM_PROT_RW } from "../../../kernel/vm/vm_param.ts";
import type { VmPage } from "../../../kernel/vm/vm_page.ts";
import { vmspaceRel } from "../../../kernel/vm/vmspace.ts";
import { runInKernel } from "../in_kernel.ts";
import { assertSound, freePage, newPage, newSpace, page } from "./pmap_fixture.ts";

const TYPES = [
  PAT_UNCACHEABLE,
  PAT_WRITE_COMBINING,
  PAT_WRITE_THROUGH,
  PAT_WRITE_PROTECTED,
  PAT_WRITE_BACK,
  PAT_UNCACHED,
];
const PROTS = [VM_PROT_RW, VM_PROT_READ, VM_PROT_ALL, VM_PROT_READ | VM_PROT_EXECUTE];
const NX = 1n << 63n, PCD = 0x10n, PWT = 0x08n;

describe("regular2ept and ept2regular (item 4 of the mail of 2013)", () => {
  it("convert a user half there and back; of cache bits UC- is lost, and NX", () => {
    runInKernel({}, function* (cx) {
      const vm = yield* newSpace(cx), pmap = vm.vmPmap;
      const pages: VmPage[] = [], before: bigint[] = [];
      for (let i = 0; i < TYPES.length * PROTS.length; i++) {
        const m = yield* newPage(cx, BigInt(i));
        m.patMode = TYPES[i % TYPES.length]!;
        pages.push(m);
        // Far apart, so that several tables of each level are converted.
        yield* pmapEnter(cx, pmap, page(i * 0x9_0001), m, PROTS[Math.floor(i / TYPES.length)]!, i % 3 === 0);
        const ptep = (yield* pmapPte(cx, pmap, page(i * 0x9_0001)))!;
        if (i % 2) {
          yield* cx.cpu.store64(
            ptep,
            (yield* cx.cpu.load64(ptep)) | (PROTS[Math.floor(i / 6)]! & 2 ? 0x40n : 0n),
          );
        }
        before.push(yield* cx.cpu.load64(ptep));
      }
      assertSound(cx);

      yield* regular2ept(cx, pmap);
      assertSound(cx);
      for (const [i, m] of pages.entries()) {
        const entry = yield* cx.cpu.load64((yield* pmapPte(cx, pmap, page(i * 0x9_0001)))!);
        assertEquals(yield* pmapExtract(cx, pmap, page(i * 0x9_0001)), m.physAddr);
        const type = TYPES[i % TYPES.length]!;
        assertEquals(
          entry & 0x38n,
          BigInt(type === PAT_UNCACHED ? PAT_UNCACHEABLE : type) << 3n,
          "memory type",
        );
        assertEquals(entry & 0x5n, 0x5n, "R and X");
        assertEquals((entry & 2n) !== 0n, (before[i]! & 2n) !== 0n, "W");
        assertEquals((entry & 0x200n) !== 0n, (before[i]! & 0x40n) !== 0n, "M");
      }

      yield* ept2regular(cx, pmap);
      assertSound(cx);
      for (let i = 0; i < pages.length; i++) {
        const entry = yield* cx.cpu.load64((yield* pmapPte(cx, pmap, page(i * 0x9_0001)))!);
        const was = before[i]!;
        const expected = (was & (PCD | PWT)) === PCD ? was | PWT : was;
        assertEquals(entry, expected & ~NX, `page ${i}`);
      }
      yield* pmapRemove(cx, pmap, page(0), page(0x200_0000));
      for (const m of pages) freePage(cx, m);
      yield* vmspaceRel(cx, vm);
    });
  });
});
