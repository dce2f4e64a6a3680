/**
 * A tiny obviously-right virtual memory: each page of each address space is a reference to a cell that holds a value.
 *
 * Room: `lab/model/`; imports nothing.
 *
 * What a page's content follows from:
 *
 *     anonymous, shared      a cell that fork hands on
 *     anonymous, private     a cell of its own; fork copies it
 *     file, shared           the file's cell
 *     file, private          the file's cell until it is written, then one of its own
 *
 * @module
 */

/** Rights of a page: bits as PROT_*. */
export type Prot = number;
/** PROT_READ, PROT_WRITE, PROT_EXEC. */
export const READ = 1, WRITE = 2, EXEC = 4;

/** Content of a page: a number that stands at its first and its last eight bytes. */
export class Cell {
  /** madvise(FREE) has given its content up: it is anything until the next write. */
  freed = false;
  constructor(public value: number) {}
}

/** Where a page's content comes from. Several address spaces may refer to one slot: inherited by sharing. */
export class Slot {
  /** References from address spaces. */
  refs = 1;
  constructor(
    public own: Cell | undefined,
    readonly file: { readonly file: number; readonly page: number } | undefined,
    readonly shared: boolean,
  ) {}
}

/** What fork does with a page. */
export type Inherit = "share" | "copy" | "none";

/** One page of an address space. */
export interface Page {
  slot: Slot;
  prot: Prot;
  inherit: Inherit;
  /** mlock has been tried on it. A wired page outlives the truncation of its file, with undefined content. */
  locked: boolean;
}

/** An address space, that of one process or (rfork) of several. */
export class Space {
  refs = 1;
  readonly pages = new Map<number, Page>();
}

/** An operation. Processes and files are numbers; one on a process that there is not is nothing. */
export type Op =
  | {
    readonly kind: "mmap";
    readonly p: number;
    readonly page: number;
    readonly count: number;
    readonly prot: Prot;
    readonly shared: boolean;
    readonly file?: { readonly file: number; readonly page: number };
  }
  | { readonly kind: "munmap"; readonly p: number; readonly page: number; readonly count: number }
  | {
    readonly kind: "mprotect";
    readonly p: number;
    readonly page: number;
    readonly count: number;
    readonly prot: Prot;
  }
  | {
    readonly kind: "minherit";
    readonly p: number;
    readonly page: number;
    readonly count: number;
    readonly inherit: Inherit;
  }
  | {
    readonly kind: "madvise";
    readonly p: number;
    readonly page: number;
    readonly count: number;
    readonly advice: "normal" | "willneed" | "dontneed" | "free";
  }
  | { readonly kind: "msync"; readonly p: number; readonly page: number; readonly count: number }
  | { readonly kind: "mlock"; readonly p: number; readonly page: number; readonly count: number }
  | { readonly kind: "munlock"; readonly p: number; readonly page: number; readonly count: number }
  | { readonly kind: "mincore"; readonly p: number; readonly page: number; readonly count: number }
  | { readonly kind: "read"; readonly p: number; readonly page: number }
  | { readonly kind: "write"; readonly p: number; readonly page: number; readonly value: number }
  | { readonly kind: "fork"; readonly p: number; readonly child: number; readonly mem: boolean }
  | { readonly kind: "exit"; readonly p: number }
  | { readonly kind: "pressure"; readonly p: number; readonly pages: number }
  | { readonly kind: "truncate"; readonly p: number; readonly file: number; readonly pages: number }
  | {
    readonly kind: "pwrite";
    readonly p: number;
    readonly file: number;
    readonly page: number;
    readonly value: number;
  }
  | { readonly kind: "pread"; readonly p: number; readonly file: number; readonly page: number };

/** What an operation must give: nothing to compare, a value (one of several), or a failure. */
export type Expected =
  | { readonly kind: "done" }
  | { readonly kind: "any" }
  | { readonly kind: "value"; readonly values: readonly number[] }
  | { readonly kind: "fault" };

const DONE: Expected = { kind: "done" };
const FAULT: Expected = { kind: "fault" };

/** Pages that an address space has for the test. */
export const SPACE_PAGES = 48;
/** Pages that a file may have. */
export const FILE_PAGES = 12;

/** All processes and files. */
export class VmModel {
  readonly processes = new Map<number, Space>();
  /** The cells of each file; its length is the file's, in pages. */
  readonly files: Cell[][];

  /** @param files Number of files. Process 0 exists, with an empty space. */
  constructor(files: number) {
    this.files = Array.from({ length: files }, () => []);
    this.processes.set(0, new Space());
  }

  /** Whether the operation means anything now. */
  applies(op: Op): boolean {
    if (!this.processes.has(op.p)) return false;
    return op.kind !== "fork" || !this.processes.has(op.child);
  }

  /** The cell that a page shows, or undefined beyond the file's end. */
  cellOf(slot: Slot): Cell | undefined {
    if (slot.own !== undefined) return slot.own;
    const { file, page } = slot.file!;
    return this.files[file]![page];
  }

  /** Carries an operation out; what it must give. */
  apply(op: Op): Expected {
    const space = this.processes.get(op.p)!;
    switch (op.kind) {
      case "mmap":
        this.#unmap(space, op.page, op.count);
        for (let i = 0; i < op.count; i++) {
          const file = op.file === undefined ? undefined : { file: op.file.file, page: op.file.page + i };
          const slot = new Slot(file === undefined ? new Cell(0) : undefined, file, op.shared);
          space.pages.set(op.page + i, {
            slot,
            prot: op.prot,
            inherit: op.shared ? "share" : "copy",
            locked: false,
          });
        }
        return DONE;
      case "munmap":
        // As in 4.4BSD: a range with a hole is refused.
        if (this.#range(space, op).length < op.count) return FAULT;
        this.#unmap(space, op.page, op.count);
        return DONE;
      case "mprotect":
        for (const page of this.#range(space, op)) page.prot = op.prot;
        return DONE;
      case "minherit":
        for (const page of this.#range(space, op)) page.inherit = op.inherit;
        return DONE;
      case "madvise":
        if (op.advice === "free") {
          for (const { slot } of this.#range(space, op)) if (slot.own !== undefined) slot.own.freed = true;
        }
        return DONE;
      case "mlock":
        for (const page of this.#range(space, op)) page.locked = true;
        return { kind: "any" };
      case "pressure":
      case "msync":
      case "munlock":
      case "mincore":
        return { kind: "any" };
      case "read": {
        const page = space.pages.get(op.page);
        if (page === undefined || !(page.prot & READ)) return FAULT;
        const cell = this.cellOf(page.slot);
        if (cell === undefined) return FAULT;
        // What was given up may come back as it was, as zeros, or as what a copy was once made from.
        return cell.freed ? { kind: "any" } : { kind: "value", values: [cell.value] };
      }
      case "write": {
        const page = space.pages.get(op.page);
        if (page === undefined || !(page.prot & WRITE)) return FAULT;
        const cell = this.cellOf(page.slot);
        if (cell === undefined) return FAULT;
        if (!page.slot.shared && page.slot.own === undefined) page.slot.own = new Cell(op.value);
        else {
          cell.value = op.value;
          cell.freed = false;
        }
        return DONE;
      }
      case "fork":
        this.#fork(space, op.child, op.mem);
        return DONE;
      case "exit":
        this.processes.delete(op.p);
        if (--space.refs === 0) this.#unmap(space, 0, SPACE_PAGES);
        return DONE;
      case "truncate": {
        const cells = this.files[op.file]!;
        cells.length = Math.min(cells.length, op.pages);
        while (cells.length < op.pages) cells.push(new Cell(0));
        return DONE;
      }
      case "pwrite": {
        const cells = this.files[op.file]!;
        while (cells.length <= op.page) cells.push(new Cell(0));
        cells[op.page]!.value = op.value;
        return DONE;
      }
      case "pread": {
        const cell = this.files[op.file]![op.page];
        return cell === undefined ? FAULT : { kind: "value", values: [cell.value] };
      }
    }
  }

  /** Whether some page of a file may be wired. */
  isLocked(file: number): boolean {
    for (const { pages } of this.processes.values()) {
      for (const { slot, locked } of pages.values()) if (locked && slot.file?.file === file) return true;
    }
    return false;
  }

  /** What a read gave decides what madvise(FREE) left open. */
  observe(op: Op, value: number): void {
    if (op.kind !== "read") return;
    const page = this.processes.get(op.p)?.pages.get(op.page);
    const cell = page === undefined ? undefined : this.cellOf(page.slot);
    if (cell !== undefined && cell.freed) cell.value = value;
  }

  #range(space: Space, { page, count }: { readonly page: number; readonly count: number }): Page[] {
    const found: Page[] = [];
    for (let i = page; i < page + count; i++) {
      const at = space.pages.get(i);
      if (at !== undefined) found.push(at);
    }
    return found;
  }

  #unmap(space: Space, page: number, count: number): void {
    for (let i = page; i < page + count; i++) {
      const at = space.pages.get(i);
      if (at === undefined) continue;
      at.slot.refs--;
      space.pages.delete(i);
    }
  }

  #fork(space: Space, child: number, mem: boolean): void {
    if (mem) {
      space.refs++;
      this.processes.set(child, space);
      return;
    }
    const copy = new Space();
    for (const [at, { slot, prot, inherit }] of space.pages) {
      if (inherit === "none") continue;
      if (inherit === "share") {
        slot.refs++;
        copy.pages.set(at, { slot, prot, inherit, locked: false });
        continue;
      }
      const own = slot.own === undefined ? undefined : new Cell(slot.own.value);
      if (own !== undefined) own.freed = slot.own!.freed;
      copy.pages.set(at, { slot: new Slot(own, slot.file, slot.shared), prot, inherit, locked: false });
    }
    this.processes.set(child, copy);
  }
}
