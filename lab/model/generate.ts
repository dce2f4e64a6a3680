/**
 * Random operations that make sense on a model, in batches whose members do not get into each other's way.
 *
 * Room: `lab/model/`; imports the model and hw's generator.
 *
 * @module
 */
import type { Random } from "../../hw/random.ts";
import {
  EXEC,
  FILE_PAGES,
  type Op,
  type Prot,
  READ,
  type Slot,
  SPACE_PAGES,
  VmModel,
  WRITE,
} from "./vm_model.ts";

const PROTS: readonly Prot[] = [
  0,
  READ,
  READ,
  READ | WRITE,
  READ | WRITE,
  READ | WRITE,
  READ | EXEC,
  READ | WRITE | EXEC,
];
/** Most processes that live at once. */
const PROCESSES_MAX = 8;

/** How much of what, in proportion to each other. */
const WEIGHTS: readonly (readonly [Op["kind"], number])[] = [
  ["pressure", 1],
  ["read", 372],
  ["write", 450],
  ["mmap", 150],
  ["munmap", 60],
  ["mprotect", 105],
  ["minherit", 30],
  ["madvise", 60],
  ["msync", 15],
  ["mlock", 30],
  ["munlock", 30],
  ["mincore", 15],
  ["fork", 60],
  ["exit", 45],
  ["truncate", 15],
  ["pwrite", 45],
  ["pread", 30],
];
const WEIGHT_SUM = WEIGHTS.reduce((sum, [, weight]) => sum + weight, 0);

/** Draws operations. */
export class Generator {
  readonly #random: Random;
  readonly #model: VmModel;
  #nextProcess = 1;
  #nextValue = 1;

  constructor(random: Random, model: VmModel) {
    this.#random = random;
    this.#model = model;
  }

  #below(n: number): number {
    return this.#random.next() % n;
  }

  #range(): { readonly page: number; readonly count: number } {
    const page = this.#below(SPACE_PAGES);
    const long = this.#below(8) === 0;
    return { page, count: 1 + this.#below(Math.min(long ? SPACE_PAGES : 6, SPACE_PAGES - page)) };
  }

  /** One operation, or undefined if the draw makes no sense now. */
  draw(): Op | undefined {
    const model = this.#model;
    const ids = [...model.processes.keys()];
    const p = ids[this.#below(ids.length)]!;
    let at = this.#below(WEIGHT_SUM), kind: Op["kind"] = "read";
    for (const [name, weight] of WEIGHTS) {
      kind = name;
      if ((at -= weight) < 0) break;
    }
    switch (kind) {
      case "read":
        return { kind, p, page: this.#mostlyMapped(p) };
      case "write":
        return { kind, p, page: this.#mostlyMapped(p), value: this.#nextValue++ };
      case "mmap": {
        const range = this.#range();
        const prot = PROTS[this.#below(PROTS.length)]!;
        const shared = this.#below(3) === 0;
        if (this.#below(3) !== 0) return { kind, p, ...range, prot, shared };
        const file = { file: this.#below(model.files.length), page: this.#below(FILE_PAGES) };
        const count = Math.min(range.count, FILE_PAGES - file.page);
        return { kind, p, page: range.page, count, prot, shared, file };
      }
      case "mprotect":
        return { kind, p, ...this.#range(), prot: PROTS[this.#below(PROTS.length)]! };
      case "minherit": {
        const op: Op = {
          kind,
          p,
          ...this.#range(),
          inherit: (["share", "copy", "none"] as const)[this.#below(3)]!,
        };
        // DragonFly ends sharing when a shared page is inherited by copy: undefined here.
        if (op.inherit === "copy" && this.#slots(op).some((slot) => slot.shared || slot.refs > 1)) {
          return undefined;
        }
        return op;
      }
      case "madvise": {
        const advice = (["normal", "willneed", "dontneed", "free"] as const)[this.#below(4)]!;
        const op: Op = { kind, p, ...this.#range(), advice };
        if (advice === "free" && this.#slots(op).some((slot) => slot.file !== undefined)) return undefined;
        return op;
      }
      case "mlock": {
        const op: Op = { kind, p, ...this.#range() };
        // Wiring makes the copy of a private file page that only a write would make.
        if (this.#slots(op).some((slot) => slot.own === undefined && !slot.shared)) return undefined;
        return op;
      }
      case "munmap":
      case "msync":
      case "munlock":
      case "mincore":
        return { kind, p, ...this.#range() };
      case "fork":
        if (ids.length >= PROCESSES_MAX) return undefined;
        return { kind, p, child: this.#nextProcess++, mem: this.#below(2) === 0 };
      case "pressure":
        return { kind, p, pages: 400 + this.#below(1200) };
      case "exit":
        return p === 0 || ids.length < 4 ? undefined : { kind, p };
      case "truncate": {
        const file = this.#below(model.files.length);
        if (model.isLocked(file)) return undefined;
        return { kind, p, file, pages: this.#below(FILE_PAGES + 1) };
      }
      case "pwrite":
        return {
          kind,
          p,
          file: this.#below(model.files.length),
          page: this.#below(FILE_PAGES),
          value: this.#nextValue++,
        };
      case "pread":
        return { kind, p, file: this.#below(model.files.length), page: this.#below(FILE_PAGES) };
    }
  }

  #mostlyMapped(p: number): number {
    const pages = [...this.#model.processes.get(p)!.pages.keys()];
    return pages.length === 0 || this.#below(12) === 0
      ? this.#below(SPACE_PAGES)
      : pages[this.#below(pages.length)]!;
  }

  #slots(op: { readonly p: number; readonly page: number; readonly count: number }): Slot[] {
    const { pages } = this.#model.processes.get(op.p)!;
    const slots: Slot[] = [];
    for (let i = op.page; i < op.page + op.count; i++) {
      const page = pages.get(i);
      if (page !== undefined) slots.push(page.slot);
    }
    return slots;
  }
}

/** What an operation touches: keys that it reads and keys that it changes. Two of a batch may not both have a key that one changes. */
export function touches(model: VmModel, op: Op): { readonly reads: unknown[]; readonly writes: unknown[] } {
  const space = model.processes.get(op.p)!;
  const process = `process ${op.p}`;
  // Names, file data and mincore's answers go by way of a page that a whole address space has in common.
  const scratch = `scratch ${spaceKey(model, op.p)}`;
  const pageKey = (page: number) => `${spaceKey(model, op.p)}:${page}`;
  const content = (page: number): unknown[] => {
    const slot = space.pages.get(page)?.slot;
    if (slot === undefined) return [];
    const keys: unknown[] = [slot];
    if (slot.file !== undefined) keys.push(`file ${slot.file.file}:${slot.file.page}`);
    return keys;
  };
  switch (op.kind) {
    case "read":
      return { reads: [pageKey(op.page), ...content(op.page)], writes: [process] };
    case "write":
      return { reads: [pageKey(op.page)], writes: [process, ...content(op.page)] };
    case "truncate":
      return { reads: [], writes: [process, ...fileKeys(op.file)] };
    case "pwrite":
      // A longer file shows pages that were beyond its end.
      return { reads: [], writes: [process, scratch, ...fileKeys(op.file)] };
    case "pressure":
      return { reads: [], writes: [process] };
    case "pread":
      return { reads: [`file ${op.file}:${op.page}`], writes: [process, scratch] };
    case "fork":
    case "exit": {
      const keys: unknown[] = [];
      for (let page = 0; page < SPACE_PAGES; page++) keys.push(pageKey(page), ...content(page));
      return { reads: keys, writes: op.kind === "fork" ? [process, `process ${op.child}`] : [process] };
    }
    default: {
      const reads: unknown[] = [], writes: unknown[] = op.kind === "mincore" ? [process, scratch] : [process];
      for (let page = op.page; page < op.page + op.count; page++) {
        writes.push(pageKey(page));
        if (op.kind === "madvise") writes.push(...content(page));
        else reads.push(...content(page));
      }
      return { reads, writes };
    }
  }
}

function fileKeys(file: number): string[] {
  return Array.from({ length: FILE_PAGES }, (_, page) => `file ${file}:${page}`);
}

/** Processes that share an address space (rfork) have one key. */
function spaceKey(model: VmModel, p: number): string {
  const space = model.processes.get(p);
  for (const [id, other] of model.processes) if (other === space) return `space ${id}`;
  return `space ${p}`;
}
