/**
 * The flow graph of a region: basic blocks of one page or a few, reached from its entries, with what each instruction does to the flags.
 *
 * Room: `hw/engine/compiled/`; imports the decoder and, to find out what an instruction does, the builder: its description is written once
 * to nowhere.
 *
 * @module
 */
import { decode, isDecoded } from "../../isa/decode.ts";
import type { CodeMode, Decoded, Form } from "../../isa/form.ts";
import { describe } from "../../isa/prologue.ts";
import { BLOCK_MAX, RAM_BASE } from "../../state.ts";
import type { Effects } from "../wasm/base.ts";
import { CodeWriter, ModuleWriter } from "../wasm/emit.ts";
import { RegionBuilder } from "./builder.ts";

/** An instruction of a block. */
export interface Step {
  readonly decoded: Decoded;
  readonly offset: number;
  readonly effects: Effects;
}

/** A basic block, within one page. Offsets count from the first page's first byte, in linear addresses: those of other pages are below 0 or from 4096 on. */
export interface Block {
  readonly offset: number;
  readonly steps: readonly Step[];
  /** Offset behind the last instruction. */
  readonly end: number;
  /** Where jumps of the last instruction lead. */
  readonly targets: readonly number[];
  /** Control may go on at `end`. */
  readonly fallsThrough: boolean;
  /** Control may go to an IP not known here. */
  readonly leaves: boolean;
}

/** A region's blocks. */
export interface Graph {
  /** By offset, in ascending order. */
  readonly blocks: ReadonlyMap<number, Block>;
  /** Offsets at which the region may be entered. */
  readonly entries: ReadonlySet<number>;
  readonly instructions: number;
  /** Procedures that its instructions call. */
  readonly procedures: readonly string[];
  /** Why instructions were left out: reason and mnemonic. */
  readonly refused: readonly string[];
}

/** What an instruction does, whatever its operands. */
interface Nature {
  readonly effects: Effects;
  readonly unsupported: string | undefined;
  /** It jumps to its relative operand, to itself, elsewhere. */
  readonly toTarget: boolean;
  readonly again: boolean;
  readonly leaves: boolean;
  /** It never goes on behind itself. */
  readonly ends: boolean;
  readonly procedures: readonly string[];
}

/** What flags a shift by an immediate sets depends on the immediate. */
const BY_VALUE = new Set(["ROL", "ROR", "RCL", "RCR", "SHL", "SHR", "SAR", "SHLD", "SHRD", "ENTER"]);
/** Fewest instructions behind one that is left to the interpreter for which coming back is worth it. */
const RESUME_MIN = 4;
const INSTRUCTION_BYTES_MAX = 15;

/** Finds out what instructions do; remembers it by form. */
export class Natures {
  readonly #builder = new RegionBuilder(new ModuleWriter(false));
  readonly #known = new Map<Form, Nature>();

  of(decoded: Decoded): Nature {
    const known = this.#known.get(decoded.form);
    if (known !== undefined) return known;
    const nature = this.#find(decoded);
    const { form } = decoded;
    if (!BY_VALUE.has(form.row.mnemonic) || form.operands.every((o) => o.kind !== "imm")) {
      this.#known.set(form, nature);
    }
    return nature;
  }

  #find(decoded: Decoded): Nature {
    const b = this.#builder;
    let toTarget = false, again = false, leaves = false;
    const offset = 0x800;
    const target = offset + decoded.length + decoded.immLow;
    const isRelative = decoded.form.operands.some((o) => o.kind === "rel");
    b.flow = {
      edge: (to) => {
        if (isRelative && to === target) toTarget = true;
        else again = true;
      },
      indirect: () => leaves = true,
    };
    b.procedures.clear();
    b.beginBlock();
    b.beginInstruction(new CodeWriter(), decoded, offset, 1);
    describe(b, decoded.form);
    return {
      effects: b.effects,
      unsupported: b.unsupported,
      toTarget,
      again,
      leaves,
      ends: b.hasLeft,
      procedures: [...b.procedures],
    };
  }
}

/** What to build a graph from. */
export interface GraphRequest {
  readonly bytes: Uint8Array;
  /** Physical address of the page with that number, counted from the first one, or −1 if it may not be part of the region. */
  page(number: number): number;
  readonly mode: CodeMode;
  readonly features: ReadonlySet<string>;
  readonly entries: readonly number[];
  readonly instructionsMax: number;
  /** Whether the instruction at an offset is worth compiling. */
  wanted(offset: number): boolean;
}

interface Info {
  readonly decoded: Decoded;
  readonly nature: Nature;
}

/** Builds the graph that the entries reach; undefined where there is nothing to compile. */
export function buildGraph(request: GraphRequest, natures: Natures): Graph | undefined {
  const { bytes, mode, features, wanted } = request;
  const infos = new Map<number, Info | null>();
  const refused: string[] = [];
  const procedures = new Set<string>();
  const decodeAt = (offset: number): Decoded | undefined => {
    const physical = request.page(offset >> 12), inPage = offset & 0xfff;
    if (physical < 0) return undefined;
    const decoded = decode(bytes, RAM_BASE + physical + inPage, 4096 - inPage, mode, features);
    return isDecoded(decoded) ? decoded : undefined;
  };
  const info = (offset: number): Info | null => {
    const known = infos.get(offset);
    if (known !== undefined) return known;
    const decoded = decodeAt(offset);
    let result: Info | null = null;
    if (decoded !== undefined) {
      const nature = natures.of(decoded);
      if (nature.unsupported === undefined) {
        result = { decoded, nature };
        for (const name of nature.procedures) procedures.add(name);
      } else refused.push(`${nature.unsupported}: ${decoded.form.row.mnemonic}`);
    }
    infos.set(offset, result);
    return result;
  };

  // What is reached, and which instructions begin a block.
  const leaders = new Set<number>(), entries = new Set<number>(), reached = new Set<number>();
  const work: number[] = [];
  const lead = (offset: number) => {
    if (leaders.has(offset) || request.page(offset >> 12) < 0 || !wanted(offset)) return;
    leaders.add(offset);
    work.push(offset);
  };
  const enter = (offset: number) => {
    if (request.page(offset >> 12) < 0 || !wanted(offset) || info(offset) === null) return;
    entries.add(offset);
    lead(offset);
  };
  for (const offset of request.entries) enter(offset);
  let count = 0;
  for (let from = work.shift(); from !== undefined; from = work.shift()) {
    for (let at = from, n = 0;; n++) {
      if (reached.has(at) || count >= request.instructionsMax) break;
      const found = info(at);
      if (found === null) {
        // The interpreter carries it out; come back behind it if that is worth it.
        const skipped = decodeAt(at);
        if (skipped !== undefined) {
          const next = at + skipped.length;
          if (runLength(next, info) >= RESUME_MIN) enter(next);
        }
        break;
      }
      const { decoded, nature } = found;
      const next = at + decoded.length;
      reached.add(at);
      count++;
      if (nature.again) leaders.add(at);
      if (nature.toTarget) lead(next + decoded.immLow);
      if (decoded.form.row.mnemonic === "CALL") enter(next);
      if (nature.ends) break;
      if (nature.toTarget || nature.leaves || nature.again || n >= BLOCK_MAX - 1 || next >> 12 !== at >> 12) {
        lead(next);
        break;
      }
      if (!wanted(next)) break;
      at = next;
    }
  }
  if (count === 0) return undefined;

  const blocks = new Map<number, Block>();
  for (const offset of [...leaders].sort((a, b) => a - b)) {
    const block = makeBlock(offset, leaders, reached, info);
    if (block !== undefined) blocks.set(offset, block);
  }
  for (const offset of [...entries]) if (!blocks.has(offset)) entries.delete(offset);
  if (entries.size === 0) return undefined;
  return { blocks, entries, instructions: count, procedures: [...procedures], refused };
}

/** Instructions that can be compiled in a row from `offset`, up to RESUME_MIN. */
function runLength(offset: number, info: (offset: number) => Info | null): number {
  let n = 0;
  for (let at = offset; n < RESUME_MIN; n++) {
    const found = info(at);
    if (found === null) break;
    if (found.nature.ends) return n + 1;
    at += found.decoded.length;
  }
  return n;
}

function makeBlock(
  offset: number,
  leaders: ReadonlySet<number>,
  reached: ReadonlySet<number>,
  info: (offset: number) => Info | null,
): Block | undefined {
  const steps: Step[] = [];
  const targets: number[] = [];
  let fallsThrough = true, leaves = false;
  let at = offset;
  while (at >> 12 === offset >> 12 && reached.has(at) && steps.length < BLOCK_MAX) {
    if (at !== offset && leaders.has(at)) break;
    const { decoded, nature } = info(at)!;
    steps.push({ decoded, offset: at, effects: nature.effects });
    const next = at + decoded.length;
    if (nature.again) targets.push(at);
    if (nature.toTarget) targets.push(next + decoded.immLow);
    if (nature.leaves) leaves = true;
    at = next;
    if (nature.ends) {
      fallsThrough = false;
      break;
    }
    if (nature.toTarget || nature.leaves || nature.again) break;
  }
  if (steps.length === 0) return undefined;
  return { offset, steps, end: at, targets, fallsThrough, leaves };
}

/** The bytes of a page that instructions of the graph cover, as one bit each. */
export function coverage(graph: Graph, page: number): Uint32Array {
  const bits = new Uint32Array(128);
  for (const block of graph.blocks.values()) {
    if (block.offset >> 12 !== page) continue;
    for (const step of block.steps) {
      const start = step.offset & 0xfff;
      const end = Math.min(4096, start + Math.min(step.decoded.length, INSTRUCTION_BYTES_MAX));
      for (let i = start; i < end; i++) bits[i >>> 5]! |= 1 << (i & 31);
    }
  }
  return bits;
}
