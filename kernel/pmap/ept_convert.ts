/**
 * Turning regular page tables into EPT ones where they stand, and back (`regular2ept`, `ept2regular`): item 4 of the mail of 2013. The project had
 * it for three days in August 2013 and dropped it: what was lost on the way did not come back. DragonFly's EPT begins empty since, and so does
 * {@link "../vmm/vmm.ts"}; this is here for the experiment.
 *
 * Room: `kernel/pmap/`; imports the formats and the pmap.
 *
 *     lost                     why
 *     UC- (comes back as UC)   EPT has no such type
 *     NX                       an EPT entry that may be read may be executed (V = R|X)
 *     U, G                     EPT has neither; a user half has U everywhere and G nowhere, so they can be given back
 *
 * @module
 */
import { gva } from "../../hw/address.ts";
import type { Hpa } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import { NPTEPG, type Pmap, PML4PML4I } from "./pmap.ts";
import {
  EPT_FORMAT,
  EPT_PMAP,
  PAT_WRITE_BACK,
  PG_A_IDX,
  PG_DEVICE_IDX,
  PG_FRAME,
  PG_M_IDX,
  PG_MANAGED_IDX,
  PG_PS_IDX,
  PG_RW_IDX,
  PG_U_IDX,
  PG_V_IDX,
  PG_W_IDX,
  type PmapFormat,
  REGULAR_FORMAT,
  REGULAR_PMAP,
  TYPE_IDX,
} from "./pmap_bits.ts";
import { entryIn, pteFrame } from "./pmap_pte.ts";

/** First entry of a root page that is not the user's. */
const USER_SLOTS = 256;
/** Bits that both formats have, each in its own place. */
const SHARED_BITS = [
  PG_V_IDX,
  PG_RW_IDX,
  PG_A_IDX,
  PG_M_IDX,
  PG_PS_IDX,
  PG_W_IDX,
  PG_MANAGED_IDX,
  PG_DEVICE_IDX,
] as const;

/**
 * An entry in another format. Tables have no memory type.
 *
 * @param leaf It maps a 4-KiB page.
 */
export function convertEntry(entry: bigint, from: PmapFormat, to: PmapFormat, leaf: boolean): bigint {
  if ((entry & from.pmapBits[PG_V_IDX]!) === 0n) return 0n;
  let out = entry & PG_FRAME;
  for (const index of SHARED_BITS) {
    const bit = from.pmapBits[index]!;
    if (bit !== 0n && (entry & bit) === bit) out |= to.pmapBits[index]!;
  }
  out |= to.pmapBits[PG_U_IDX]!;
  return leaf ? out | to.pmapCacheBits[typeOf(entry, from)]! : out;
}

/** The memory type that a leaf's bits stand for: the first one in the vector that has them, but rather write back than none. */
function typeOf(entry: bigint, format: PmapFormat): number {
  const bits = entry & format.pmapCacheMask;
  if (bits === format.pmapCacheBits[PAT_WRITE_BACK]) return PAT_WRITE_BACK;
  const type = format.pmapCacheBits.indexOf(bits);
  return type < 0 ? PAT_WRITE_BACK : type;
}

/** Makes an EPT pmap of a regular one, with all its mappings. Preconditions: no processor has it active. */
export function* regular2ept(cx: Cx, pmap: Pmap): Exec<void> {
  kassert(pmap.pmapBits[TYPE_IDX] === REGULAR_PMAP, "regular2ept: the pmap is not a regular one");
  yield* convert(cx, pmap, REGULAR_FORMAT, EPT_FORMAT);
  const root = pmap.pmPmlpv!.pvM!.physAddr;
  yield* cx.cpu.zeroBytes(gva(entryIn(cx.k, root, USER_SLOTS)), (NPTEPG - USER_SLOTS) * 8);
}

/** Makes a regular pmap of an EPT one, the kernel's half with it. Preconditions: no processor has it active, none keeps translations of it. */
export function* ept2regular(cx: Cx, pmap: Pmap): Exec<void> {
  kassert(pmap.pmapBits[TYPE_IDX] === EPT_PMAP, "ept2regular: the pmap is no EPT");
  yield* convert(cx, pmap, EPT_FORMAT, REGULAR_FORMAT);
  const root = pmap.pmPmlpv!.pvM!.physAddr;
  for (const [slot, entry] of cx.k.pmap.kernelSlots) {
    yield* cx.cpu.store64(entryIn(cx.k, root, slot), entry);
  }
  const { pmapBits: bits } = REGULAR_FORMAT;
  const recursive = bits[PG_V_IDX]! | bits[PG_RW_IDX]! | bits[PG_A_IDX]! | bits[PG_M_IDX]!;
  yield* cx.cpu.store64(entryIn(cx.k, root, PML4PML4I), BigInt(root) | recursive);
}

/** The user half, level by level. */
function* convert(cx: Cx, pmap: Pmap, from: PmapFormat, to: PmapFormat): Exec<void> {
  kassert(pmap.pmActive === 0, "pmap format: a CPU has the pmap active");
  yield* convertTable(cx, pmap.pmPmlpv!.pvM!.physAddr, 4, from, to);
  pmap.setFormat(to);
}

function* convertTable(cx: Cx, table: Hpa, level: number, from: PmapFormat, to: PmapFormat): Exec<void> {
  for (let i = 0; i < (level === 4 ? USER_SLOTS : NPTEPG); i++) {
    const at = entryIn(cx.k, table, i);
    const entry = yield* cx.cpu.load64(at);
    if (entry === 0n) continue;
    if (level > 1) yield* convertTable(cx, pteFrame(entry), level - 1, from, to);
    yield* cx.cpu.store64(at, convertEntry(entry, from, to, level === 1));
  }
}
