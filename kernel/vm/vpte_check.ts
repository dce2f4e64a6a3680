/**
 * What witnesses a forgotten MADV_INVAL: every entry that the host has made of a software page table is still granted by that table.
 *
 * Room: `kernel/vm/`; for tests and the lab; imports maps and the formats. Looks without locks, between any two steps.
 *
 * The sanitizer watches what processors do with the host's tables. When a vkernel changes an entry of its own and forgets MADV_INVAL, the host's
 * tables are what they were, and no processor does anything wrong with them; the guest goes on reading another's page. So for each
 * mapping under a MAP_VPAGETABLE entry, whoever's:
 *
 * 1. The walk from the entry's root by the address's offset in the object finds V at each level, and U where the root has it.
 * 2. A writable mapping: RW at each level, and M in the last one (a vkernel takes M away together with the right to write).
 * 3. An executable mapping: NX nowhere.
 * 4. The frame is the one that holds the object's page of that number.
 *
 * The walk here is not the fault's (vm_fault_vpagetable.ts), so that one finds the other's mistakes.
 *
 * While a vkernel is between the change and the call, the rules do not hold. It has the pv entry locked then, of which a caller that knows
 * the vkernel can say so; for kernel mappings, that have none, a finding counts if it is still there some time later.
 *
 * @module
 */
import { hpa } from "../../hw/address.ts";
import type { Kernel } from "../kernel.ts";
import { indexInParent, parentPindex, pindexLevel, pindexToVa, type Pmap } from "../pmap/pmap.ts";
import {
  PG_FRAME,
  PG_M_IDX,
  PG_NX_IDX,
  PG_PS_IDX,
  PG_RW_IDX,
  PG_U_IDX,
  PG_V_IDX,
} from "../pmap/pmap_bits.ts";
import { VPTE_FORMAT } from "../pmap/pmap_bits.ts";
import type { Read64 } from "../pmap/invariants.ts";
import { pteFrame } from "../pmap/pmap_pte.ts";
import { pvLocked } from "../pmap/pv_entry.ts";
import { chainPage } from "./vm_check.ts";
import type { VmMap } from "./vm_map.ts";
import type { VmMapEntry } from "./vm_map_entry.ts";
import { offToIdx, PAGE_SIZE, VM_MAPTYPE_VPAGETABLE } from "./vm_param.ts";

/** A mapping that the software page table does not grant. */
export interface VpteFinding {
  /** The vkernel's process. */
  readonly pid: number;
  /** The vkernel's name for the address space; undefined: its own. */
  readonly id: bigint | undefined;
  readonly va: bigint;
  /** In words. */
  readonly text: string;
}

/** Whether nothing counts at an address now. */
export type VpteExcuse = (pid: number, id: bigint | undefined, va: bigint) => boolean;

const vpteBits = VPTE_FORMAT.pmapBits;
const V = vpteBits[PG_V_IDX]!, RW = vpteBits[PG_RW_IDX]!, U = vpteBits[PG_U_IDX]!;
const M = vpteBits[PG_M_IDX]!, PS = vpteBits[PG_PS_IDX]!, NX = vpteBits[PG_NX_IDX]!;
const LEVELS = 4, LEVEL_BITS = 9, VPTE_BYTES = 8;

/**
 * Looks at every mapping of every software page table.
 *
 * @param read64 Reads the host's RAM.
 * @returns What is not granted; empty when all is well. And how many mappings were compared.
 */
export function checkVpte(
  k: Kernel,
  read64: Read64,
  excuse: VpteExcuse = () => false,
): { readonly findings: VpteFinding[]; readonly compared: number } {
  const findings: VpteFinding[] = [];
  let compared = 0;
  for (const proc of k.procs.allproc.values()) {
    const spaces: (readonly [bigint | undefined, VmMap | undefined])[] = [[undefined, proc.pVmspace?.vmMap]];
    for (const [id, ve] of proc.pVkernel?.root ?? []) spaces.push([id, ve.vmspace.vmMap]);
    for (const [id, map] of spaces) {
      if (map === undefined) continue;
      const entries = [...map.entries()].filter((entry) => entry.maptype === VM_MAPTYPE_VPAGETABLE);
      if (entries.length === 0) continue;
      for (const { va, pte } of mappings(map.pmap, read64)) {
        const entry = entries.find(({ start, end }) => start <= va && va < end);
        if (entry === undefined || excuse(proc.pPid, id, va)) continue;
        compared++;
        const wrong = compare(map.pmap, entry, va, pte, read64);
        if (wrong === undefined) continue;
        const where = `vkernel ${proc.pPid}, ${
          id === undefined ? "its own space" : `space 0x${id.toString(16)}`
        }`;
        const text = `${where}: 0x${va.toString(16)}: the host's entry is 0x${
          pte.toString(16)
        }, but ${wrong}`;
        findings.push({ pid: proc.pPid, id, va, text });
      }
    }
  }
  return { findings, compared };
}

/** Valid entries of a pmap that map pages and that nobody is at work on. */
function* mappings(pmap: Pmap, read64: Read64): Generator<{ readonly va: bigint; readonly pte: bigint }> {
  const valid = pmap.pmapBits[PG_V_IDX]!;
  for (const pv of pmap.pmPvroot) {
    if (pindexLevel(pv.pvPindex) !== 0 || pvLocked(pv)) continue;
    const table = pmap.pmPvroot.find(parentPindex(pv.pvPindex));
    if (table?.pvM === undefined || pvLocked(table)) continue;
    const pte = read64(table.pvM.physAddr + indexInParent(pv.pvPindex) * VPTE_BYTES);
    if ((pte & valid) !== 0n) yield { va: pindexToVa(pv.pvPindex), pte };
  }
}

/** What of a mapping the software page table does not grant; undefined if it grants all. */
function compare(
  pmap: Pmap,
  entry: VmMapEntry,
  va: bigint,
  pte: bigint,
  read64: Read64,
): string | undefined {
  const bits = pmap.pmapBits, object = entry.object;
  if (object === undefined) return "the mapping has no object";
  const index = Math.floor((entry.offset + Number(va - entry.start)) / PAGE_SIZE);
  const needU = entry.aux & U;
  let vpte = entry.aux, rights = RW, noExecute = 0n, shift = LEVELS * LEVEL_BITS;
  for (;;) {
    const at = shift === LEVELS * LEVEL_BITS ? "the root" : `the entry of level ${shift / LEVEL_BITS + 1}`;
    if ((vpte & V) === 0n) return `${at} is 0x${vpte.toString(16)}`;
    if ((vpte & needU) !== needU) return `${at} is not the user's: 0x${vpte.toString(16)}`;
    rights &= vpte;
    noExecute |= vpte & NX;
    if (shift === 0 || (vpte & PS) !== 0n) break;
    shift -= LEVEL_BITS;
    const table = chainPage(object, offToIdx(Number(vpte & PG_FRAME)));
    if (table === undefined) return `${at} names a table that is not in memory`;
    const slot = Math.floor(index / 2 ** shift) % 2 ** LEVEL_BITS;
    vpte = read64(table.physAddr + slot * VPTE_BYTES);
  }
  const page = offToIdx(Number(vpte & PG_FRAME)) + index % 2 ** shift;
  const m = chainPage(object, page);
  if (m === undefined || m.physAddr !== hpa(pteFrame(pte))) {
    return `entry 0x${vpte.toString(16)} leads to page ${page} of the memory, which is ${
      m === undefined ? "not resident" : `at 0x${m.physAddr.toString(16)}`
    }`;
  }
  if ((pte & bits[PG_RW_IDX]!) !== 0n) {
    if (rights === 0n) return `entry 0x${vpte.toString(16)}, or one above, does not allow writing`;
    if (shift < LEVELS * LEVEL_BITS && (vpte & M) === 0n) {
      return `entry 0x${vpte.toString(16)} does not say that it is modified`;
    }
  }
  const executable = (pte & bits[PG_NX_IDX]!) === 0n;
  if (executable && noExecute !== 0n) return `entry 0x${vpte.toString(16)}, or one above, forbids executing`;
  return undefined;
}
