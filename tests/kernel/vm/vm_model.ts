/**
 * Random operations of several threads on their address spaces, against a model that maps (space, page) to a value and rights.
 *
 * What the model knows of memory is a *box* for each page that somebody can see: a value, or another box to look into until it is written
 * itself (copy on write). Sharing is using one box. A store or load that succeeds is one step of its thread, so the model is told in the
 * same step and agrees exactly at any time, whatever other threads are doing.
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
import { physToDmap } from "../../../kernel/platform/layout.ts";
import { vmLeaks, vmUse } from "../../../kernel/vm/leak.ts";
import { chainPage, vmCheck } from "../../../kernel/vm/vm_check.ts";
import { vmMapLookupEntry } from "../../../kernel/vm/vm_map.ts";
import { vmMapFind } from "../../../kernel/vm/vm_map_insert.ts";
import { vmMapInherit, vmMapMadvise, vmMapProtect } from "../../../kernel/vm/vm_map_protect.ts";
import { vmMapRemove } from "../../../kernel/vm/vm_map_remove.ts";
import { vmMapUnwire } from "../../../kernel/vm/vm_map_wire.ts";
import {
  OBJ_ONEMAPPING,
  OBJT_DEFAULT,
  type VmObject,
  vmObjectAllocate,
  vmObjectDrop,
  vmObjectHold,
  vmObjectReferenceQuick,
} from "../../../kernel/vm/vm_object.ts";
import { vmObjectDeallocate } from "../../../kernel/vm/vm_object_terminate.ts";
import {
  KERN_SUCCESS,
  MADV_DONTNEED,
  MADV_FREE,
  MADV_WILLNEED,
  MAP_COPY_ON_WRITE,
  MAP_ENTRY_NEEDS_COPY,
  VM_INHERIT_COPY,
  VM_INHERIT_NONE,
  VM_INHERIT_SHARE,
  VM_PROT_ALL,
  VM_PROT_NONE,
  VM_PROT_READ,
  VM_PROT_RW,
  VM_PROT_WRITE,
} from "../../../kernel/vm/vm_param.ts";
import {
  VM_ALLOC_NORMAL,
  VM_ALLOC_RETRY,
  VM_ALLOC_ZERO,
  vmPageActivate,
  vmPageDirty,
  vmPageWakeup,
} from "../../../kernel/vm/vm_page.ts";
import { vmPageGrab } from "../../../kernel/vm/vm_page_cache.ts";
import { type Vmspace, vmspaceCacheDrain, vmspaceRel } from "../../../kernel/vm/vmspace.ts";
import { vmspaceFork } from "../../../kernel/vm/vmspace_fork.ts";
import { runInKernel } from "../in_kernel.ts";
import { enterSpace, newSpace, page, peek, poke } from "../pmap/pmap_fixture.ts";

/** How a run is made. */
export interface VmModelRun {
  readonly seed: number;
  readonly cpus?: number;
  /** Threads; each has spaces of its own. */
  readonly threads?: number;
  /** Operations of each thread. */
  readonly operations: number;
  readonly memory?: number;
  /** Bytes of swap. */
  readonly swap?: number;
  readonly bugs?: readonly string[];
  /** Check all rules after every operation (only with one thread). */
  readonly checkAll?: boolean;
  /** Pages of the window in which operations happen. */
  readonly window?: number;
  /** Told of each operation. */
  readonly trace?: (line: string) => void;
}

/** What it showed. */
export interface VmModelResult {
  readonly stale: readonly StaleUse[];
  readonly compared: number;
  readonly faults: number;
  /** Pages written to swap, and read back. */
  readonly swappgsout: number;
  readonly swappgsin: number;
}

/** What a page shows. */
class Box {
  value = 0n;
  /** Not written itself yet: shows what that one shows. */
  alias: Box | undefined;
  /** Its content may be anything until it is written (madvise FREE). */
  lost = false;
  /** Has been written. */
  touched = false;
  /**
   * May show zero although what it looks into has been written since: a page that nobody had when it was read becomes zeros in the object that
   * it was looked for in first.
   */
  mayBeZero = false;

  constructor(alias?: Box) {
    this.alias = alias;
  }
  get shown(): Box {
    // deno-lint-ignore no-this-alias
    let box: Box = this;
    while (box.alias !== undefined) box = box.alias;
    return box;
  }
  write(value: bigint): void {
    this.alias = undefined;
    this.lost = false;
    this.mayBeZero = false;
    this.touched = true;
    this.value = value;
  }
  /** It is read, and shows `value` (or may). */
  agrees(value: bigint): boolean {
    let zero = false;
    // deno-lint-ignore no-this-alias
    for (let box: Box | undefined = this; box !== undefined; box = box.alias) zero ||= box.mayBeZero;
    const { shown } = this;
    return shown.lost || value === shown.value || (zero && value === 0n);
  }
}

interface PageModel {
  box: Box;
  prot: number;
  max: number;
  inheritance: number;
  wired: boolean;
}

interface SpaceModel {
  readonly vm: Vmspace;
  readonly pages: Map<number, PageModel>;
  /** For people. */
  readonly id: number;
}

const SPACES_MAX = 4, FILES = 2, FILE_PAGES = 6;

class Model {
  readonly files: { object: VmObject; boxes: Box[] }[] = [];
  readonly spaces = new Set<SpaceModel>();
  made = 0;
  compared = 0;
  running = 0;
}

class Worker {
  readonly mine: SpaceModel[] = [];
  at!: SpaceModel;
  readonly cx: Cx;
  readonly model: Model;
  readonly random: Random;
  readonly run: VmModelRun;
  readonly window: number;
  readonly name: string;

  constructor(cx: Cx, model: Model, random: Random, run: VmModelRun, name: string) {
    this.cx = cx;
    this.model = model;
    this.random = random;
    this.run = run;
    this.window = run.window ?? 16;
    this.name = name;
  }

  pick(n: number): number {
    return this.random.between(0, n - 1);
  }
  trace(text: string): void {
    this.run.trace?.(`${this.name} space ${this.at.id} ${text}`);
  }

  *newSpace(vm: Vmspace, pages: Map<number, PageModel>): Exec<SpaceModel> {
    const space = { vm, pages, id: ++this.model.made };
    this.mine.push(space);
    this.model.spaces.add(space);
    return space;
  }

  *go(space: SpaceModel): Exec<void> {
    this.at = space;
    yield* pmapSetlwpvm(this.cx, this.cx.lwp!, space.vm);
  }

  /** A range of the window. */
  range(): { n: number; count: number } {
    const n = this.pick(this.window);
    return { n, count: 1 + this.pick(Math.min(this.window > 100 ? this.window >> 3 : 5, this.window - n)) };
  }

  *access(n: number, write: boolean): Exec<void> {
    const { cx, at } = this;
    const known = at.pages.get(n);
    const where = `${this.name} space ${at.id} page ${n}`;
    if (write) {
      const value = BigInt(this.pick(1 << 30)) + 1n;
      const allowed = known !== undefined && (known.prot & VM_PROT_WRITE) !== 0;
      const done = yield* poke(cx, page(n), value);
      assertEquals(done, allowed, `write to ${where}`);
      this.trace(`write ${n} ${value} ${done}`);
      if (done) known!.box.write(value);
    } else {
      const value = yield* peek(cx, page(n));
      const shown = known?.box.shown;
      const allowed = known !== undefined && known.prot !== VM_PROT_NONE;
      assertEquals(value !== undefined, allowed, `read of ${where}`);
      if (allowed && !known!.box.agrees(value!)) assertEquals(value, shown!.value, `value at ${where}`);
      if (allowed && !shown!.touched && shown !== known!.box) known!.box.mayBeZero = true;
    }
    this.model.compared++;
  }

  /** Writes to all pages of a range: what uses memory up. */
  *fill(): Exec<void> {
    const { n, count } = this.range();
    for (let i = 0; i < count; i++) yield* this.access(n + i, true);
  }

  *mmap(): Exec<void> {
    const { cx, at } = this;
    const { n, count } = this.range();
    const kind = this.pick(4);
    const shared = kind === 1 || kind === 3;
    const file = kind >= 2 ? this.model.files[this.pick(FILES)]! : undefined;
    const offset = file === undefined ? 0 : this.pick(FILE_PAGES - Math.min(count, FILE_PAGES) + 1);
    const pages = file === undefined ? count : Math.min(count, FILE_PAGES);
    const prot = [VM_PROT_RW, VM_PROT_RW, VM_PROT_READ, VM_PROT_NONE][this.pick(4)]!;
    this.trace(`mmap ${n}+${pages} kind ${kind} offset ${offset} prot ${prot}`);
    if (file !== undefined) vmObjectReferenceQuick(cx, file.object);
    for (let i = 0; i < pages; i++) at.pages.delete(n + i);
    const got = yield* vmMapFind(cx, at.vm.vmMap, {
      addr: page(n),
      length: BigInt(pages) * 0x1000n,
      fitit: false,
      replace: true,
      prot,
      max: VM_PROT_ALL,
      object: file?.object,
      offset: offset * 0x1000,
      cow: file !== undefined && !shared ? MAP_COPY_ON_WRITE : 0,
      ...(shared ? { inheritance: VM_INHERIT_SHARE } : {}),
    });
    assertEquals(got.rv, KERN_SUCCESS);
    for (let i = 0; i < pages; i++) {
      const box = file === undefined
        ? new Box()
        : shared
        ? file.boxes[offset + i]!
        : new Box(file.boxes[offset + i]!);
      const inheritance = shared ? VM_INHERIT_SHARE : VM_INHERIT_COPY;
      at.pages.set(n + i, { box, prot, max: VM_PROT_ALL, inheritance, wired: false });
    }
  }

  *munmap(): Exec<void> {
    const { n, count } = this.range();
    this.trace(`munmap ${n}+${count}`);
    yield* vmMapRemove(this.cx, this.at.vm.vmMap, page(n), page(n + count));
    for (let i = 0; i < count; i++) this.at.pages.delete(n + i);
  }

  *mprotect(): Exec<void> {
    const { n, count } = this.range();
    const prot = [VM_PROT_RW, VM_PROT_RW, VM_PROT_READ, VM_PROT_NONE][this.pick(4)]!;
    this.trace(`mprotect ${n}+${count} ${prot}`);
    assertEquals(
      yield* vmMapProtect(this.cx, this.at.vm.vmMap, page(n), page(n + count), prot, false),
      KERN_SUCCESS,
    );
    for (let i = 0; i < count; i++) {
      const known = this.at.pages.get(n + i);
      if (known === undefined) continue;
      const gains = (prot & ~known.prot & VM_PROT_WRITE) !== 0;
      known.prot = prot;
      if (known.wired && gains) this.wireBox(n + i, known);
    }
  }

  *minherit(): Exec<void> {
    const { n, count } = this.range();
    const inheritance = [VM_INHERIT_COPY, VM_INHERIT_SHARE, VM_INHERIT_NONE][this.pick(3)]!;
    this.trace(`minherit ${n}+${count} ${inheritance}`);
    yield* vmMapInherit(this.cx, this.at.vm.vmMap, page(n), page(n + count), inheritance);
    for (let i = 0; i < count; i++) {
      const known = this.at.pages.get(n + i);
      if (known !== undefined) known.inheritance = inheritance;
    }
  }

  *madvise(): Exec<void> {
    const { n, count } = this.range();
    const behav = [MADV_DONTNEED, MADV_WILLNEED, MADV_FREE][this.pick(3)]!;
    this.trace(`madvise ${n}+${count} ${behav}`);
    if (behav === MADV_FREE) {
      for (let i = 0; i < count; i++) {
        const box = this.at.pages.get(n + i)?.box;
        if (box !== undefined) this.lose(box);
      }
    }
    assertEquals(
      yield* vmMapMadvise(this.cx, this.at.vm.vmMap, page(n), page(n + count), behav, 0n),
      KERN_SUCCESS,
    );
  }

  /** The content of a box may be forgotten: back to what lies below, or to zero. */
  lose(box: Box): void {
    if (this.model.files.some((file) => file.boxes.includes(box))) return;
    if (box.alias === undefined) box.lost = true;
    else if (!this.model.files.some((file) => file.boxes.includes(box.shown))) box.shown.lost = true;
  }

  *mlock(): Exec<void> {
    const { n, count } = this.range();
    const all = Array.from({ length: count }, (_, i) => this.at.pages.get(n + i));
    this.trace(`mlock ${n}+${count}`);
    const rv = yield* vmMapUnwire(this.cx, this.at.vm.vmMap, page(n), page(n + count), false);
    assertEquals(
      rv === KERN_SUCCESS,
      all.every((known) => known !== undefined),
      `mlock ${n}+${count}: ${rv}`,
    );
    if (rv !== KERN_SUCCESS) return;
    all.forEach((known, i) => {
      known!.wired = true;
      if (known!.prot & VM_PROT_WRITE) this.wireBox(n + i, known!);
    });
  }

  /** A private page that is wired for writing has its own copy. */
  wireBox(n: number, known: PageModel): void {
    const { entry } = vmMapLookupEntry(this.at.vm.vmMap, page(n));
    assert((entry.eflags & MAP_ENTRY_NEEDS_COPY) === 0);
    const { shown } = known.box;
    if (shown === known.box) return;
    known.box.alias = undefined;
    known.box.value = shown.value;
    known.box.touched = true;
    known.box.lost = shown.lost || !shown.touched || this.model.spaces.size > 0 && this.concurrent;
  }

  get concurrent(): boolean {
    return (this.run.threads ?? 1) > 1;
  }

  *munlock(): Exec<void> {
    const { n, count } = this.range();
    const all = Array.from({ length: count }, (_, i) => this.at.pages.get(n + i));
    this.trace(`munlock ${n}+${count}`);
    const rv = yield* vmMapUnwire(this.cx, this.at.vm.vmMap, page(n), page(n + count), true);
    assertEquals(rv === KERN_SUCCESS, all.every((known) => known !== undefined));
    if (rv === KERN_SUCCESS) { for (const known of all) known!.wired = false; }
  }

  *fork(): Exec<void> {
    const { cx, at } = this;
    if (this.mine.length >= SPACES_MAX) return yield* this.exit();
    this.trace("fork");
    const needsCopy = new Map<number, boolean>();
    for (const n of at.pages.keys()) {
      const { entry } = vmMapLookupEntry(at.vm.vmMap, page(n));
      needsCopy.set(n, (entry.eflags & MAP_ENTRY_NEEDS_COPY) !== 0);
    }
    const vm = yield* vmspaceFork(cx, at.vm);
    pmapPinit2(cx, vm.vmPmap);
    const pages = new Map<number, PageModel>();
    for (const [n, known] of at.pages) {
      if (known.inheritance === VM_INHERIT_NONE) continue;
      const child = { ...known, wired: false };
      if (known.inheritance === VM_INHERIT_COPY) {
        if (known.wired && needsCopy.get(n) !== true) {
          child.box = new Box();
          child.box.value = known.box.shown.value;
          child.box.touched = true;
          child.box.lost = !known.box.shown.touched || known.box.shown.lost || this.concurrent;
        } else {
          child.box = new Box(known.box);
          known.box = new Box(known.box);
        }
      }
      pages.set(n, child);
    }
    const space = yield* this.newSpace(vm, pages);
    this.trace(`is the parent of ${space.id}`);
    if (this.pick(2) === 0) yield* this.go(space);
  }

  *exit(): Exec<void> {
    if (this.mine.length < 2) return;
    this.trace("exit");
    const gone = this.at;
    this.mine.splice(this.mine.indexOf(gone), 1);
    this.model.spaces.delete(gone);
    yield* this.go(this.mine[this.pick(this.mine.length)]!);
    yield* vmspaceRel(this.cx, gone.vm);
  }

  *step(): Exec<void> {
    const op = this.pick(40);
    if (op < 2) yield* this.fill();
    else if (op < 12) yield* this.access(this.pick(this.window), true);
    else if (op < 20) yield* this.access(this.pick(this.window), false);
    else if (op < 24) yield* this.mmap();
    else if (op < 26) yield* this.munmap();
    else if (op < 29) yield* this.mprotect();
    else if (op < 30) yield* this.minherit();
    else if (op < 32) yield* this.madvise();
    else if (op < 33) yield* this.mlock();
    else if (op < 34) yield* this.munlock();
    else if (op < 37) yield* this.fork();
    else if (op < 38) yield* this.exit();
    else yield* this.go(this.mine[this.pick(this.mine.length)]!);
    if (this.concurrent && this.pick(4) === 0) yield* lwktYield(this.cx);
  }

  *verify(): Exec<void> {
    for (let n = 0; n < this.window + 6; n++) yield* this.access(n, false);
  }
}

/** What every page of every space shows, looked up without a fault, is what the model says; not for pages on swap. */
function* checkContent(cx: Cx, model: Model, what: string): Exec<void> {
  for (const space of model.spaces) {
    for (const [n, known] of space.pages) {
      const { found, entry } = vmMapLookupEntry(space.vm.vmMap, page(n));
      assert(found, `${what}: space ${space.id} page ${n} is not mapped`);
      assertEquals(entry.protection, known.prot, `${what}: rights of space ${space.id} page ${n}`);
      assertEquals(entry.wiredCount > 0, known.wired, `${what}: wiring of space ${space.id} page ${n}`);
      const { shown } = known.box;
      if (cx.k.vmmeter.vSwapout > 0) continue;
      const m = entry.object &&
        chainPage(entry.object, (entry.offset + Number(page(n) - entry.start)) / 4096);
      const value = m === undefined ? 0n : yield* cx.cpu.load64(physToDmap(cx.k, m.physAddr));
      if (!known.box.agrees(value)) assertEquals(value, shown.value, `${what}: space ${space.id} page ${n}`);
    }
  }
}

function* checkAll(cx: Cx, model: Model, what: string): Exec<void> {
  yield* checkContent(cx, model, what);
  const refs = new Map(model.files.map((file) => [file.object, 1]));
  assertEquals(yield* vmCheck(cx, [...model.spaces].map(({ vm }) => vm.vmMap), refs), [], what);
  assertEquals(checkInvariants(cx), [], what);
}

function* work(cx: Cx, model: Model, id: number, run: VmModelRun, home: Vmspace): Exec<void> {
  yield* enterSpace(cx, home);
  const worker = new Worker(cx, model, new Random(run.seed, id), run, `thread ${id}`);
  const vm = yield* newSpace(cx);
  yield* worker.go(yield* worker.newSpace(vm, new Map()));
  for (let i = 0; i < run.operations; i++) {
    yield* worker.step();
    if (run.checkAll) yield* checkAll(cx, model, `operation ${i}`);
  }
  for (const space of [...worker.mine]) {
    yield* worker.go(space);
    yield* worker.verify();
  }
  yield* pmapSetlwpvm(cx, cx.lwp!, home);
  for (const space of worker.mine) {
    model.spaces.delete(space);
    yield* vmspaceRel(cx, space.vm);
  }
  model.running--;
  yield* lwktExit(cx);
}

/** Boots a kernel and does it all. Throws when something does not agree. */
export function runVmModel(run: VmModelRun): VmModelResult {
  const model = new Model();
  const stale: StaleUse[] = [];
  const sanitizer = new Sanitizer();
  sanitizer.on((use) => stale.push(use));
  const { kernel } = runInKernel({
    tlb: "sticky",
    sanitizer,
    cpus: run.cpus ?? 1,
    seed: run.seed,
    steps: 2_000_000_000,
    memory: run.memory ?? 16 << 20,
    ...(run.swap === undefined ? {} : { disk: new MemoryDisk(new Uint8Array(run.swap)) }),
    kernel: run.bugs === undefined ? {} : { bugs: run.bugs },
  }, function* (cx) {
    const homes: Vmspace[] = [];
    for (let i = 0; i < (run.threads ?? 1); i++) homes.push(yield* newSpace(cx));
    // Kernel stacks are kept for the next threads: have them made before anything is counted.
    for (const [id] of homes.entries()) yield* kthreadCreate(cx, lwktExit, `stack ${id}`);
    yield* tsleep(cx, model, 0, "model", 2);
    yield* lwktReapAll(cx);
    yield* vmspaceCacheDrain(cx);
    const before = vmUse(cx.k);
    for (let i = 0; i < FILES; i++) {
      const object = vmObjectAllocate(cx, OBJT_DEFAULT, FILE_PAGES);
      object.handle = {};
      object.flags &= ~OBJ_ONEMAPPING;
      const boxes = Array.from({ length: FILE_PAGES }, () => new Box());
      for (const [pindex, box] of boxes.entries()) {
        box.write(BigInt(1000 * (i + 1) + pindex));
        yield* vmObjectHold(cx, object);
        const m = yield* vmPageGrab(cx, object, pindex, VM_ALLOC_NORMAL | VM_ALLOC_RETRY | VM_ALLOC_ZERO);
        yield* cx.cpu.store64(physToDmap(cx.k, m!.physAddr), box.value);
        vmPageDirty(cx, m!);
        vmPageActivate(cx, m!);
        vmPageWakeup(cx, m!);
        vmObjectDrop(cx, object);
      }
      model.files.push({ object, boxes });
    }
    const { gds } = cx.k.lwkt;
    for (const [id, home] of homes.entries()) {
      model.running++;
      yield* kthreadCreate(
        cx,
        (own) => work(own, model, id, run, home),
        `worker ${id}`,
        gds[id % gds.length],
      );
    }
    while (model.running > 0) yield* tsleep(cx, model, 0, "model", 2);
    yield* tsleep(cx, model, 0, "model", 2);
    yield* lwktReapAll(cx);
    yield* checkAll(cx, model, "at the end");
    for (const { object } of model.files) yield* vmObjectDeallocate(cx, object);
    yield* vmspaceCacheDrain(cx);
    const leaks = vmLeaks(before, vmUse(cx.k)).filter((line) =>
      !/pages|wired|pvs/.test(line) || run.threads === 1
    );
    assertEquals(leaks, []);
  });
  const { vVmFaults: faults, vSwappgsout: swappgsout, vSwappgsin: swappgsin } = kernel.vmmeter;
  return { stale, compared: model.compared, faults, swappgsout, swappgsin };
}
