import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import {
  EPT_FORMAT,
  PAT_MSR,
  PG_BITS_SIZE,
  PG_FRAME,
  PG_NX_IDX,
  PG_RW_IDX,
  PG_V_IDX,
  type PmapFormat,
  REGULAR_FORMAT,
  TYPE_IDX,
} from "../../../kernel/pmap/pmap_bits.ts";
import { indexInParent, parentPindex, pindexLevel, pindexToVa } from "../../../kernel/pmap/pmap.ts";
import * as names from "../../../kernel/pmap/pmap.ts";

const formats: readonly (readonly [string, PmapFormat])[] = [["regular", REGULAR_FORMAT], [
  "EPT",
  EPT_FORMAT,
]];

describe("pmap_bits", () => {
  it("has the values of the reference's table", () => {
    //                    TYPE V   RW  U   A      M      PS     G      W      MANAGED DEVICE  N     NX
    const regular = [0n, 1n, 2n, 4n, 0x20n, 0x40n, 0x80n, 0x100n, 0x200n, 0x400n, 0x800n, 0x18n, 1n << 63n];
    const ept = [1n, 5n, 2n, 0n, 0x100n, 0x200n, 0x80n, 0n, 0x400n, 0x800n, 1n << 52n, 0x40n, 0n];
    assertEquals(REGULAR_FORMAT.pmapBits, regular);
    assertEquals(EPT_FORMAT.pmapBits, ept);
    assertEquals(regular.length, PG_BITS_SIZE);
  });

  it("has the cache vectors of the reference's table, inside the mask", () => {
    assertEquals(REGULAR_FORMAT.pmapCacheBits, [0x18n, 0x88n, 0n, 0n, 0x08n, 0x80n, 0n, 0x10n]);
    assertEquals(EPT_FORMAT.pmapCacheBits, [0x40n, 0x48n, 0n, 0n, 0x60n, 0x68n, 0x70n, 0x40n]);
    assertEquals([REGULAR_FORMAT.pmapCacheMask, EPT_FORMAT.pmapCacheMask], [0x98n, 0x78n]);
    for (const [, format] of formats) {
      for (const bits of format.pmapCacheBits) assertEquals(bits & ~format.pmapCacheMask, 0n);
    }
  });

  it("gives each cache code the PAT slot that holds its type", () => {
    // PWT, PCD and PAT of a 4-KiB entry are bits 0, 1 and 2 of the slot's number.
    const slotOf = (bits: bigint) => Number((bits >> 3n) & 3n) | (bits & 0x80n ? 4 : 0);
    REGULAR_FORMAT.pmapCacheBits.forEach((bits, code) => {
      if (code === 2 || code === 3) return;
      assertEquals(Number((PAT_MSR >> BigInt(8 * slotOf(bits))) & 7n), code);
    });
  });

  it("uses no bit twice, and none of the frame", () => {
    for (const [name, { pmapBits }] of formats) {
      let seen = PG_FRAME;
      for (const [index, bits] of pmapBits.entries()) {
        if (index === TYPE_IDX || index === 11) continue;
        assertEquals(seen & bits, 0n, `${name}, index ${index}`);
        seen |= bits;
      }
    }
  });

  it("makes only legal EPT leaves: XWR 101 or 111", () => {
    for (const code of EPT_FORMAT.protectionCodes) {
      const xwr = (code | EPT_FORMAT.pmapBits[PG_V_IDX]!) & 7n;
      assertEquals(xwr === 5n || xwr === 7n, true);
    }
  });

  it("writes with WRITE and forbids execution without EXECUTE", () => {
    REGULAR_FORMAT.protectionCodes.forEach((code, prot) => {
      assertEquals((code & REGULAR_FORMAT.pmapBits[PG_RW_IDX]!) !== 0n, (prot & 2) !== 0);
      assertEquals((code & REGULAR_FORMAT.pmapBits[PG_NX_IDX]!) !== 0n, (prot & 4) === 0);
    });
  });
});

describe("a pindex", () => {
  it("names an entry or table, and leads to its parent and back", () => {
    for (const va of [0n, 0x1000n, 0x40_0000n, 0x7fff_ffff_e000n, 0xffff_ff80_0000_1000n]) {
      const pte = names.pmapPtePindex(va), pt = names.pmapPtPindex(va), pd = names.pmapPdPindex(va);
      const pdp = names.pmapPdpPindex(va), pml4 = names.pmapPml4Pindex();
      assertEquals([pte, pt, pd, pdp, pml4].map(pindexLevel), [0, 1, 2, 3, 4]);
      assertEquals([pte, pt, pd, pdp].map(parentPindex), [pt, pd, pdp, pml4]);
      assertEquals(
        [pte, pt, pd, pdp].map(indexInParent),
        [12n, 21n, 30n, 39n].map((shift) => Number((va >> shift) & 511n)),
      );
      assertEquals(pindexToVa(pte), va);
      assertEquals(pindexToVa(pt), va & ~0x1f_ffffn);
      assertEquals(pindexToVa(pdp), va & ~0x7f_ffff_ffffn);
    }
  });
});
