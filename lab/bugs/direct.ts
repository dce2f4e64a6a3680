/**
 * Hunts that go straight for their bug, where the mill would seldom come by: unmanaged pages, and growing stacks.
 *
 * Room: `lab/bugs/`; imports the stage and the kernel.
 *
 * @module
 */
import { gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../../kernel/context.ts";
import { fuword, suword } from "../../kernel/kern/copy.ts";
import { Pmap } from "../../kernel/pmap/pmap.ts";
import { pmapEnter } from "../../kernel/pmap/pmap_enter.ts";
import { pmapPinit, pmapPinit2, pmapPuninit, pmapRelease } from "../../kernel/pmap/pmap_pinit.ts";
import { pmapRemove, pmapRemovePages } from "../../kernel/pmap/pmap_remove.ts";
import { vmPageAlloc } from "../../kernel/vm/vm_page_alloc.ts";
import {
  VM_ALLOC_NORMAL,
  type VmPage,
  vmPageFree,
  vmPageUnmanage,
  vmPageUnwire,
  vmPageWire,
} from "../../kernel/vm/vm_page.ts";
import { VM_PROT_READ, VM_PROT_WRITE } from "../../kernel/vm/vm_param.ts";
import { vmspaceWritemem } from "../../kernel/vm/vm_rwmem.ts";
import { evict, MAP, mapAnonymous, SYS } from "./mill.ts";
import { type Stage, system, waitFor } from "./stage.ts";

/** An address that no map entry covers. */
const NOWHERE = 0x5000_0000n;
const PAGE = 4096n;
const READ_WRITE = VM_PROT_READ | VM_PROT_WRITE;

/** A page as drivers map it: nobody's, unmanaged. */
function* unmanagedPage(cx: Cx, body: (m: VmPage) => Exec<void>): Exec<void> {
  const m = vmPageAlloc(cx, undefined, 0, VM_ALLOC_NORMAL);
  if (m === undefined) throw new Error("There is no page for the hunt");
  vmPageUnmanage(cx, m);
  vmPageWire(cx, m);
  yield* body(m);
  vmPageUnwire(cx, m, false);
  vmPageFree(cx, m);
}

/** Processes that share a pmap enter and remove unmanaged mappings of the same addresses. */
export function* enterUnmanaged(cx: Cx, stage: Stage): Exec<void> {
  yield* unmanagedPage(cx, function* (m) {
    const { vmPmap } = cx.proc!.pVmspace!;
    for (let cpu = 0; cpu < cx.k.ncpus; cpu++) {
      yield* stage.child(cx, "share", cpu, function* (inner) {
        yield* stage.meet(inner, inner.k.ncpus);
        for (let turn = 0; turn < 30; turn++) {
          const va = gva(NOWHERE + BigInt(stage.below(2)) * PAGE);
          if (stage.below(3) === 0) yield* pmapRemove(inner, vmPmap, va, gva(va + PAGE));
          else yield* pmapEnter(inner, vmPmap, va, m, READ_WRITE, false);
          yield;
        }
      });
    }
    yield* waitFor(cx);
    stage.check(cx);
    yield* pmapRemove(cx, vmPmap, gva(NOWHERE), gva(NOWHERE + 2n * PAGE));
  });
}

/** Tables that had an unmanaged mapping are emptied and used again. */
export function* releaseUnmanaged(cx: Cx, stage: Stage): Exec<void> {
  yield* unmanagedPage(cx, function* (m) {
    const pmap = new Pmap();
    for (let turn = 0; turn < 2; turn++) {
      yield* pmapPinit(cx, pmap);
      yield* pmapPinit2(cx, pmap);
      const va = NOWHERE + BigInt(stage.below(512)) * PAGE;
      yield* pmapEnter(cx, pmap, gva(va), m, READ_WRITE, false);
      yield* pmapRemovePages(cx, pmap, gva(NOWHERE), gva(NOWHERE + 512n * PAGE));
      stage.check(cx);
      yield* pmapRelease(cx, pmap);
    }
    yield* pmapPuninit(cx, pmap);
  });
}

const MAP_STACK = 0x400n, STACK_TOP = 0x6000_0000n, STACK_PAGES = 64n;

/** Somebody else, a debugger say, stores below the pages that a stack has by now. */
export function* writeBelowStack(cx: Cx, stage: Stage): Exec<void> {
  const bytes = STACK_PAGES * PAGE;
  const flags = MAP_STACK | MAP.FIXED | MAP.ANON | MAP.PRIVATE;
  const error = yield* system(cx, SYS.mmap, STACK_TOP - bytes, bytes, 3n, flags, -1n, 0n, 0n);
  if (error !== 0) throw new Error(`mmap of a stack failed with error ${error}`);
  const at = STACK_TOP - bytes + BigInt(1 + stage.below(8)) * PAGE;
  const answer = yield* vmspaceWritemem(cx, cx.proc!.pVmspace!, at, STACK_TOP - 8n, 8);
  if (answer !== 0) stage.fail(`model: a store below a stack gives error ${answer}`);
}

/** Pages that are touched and taken away again. */
const FRESH = 0x2000_0000n, FRESH_PAGES = 40;

/**
 * A page that was only read, so that its mapping is writable but not modified, is stored to on one processor while it is taken away on another:
 * the page is dirty, or the store finds it gone.
 */
export function* storeWhileEvicted(cx: Cx, stage: Stage): Exec<void> {
  yield* mapAnonymous(cx, FRESH, FRESH_PAGES, false);
  let touched = -1, evicted = -1;
  const other = (cx.gd.gdCpuid + 1) % cx.k.ncpus;
  yield* stage.child(cx, "share", other, function* (inner) {
    for (let page = 0; page < FRESH_PAGES && stage.failure === undefined; page++) {
      yield* stage.until(inner, () => touched >= page);
      for (let i = stage.below(60); i > 0; i--) yield;
      yield* evict(inner, inner.proc!.pVmspace!, FRESH + BigInt(page) * PAGE);
      evicted = page;
    }
  });
  for (let page = 0; page < FRESH_PAGES && stage.failure === undefined; page++) {
    const at = FRESH + BigInt(page) * PAGE, value = BigInt(page + 1);
    yield* fuword(cx, at);
    touched = page;
    for (let i = stage.below(250); i > 0; i--) yield;
    yield* suword(cx, at, value);
    yield* stage.until(cx, () => evicted >= page);
    const word = yield* fuword(cx, at);
    if (word !== value) stage.fail(`data: page ${page} has ${word}, not ${value}, after it was taken away`);
  }
  yield* waitFor(cx);
}
