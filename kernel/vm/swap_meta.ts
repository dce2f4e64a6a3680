/**
 * Which block of swap holds which page of an object (`swblock`, `swp_pager_meta_*` of `sys/vm/swap_pager.c`).
 *
 * Room: `kernel/vm/`; imports the block map of vm_swap.ts and the tree.
 *
 *     object.swblockRoot: tree of swblocks by index      swblock: 32 consecutive pages' block numbers, SWAPBLK_NONE where there is none
 *
 * A block number that stands here is allocated in the block map, and stands nowhere else. All changes happen with the object's token held
 * exclusively; all of them are plain functions: none sleeps (DragonFly's may, for the memory of a swblock).
 *
 * @module
 */
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import { SWAPBLK_NONE } from "../libkern/blist.ts";
import { RbTree } from "../libkern/rbtree.ts";
import { assertToken } from "../lwkt/token.ts";
import { OBJT_DEFAULT, OBJT_SWAP, type VmObject } from "./vm_object.ts";
import { swpPagerFreeswapspace } from "./vm_swap.ts";

/** Pages of a swblock (`SWAP_META_PAGES`). */
export const SWAP_META_PAGES = 32;

/** Block numbers of 32 pages (`struct swblock`). */
export class Swblock {
  /** Index of the first page, a multiple of 32. */
  readonly swbIndex: number;
  /** Pages that have a block. */
  swbCount = 0;
  /** Block of each page. */
  readonly swbPages: number[] = new Array<number>(SWAP_META_PAGES).fill(SWAPBLK_NONE);

  /** For pages `index` to `index + 31`. */
  constructor(index: number) {
    this.swbIndex = index;
  }
}

/** An object's swap metadata. */
export type SwblockTree = RbTree<Swblock>;

/** Makes anonymous memory swap-backed (`swp_pager_meta_convert`): before its first page goes out. */
export function swpPagerMetaConvert(cx: Cx, object: VmObject): void {
  assertToken(cx, object.token);
  if (object.type !== OBJT_DEFAULT) return;
  object.type = OBJT_SWAP;
  kassert(object.swblockCount === 0, "swp_pager_meta_convert: DEFAULT object has swap metadata");
}

function treeOf(object: VmObject): SwblockTree {
  return object.swblockRoot ??= new RbTree<Swblock>((swap) => swap.swbIndex);
}

/** Gives a page a block (`swp_pager_meta_build`); the one it had is freed. */
export function swpPagerMetaBuild(cx: Cx, object: VmObject, index: number, swapblk: number): void {
  assertToken(cx, object.token);
  swpPagerMetaConvert(cx, object);
  const tree = treeOf(object), first = index - index % SWAP_META_PAGES;
  let swap = tree.find(first);
  if (swap === undefined) {
    swap = new Swblock(first);
    tree.insert(swap);
    object.swblockCount++;
  }
  const at = index - first, old = swap.swbPages[at]!;
  if (old !== SWAPBLK_NONE) swpPagerFreeswapspace(cx, object, old, 1);
  else swap.swbCount++;
  swap.swbPages[at] = swapblk;
}

/** The block of a page, or SWAPBLK_NONE (`swp_pager_meta_ctl` without flags). */
export function swpPagerMetaLookup(object: VmObject, index: number): number {
  if (object.swblockRoot === undefined || object.swblockCount === 0) return SWAPBLK_NONE;
  const at = index % SWAP_META_PAGES;
  return object.swblockRoot.find(index - at)?.swbPages[at] ?? SWAPBLK_NONE;
}

/** Takes a page's block out of the metadata without freeing it, and gives it (`SWM_POP`). */
export function swpPagerMetaPop(object: VmObject, index: number): number {
  const at = index % SWAP_META_PAGES, swap = object.swblockRoot?.find(index - at);
  const blk = swap?.swbPages[at] ?? SWAPBLK_NONE;
  if (swap === undefined || blk === SWAPBLK_NONE) return SWAPBLK_NONE;
  swap.swbPages[at] = SWAPBLK_NONE;
  if (--swap.swbCount === 0) {
    object.swblockRoot!.remove(swap);
    object.swblockCount--;
  }
  return blk;
}

/** Frees a page's block, if it has one (`SWM_FREE`). */
export function swpPagerMetaFree1(cx: Cx, object: VmObject, index: number): void {
  const blk = swpPagerMetaPop(object, index);
  if (blk !== SWAPBLK_NONE) swpPagerFreeswapspace(cx, object, blk, 1);
}

/** Frees the blocks of `count` pages (`swp_pager_meta_free`); Infinity: to the end. */
export function swpPagerMetaFree(cx: Cx, object: VmObject, start: number, count: number): void {
  assertToken(cx, object.token);
  const tree = object.swblockRoot;
  if (tree === undefined || object.swblockCount === 0 || count <= 0) return;
  const end = start + count - 1;
  for (const swap of tree.scan(start - start % SWAP_META_PAGES, Math.min(end, Number.MAX_SAFE_INTEGER))) {
    const from = Math.max(start, swap.swbIndex), to = Math.min(end, swap.swbIndex + SWAP_META_PAGES - 1);
    for (let index = from; index <= to && swap.swbCount > 0; index++) swpPagerMetaFree1(cx, object, index);
  }
}

/** Pages of an object that have a block in `[from, to]`, ascending, with their blocks. Nothing may change meanwhile. */
export function* swpPagerMetaScan(
  object: VmObject,
  from: number,
  to: number,
): Generator<readonly [index: number, blk: number], void, void> {
  if (object.swblockRoot === undefined) return;
  for (const swap of object.swblockRoot.scan(from - from % SWAP_META_PAGES, to)) {
    for (const [at, blk] of swap.swbPages.entries()) {
      const index = swap.swbIndex + at;
      if (blk !== SWAPBLK_NONE && index >= from && index <= to) yield [index, blk];
    }
  }
}

/** Pages of an object that have a block on swap. */
export function swpPagerMetaCount(object: VmObject): number {
  let count = 0;
  for (const swap of object.swblockRoot ?? []) count += swap.swbCount;
  return count;
}
