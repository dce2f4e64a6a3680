/**
 * Writes the wasm function of a region: entry, dispatch, blocks in their loops, exits.
 *
 * Room: `hw/engine/compiled/`; imports the graph, its structure and the builder.
 *
 * The slice: `left` is what is left behind the current block. Each block takes its length off when it is entered; heads of loops and entries
 * first see to it that enough is left for every way to the next such place, else the region is left there. So a region never runs past
 * a slice's end, and an exit in the middle of a block knows by a constant what to give back.
 *
 * @module
 */
import * as state from "../../state.ts";
import type { CodeMode, Decoded } from "../../isa/form.ts";
import { describe } from "../../isa/prologue.ts";
import { FETCH_VALID } from "../fetch.ts";
import { P, RECORD_SHIFT, type WasmInt } from "../wasm/base.ts";
import { CodeWriter, type ModuleWriter, OP, T } from "../wasm/emit.ts";
import { REGION_JUMPED } from "../wasm/interpreter_module.ts";
import {
  baseOf,
  EXIT_KIND,
  FLAG_KIND,
  type ModuleFunctions,
  packExit,
  pageKey,
  REGION_PARAMETERS,
  RegionBuilder,
} from "./builder.ts";
import type { Block, Graph } from "./graph.ts";
import { headsOf, loopHeads, type Part, structure } from "./structure.ts";

const { EXIT_BUDGET, FTLB_FETCH, R, REC, S } = state;

/** Where a branch to a block goes. */
interface Target {
  readonly label: number;
  /** The label is a switch: the selector says which. */
  readonly selects: boolean;
}

/** An entry of a region. */
export interface RegionEntry {
  readonly offset: number;
  /** What r0 of its record says. */
  readonly number: number;
  /** Instructions of the slice that must be left. */
  readonly needs: number;
}

/** A page of a region. */
export interface RegionPage {
  /** Counted from the first page, in linear addresses. */
  readonly number: number;
  readonly physical: number;
  /** Address of 4096 bytes: by offset in the page, number of the entry there plus 1, or 0. */
  readonly entryMap: number;
}

/** A written region. */
export interface RegionCode {
  /** Index of the function in its module. */
  readonly index: number;
  readonly entries: readonly RegionEntry[];
  /** Bytes of code. */
  readonly bytes: number;
  /** By offset of a block in a loop: offset of the loop's head. */
  readonly loopHeads: ReadonlyMap<number, number>;
}

/** Most pages that are remembered for reads, and for writes. */
const REMEMBERED_MAX = 3;
/** Most entries: numbers that a byte of the entry map holds, 0 being none. */
export const ENTRIES_MAX = 255;

/** Writes a region's function into `module`. */
export function writeRegion(
  module: ModuleWriter,
  graph: Graph,
  mode: CodeMode,
  pages: readonly RegionPage[],
  functions: ModuleFunctions,
): RegionCode {
  return new RegionWriter(module, graph, mode, pages, functions).write();
}

class RegionWriter {
  readonly #b: RegionBuilder;
  readonly #w = new CodeWriter();
  readonly #blocks: readonly Block[];
  /** Node by offset. */
  readonly #node = new Map<number, number>();
  readonly #successors: number[][];
  readonly #entries: Set<number>;
  /** Nodes that look at what is left of the slice. */
  readonly #checked: Set<number>;
  readonly #needs: number[];
  readonly #liveIn: boolean[];
  readonly #predecessors: number[][];
  #targets = new Map<number, Target>();
  #top = 0;
  /** Label of the way to entries in other pages, for the IP in `ip`. */
  #far = 0;
  /** Number of the page of the block being written. */
  #here = 0;
  /** Node that was written last and goes on to what is written next. */
  #carried = -1;
  /** Node that is written right after the current one, if that is certain. */
  #writtenNext = -1;
  readonly #parts: readonly Part[];
  readonly #inLoop = new Set<number>();

  constructor(
    readonly module: ModuleWriter,
    readonly graph: Graph,
    readonly mode: CodeMode,
    readonly pages: readonly RegionPage[],
    functions: ModuleFunctions,
  ) {
    this.#b = new RegionBuilder(module);
    this.#b.functions = functions;
    this.#blocks = [...graph.blocks.values()];
    this.#blocks.forEach((block, i) => this.#node.set(block.offset, i));
    this.#successors = this.#blocks.map((block) => {
      const out = new Set<number>();
      const to = (offset: number) => {
        const n = this.#node.get(offset);
        if (n !== undefined) out.add(n);
      };
      // The straight way first: it is what is written next.
      if (block.fallsThrough) to(block.end);
      for (const target of block.targets) to(target);
      return [...out];
    });
    this.#entries = new Set([...graph.entries].map((offset) => this.#node.get(offset)!));
    this.#parts = structure(this.#successors, this.#entries);
    this.#checked = headsOf(this.#parts);
    for (const n of this.#entries) this.#checked.add(n);
    // A repeated string instruction takes more of the slice than its block has instructions: what comes behind it looks again.
    for (const block of this.#blocks) {
      const last = block.steps.at(-1)?.decoded.form;
      const behind = this.#node.get(block.end);
      if (last?.row.flags.string !== undefined && last.rep !== 0 && behind !== undefined) {
        this.#checked.add(behind);
      }
    }
    this.#predecessors = this.#blocks.map(() => []);
    this.#successors.forEach((list, n) => list.forEach((s) => this.#predecessors[s]!.push(n)));
    this.#needs = this.#findNeeds();
    this.#liveIn = this.#findLiveness();
  }

  /** Instructions on the longest way from each node to the next checked one. */
  #findNeeds(): number[] {
    const needs: number[] = this.#blocks.map(() => -1);
    const of = (n: number): number => {
      if (needs[n]! >= 0) return needs[n]!;
      needs[n] = 0;
      let longest = 0;
      for (const s of this.#successors[n]!) if (!this.#checked.has(s)) longest = Math.max(longest, of(s));
      return needs[n] = this.#blocks[n]!.steps.length + longest;
    };
    this.#blocks.forEach((_b, n) => of(n));
    return needs;
  }

  /** Whether the flags at each node's start matter. */
  #findLiveness(): boolean[] {
    const liveIn = this.#blocks.map((_b, n) => this.#checked.has(n));
    for (let changed = true; changed;) {
      changed = false;
      this.#blocks.forEach((block, n) => {
        if (liveIn[n]) return;
        let live = this.#liveOut(n, liveIn);
        for (let i = block.steps.length - 1; i >= 0; i--) live = liveBefore(block.steps[i]!.effects, live);
        if (live) {
          liveIn[n] = true;
          changed = true;
        }
      });
    }
    return liveIn;
  }
  #liveOut(n: number, liveIn: readonly boolean[]): boolean {
    const block = this.#blocks[n]!;
    if (block.leaves) return true;
    const live = (offset: number) => {
      const s = this.#node.get(offset);
      return s === undefined || liveIn[s]!;
    };
    return (block.fallsThrough && live(block.end)) || block.targets.some(live);
  }

  write(): RegionCode {
    const b = this.#b, w = this.#w;
    b.w = w;
    b.flow = {
      edge: (offset) => this.#goTo(offset),
      indirect: (target) => this.#indirect(target),
    };
    b.rememberPages(this.#pagesWorthRemembering());
    b.leaveLabel = w.open(OP.block);
    b.staticLabel = w.open(OP.block);
    this.#top = w.open(OP.loop);
    this.#far = w.open(OP.block);
    this.#sequence(this.#parts, [...this.#entries]);
    w.close();
    this.#dispatchFar();
    w.close();
    w.op(OP.unreachable);
    w.close();
    this.#staticExit();
    w.close();
    this.#epilogue();
    // What the prologue loads is known now.
    const body = new CodeWriter();
    this.#prologue(body);
    body.append(w.bytes());
    const type = this.module.type(REGION_PARAMETERS, [T.i32]);
    const index = this.module.define(type, b.locals, body.bytes().slice());
    return {
      index,
      entries: [...this.#entries].map((n) => ({
        offset: this.#blocks[n]!.offset,
        number: n,
        needs: this.#needs[n]!,
      })),
      bytes: body.length,
      loopHeads: new Map(
        [...loopHeads(this.#parts)].map(([n, h]) => [this.#blocks[n]!.offset, this.#blocks[h]!.offset]),
      ),
    };
  }

  /** The bases whose accesses stand most often in loops, at most {@link REMEMBERED_MAX} for reads and for writes. */
  #pagesWorthRemembering(): number[] {
    const counts = new Map<number, number>();
    const walk = (parts: readonly Part[], weight: number) => {
      for (const part of parts) {
        if (part.isLoop) {
          walk(part.inner, weight * 8);
          continue;
        }
        if (weight === 1) continue;
        this.#inLoop.add(part.nodes[0]!);
        for (const { decoded } of this.#blocks[part.nodes[0]!]!.steps) {
          for (const key of pageKeys(decoded)) counts.set(key, (counts.get(key) ?? 0) + weight);
        }
      }
    };
    walk(this.#parts, 1);
    const best = [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]).map(([key]) => key);
    return [0, 1].flatMap((write) => best.filter((key) => (key & 1) === write).slice(0, REMEMBERED_MAX));
  }

  #prologue(w: CodeWriter): void {
    const { l } = this.#b;
    const load64 = (offset: number, local: number) => {
      w.localGet(P.base);
      w.memory(OP.i64_load, offset);
      w.localSet(local);
    };
    w.localGet(P.ptr);
    w.memory(OP.i32_load16_u, REC.r0);
    w.localSet(l.selector);
    w.localGet(P.limit);
    w.localGet(P.ptr);
    w.op(OP.i32_sub);
    w.i32Const(RECORD_SHIFT);
    w.op(OP.i32_shr_s);
    w.localSet(l.left);
    // Control may come in at any of the pages; offsets count from the first one.
    w.localGet(P.base);
    w.localGet(P.base);
    w.memory(OP.i64_load, S.RIPPAGE);
    w.localGet(P.ptr);
    w.memory(OP.i64_load32_s, REC.imm);
    w.op(OP.i64_sub);
    w.localTee(l.page);
    w.memory(OP.i64_store, S.RIPPAGE);
    load64(S.FRES, l.fr);
    load64(S.FCV, l.fa);
    w.i32Const(FLAG_KIND.stored);
    w.localSet(l.fk);
    for (const { tag } of this.#b.remembered.values()) {
      w.i64Const(-1n);
      w.localSet(tag);
    }
    for (let n = 0; n < 16; n++) if (this.#b.touched & (1 << n)) load64(S.GPR + n * 8, l.gprs[n]!);
  }

  #staticExit(): void {
    const w = this.#w, { l } = this.#b;
    const low = () => {
      w.localGet(l.packed);
      w.op(OP.i32_wrap_i64);
    };
    w.localGet(l.page);
    w.localGet(l.packed);
    w.i64Const(32n);
    w.op(OP.i64_shr_s);
    w.op(OP.i64_add);
    w.localSet(l.ip);
    w.localGet(l.left);
    low();
    w.i32Const(0x3f);
    w.op(OP.i32_and);
    w.op(OP.i32_add);
    w.localSet(l.left);
    w.localGet(P.base);
    w.memory(OP.i32_load, S.EXIT);
    w.i32Const(EXIT_BUDGET);
    w.i32Const(REGION_JUMPED);
    low();
    w.i32Const(EXIT_KIND.budget << 6);
    w.op(OP.i32_ge_u);
    w.op(OP.select);
    low();
    w.i32Const(6);
    w.op(OP.i32_shr_u);
    w.i32Const(EXIT_KIND.fault);
    w.op(OP.i32_eq);
    w.op(OP.select);
    w.localSet(l.code);
  }

  #epilogue(): void {
    const w = this.#w, b = this.#b, { l } = b;
    const store = (offset: number, code: number, push: () => void) => {
      w.localGet(P.base);
      push();
      w.memory(code, offset);
    };
    for (let n = 0; n < 16; n++) {
      if (b.written & (1 << n)) store(S.GPR + n * 8, OP.i64_store, () => w.localGet(l.gprs[n]!));
    }
    w.localGet(l.fk);
    w.open(OP.if);
    [S.FCV, S.FRES].forEach((offset, which) => {
      store(offset, OP.i64_store, () => {
        for (const local of [l.fk, l.fa, l.fb, l.fr, l.fc, l.fo]) w.localGet(local);
        w.call(b.functions.flags[which as 0 | 1]);
      });
    });
    w.op(OP.else);
    store(S.FCV, OP.i64_store, () => w.localGet(l.fa));
    store(S.FRES, OP.i64_store, () => w.localGet(l.fr));
    w.close();
    store(S.RIP, OP.i64_store, () => {
      w.localGet(l.ip);
      if (this.mode !== 2) {
        w.i64Const(0xffff_ffffn);
        w.op(OP.i64_and);
      }
    });
    store(S.REMAINING, OP.i32_store, () => w.localGet(l.left));
    w.localGet(l.code);
    w.op(OP.end);
  }

  // ---- structure

  /** Writes parts one after the other; `dispatch`: first a switch over these nodes, else control comes in at the first part. */
  #sequence(parts: readonly Part[], dispatch: readonly number[] | undefined): void {
    const w = this.#w;
    const saved = new Map(this.#targets);
    const first = dispatch === undefined ? 1 : 0;
    const labels: number[] = [];
    for (let i = parts.length - 1; i >= first; i--) labels[i] = w.open(OP.block);
    parts.forEach((part, i) => {
      const label = labels[i];
      if (label === undefined) return;
      for (const h of part.heads) this.#targets.set(h, { label, selects: part.heads.length > 1 });
    });
    // Entries in the midst of a part are heads, here or of a loop further in; these come through the part's start.
    if (dispatch !== undefined) this.#switch(parts, labels, dispatch);
    parts.forEach((part, i) => {
      if (labels[i] !== undefined) {
        w.close();
        // Back to what the loop around says of its head, if it is one.
        for (const h of part.heads) {
          const around = saved.get(h);
          if (around === undefined) this.#targets.delete(h);
          else this.#targets.set(h, around);
        }
      }
      const next = parts[i + 1];
      this.#writtenNext = next !== undefined && !next.isLoop ? next.nodes[0]! : -1;
      this.#part(part);
    });
    this.#targets = saved;
  }

  /** Branches by the selector to the parts that hold the nodes. */
  #switch(parts: readonly Part[], labels: readonly number[], nodes: readonly number[]): void {
    const w = this.#w;
    const depthOf = new Map<number, number>();
    parts.forEach((part, i) => part.nodes.forEach((n) => depthOf.set(n, w.depth - labels[i]!)));
    const first = depthOf.get(nodes[0]!)!;
    const last = Math.max(...nodes);
    if (nodes.length === 1) {
      w.op(OP.br);
      w.u32(first);
      return;
    }
    w.localGet(this.#b.l.selector);
    w.op(OP.br_table);
    w.u32(last);
    for (let n = 0; n < last; n++) w.u32(nodes.includes(n) ? depthOf.get(n)! : first);
    w.u32(depthOf.get(last)!);
  }

  #part(part: Part): void {
    const w = this.#w;
    if (!part.isLoop) return this.#block(part.nodes[0]!);
    const label = w.open(OP.loop);
    const saved = new Map(this.#targets);
    const selects = part.heads.length > 1;
    for (const h of part.heads) this.#targets.set(h, { label, selects });
    this.#carried = -1;
    this.#sequence(part.inner, selects ? part.heads : undefined);
    this.#targets = saved;
    w.close();
  }

  #block(n: number): void {
    const b = this.#b, w = this.#w, { l } = b;
    const block = this.#blocks[n]!;
    const only = this.#predecessors[n]!;
    const goesOn = this.#carried >= 0 && only.length === 1 && only[0] === this.#carried &&
      !this.#checked.has(n);
    if (!goesOn) b.beginBlock();
    this.#carried = -1;
    const length = block.steps.length;
    this.#here = block.offset >> 12;
    b.isInLoop = this.#inLoop.has(n);
    b.w = w;
    if (this.#checked.has(n)) {
      w.localGet(l.left);
      w.i32Const(this.#needs[n]!);
      w.op(OP.i32_lt_s);
      w.open(OP.if);
      b.exitAt(block.offset, 0, EXIT_KIND.budget);
      w.close();
    }
    w.localGet(l.left);
    w.i32Const(length);
    w.op(OP.i32_sub);
    w.localSet(l.left);
    const dead: boolean[] = [];
    let live = this.#liveOut(n, this.#liveIn);
    for (let i = length - 1; i >= 0; i--) {
      dead[i] = !live;
      live = liveBefore(block.steps[i]!.effects, live);
    }
    block.steps.forEach((step, i) => {
      b.beginInstruction(w, step.decoded, step.offset, length - i);
      b.flagsAreDead = dead[i]!;
      describe(b, step.decoded.form);
    });
    if (!block.fallsThrough) {
      if (!b.hasLeft) w.op(OP.unreachable);
      return;
    }
    // The next block follows here if nothing else is in between: then it needs no branch, and knows what this one knew.
    const next = this.#node.get(block.end);
    if (
      next !== undefined && this.#predecessors[next]!.length === 1 && !this.#checked.has(next) &&
      this.#writtenNext === next
    ) {
      this.#carried = n;
      return;
    }
    this.#goTo(block.end);
  }

  // ---- ways out of a block

  #goTo(offset: number): void {
    const b = this.#b, w = b.w;
    const exit = () => {
      w.i64Const(packExit(offset, 0, EXIT_KIND.jump));
      w.localSet(b.l.packed);
      w.branch(OP.br, b.staticLabel);
    };
    const n = this.#node.get(offset);
    if (n === undefined) return exit();
    if (offset >> 12 !== this.#here) {
      this.#pushIsFetched(this.pages.find((page) => page.number === offset >> 12)!);
      w.op(OP.i32_eqz);
      w.open(OP.if);
      exit();
      w.close();
    }
    const target = this.#targets.get(n);
    if (target === undefined) throw new Error(`No way to offset ${offset.toString(16)} of the region`);
    if (target.selects) {
      w.i32Const(n);
      w.localSet(b.l.selector);
    }
    w.branch(OP.br, target.label);
  }

  /** Pushes 1 if a page of the region is what the fetch table has for its linear address. */
  #pushIsFetched(page: RegionPage): void {
    const b = this.#b, w = b.w;
    const linear = () => {
      w.localGet(b.l.page);
      w.i64Const(BigInt(page.number * 4096));
      w.op(OP.i64_add);
    };
    linear();
    w.i64Const(8n);
    w.op(OP.i64_shr_u);
    w.op(OP.i32_wrap_i64);
    w.i32Const(0x1ff0);
    w.op(OP.i32_and);
    w.localGet(P.ctx);
    w.op(OP.i32_add);
    w.localTee(b.l.code);
    w.memory(OP.i64_load, FTLB_FETCH);
    linear();
    if (this.mode !== 2) {
      w.i64Const(0xffff_ffffn);
      w.op(OP.i64_and);
    }
    w.op(OP.i64_eq);
    w.localGet(b.l.code);
    w.memory(OP.i32_load, FTLB_FETCH + 12);
    w.i32Const(page.physical + FETCH_VALID);
    w.op(OP.i32_eq);
    w.op(OP.i32_and);
  }

  /** Goes to the entry at the IP in `ip`, if it is one of a page; `ip` becomes the offset in the page on the way. */
  #toEntry(page: RegionPage, w: CodeWriter): void {
    const { l } = this.#b;
    w.localGet(l.packed);
    w.op(OP.i32_wrap_i64);
    w.memory(OP.i32_load8_u, page.entryMap);
    w.localTee(l.selector);
    w.open(OP.if);
    w.localGet(l.selector);
    w.i32Const(1);
    w.op(OP.i32_sub);
    w.localSet(l.selector);
    w.branch(OP.br, this.#top);
    w.close();
  }
  /** Pushes 1 if the IP in `ip` is in the page; `packed` is its offset there. */
  #pushIsIn(page: RegionPage, w: CodeWriter): void {
    const { l } = this.#b;
    w.localGet(l.ip);
    w.localGet(l.page);
    w.op(OP.i64_sub);
    if (page.number !== 0) {
      w.i64Const(BigInt(-page.number * 4096));
      w.op(OP.i64_add);
    }
    w.localTee(l.packed);
    w.i64Const(4096n);
    w.op(OP.i64_lt_u);
  }

  #indirect(target: WasmInt): void {
    const b = this.#b, w = b.w, { l } = b;
    const page = this.pages.find((one) => one.number === this.#here)!;
    b.push(target);
    w.localSet(l.ip);
    // Within the page it may be an entry.
    this.#pushIsIn(page, w);
    w.open(OP.if);
    this.#toEntry(page, w);
    b.leave();
    w.close();
    if (this.pages.length > 1) w.branch(OP.br, this.#far);
    else b.leave();
  }
  #dispatchFar(): void {
    const b = this.#b, w = this.#w;
    b.w = w;
    if (this.pages.length > 1) {
      for (const page of this.pages) {
        this.#pushIsIn(page, w);
        w.open(OP.if);
        this.#pushIsFetched(page);
        w.open(OP.if);
        this.#toEntry(page, w);
        w.close();
        w.close();
      }
    }
    b.leave();
  }
}

/** Keys of the pages that an instruction's explicit accesses go to, stack included; what is missing here is only slower. */
function pageKeys(decoded: Decoded): number[] {
  const keys: number[] = [];
  for (const o of decoded.form.operands) {
    if (o.kind !== "mem" || o.access === "none") continue;
    keys.push(pageKey(o.fixed ?? baseOf(decoded), o.access !== "r"));
  }
  const { mnemonic } = decoded.form.row;
  if (mnemonic === "PUSH" || mnemonic === "CALL") keys.push(pageKey(R.RSP, true));
  else if (mnemonic === "POP" || mnemonic === "RET" || mnemonic === "LEAVE") keys.push(pageKey(R.RSP, false));
  return keys;
}

/** Whether the flags before an instruction matter, if those behind it do (or not). */
function liveBefore(effects: Block["steps"][number]["effects"], liveAfter: boolean): boolean {
  if (effects.reads || effects.exits) return true;
  return effects.kills ? false : liveAfter;
}
