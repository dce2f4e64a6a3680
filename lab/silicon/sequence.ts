/**
 * A sequence of instructions before it has an address: items that can be left out one by one, which is how a difference is
 * narrowed down to the instructions that matter.
 *
 * Room: `lab/silicon/`; imports the layout.
 *
 * @module
 */
import { SEQUENCE_END } from "./native.ts";
import { SLOT_BYTES } from "./layout.ts";

/** One instruction, with what must stand before and after it. */
export interface Item {
  readonly bytes: readonly number[];
  /** A RIP-relative displacement: where it stands, where its instruction ends, what it points to. */
  readonly relative?: { readonly at: number; readonly end: number; readonly target: number };
  /** A forward jump: where the target stands, in how many bytes, relative to where (−1: absolute), to which item. */
  readonly jump?: { readonly at: number; readonly size: 1 | 4; readonly end: number; readonly to: number };
  /** Flags undefined when the item has not come to its end. */
  readonly undefinedFlags: number;
  /** The x87 state is not compared when the item faults. */
  readonly looseX87: boolean;
  /** An alignment-check exception of the host's may be missing. */
  readonly looseAlignment: boolean;
  /** A page fault of the host's may be missing. */
  readonly looseFaults: boolean;
  /** The address of a page fault is not compared. */
  readonly looseOrder: boolean;
}

/** Bytes of the jump at the end. */
const TAIL = 5;

/** Machine code of some of a sequence's items. */
export interface Assembled {
  readonly code: Uint8Array;
  /** Offset of each item kept, and of the end. */
  readonly offsets: readonly number[];
}

/** Whether the items fit a slot. */
export function fits(items: readonly Item[]): boolean {
  return items.reduce((sum, item) => sum + item.bytes.length, TAIL) <= SLOT_BYTES;
}

/**
 * Puts together the items that `keep` names, to stand at `address`.
 *
 * @returns undefined when a short jump does not reach.
 */
export function assemble(
  items: readonly Item[],
  address: number,
  keep: readonly number[] = items.map((_, i) => i),
): Assembled | undefined {
  const offsets: number[] = [];
  let length = 0;
  for (const i of keep) {
    offsets.push(length);
    length += items[i]!.bytes.length;
  }
  offsets.push(length);
  const code = new Uint8Array(length + TAIL);
  const view = new DataView(code.buffer);
  for (let n = 0; n < keep.length; n++) {
    const item = items[keep[n]!]!, start = offsets[n]!;
    code.set(item.bytes, start);
    if (item.relative !== undefined) {
      const { at, end, target } = item.relative;
      view.setInt32(start + at, target - (address + start + end), true);
    }
    if (item.jump !== undefined) {
      const { at, size, end, to } = item.jump;
      // An item that was left out: the next one kept.
      const target = offsets[keep.findIndex((i) => i >= to)] ?? length;
      const value = end < 0 ? address + target : target - (start + end);
      if (size === 1 && value > 127) return undefined;
      if (size === 1) view.setInt8(start + at, value);
      else view.setInt32(start + at, value, true);
    }
  }
  code[length] = 0xe9;
  view.setInt32(length + 1, SEQUENCE_END - (address + length + TAIL), true);
  return { code, offsets };
}
