/**
 * Swap space: the devices and which of their blocks are free (`sys/vm/vm_swap.c`, the block side of `swap_pager.c`).
 *
 * Room: `kernel/vm/`; imports blist and bio.
 *
 * A block is a page. The blocks of all devices are numbered one after the other; DragonFly stripes them in pieces of 32 over up to four
 * devices, which is left out: there is one disk. A request never crosses from one device to the next.
 *
 * @module
 */
import { PAGE_SIZE } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { Bio, type BlockDevice } from "../kern/bio.ts";
import { ERRNO } from "../kern/errno.ts";
import { kprintf } from "../kern/subr_prf.ts";
import { Blist, SWAPBLK_NONE } from "../libkern/blist.ts";
import type { VmObject } from "./vm_object.ts";
import type { VmPage } from "./vm_page.ts";

/** A device in use (`struct swdevt`). */
export interface Swdevt {
  /** `sw_dev`. */
  readonly swDev: BlockDevice;
  /** Its first block. */
  readonly swFirst: number;
  /** `sw_nblks`. */
  readonly swNblks: number;
  /** `sw_nused`: blocks in use, bad ones included. */
  swNused: number;
  /** Blocks that could not be written and are not used again. */
  swBad: number;
}

/** Swap space of a kernel. */
export class SwapState {
  /** `swdevt`. */
  readonly devices: Swdevt[] = [];
  /** Free blocks. Made by the first swapon. */
  swapblist: Blist = new Blist(0);
  /** `vm_swap_max`: blocks that there are. */
  vmSwapMax = 0;
  /** `vm_swap_size`: blocks that are free. */
  vmSwapSize = 0;
  /** `vm_swap_anon_use`: blocks that hold pages. */
  vmSwapAnonUse = 0;
  /** Blocks that could not be written. */
  vmSwapBad = 0;
  /** `swap_pager_full`: an allocation failed and not enough has been freed since. So it is while there is no device. */
  swapPagerFull = true;
  /** `swap_pager_almost_full`. */
  swapPagerAlmostFull = true;
  /** `nswap_lowat`: below, swap counts as almost full. */
  nswapLowat = 0;
  /** `nswap_hiwat`: above, no longer. */
  nswapHiwat = 0;
  /** `nsw_wcount_async`: asynchronous writes that may be started now. */
  nswWcountAsync = SWAP_ASYNC_MAX;
  /** What {@link nswWcountAsync}'s waiters sleep on. */
  readonly asyncIdent: object = {};
  /** Allocations that failed (`swap_fail_ticks` is their last tick). */
  swapFailTicks = 0;
}

/** Most asynchronous writes on their way (`swap_async_max`). */
export const SWAP_ASYNC_MAX = 4;

/** Percent of the space that are the two marks. */
const LOWAT_PERCENT = 4;
const HIWAT_PERCENT = 6;

/** Uses a whole device for swap (`swapon`, `swaponvp`). Gives an errno. */
export function swapon(cx: Cx, device: BlockDevice): number {
  const s = cx.k.swap;
  if (device.readOnly) return ERRNO.EROFS;
  if (s.devices.some(({ swDev }) => swDev === device)) return ERRNO.EBUSY;
  const nblks = Math.floor(device.mediaBytes / PAGE_SIZE);
  if (nblks < 2) return ERRNO.ENXIO;
  const first = s.swapblist.blocks;
  const blist = new Blist(first + nblks);
  for (let block = 0; block < first; block++) if (s.swapblist.isFree(block)) blist.release(block, 1);
  // The first block of a device stays as it is: labels stand there.
  blist.release(first + 1, nblks - 1);
  s.swapblist = blist;
  s.devices.push({ swDev: device, swFirst: first, swNblks: nblks, swNused: 1, swBad: 0 });
  s.vmSwapMax += nblks - 1;
  s.vmSwapSize += nblks - 1;
  s.nswapLowat = Math.ceil(s.vmSwapMax * LOWAT_PERCENT / 100);
  s.nswapHiwat = Math.ceil(s.vmSwapMax * HIWAT_PERCENT / 100);
  swpSizecheck(cx);
  const mib = (s.vmSwapMax * PAGE_SIZE / 0x10_0000).toFixed(1);
  kprintf(cx, `swap: using ${device.name}, ${nblks - 1} blocks; ${mib} MiB of swap\n`);
  return 0;
}

/** Updates the two flags (`swp_sizecheck`). */
function swpSizecheck(cx: Cx): void {
  const s = cx.k.swap;
  if (s.vmSwapSize < s.nswapLowat) {
    if (!s.swapPagerAlmostFull) {
      s.swapPagerAlmostFull = true;
      kprintf(cx, "swap_pager: out of swap space\n");
    }
  } else {
    s.swapPagerFull = false;
    if (s.vmSwapSize > s.nswapHiwat) s.swapPagerAlmostFull = false;
  }
}

function deviceOf(cx: Cx, block: number): Swdevt {
  const device = cx.k.swap.devices.find(({ swFirst, swNblks }) =>
    block >= swFirst && block < swFirst + swNblks
  );
  if (device === undefined) throw new Error(`No swap device has block ${block}`);
  return device;
}

/** Allocates a run of blocks for an object (`swp_pager_getswapspace`): the first, or SWAPBLK_NONE. */
export function swpPagerGetswapspace(cx: Cx, _object: VmObject, npages: number): number {
  const s = cx.k.swap;
  let blk = s.swapblist.alloc(npages);
  while (blk !== SWAPBLK_NONE && deviceOf(cx, blk) !== deviceOf(cx, blk + npages - 1)) {
    // A run over the border of two devices: leave it out of this search.
    const skipped = blk;
    blk = s.swapblist.alloc(npages);
    s.swapblist.release(skipped, npages);
    if (blk === skipped) blk = SWAPBLK_NONE;
  }
  if (blk === SWAPBLK_NONE) {
    // A run of one block that is not there is the end; a longer one may only be fragmented.
    if (npages === 1 || s.vmSwapSize === 0) {
      if (!s.swapPagerFull && s.vmSwapMax > 0) kprintf(cx, "swap_pager_getswapspace: failed\n");
      s.swapPagerFull = true;
      s.swapPagerAlmostFull = true;
      s.swapFailTicks = cx.k.ticks;
    }
    return SWAPBLK_NONE;
  }
  s.vmSwapSize -= npages;
  s.vmSwapAnonUse += npages;
  deviceOf(cx, blk).swNused += npages;
  swpSizecheck(cx);
  return blk;
}

/** Frees a run of blocks (`swp_pager_freeswapspace`). */
export function swpPagerFreeswapspace(cx: Cx, _object: VmObject, blk: number, npages: number): void {
  const s = cx.k.swap;
  s.swapblist.release(blk, npages);
  s.vmSwapSize += npages;
  s.vmSwapAnonUse -= npages;
  deviceOf(cx, blk).swNused -= npages;
  swpSizecheck(cx);
}

/** A block that cannot be written is never used again: it stays allocated and belongs to nobody. */
export function swpPagerRetire(cx: Cx, blk: number): void {
  const s = cx.k.swap;
  s.vmSwapAnonUse--;
  s.vmSwapMax--;
  s.vmSwapBad++;
  deviceOf(cx, blk).swBad++;
}

/** Starts the I/O of pages with consecutive blocks of one device (`swstrategy`); gives the request. */
export function* swstrategy(
  cx: Cx,
  cmd: "read" | "write",
  blk: number,
  pages: readonly VmPage[],
  done: (cx: Cx, bio: Bio) => Exec<void>,
): Exec<Bio> {
  const { swDev, swFirst } = deviceOf(cx, blk);
  const segments = pages.map(({ physAddr }) => ({ pa: physAddr, bytes: PAGE_SIZE }));
  const bio = new Bio(cmd, (blk - swFirst) * PAGE_SIZE, segments, done);
  yield* swDev.strategy(cx, bio);
  return bio;
}
