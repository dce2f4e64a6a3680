/**
 * Descriptor tables and the task-state segment as bytes (SDM vol. 3A, "Segment Descriptors", "64-Bit Mode IDT", "64-Bit TSS").
 *
 * Room: `kernel/platform/pc64/`; imports the selectors.
 *
 * @module
 */
import { GDT_BYTES, SELECTOR } from "./vmparam.ts";

/** Interrupt stack table slots. */
export const IST = { NONE: 0, NMI: 1, DF: 2, MC: 3 } as const;

/** Bytes of a TSS without I/O bitmap. */
export const TSS_BYTES = 104;
/** Bytes of an IDT with all 256 gates. */
export const IDT_BYTES = 4096;

const CODE64 = 0x00af_9b00_0000_ffffn;
const DATA = 0x00cf_9300_0000_ffffn;
const CODE32 = 0x00cf_9b00_0000_ffffn;
const DPL3 = 3n << 45n;
/** Present, 64-bit interrupt gate. */
const INTERRUPT_GATE = 0x8en;
/** Vectors that user code may call with INT n: breakpoint and overflow. */
const USER_VECTORS = new Set([3, 4]);

/** A processor's GDT: kernel code and data, user code and data, its TSS at `tss`. */
export function encodeGdt(tss: bigint): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(GDT_BYTES);
  const view = new DataView(bytes.buffer);
  const set = (selector: number, value: bigint) => view.setBigUint64(selector & ~7, value, true);
  set(SELECTOR.KCODE, CODE64);
  set(SELECTOR.KDATA, DATA);
  set(SELECTOR.UCODE32, CODE32 | DPL3);
  set(SELECTOR.UDATA, DATA | DPL3);
  set(SELECTOR.UCODE, CODE64 | DPL3);
  const limit = BigInt(TSS_BYTES - 1);
  set(
    SELECTOR.TSS,
    limit | ((tss & 0xff_ffffn) << 16n) | (0x89n << 40n) | (((tss >> 24n) & 0xffn) << 56n),
  );
  set(SELECTOR.TSS + 8, tss >> 32n);
  return bytes;
}

/** The IDT: every vector an interrupt gate to its entry, some on a stack of their own. */
export function encodeIdt(
  entries: readonly bigint[],
  ist: ReadonlyMap<number, number>,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(IDT_BYTES);
  const view = new DataView(bytes.buffer);
  entries.forEach((entry, n) => {
    const rights = INTERRUPT_GATE | (USER_VECTORS.has(n) ? 0x60n : 0n);
    const low = (entry & 0xffffn) | (BigInt(SELECTOR.KCODE) << 16n) |
      (BigInt(ist.get(n) ?? IST.NONE) << 32n) |
      (rights << 40n) | (((entry >> 16n) & 0xffffn) << 48n);
    view.setBigUint64(n * 16, low, true);
    view.setBigUint64(n * 16 + 8, entry >> 32n, true);
  });
  return bytes;
}

/** A TSS: the stack for entries from ring 3, and the stacks of the interrupt stack table (slot 1 first). */
export function encodeTss(rsp0: bigint, ist: readonly bigint[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(TSS_BYTES);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(4, rsp0, true);
  ist.forEach((top, i) => view.setBigUint64(36 + i * 8, top, true));
  view.setUint16(102, TSS_BYTES, true); // no I/O bitmap
  return bytes;
}

/** A pseudo-descriptor as LGDT and LIDT read it. */
export function encodePseudoDescriptor(base: bigint, bytes: number): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(10);
  const view = new DataView(out.buffer);
  view.setUint16(0, bytes - 1, true);
  view.setBigUint64(2, base, true);
  return out;
}
