/**
 * Bitmap allocator with hints (`sys/kern/subr_blist.c`): which blocks of swap are free.
 *
 * Room: `kernel/libkern/`; imports nothing.
 *
 * A radix tree. A leaf is a bitmap of 32 blocks (bit set: free). A node has 16 children and counts the free blocks below it. Every
 * node and leaf has a *hint*, an upper bound of the longest run that can be had there: an allocation that finds a part too fragmented lowers
 * its hint, a free raises it again, so that a search passes by whole subtrees without looking.
 *
 * A run never crosses the border of a leaf, as in DragonFly (where a leaf is one word too): {@link BLIST_MAX_ALLOC} blocks at most.
 *
 * @module
 */

/** Most blocks in one allocation: a leaf's. */
export const BLIST_MAX_ALLOC = 32;
/** No block (`SWAPBLK_NONE`). */
export const SWAPBLK_NONE = -1;

/** Children of a node. */
const META_RADIX = 16;

interface Leaf {
  /** Free blocks, as bits; signed 32. */
  bitmap: number;
  hint: number;
}
interface Meta {
  /** Free blocks below. */
  avail: number;
  hint: number;
  readonly children: readonly BlistNode[];
}
type BlistNode = Leaf | Meta;

/** A map of free blocks, all allocated at first. */
export class Blist {
  /** Blocks that there are. */
  readonly blocks: number;
  /** Blocks that are free (`bl_free`). */
  #free = 0;
  readonly #root: BlistNode;
  /** Blocks that the tree covers: 32 · 16^n. */
  readonly #radix: number;

  /** @param blocks Number of blocks; free them to begin with. */
  constructor(blocks: number) {
    this.blocks = blocks;
    let radix = BLIST_MAX_ALLOC;
    while (radix < blocks) radix *= META_RADIX;
    this.#radix = radix;
    this.#root = makeNode(radix);
  }

  /** Blocks that are free. */
  get free(): number {
    return this.#free;
  }

  /** Allocates a run of `count` blocks (`blist_alloc`): its first block, the lowest that fits, or SWAPBLK_NONE. */
  alloc(count: number): number {
    check(count);
    const at = allocBelow(this.#root, this.#radix, 0, count);
    if (at !== SWAPBLK_NONE) this.#free -= count;
    return at;
  }

  /** Frees a run of any length (`blist_free`). Freeing a free block is an error. */
  release(block: number, count: number): void {
    if (block < 0 || count < 0 || block + count > this.blocks) {
      throw new RangeError(`Cannot free blocks ${block} to ${block + count - 1} of ${this.blocks}`);
    }
    forLeaves(block, count, (first, n) => releaseBelow(this.#root, this.#radix, first, n));
    this.#free += count;
  }

  /** Allocates these blocks, whether free or not (`blist_fill`); gives how many were free. */
  fill(block: number, count: number): number {
    let filled = 0;
    forLeaves(block, count, (first, n) => filled += fillBelow(this.#root, this.#radix, first, n));
    this.#free -= filled;
    return filled;
  }

  /** Whether a block is free. */
  isFree(block: number): boolean {
    let node = this.#root, radix = this.#radix, at = block;
    while ("children" in node) {
      radix /= META_RADIX;
      node = node.children[Math.floor(at / radix)]!;
      at %= radix;
    }
    return (node.bitmap & (1 << at)) !== 0;
  }
}

function check(count: number): void {
  if (!Number.isInteger(count) || count < 1 || count > BLIST_MAX_ALLOC) {
    throw new RangeError(`Cannot allocate ${count} blocks in one piece: 1 to ${BLIST_MAX_ALLOC} can be`);
  }
}

function makeNode(radix: number): BlistNode {
  if (radix === BLIST_MAX_ALLOC) return { bitmap: 0, hint: 0 };
  const children = Array.from({ length: META_RADIX }, () => makeNode(radix / META_RADIX));
  return { avail: 0, hint: 0, children };
}

/** Calls `f` for each leaf's part of a range. */
function forLeaves(block: number, count: number, f: (block: number, count: number) => void): void {
  while (count > 0) {
    const n = Math.min(count, BLIST_MAX_ALLOC - block % BLIST_MAX_ALLOC);
    f(block, n);
    block += n;
    count -= n;
  }
}

/** `count` one bits at bit 0. */
function ones(count: number): number {
  return count === 32 ? -1 : (1 << count) - 1;
}

function allocBelow(node: BlistNode, radix: number, base: number, count: number): number {
  if (node.hint < count) return SWAPBLK_NONE;
  if ("children" in node) {
    if (node.avail >= count) {
      const step = radix / META_RADIX;
      for (const [i, child] of node.children.entries()) {
        const at = allocBelow(child, step, base + i * step, count);
        if (at === SWAPBLK_NONE) continue;
        node.avail -= count;
        return at;
      }
    }
  } else {
    const mask = ones(count);
    for (let shift = 0; shift <= BLIST_MAX_ALLOC - count; shift++) {
      if (((node.bitmap >>> shift) & mask) >>> 0 !== mask >>> 0) continue;
      node.bitmap &= ~(mask << shift);
      return base + shift;
    }
  }
  // Not here: whoever asks for as much need not look again until something is freed.
  node.hint = count - 1;
  return SWAPBLK_NONE;
}

function releaseBelow(node: BlistNode, radix: number, at: number, count: number): void {
  if ("children" in node) {
    const step = radix / META_RADIX;
    releaseBelow(node.children[Math.floor(at / step)]!, step, at % step, count);
    node.avail += count;
  } else {
    const mask = ones(count) << at;
    if (node.bitmap & mask) throw new RangeError("Cannot free a block of swap that is free");
    node.bitmap |= mask;
  }
  node.hint = BLIST_MAX_ALLOC;
}

function fillBelow(node: BlistNode, radix: number, at: number, count: number): number {
  if ("children" in node) {
    const step = radix / META_RADIX;
    const filled = fillBelow(node.children[Math.floor(at / step)]!, step, at % step, count);
    node.avail -= filled;
    return filled;
  }
  const taken = node.bitmap & (ones(count) << at);
  node.bitmap &= ~taken;
  let filled = 0;
  for (let bits = taken; bits !== 0; bits &= bits - 1) filled++;
  return filled;
}
