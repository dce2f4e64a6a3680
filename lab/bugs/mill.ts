/**
 * The mill: processes on all processors that touch, protect, fork, evict and remap the same few pages as fast as they can, without taking
 * turns. Who knows what must be where: each has a word of its own in each page, so nobody's store excuses a wrong word of another.
 *
 * Room: `lab/bugs/`; imports the stage and the kernel.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../../kernel/context.ts";
import { fuword, suword } from "../../kernel/kern/copy.ts";
import { lwktUserYield, lwktYield } from "../../kernel/lwkt/thread.ts";
import { vmMapLockRead, vmMapLookupEntry, vmMapUnlockRead } from "../../kernel/vm/vm_map.ts";
import { vmObjectDrop, vmObjectHold } from "../../kernel/vm/vm_object.ts";
import { vmPageFree, vmPageLookupBusyTry, vmPageWakeup } from "../../kernel/vm/vm_page.ts";
import { vmPageProtect, vmPageTestDirty } from "../../kernel/vm/vm_page_valid.ts";
import { vmPageoutClean } from "../../kernel/vm/vm_pageout.ts";
import { VM_PROT_NONE } from "../../kernel/vm/vm_param.ts";
import { vmspaceReadmem, vmspaceWritemem } from "../../kernel/vm/vm_rwmem.ts";
import { type Vmspace, VMSPACE_EXIT1 } from "../../kernel/vm/vmspace.ts";
import { allProcesses, type Stage, system, waitFor } from "./stage.ts";

const PAGE = 4096n;
/** The pages that all use. */
const DATA = 0x1000_0000n;
/** Where each maps and unmaps pages of its own. */
const OWN = 0x4000_0000n, OWN_STEP = 0x100_0000n;

/** System calls' numbers. */
export const SYS = { munmap: 73, mprotect: 74, madvise: 75, msync: 65, mmap: 197 } as const;
/** mmap's flags. */
export const MAP = { SHARED: 1n, PRIVATE: 2n, FIXED: 0x10n, ANON: 0x1000n } as const;
const READ = 1n, READ_WRITE = 3n;

/** What processes of the mill do. */
export type Work =
  | "write"
  | "read"
  | "burst"
  | "protect"
  | "none"
  | "fork"
  | "evict"
  | "remap"
  | "writemem"
  | "look"
  | "yield"
  | "spin"
  | "check";

/** How a mill is built. */
export interface MillOptions {
  /** Pages that all use. */
  readonly pages: number;
  /** Whether they stay shared after fork. */
  readonly shared: boolean;
  /** Processes of one address space each, by processor: one list of processors for each address space. */
  readonly spaces: readonly (readonly number[])[];
  /** Turns of each process. */
  readonly turns: number;
  /** Weights. */
  readonly work: Readonly<Partial<Record<Work, number>>>;
}

/** Maps anonymous memory at an address. */
export function* mapAnonymous(cx: Cx, at: bigint, pages: number, shared: boolean): Exec<void> {
  const flags = MAP.ANON | MAP.FIXED | (shared ? MAP.SHARED : MAP.PRIVATE);
  const error = yield* system(cx, SYS.mmap, at, BigInt(pages) * PAGE, READ_WRITE, flags, -1n, 0n, 0n);
  if (error !== 0) throw new Error(`mmap failed with error ${error}`);
}

/** Runs a mill: what {@link Stage} calls an act. */
export function mill(options: MillOptions): (cx: Cx, stage: Stage) => Exec<void> {
  return function* (cx, stage) {
    yield* mapAnonymous(cx, DATA, options.pages, options.shared);
    let lane = 1;
    for (const cpus of options.spaces) {
      const first = lane;
      lane += cpus.length;
      // The first of a space makes the others, which share its memory.
      yield* stage.child(cx, "copy", cpus[0]!, function* (inner) {
        for (let i = 1; i < cpus.length; i++) {
          yield* stage.child(inner, "share", cpus[i]!, (at) => new Miller(options, stage, first + i).run(at));
        }
        yield* new Miller(options, stage, first).run(inner);
        yield* waitFor(inner);
      });
    }
    yield* waitFor(cx);
  };
}

/** One process of the mill. */
class Miller {
  readonly #options: MillOptions;
  readonly #stage: Stage;
  readonly #lane: number;
  /** The word of this process in each page. */
  readonly #words: bigint[];
  #next = 1n;
  readonly #choices: readonly Work[];

  constructor(options: MillOptions, stage: Stage, lane: number) {
    this.#options = options;
    this.#stage = stage;
    this.#lane = lane;
    this.#words = Array.from({ length: options.pages }, () => 0n);
    this.#choices = Object.entries(options.work).flatMap(([work, weight]) =>
      Array.from({ length: weight }, () => work as Work)
    );
  }

  #address(page: number): bigint {
    return DATA + BigInt(page) * PAGE + BigInt(8 * this.#lane);
  }

  *run(cx: Cx): Exec<void> {
    const stage = this.#stage;
    yield* stage.meet(cx, this.#options.spaces.flat().length);
    for (let turn = 0; turn < this.#options.turns && stage.failure === undefined; turn++) {
      const page = stage.below(this.#options.pages);
      yield* this.#turn(cx, this.#choices[stage.below(this.#choices.length)]!, page);
      yield* lwktUserYield(cx);
    }
    yield* this.#verifyAll(cx, "at the end");
  }

  *#turn(cx: Cx, work: Work, page: number): Exec<void> {
    const stage = this.#stage;
    switch (work) {
      case "write":
        return yield* this.#write(cx, page);
      case "read":
        return yield* this.#verify(cx, page, "");
      case "burst":
        // Stays on its processor, whose TLB keeps what it has.
        for (let i = 0; i < 12; i++) {
          yield* suword(cx, this.#spare(stage.below(this.#options.pages)), BigInt(i));
          yield;
        }
        return;
      case "none": {
        const at = DATA + BigInt(page) * PAGE;
        yield* system(cx, SYS.mprotect, at, PAGE, 0n);
        yield* system(cx, SYS.mprotect, at, PAGE, READ_WRITE);
        return;
      }
      case "protect": {
        const at = DATA + BigInt(page) * PAGE;
        yield* system(cx, SYS.mprotect, at, PAGE, READ);
        yield* this.#verify(cx, page, "read only");
        yield* system(cx, SYS.mprotect, at, PAGE, READ_WRITE);
        return;
      }
      case "fork":
        return yield* this.#fork(cx);
      case "evict":
        yield* evict(cx, cx.proc!.pVmspace!, DATA + BigInt(page) * PAGE, stage.below(4) === 0);
        if (this.#options.work.check !== undefined) stage.check(cx);
        return;
      case "remap": {
        const at = OWN + BigInt(this.#lane) * OWN_STEP + BigInt(stage.below(3)) * 0x20_0000n;
        yield* mapAnonymous(cx, at, 3, false);
        for (let i = 0n; i < 3n; i++) yield* suword(cx, at + i * PAGE, 1n);
        yield* system(cx, SYS.munmap, at, 3n * PAGE);
        return;
      }
      case "writemem": {
        const { pVmspace } = cx.proc!, source = OWN + BigInt(this.#lane) * OWN_STEP;
        if (this.#next === 1n) yield* mapAnonymous(cx, source, 1, false);
        yield* suword(cx, source, ++this.#next);
        // What is to be written may have to come from swap first.
        if (this.#options.work.evict !== undefined) {
          for (let i = stage.below(4); i > 0; i--) yield* evict(cx, pVmspace!, source);
        }
        if ((yield* vmspaceWritemem(cx, pVmspace!, this.#address(page), source, 8)) === 0) {
          this.#words[page] = this.#next;
        }
        return yield* this.#verify(cx, page, "written from outside");
      }
      case "look": {
        const others = allProcesses(cx);
        const vm = others[stage.below(others.length)]!.pVmspace;
        if (vm === undefined || (vm.vmFlags & VMSPACE_EXIT1) !== 0) return;
        yield* vmspaceReadmem(cx, vm, DATA + BigInt(page) * PAGE, 8);
        return;
      }
      case "yield":
        return yield* lwktYield(cx);
      case "check":
        return stage.check(cx);
      case "spin":
        for (let i = stage.below(20); i > 0; i--) yield;
        return;
    }
  }

  /** Stores a new word. Another process of the space may have taken the right away for the moment. */
  *#write(cx: Cx, page: number): Exec<void> {
    const value = ++this.#next;
    if ((yield* suword(cx, this.#address(page), value)) === 0) this.#words[page] = value;
  }

  *#verify(cx: Cx, page: number, when: string): Exec<void> {
    const word = yield* fuword(cx, this.#address(page)), expected = this.#words[page];
    // Another process of the space may have taken the right away for the moment.
    if (word === expected || (word === undefined && this.#options.work.none !== undefined)) return;
    this.#stage.fail(`data: page ${page} has ${word} in word ${this.#lane}, not ${expected} ${when}`);
  }

  *#verifyAll(cx: Cx, when: string): Exec<void> {
    for (let page = 0; page < this.#options.pages; page++) yield* this.#verify(cx, page, when);
  }

  /** A child sees every word as it was at the fork, changes what is not shared, and ends. */
  *#fork(cx: Cx): Exec<void> {
    const stage = this.#stage, { pages, shared } = this.#options;
    const pid = yield* stage.child(
      cx,
      "copy",
      stage.below(cx.k.ncpus),
      (inner) => this.#childOfMill(inner, shared),
    );
    // Goes on at once: its first stores are what must not reach the child.
    if (!shared) { for (let i = 0; i < pages; i++) yield* suword(cx, this.#spare(i), this.#next); }
    yield* waitFor(cx, pid);
  }

  /** A word that only the fork's stores change. */
  #spare(page: number): bigint {
    return this.#address(page) + 0x800n;
  }

  *#childOfMill(cx: Cx, shared: boolean): Exec<void> {
    const stage = this.#stage, { pages } = this.#options;
    yield* this.#verifyAll(cx, "in a child");
    if (shared) {
      for (let i = 0; i < pages; i++) yield* suword(cx, this.#spare(i), 1n);
      return;
    }
    // Nothing of what others store now is this one's business: what is there stays.
    const seen: (bigint | undefined)[] = [];
    const at = (i: number) => DATA + BigInt(i >> 4) * PAGE + BigInt(8 * (i & 15));
    for (let i = 0; i < pages * 16; i++) seen.push(yield* fuword(cx, at(i)));
    for (let i = stage.below(20); i > 0; i--) yield;
    for (let i = 0; i < pages * 16; i++) {
      const word = yield* fuword(cx, at(i));
      if (word !== seen[i]) stage.fail(`data: a child's own word changed from ${seen[i]} to ${word}`);
    }
    yield* suword(cx, this.#address(stage.below(pages)), 0xdeadn);
  }
}

/**
 * Writes the page at an address to swap if it is dirty, and takes it away if it is clean: what the page-out daemon does to it.
 *
 * @param unmap Every mapping of a dirty page goes first.
 */
export function* evict(cx: Cx, vm: Vmspace, va: bigint, unmap = false): Exec<void> {
  const { vmMap: map } = vm;
  yield* vmMapLockRead(cx, map);
  const { found, entry } = vmMapLookupEntry(map, va as Gva);
  const object = found ? entry.object : undefined;
  const pindex = found ? Math.floor((entry.offset + Number(va - entry.start)) / 4096) : 0;
  if (object === undefined) return yield* vmMapUnlockRead(cx, map);
  yield* vmObjectHold(cx, object);
  yield* vmMapUnlockRead(cx, map);
  const { m, error } = vmPageLookupBusyTry(cx, object, pindex, true);
  if (m !== undefined && !error) {
    if (m.valid === 0xff) yield* vmPageTestDirty(cx, m);
    const free = m.wireCount === 0 && m.holdCount === 0 && m.valid === 0xff;
    if (free && m.dirty !== 0) {
      if (unmap) yield* vmPageProtect(cx, m, VM_PROT_NONE);
      yield* vmPageoutClean(cx, m, 0);
    } else if (free) {
      yield* vmPageProtect(cx, m, VM_PROT_NONE);
      if (m.dirty === 0 && m.holdCount === 0) vmPageFree(cx, m);
      else vmPageWakeup(cx, m);
    } else vmPageWakeup(cx, m);
  }
  vmObjectDrop(cx, object);
}
