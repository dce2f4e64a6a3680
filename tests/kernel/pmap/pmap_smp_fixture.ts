/**
 * Many threads on several CPUs change and use the same address spaces at random, against a model that maps (space, page) to a page and a
 * right. Every access is compared with the model, every stale translation is counted by the sanitizer, every rule is recomputed.
 *
 * What is in flux (an operation on the address, or on the page behind it, is under way) is not compared: everything else must agree exactly.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { gva } from "../../../hw/address.ts";
import type { Exec } from "../../../hw/gates.ts";
import type { MachineOptions } from "../../../hw/machine.ts";
import { Random } from "../../../hw/random.ts";
import { Sanitizer, type StaleUse } from "../../../hw/sanitizer.ts";
import type { Cx } from "../../../kernel/context.ts";
import { critEnter, critExit, kthreadCreate, lwktExit, lwktYield } from "../../../kernel/lwkt/thread.ts";
import { tsleep } from "../../../kernel/lwkt/sleep.ts";
import { checkInvariants } from "../../../kernel/pmap/invariants.ts";
import { pmapEnter } from "../../../kernel/pmap/pmap_enter.ts";
import { pmapPuninit, pmapRelease } from "../../../kernel/pmap/pmap_pinit.ts";
import {
  pmapIsModified,
  pmapPageProtect,
  pmapProtect,
  pmapTsReferenced,
} from "../../../kernel/pmap/pmap_protect.ts";
import { pmapSetlwpvm } from "../../../kernel/pmap/pmap_switch.ts";
import { pmapRemove, pmapRemoveAll } from "../../../kernel/pmap/pmap_remove.ts";
import { type VmPage, vmPageBusyTry, vmPageWakeup } from "../../../kernel/vm/vm_page.ts";
import { VM_PROT_READ, VM_PROT_RW } from "../../../kernel/vm/vm_param.ts";
import type { Vmspace } from "../../../kernel/vm/vmspace.ts";
import { runInKernel } from "../in_kernel.ts";
import { enterSpace, freePage, newPage, newSpace, page, peek, poke } from "./pmap_fixture.ts";

/** How a run is made. */
export interface SmpRun {
  readonly seed: number;
  readonly cpus: number;
  /** Operations of each thread. */
  readonly operations: number;
  /** Threads on each CPU. */
  readonly threads: number;
  /** Historical bugs to be on. */
  readonly bugs?: readonly string[];
}

/** What it showed. */
export interface SmpResult {
  readonly stale: readonly StaleUse[];
  /** Accesses that were compared, and those that were in flux. */
  readonly compared: number;
  readonly flux: number;
}

const SPACES = 2, ADDRESSES = 12, PAGES = 6;

interface Slot {
  readonly space: number;
  readonly n: number;
  /** What is mapped there. */
  page: number;
  writable: boolean;
  /** An operation on the address is under way. */
  locked: boolean;
  /** Counts the beginnings and ends of such operations. */
  version: number;
}

interface Frame {
  readonly m: VmPage;
  readonly tag: bigint;
  /** An operation on the page is under way. */
  locked: boolean;
  version: number;
  /** A write has succeeded since the page was cleaned. */
  written: boolean;
}

const NONE = -1;

class Model {
  readonly random: Random[] = [];
  readonly slots: Slot[] = [];
  readonly frames: Frame[] = [];
  readonly spaces: Vmspace[] = [];
  running = 0;
  compared = 0;
  flux = 0;
}

/** One thread. */
function* worker(cx: Cx, model: Model, id: number, operations: number, random: Random): Exec<void> {
  const space = id % SPACES;
  yield* enterSpace(cx, model.spaces[space]!);
  const choose = (n: number) => random.between(0, n - 1);
  const check = (what: string) => assertEquals(checkInvariants(cx), [], what);
  for (let i = 0; i < operations; i++) {
    const op = choose(16);
    if (op < 8) {
      yield* access(cx, model, model.slots[space * ADDRESSES + choose(ADDRESSES)]!, op < 4);
    } else if (op < 11) {
      yield* enter(cx, model, model.slots[choose(model.slots.length)]!, choose(PAGES), choose(3) > 0);
    } else if (op < 13) {
      yield* onRange(cx, model, choose(SPACES), choose(ADDRESSES), 1 + choose(3), op === 11);
    } else yield* onPage(cx, model, choose(PAGES), op - 13);
    if (i % 8 === 0) check(`thread ${id}, operation ${i}`);
    if (choose(6) === 0) yield* lwktYield(cx);
  }
  // A switch to a kernel thread must not be the first thing after this, so that the last operations' flushes are seen too.
  for (let n = 0; n < ADDRESSES; n++) yield* access(cx, model, model.slots[space * ADDRESSES + n]!, false);
  model.running--;
  // Back to where its first call came from it would go to user mode, being an lwp.
  yield* lwktExit(cx);
}

function* access(cx: Cx, model: Model, slot: Slot, write: boolean): Exec<void> {
  const va = page(slot.n);
  const state = () => [slot.locked, slot.version, slot.page, model.frames[slot.page]?.version].join();
  const before = state();
  const value = write ? undefined : yield* peek(cx, va);
  const wrote = write && (yield* poke(cx, gva(va + 8n), 1n));
  const frame = model.frames[slot.page];
  if (slot.locked || frame?.locked) {
    model.flux++;
    return;
  }
  // A fault takes a while: what it says is only comparable if nothing has happened meanwhile. A success is one step.
  const faulted = write ? !wrote : value === undefined;
  if (faulted && state() !== before) {
    model.flux++;
    return;
  }
  model.compared++;
  if (wrote && frame !== undefined) frame.written = true;
  const where = `space ${slot.space}, page ${slot.n}`;
  if (write) assertEquals(wrote, slot.page !== NONE && slot.writable, `write to ${where}`);
  else assertEquals(value, frame?.tag, `read of ${where}`);
}

function* enter(cx: Cx, model: Model, slot: Slot, index: number, writable: boolean): Exec<void> {
  const frame = model.frames[index]!;
  if (slot.locked || vmPageBusyTry(cx, frame.m, true)) return;
  slot.locked = true;
  slot.version++;
  const prot = writable ? VM_PROT_RW : VM_PROT_READ;
  yield* pmapEnter(cx, model.spaces[slot.space]!.vmPmap, page(slot.n), frame.m, prot, false);
  slot.page = index;
  slot.writable = writable;
  slot.version++;
  slot.locked = false;
  vmPageWakeup(cx, frame.m);
}

/** Removes a range, or makes it read only. */
function* onRange(
  cx: Cx,
  model: Model,
  space: number,
  n: number,
  count: number,
  remove: boolean,
): Exec<void> {
  const slots = model.slots.filter((slot) => slot.space === space && slot.n >= n && slot.n < n + count);
  if (slots.some((slot) => slot.locked)) return;
  for (const slot of slots) {
    slot.locked = true;
    slot.version++;
  }
  const { vmPmap } = model.spaces[space]!;
  if (remove) yield* pmapRemove(cx, vmPmap, page(n), page(n + count));
  else yield* pmapProtect(cx, vmPmap, page(n), page(n + count), VM_PROT_READ);
  for (const slot of slots) {
    if (remove) slot.page = NONE;
    slot.writable = false;
    slot.version++;
    slot.locked = false;
  }
}

/** Makes all mappings of a page read only and the page clean, removes them, or looks at A and M. */
function* onPage(cx: Cx, model: Model, index: number, kind: number): Exec<void> {
  const frame = model.frames[index]!;
  if (vmPageBusyTry(cx, frame.m, true)) return;
  if (kind === 2) {
    yield* pmapTsReferenced(cx, frame.m);
    yield* pmapIsModified(cx, frame.m);
  } else {
    frame.locked = true;
    frame.version++;
    if (kind === 0) yield* pmapPageProtect(cx, frame.m, VM_PROT_READ);
    else yield* pmapPageProtect(cx, frame.m, 0);
    if (frame.written) {
      assertEquals(frame.m.dirty, 0xff, "a page was written, and is not dirty once nobody can write it");
    }
    frame.m.dirty = 0;
    frame.written = false;
    for (const slot of model.slots) {
      if (slot.page !== index) continue;
      if (kind === 1) slot.page = NONE;
      slot.writable = false;
    }
    frame.version++;
    frame.locked = false;
  }
  vmPageWakeup(cx, frame.m);
}

/** Boots a kernel and does it all. Throws when something does not agree. */
export function runSmp(run: SmpRun, machine: MachineOptions = {}): SmpResult {
  const model = new Model();
  const stale: StaleUse[] = [];
  const sanitizer = new Sanitizer();
  sanitizer.on((use) => stale.push(use));
  runInKernel(
    {
      tlb: "sticky",
      sanitizer,
      cpus: run.cpus,
      seed: run.seed,
      steps: 400_000_000,
      // A few steps of each in turn: what can race does.
      quantum: [1, 60],
      ...machine,
      kernel: run.bugs === undefined ? {} : { bugs: run.bugs },
    },
    function* (cx) {
      const free = cx.k.vmmeter.vFreeCount, pvs = cx.k.pmap.pvCount;
      for (let space = 0; space < SPACES; space++) model.spaces.push(yield* newSpace(cx));
      for (let i = 0; i < PAGES; i++) {
        const tag = 0x1000n + BigInt(i);
        const m = yield* newPage(cx, tag);
        m.object = undefined;
        vmPageWakeup(cx, m);
        model.frames.push({ m, tag, locked: false, version: 0, written: false });
      }
      for (let space = 0; space < SPACES; space++) {
        for (let n = 0; n < ADDRESSES; n++) {
          model.slots.push({ space, n, page: NONE, writable: false, locked: false, version: 0 });
        }
      }
      for (const gd of cx.k.lwkt.gds) {
        for (let i = 0; i < run.threads; i++) {
          const id = model.running++;
          const random = new Random(run.seed, id);
          yield* kthreadCreate(
            cx,
            (own) => worker(own, model, id, run.operations, random),
            `worker ${id}`,
            gd,
          );
        }
      }
      while (model.running > 0) yield* tsleep(cx, model, 0, "model", 2);
      yield* tsleep(cx, model, 0, "model", 2);
      assertEquals(checkInvariants(cx, true), []);
      for (const { m } of model.frames) {
        assertEquals(vmPageBusyTry(cx, m, true), false);
        yield* pmapRemoveAll(cx, m);
        freePage(cx, m);
      }
      for (const { vmPmap } of model.spaces) {
        yield* pmapRelease(cx, vmPmap);
        yield* pmapPuninit(cx, vmPmap);
      }
      assertEquals(checkInvariants(cx, true), []);
      assertEquals(cx.k.pmap.pvCount, pvs, "pv entries");
      // Kernel stacks of the threads are kept for the next ones.
      if (cx.k.vmmeter.vFreeCount > free) throw new Error("more pages are free than before");
    },
  );
  return { stale, compared: model.compared, flux: model.flux };
}

/**
 * One CPU maps and unmaps a page over and over; one has the address space active and is slow to answer; one goes into the address space, uses
 * the page, and out again. Whoever comes in while an invalidation waits for the slow CPU must not have missed it.
 */
export function runComers(seed: number, rounds: number, bugs: readonly string[] = []): SmpResult {
  const stale: StaleUse[] = [];
  const sanitizer = new Sanitizer();
  sanitizer.on((use) => stale.push(use));
  let compared = 0;
  const kernel = { bugs };
  const quantum = [1, 60] as const;
  const random = new Random(seed, 77);
  let success = 0, accesses = 0;
  runInKernel(
    { tlb: "sticky", sanitizer, cpus: 3, seed, quantum, steps: 400_000_000, kernel },
    function* (cx) {
      const inner = yield* newSpace(cx), outer = yield* newSpace(cx);
      const m = yield* newPage(cx, 7n);
      const state = { mapped: false, flux: false, over: false, running: 2 };
      const slow = function* (own: Cx): Exec<void> {
        yield* enterSpace(own, inner);
        while (!state.over) {
          critEnter(own);
          for (let n = random.between(1, 100); n > 0; n--) yield;
          yield* critExit(own);
          yield* peek(own, page(0));
        }
        state.running--;
        yield* lwktExit(own);
      };
      const comer = function* (own: Cx): Exec<void> {
        yield* enterSpace(own, outer);
        while (!state.over) {
          yield* pmapSetlwpvm(own, own.lwp!, inner);
          for (let i = 0; i < 3; i++) {
            const before = state.flux ? undefined : state.mapped;
            const value = yield* peek(own, page(0));
            accesses++;
            if (value !== undefined) success++;
            if (before !== undefined && !state.flux && state.mapped === before) {
              compared++;
              if (value !== undefined) assertEquals(state.mapped, true, "a page is read that is not mapped");
            }
            for (let n = random.between(0, 20); n > 0; n--) yield;
          }
          yield* pmapSetlwpvm(own, own.lwp!, outer);
          for (let n = random.between(0, 50); n > 0; n--) yield;
        }
        state.running--;
        yield* lwktExit(own);
      };
      yield* kthreadCreate(cx, slow, "slow", cx.k.lwkt.gds[1]!);
      yield* kthreadCreate(cx, comer, "comer", cx.k.lwkt.gds[2]!);
      yield* cx.k.platform.flushIpis(cx);
      while (accesses === 0) yield;
      for (let i = 0; i < rounds; i++) {
        yield* pmapEnter(cx, inner.vmPmap, page(0), m, VM_PROT_RW, false);
        state.mapped = true;
        for (const until = accesses + random.between(0, 3); accesses < until;) yield;
        state.flux = true;
        yield* pmapRemove(cx, inner.vmPmap, page(0), page(1));
        state.mapped = false;
        state.flux = false;
        assertEquals(checkInvariants(cx), []);
      }
      state.over = true;
      for (const { vmPmap } of [inner, outer]) {
        while (state.running > 0 || vmPmap.pmActive !== 0) yield;
        yield* pmapRelease(cx, vmPmap);
        yield* pmapPuninit(cx, vmPmap);
      }
      freePage(cx, m);
    },
  );
  return { stale, compared, flux: success };
}

/**
 * One CPU maps and unmaps a page over and over; two threads of its address space take turns on another. Between them the TLB is kept, so no
 * invalidation may be missed while they change places.
 */
export function runTwins(seed: number, rounds: number, bugs: readonly string[] = []): SmpResult {
  const stale: StaleUse[] = [];
  const sanitizer = new Sanitizer();
  sanitizer.on((use) => stale.push(use));
  let accesses = 0;
  const quantum = [1, 12] as const, kernel = { bugs };
  runInKernel(
    { tlb: "sticky", sanitizer, cpus: 2, seed, quantum, steps: 400_000_000, kernel },
    function* (cx) {
      const vm = yield* newSpace(cx);
      const m = yield* newPage(cx, 7n);
      const state = { over: false, running: 2 };
      const twin = function* (own: Cx): Exec<void> {
        yield* enterSpace(own, vm);
        while (!state.over) {
          yield* peek(own, page(0));
          accesses++;
          yield* lwktYield(own);
        }
        state.running--;
        yield* lwktExit(own);
      };
      for (let i = 0; i < 2; i++) yield* kthreadCreate(cx, twin, "twin", cx.k.lwkt.gds[1]!);
      yield* cx.k.platform.flushIpis(cx);
      for (let i = 0; i < rounds; i++) {
        yield* pmapEnter(cx, vm.vmPmap, page(0), m, VM_PROT_RW, false);
        for (const until = accesses + 2; accesses < until;) yield;
        yield* pmapRemove(cx, vm.vmPmap, page(0), page(1));
        for (const until = accesses + 1; accesses < until;) yield;
      }
      state.over = true;
      while (state.running > 0 || vm.vmPmap.pmActive !== 0) yield;
      yield* pmapRelease(cx, vm.vmPmap);
      yield* pmapPuninit(cx, vm.vmPmap);
      freePage(cx, m);
    },
  );
  return { stale, compared: accesses, flux: 0 };
}
