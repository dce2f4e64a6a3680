/**
 * Several threads in one address space: some use its pages while others map, unmap, protect, wire and fork it. Each load and store that
 * succeeds is compared with what the page holds; whether one may succeed is compared unless the page's rights are being changed.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import type { Exec } from "../../../hw/gates.ts";
import { Random } from "../../../hw/random.ts";
import { Sanitizer, type StaleUse } from "../../../hw/sanitizer.ts";
import { MemoryDisk } from "../../../hw/dev/virtio_blk.ts";
import type { Cx } from "../../../kernel/context.ts";
import { tsleep } from "../../../kernel/lwkt/sleep.ts";
import { kthreadCreate, lwktExit, lwktReapAll, lwktYield } from "../../../kernel/lwkt/thread.ts";
import { checkInvariants } from "../../../kernel/pmap/invariants.ts";
import { pmapPinit2 } from "../../../kernel/pmap/pmap_pinit.ts";
import { pmapSetlwpvm } from "../../../kernel/pmap/pmap_switch.ts";
import { Lwp, Proc } from "../../../kernel/proc/proc.ts";
import { vmLeaks, vmUse } from "../../../kernel/vm/leak.ts";
import { vmCheck } from "../../../kernel/vm/vm_check.ts";
import { vmMapFind } from "../../../kernel/vm/vm_map_insert.ts";
import { vmMapMadvise, vmMapProtect } from "../../../kernel/vm/vm_map_protect.ts";
import { vmMapRemove } from "../../../kernel/vm/vm_map_remove.ts";
import { vmMapUnwire } from "../../../kernel/vm/vm_map_wire.ts";
import {
  KERN_SUCCESS,
  MADV_DONTNEED,
  VM_PROT_ALL,
  VM_PROT_NONE,
  VM_PROT_READ,
  VM_PROT_RW,
  VM_PROT_WRITE,
} from "../../../kernel/vm/vm_param.ts";
import { type Vmspace, vmspaceCacheDrain, vmspaceRel } from "../../../kernel/vm/vmspace.ts";
import { vmspaceFork } from "../../../kernel/vm/vmspace_fork.ts";
import { runInKernel } from "../in_kernel.ts";
import { newSpace, page, peek, poke } from "../pmap/pmap_fixture.ts";

/** How a run is made. */
export interface ThreadsRun {
  readonly seed: number;
  readonly cpus: number;
  readonly threads: number;
  readonly operations: number;
  readonly pages?: number;
  readonly memory?: number;
  readonly swap?: number;
  readonly bugs?: readonly string[];
}

/** What it showed. */
export interface ThreadsResult {
  readonly stale: readonly StaleUse[];
  readonly compared: number;
  readonly flux: number;
  readonly forks: number;
}

/** A page of the space. */
class Slot {
  mapped = false;
  prot: number = VM_PROT_NONE;
  value = 0n;
  /** Nobody knows the value: it was written while the mapping changed. */
  unknown = false;
  /** An operation on it is under way. */
  locked = false;
  /** Counts beginnings and ends of operations. */
  version = 0;
  /** Values written since a fork began, by fork. */
  readonly watchers: Set<bigint[]> = new Set<bigint[]>();
}

class Model {
  readonly slots: Slot[] = [];
  compared = 0;
  flux = 0;
  forks = 0;
  running = 0;
}

class Worker {
  readonly cx: Cx;
  readonly model: Model;
  readonly random: Random;
  readonly vm: Vmspace;
  readonly home: Vmspace;
  readonly name: string;

  constructor(cx: Cx, model: Model, random: Random, spaces: { vm: Vmspace; home: Vmspace }, name: string) {
    this.cx = cx;
    this.model = model;
    this.random = random;
    this.vm = spaces.vm;
    this.home = spaces.home;
    this.name = name;
  }

  pick(n: number): number {
    return this.random.between(0, n - 1);
  }

  *access(n: number, write: boolean): Exec<void> {
    const slot = this.model.slots[n]!;
    const state = () => `${slot.locked} ${slot.version}`;
    const before = state();
    const value = BigInt(this.pick(1 << 30)) + 1n;
    const got = write ? yield* poke(this.cx, page(n), value) : yield* peek(this.cx, page(n));
    const succeeded = write ? got === true : got !== undefined;
    if (succeeded && write) {
      for (const seen of slot.watchers) seen.push(value);
      slot.value = value;
      slot.unknown = slot.locked;
    }
    if (slot.locked || (!succeeded && state() !== before)) {
      this.model.flux++;
      return;
    }
    const allowed = slot.mapped && (write ? (slot.prot & VM_PROT_WRITE) !== 0 : slot.prot !== VM_PROT_NONE);
    assertEquals(succeeded, allowed, `${this.name}: ${write ? "write to" : "read of"} page ${n}`);
    if (!write && succeeded && !slot.unknown) {
      assertEquals(got, slot.value, `${this.name}: value of page ${n}`);
    }
    this.model.compared++;
  }

  /** Runs an operation on a range that nobody else operates on. */
  *onRange(body: (n: number, count: number, slots: Slot[]) => Exec<void>): Exec<void> {
    const { slots } = this.model;
    const n = this.pick(slots.length);
    const count = 1 + this.pick(Math.min(6, slots.length - n));
    const mine = slots.slice(n, n + count);
    if (mine.some((slot) => slot.locked)) return;
    for (const slot of mine) {
      slot.locked = true;
      slot.version++;
    }
    yield* body(n, count, mine);
    for (const slot of mine) {
      slot.locked = false;
      slot.version++;
    }
  }

  *step(): Exec<void> {
    const { cx, model } = this;
    const map = this.vm.vmMap;
    const op = this.pick(40);
    const prot = [VM_PROT_RW, VM_PROT_RW, VM_PROT_READ, VM_PROT_NONE][this.pick(4)]!;
    if (op < 14) yield* this.access(this.pick(model.slots.length), true);
    else if (op < 26) yield* this.access(this.pick(model.slots.length), false);
    else if (op < 29) {
      yield* this.onRange(function* (n, count, slots) {
        const at = yield* vmMapFind(cx, map, {
          addr: page(n),
          length: BigInt(count) * 0x1000n,
          fitit: false,
          replace: true,
          prot,
          max: VM_PROT_ALL,
        });
        assertEquals(at.rv, KERN_SUCCESS);
        // What was written meanwhile went to the old page, or to the new one.
        for (const slot of slots) {
          slot.mapped = true;
          slot.prot = prot;
          if (!slot.unknown) slot.value = 0n;
        }
      });
    } else if (op < 31) {
      yield* this.onRange(function* (n, count, slots) {
        yield* vmMapRemove(cx, map, page(n), page(n + count));
        for (const slot of slots) slot.mapped = slot.unknown = false;
      });
    } else if (op < 35) {
      yield* this.onRange(function* (n, count, slots) {
        // Memory keeps what is written to it while its rights change, so what is known of it stays known.
        const unknown = slots.map((slot) => slot.unknown);
        for (const slot of slots) slot.unknown = false;
        assertEquals(yield* vmMapProtect(cx, map, page(n), page(n + count), prot, false), KERN_SUCCESS);
        slots.forEach((slot, i) => {
          slot.unknown = unknown[i]! && !slot.unknown;
          if (slot.mapped) slot.prot = prot;
        });
      });
    } else if (op < 37) {
      yield* this.onRange(function* (n, count, slots) {
        const unknown = slots.map((slot) => slot.unknown);
        for (const slot of slots) slot.unknown = false;
        const rv = yield* vmMapUnwire(cx, map, page(n), page(n + count), op === 35);
        assertEquals(rv === KERN_SUCCESS, slots.every((slot) => slot.mapped));
        slots.forEach((slot, i) => slot.unknown = unknown[i]! && !slot.unknown);
      });
    } else if (op < 38) {
      const n = this.pick(model.slots.length);
      yield* vmMapMadvise(cx, map, page(n), page(n + 4), MADV_DONTNEED, 0n);
    } else yield* this.fork();
    if (this.pick(4) === 0) yield* lwktYield(cx);
  }

  /** Forks, looks at the child, and ends it. */
  *fork(): Exec<void> {
    const { cx, model } = this;
    const before = model.slots.map((slot) => {
      const seen: bigint[] = [slot.value];
      slot.watchers.add(seen);
      return { seen, known: !slot.locked && !slot.unknown, version: slot.version };
    });
    const child = yield* vmspaceFork(cx, this.vm);
    const known = model.slots.map((slot, n) => {
      const { seen, known, version } = before[n]!;
      slot.watchers.delete(seen);
      return known && !slot.locked && slot.version === version && slot.mapped && slot.prot !== VM_PROT_NONE
        ? seen
        : undefined;
    });
    pmapPinit2(cx, child.vmPmap);
    yield* pmapSetlwpvm(cx, cx.lwp!, child);
    const first: (bigint | undefined)[] = [];
    for (const [n, seen] of known.entries()) {
      const value = yield* peek(cx, page(n));
      first.push(value);
      if (seen !== undefined) {
        assert(value !== undefined && seen.includes(value), `child: page ${n} shows ${value}, not ${seen}`);
      }
      if (this.pick(3) === 0 && value !== undefined && (yield* poke(cx, page(n), value + 1n))) {
        first[n] = value + 1n;
      }
    }
    yield* lwktYield(cx);
    for (const [n, value] of first.entries()) {
      assertEquals(yield* peek(cx, page(n)), value, `child: page ${n} changed by itself`);
    }
    yield* pmapSetlwpvm(cx, cx.lwp!, this.vm);
    yield* vmspaceRel(cx, child);
    model.forks++;
  }
}

function* work(cx: Cx, worker: () => Worker, proc: Proc, run: ThreadsRun): Exec<void> {
  const w = worker();
  const lwp = new Lwp(proc, 1);
  lwp.lwpThread = cx.td;
  cx.td.tdLwp = lwp;
  yield* pmapSetlwpvm(cx, lwp, w.vm);
  for (let i = 0; i < run.operations; i++) yield* w.step();
  yield* pmapSetlwpvm(cx, lwp, w.home);
  w.model.running--;
  yield* lwktExit(cx);
}

/** Boots a kernel and does it all. Throws when something does not agree. */
export function runThreadsModel(run: ThreadsRun): ThreadsResult {
  const model = new Model();
  const stale: StaleUse[] = [];
  const sanitizer = new Sanitizer();
  sanitizer.on((use) => stale.push(use));
  runInKernel({
    tlb: "sticky",
    sanitizer,
    cpus: run.cpus,
    seed: run.seed,
    steps: 2_000_000_000,
    memory: run.memory ?? 16 << 20,
    ...(run.swap === undefined ? {} : { disk: new MemoryDisk(new Uint8Array(run.swap)) }),
    kernel: run.bugs === undefined ? {} : { bugs: run.bugs },
  }, function* (cx) {
    const home = yield* newSpace(cx);
    for (let id = 0; id < run.threads; id++) yield* kthreadCreate(cx, lwktExit, `stack ${id}`);
    yield* tsleep(cx, model, 0, "model", 2);
    yield* lwktReapAll(cx);
    yield* vmspaceCacheDrain(cx);
    const before = vmUse(cx.k);
    const vm = yield* newSpace(cx);
    for (let i = 0; i < (run.pages ?? 16); i++) model.slots.push(new Slot());
    const proc = new Proc(90);
    proc.pNthreads = run.threads;
    const { gds } = cx.k.lwkt;
    for (let id = 0; id < run.threads; id++) {
      model.running++;
      yield* kthreadCreate(
        cx,
        (own) =>
          work(
            own,
            () => new Worker(own, model, new Random(run.seed, id), { vm, home }, `thread ${id}`),
            proc,
            run,
          ),
        `worker ${id}`,
        gds[id % gds.length],
      );
    }
    while (model.running > 0) yield* tsleep(cx, model, 0, "model", 2);
    yield* tsleep(cx, model, 0, "model", 2);
    assertEquals(yield* vmCheck(cx, [vm.vmMap]), []);
    assertEquals(checkInvariants(cx), []);
    yield* vmspaceRel(cx, vm);
    yield* lwktReapAll(cx);
    yield* vmspaceCacheDrain(cx);
    assertEquals(vmLeaks(before, vmUse(cx.k)), []);
  });
  return { stale, compared: model.compared, flux: model.flux, forks: model.forks };
}
