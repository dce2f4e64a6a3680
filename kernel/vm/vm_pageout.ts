/**
 * Laundering: writing dirty pages through their pagers in clusters (`vm_pageout_clean`, `vm_pageout_flush` of
 * `sys/vm/vm_pageout.c`).
 *
 * Room: `kernel/vm/`; imports objects, pages, pagers. The scans that choose pages are in vm_pageout_scan.ts, the daemon in
 * vm_pageout_daemon.ts.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import { BLIST_MAX_ALLOC } from "../libkern/blist.ts";
import { pmapClearModify } from "../pmap/pmap_protect.ts";
import { type VmObject, vmObjectDrop, vmObjectHold, vmObjectPipAdd, vmObjectPipWakeup } from "./vm_object.ts";
import {
  PG_NEED_COMMIT,
  PG_UNMANAGED,
  VM_PAGE_BITS_ALL,
  type VmPage,
  vmPageBusyWait,
  vmPageDeactivate,
  vmPageIoFinish,
  vmPageIoStart,
  vmPageLookupBusyTry,
  vmPageUndirty,
  vmPageWakeup,
} from "./vm_page.ts";
import { vmPageCountSevere } from "./vm_page2.ts";
import { vmPageProtect, vmPageTestDirty } from "./vm_page_valid.ts";
import { PQ_CACHE, PQ_INACTIVE } from "./vm_pageq.ts";
import { VM_PAGER_BAD, VM_PAGER_OK, VM_PAGER_PEND, vmPagerPutPages } from "./vm_pager.ts";
import { VM_PROT_READ } from "./vm_param.ts";

/** Clusters take ACTIVE pages along (`VM_PAGER_ALLOW_ACTIVE`). */
export const VM_PAGER_ALLOW_ACTIVE = 0x10;

/**
 * Writes a dirty page and its dirty neighbours (`vm_pageout_clean`): up to 32 consecutive pages, first downwards to the border of an aligned
 * cluster, then upwards. Gives how many go out.
 *
 * Preconditions: `m` is busy, dirty, fully valid, neither wired nor held. It is no longer busy afterwards.
 *
 * @param flags VM_PAGER_*.
 */
export function* vmPageoutClean(cx: Cx, m: VmPage, flags: number): Exec<number> {
  const { object } = m;
  kassert(object !== undefined, "vm_pageout_clean: page has no object");
  yield* vmObjectHold(cx, object);
  const { pindex } = m, cluster = [m];
  const aligned = pindex - pindex % BLIST_MAX_ALLOC;
  for (let index = pindex - 1; index >= aligned; index--) {
    const p = yield* clusterPage(cx, object, index, flags);
    if (p === undefined) break;
    cluster.unshift(p);
  }
  for (let index = pindex + 1; cluster.length < BLIST_MAX_ALLOC && index < object.size; index++) {
    const p = yield* clusterPage(cx, object, index, flags);
    if (p === undefined) break;
    cluster.push(p);
  }
  const count = yield* vmPageoutFlush(cx, cluster, flags);
  vmObjectDrop(cx, object);
  return count;
}

/** A neighbour that may go out along with a page, busy. */
function* clusterPage(cx: Cx, object: VmObject, index: number, flags: number): Exec<VmPage | undefined> {
  const { m: p, error } = vmPageLookupBusyTry(cx, object, index, true);
  if (p === undefined || error) return undefined;
  const kind = p.queue - p.pc;
  if (
    kind !== PQ_CACHE && (p.flags & PG_UNMANAGED) === 0 && p.wireCount === 0 && p.holdCount === 0 &&
    (kind === PQ_INACTIVE || (flags & VM_PAGER_ALLOW_ACTIVE) !== 0) && p.valid === VM_PAGE_BITS_ALL
  ) {
    yield* vmPageTestDirty(cx, p);
    if (p.dirty !== 0 || (p.flags & PG_NEED_COMMIT) !== 0) return p;
  }
  vmPageWakeup(cx, p);
  return undefined;
}

/**
 * Writes pages of one object (`vm_pageout_flush`): soft-busy, write-protected, no longer busy, given to the pager. Gives how many go out.
 *
 * Preconditions: the pages are busy, dirty, fully valid and consecutive; the object is held.
 */
export function* vmPageoutFlush(cx: Cx, pages: readonly VmPage[], flags: number): Exec<number> {
  const object = pages[0]?.object;
  if (object === undefined) return 0;
  for (const m of pages) {
    kassert(
      m.valid === VM_PAGE_BITS_ALL && m.object === object,
      "vm_pageout_flush: page not valid, or of another object",
    );
    vmPageIoStart(m);
  }
  // Write-protecting clears the modified bits of the mappings (they become `dirty`), which the completion could not do: it runs in an
  // interrupt thread. From here on a write fault waits for the I/O. Soft busy is hold enough: the page may be read meanwhile.
  for (const m of pages) {
    yield* vmPageProtect(cx, m, VM_PROT_READ);
    vmPageWakeup(cx, m);
  }
  vmObjectPipAdd(object, pages.length);
  const status = yield* vmPagerPutPages(cx, object, pages, flags);
  let pagedOut = 0;
  for (const [i, m] of pages.entries()) {
    const result = status[i];
    if (result === VM_PAGER_OK || result === VM_PAGER_PEND) pagedOut++;
    // The pager itself ends what is on its way.
    if (result === VM_PAGER_PEND) continue;
    if (result === VM_PAGER_BAD) {
      // Outside of the object: there is nowhere to write it to.
      yield* vmPageBusyWait(cx, m, false, "pgbad");
      yield* pmapClearModify(cx, m);
      vmPageUndirty(m);
      vmPageWakeup(cx, m);
    }
    // Others (no space, an error) stay dirty where they are. That the ACTIVE queue starves is how the daemon learns that memory is used up.
    if (vmPageCountSevere(cx.k)) vmPageDeactivate(cx, m);
    vmPageIoFinish(cx, m);
    vmObjectPipWakeup(cx, object);
  }
  return pagedOut;
}
