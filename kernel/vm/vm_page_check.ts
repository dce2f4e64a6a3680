/**
 * The rules of pages, queues and swap, recomputed from scratch: for tests, the model test and people (`vmPageCheck`).
 *
 * Room: `kernel/vm/`; reads everything, changes nothing. Right at any boundary.
 *
 * 1. A page is on the queue that its `queue` names and on no other; queue counts, `vmmeter` counts and the lists agree.
 * 2. FREE and HOLD: no object, not mapped, not wired. FREE: not busy, not held. CACHE: clean, not mapped, fully valid or not at all.
 * 3. A page on a queue is not wired; a wired page, an unmanaged one or a marker is on no queue's count.
 * 4. A page of an object is in its tree at its index, and the tree's size is `residentPageCount`. No page is in a tree twice.
 * 5. A block of swap in some object's metadata is allocated, in one object only; their number is `vmSwapAnonUse`.
 *
 * @module
 */
import type { Kernel } from "../kernel.ts";
import { swpPagerMetaScan } from "./swap_meta.ts";
import type { VmObject } from "./vm_object.ts";
import { PG_BUSY, PG_FICTITIOUS, PG_MAPPED, PG_MARKER, PG_UNMANAGED, type VmPage } from "./vm_page.ts";
import {
  PQ_ACTIVE,
  PQ_CACHE,
  PQ_FREE,
  PQ_HOLD,
  PQ_INACTIVE,
  PQ_L2_MASK,
  PQ_L2_SIZE,
  PQ_NONE,
} from "./vm_pageq.ts";

const KIND_NAMES = ["FREE", "INACTIVE", "ACTIVE", "CACHE", "HOLD"];

/** A page, for people. */
function name(m: VmPage): string {
  return `page 0x${m.physAddr.toString(16)} (flags 0x${m.flags.toString(16)})`;
}

/** The rules above that do not hold, in words; empty when all is well. */
export function vmPageCheck(k: Kernel): string[] {
  return [...checkQueues(k), ...checkPages(k), ...checkObjects(k), ...checkSwap(k)];
}

function checkQueues(k: Kernel): string[] {
  const wrong: string[] = [], seen = new Set<VmPage>(), count = [0, 0, 0, 0, 0];
  for (const [index, queue] of k.vmPages.vmPageQueues.entries()) {
    if (index === PQ_NONE) continue;
    const kind = Math.floor((index - 1) / PQ_L2_SIZE);
    let n = 0, before: VmPage | undefined;
    for (let m = queue.head; m !== undefined; before = m, m = m.pageqNext) {
      if (m.pageqPrev !== before) wrong.push(`${name(m)}: its links on ${KIND_NAMES[kind]} do not agree`);
      if (m.flags & PG_MARKER) continue;
      n++;
      if (m.queue !== index) wrong.push(`${name(m)} is on queue ${index}, but says ${m.queue}`);
      if (seen.has(m)) wrong.push(`${name(m)} is on two queues`);
      seen.add(m);
      if (((index - 1) & PQ_L2_MASK) !== m.pc) wrong.push(`${name(m)} is on another colour's queue`);
    }
    if (queue.tail !== before) wrong.push(`queue ${index} has the wrong tail`);
    if (queue.lcnt !== n) wrong.push(`queue ${index} has ${n} pages, but counts ${queue.lcnt}`);
    count[kind]! += n;
  }
  const v = k.vmmeter;
  const counted = [v.vFreeCount, v.vInactiveCount, v.vActiveCount, v.vCacheCount];
  for (const [kind, n] of counted.entries()) {
    if (n !== count[kind]) wrong.push(`${KIND_NAMES[kind]}: ${count[kind]} pages, but vmstats counts ${n}`);
  }
  return wrong;
}

function checkPages(k: Kernel): string[] {
  const wrong: string[] = [];
  let wired = 0;
  for (const m of k.vmPages.vmPageArray) {
    if (m === undefined) continue;
    const rule = (holds: boolean, text: string) => {
      if (!holds) wrong.push(`${name(m)}: ${text}`);
    };
    if (m.wireCount > 0 && (m.flags & PG_FICTITIOUS) === 0) wired++;
    rule(m.wireCount >= 0 && m.holdCount >= 0 && m.busy >= 0, "a count is below zero");
    rule(m.queue === PQ_NONE || m.wireCount === 0, "wired, but on a queue");
    rule(m.queue === PQ_NONE || (m.flags & PG_UNMANAGED) === 0, "unmanaged, but on a queue");
    rule((m.flags & PG_MAPPED) !== 0 || m.md.pvCount === 0, "mapped, but PG_MAPPED does not say so");
    rule(m.object === undefined || m.object.rbMemq.find(m.pindex) === m, "is not in its object's tree");
    if (m.queue === PQ_NONE) continue;
    const kind = m.queue - m.pc;
    if (kind === PQ_FREE || kind === PQ_HOLD) {
      rule(m.object === undefined && (m.flags & PG_MAPPED) === 0, "free, but in an object or mapped");
    }
    if (kind === PQ_FREE) {
      rule((m.flags & PG_BUSY) === 0 && m.holdCount === 0 && m.busy === 0, "free, but in use");
    }
    if (kind === PQ_CACHE) {
      rule(m.dirty === 0 && (m.flags & PG_MAPPED) === 0, "on CACHE, but dirty or mapped");
    }
    if (kind === PQ_ACTIVE || kind === PQ_INACTIVE || kind === PQ_CACHE) {
      rule(m.object !== undefined || (m.flags & PG_BUSY) !== 0, "on a queue without an object");
    }
  }
  if (wired !== k.vmmeter.vWireCount) {
    wrong.push(`${wired} pages are wired, but vmstats counts ${k.vmmeter.vWireCount}`);
  }
  return wrong;
}

function checkObjects(k: Kernel): string[] {
  const wrong: string[] = [];
  for (const object of k.vmObject.objectList) {
    let n = 0;
    for (const m of object.rbMemq) {
      n++;
      if (m.object !== object) {
        wrong.push(`object ${object.id} has ${name(m)} at ${m.pindex}, which is not its own`);
      }
    }
    if (n !== object.residentPageCount) {
      wrong.push(`object ${object.id} has ${n} pages, but counts ${object.residentPageCount}`);
    }
  }
  return wrong;
}

function checkSwap(k: Kernel): string[] {
  const wrong: string[] = [], owner = new Map<number, VmObject>();
  for (const object of k.vmObject.objectList) {
    for (const [index, blk] of swpPagerMetaScan(object, 0, Number.MAX_SAFE_INTEGER)) {
      if (k.swap.swapblist.isFree(blk)) wrong.push(`block ${blk} of object ${object.id} at ${index} is free`);
      const other = owner.get(blk);
      if (other !== undefined) wrong.push(`block ${blk} belongs to objects ${other.id} and ${object.id}`);
      owner.set(blk, object);
    }
  }
  if (owner.size !== k.swap.vmSwapAnonUse) {
    wrong.push(`${owner.size} blocks of swap have an owner, but ${k.swap.vmSwapAnonUse} are counted`);
  }
  if (k.swap.swapblist.free !== k.swap.vmSwapSize) {
    wrong.push(`${k.swap.swapblist.free} blocks of swap are free, but ${k.swap.vmSwapSize} are counted`);
  }
  return wrong;
}
