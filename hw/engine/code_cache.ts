/**
 * Decoded code: one slot table per physical page and code mode, and in the arena the records, straight line after straight
 * line. Finds the record for an IP, decodes where there is none, and takes records back when code changes.
 *
 * Room: `hw/engine/`; imports the decoder and the handlers. One per machine; processors share records, since register
 * operands are offsets into whatever processor's block runs them.
 *
 * Invariants: a slot is 0 or names a valid record of the instruction that stands at that offset now. A record that is no
 * longer valid stays where it is as a lookup pseudo-record (others may lead to it) until the arena is emptied. An instruction that crosses its
 * page's end has no record in the arena: it is put together anew, from the bytes, each time.
 *
 * @module
 */
import * as state from "../state.ts";
import type { Cpu } from "../cpu.ts";
import type { CodeWatch } from "../bus.ts";
import { dropWrite } from "../tlb_fast.ts";
import type { MachineMemory } from "../memory.ts";
import type { CodeMode, Decoded } from "../isa/form.ts";
import {
  decode,
  type DecodeFault,
  INSTRUCTION_BYTES_MAX,
  isDecoded,
  NEED_BYTES,
  ripRelativeDisplacement,
} from "../isa/decode.ts";
import { dropSlotTables, FETCH_FAULT, FETCH_NOT_RAM, fetchedPage, fetchEntry } from "./fetch.ts";
import { TRAIT } from "./handler_plan.ts";
import type { Handlers } from "./handlers.ts";
import { PSEUDO } from "./wasm/interpreter_module.ts";

// Bound here because an imported constant is loaded and checked at each use, and a local one is folded.
const {
  BIAS_VALUE,
  BLOCK_MAX,
  CODE_ARENA_BASE,
  CODE_ARENA_END,
  CODE_TABLES_BASE,
  CODE_TABLES_STRIDE,
  PAGE_CODE,
  PAGE_FLAGS_BASE,
  RAM_BASE,
  REC,
  RECORD_BYTES,
  S,
  SEG,
  SLOT_TABLE_BYTES,
} = state;

/** {@link CodeCache.lookup}: the fetch faulted; the fault is pending. */
export const LOOKUP_FAULT = 0;
/** {@link CodeCache.lookup}: the instruction's only record stands in the processor's step area. */
export const LOOKUP_STEP = -1;

/** Who must know when decoded code goes: the compiled regions made of it. */
export interface RegionWatch {
  /** Bytes of one page are about to change: regions that cover them go. */
  dropAt(physical: number, bytes: number): void;
  /** All records are about to go. */
  dropAll(): void;
}

/** The decoded code of a machine. */
export class CodeCache implements CodeWatch {
  /** Times that the arena was emptied because it was full. */
  flushes = 0;
  /** Instructions decoded. */
  decoded = 0;
  /** Records taken back by stores. */
  invalidated = 0;

  /** The compiled regions, on an engine that has them. */
  regions: RegionWatch | undefined;

  readonly #memory: MachineMemory;
  readonly #cpus: readonly Cpu[];
  readonly #handlers: Handlers;
  #arena = CODE_ARENA_BASE;
  /** Slot tables in use, as indices of u32 in CODE_TABLES. */
  readonly #tables: number[] = [];
  /** Direct jumps whose target in the same page is not decoded yet: slot address → records. */
  readonly #unlinked = new Map<number, number[]>();
  readonly #bytes = new Uint8Array(INSTRUCTION_BYTES_MAX);

  constructor(memory: MachineMemory, cpus: readonly Cpu[], handlers: Handlers) {
    this.#memory = memory;
    this.#cpus = cpus;
    this.#handlers = handlers;
  }

  /**
   * Finds the record for the instruction at the processor's RIP and sets RIPPAGE.
   *
   * @returns A record's address, {@link LOOKUP_FAULT} or {@link LOOKUP_STEP}.
   */
  lookup(cpu: Cpu): number {
    const { u32, i32 } = this.#memory;
    const at = cpu.base >>> 2;
    const mode = u32[at + (S.CODEMODE >>> 2)]! as CodeMode;
    const ipLow = i32[at + (S.RIP >>> 2)]!, ipHigh = i32[at + (S.RIP >>> 2) + 1]!;
    let low = ipLow, high = ipHigh;
    if (mode !== 2) {
      low = (ipLow + i32[at + ((S.SEGBASE + SEG.CS * 8) >>> 2)]!) | 0;
      high = 0;
      if (ipLow >>> 0 > cpu.segLimit(SEG.CS)) {
        cpu.setFault(13, 0);
        return LOOKUP_FAULT;
      }
    }
    const offset = low & 0xfff;
    const entry = fetchEntry(cpu, low, high);
    if (entry === FETCH_FAULT) return LOOKUP_FAULT;
    // IP of the page's first byte; negative where CS starts inside the page.
    const pageLow = (ipLow - offset) | 0;
    i32[at + (S.RIPPAGE >>> 2)] = pageLow;
    i32[at + (S.RIPPAGE >>> 2) + 1] = mode === 2 ? ipHigh : (ipLow >>> 0) < offset ? -1 : 0;
    if (entry === FETCH_NOT_RAM) return this.#step(cpu, mode, low, high);
    if (mode !== 2 && !this.#wholePageInLimit(cpu, ipLow, offset)) return this.#step(cpu, mode, low, high);
    let table = u32[entry + 2]!;
    if (table === 0) table = this.#attachTable(entry, mode);
    const known = u32[(table + offset * 4) >>> 2]!;
    if (known !== 0) return known;
    const record = this.#decodeLine(table, fetchedPage, offset, mode, cpu);
    return record !== 0 ? record : this.#step(cpu, mode, low, high);
  }

  /** Gives the fetch entry of a RAM page the page's slot table for `mode`, made now if there is none. */
  #attachTable(entry: number, mode: CodeMode): number {
    const { u32, u8 } = this.#memory;
    const physical = fetchedPage;
    const page = physical / 4096;
    const pointer = (CODE_TABLES_BASE + mode * CODE_TABLES_STRIDE + page * 4) >>> 2;
    let table = u32[pointer]!;
    if (table === 0) {
      table = this.#allocate(SLOT_TABLE_BYTES);
      u8.fill(0, table, table + SLOT_TABLE_BYTES);
      u32[pointer] = table;
      this.#tables.push(pointer);
      u8[PAGE_FLAGS_BASE + page]! |= PAGE_CODE;
      dropWrite(this.#cpus, physical);
    }
    u32[entry + 2] = table;
    return table;
  }

  /** Every IP of the page lies inside CS, so that records need no limit check of their own. */
  #wholePageInLimit(cpu: Cpu, ipLow: number, offset: number): boolean {
    const limit = cpu.segLimit(SEG.CS);
    if (limit === 0xffff_ffff) return true;
    const first = (ipLow >>> 0) - offset;
    return first >= 0 && first + 4095 <= limit;
  }

  #allocate(bytes: number): number {
    if (this.#arena + bytes > CODE_ARENA_END) this.flush();
    const at = this.#arena;
    this.#arena += bytes;
    return at;
  }

  /** Empties the arena: every record and slot table is gone. */
  flush(): void {
    const { u32, u8 } = this.#memory;
    this.regions?.dropAll();
    for (const pointer of this.#tables) {
      u32[pointer] = 0;
      const page = (pointer - (CODE_TABLES_BASE >>> 2)) % (CODE_TABLES_STRIDE >>> 2);
      u8[PAGE_FLAGS_BASE + page]! &= ~PAGE_CODE;
    }
    this.#tables.length = 0;
    this.#unlinked.clear();
    this.#arena = CODE_ARENA_BASE;
    this.flushes++;
    for (const cpu of this.#cpus) {
      dropSlotTables(cpu, cpu.base + S.TLB);
      dropSlotTables(cpu, cpu.base + S.TLBGUEST);
      cpu.set32(S.EXITRECORD, 0);
    }
  }

  // ---- for compiled regions

  /** Bytes of the arena that are free. */
  get room(): number {
    return CODE_ARENA_END - this.#arena;
  }
  /** Takes a piece of the arena, of which there is {@link room}. */
  take(bytes: number): number {
    return this.#allocate(bytes);
  }
  /** The record at an offset of a page that has a slot table for the mode, made if there is none; 0 if that can't be. */
  ensure(cpu: Cpu, physical: number, mode: CodeMode, offset: number): number {
    const table = this.#memory.u32[(CODE_TABLES_BASE + mode * CODE_TABLES_STRIDE + physical / 1024) >>> 2]!;
    if (table === 0) return 0;
    const known = this.#memory.u32[(table + offset * 4) >>> 2]!;
    return known !== 0 ? known : this.#decodeLine(table, physical, offset, mode, cpu);
  }
  /** The record at an offset of a page, or 0. */
  known(physical: number, mode: CodeMode, offset: number): number {
    const table = this.#memory.u32[(CODE_TABLES_BASE + mode * CODE_TABLES_STRIDE + physical / 1024) >>> 2]!;
    return table === 0 ? 0 : this.#memory.u32[(table + offset * 4) >>> 2]!;
  }
  /**
   * Makes a record lead into a region; `shadow` is {@link RECORD_BYTES} of the arena for what stood there. The handler kept is one that
   * counts on nothing behind it.
   *
   * @param distance Bytes from the region's first page to this record's, in linear addresses.
   */
  enterRegion(
    record: number,
    shadow: number,
    slot: number,
    entry: number,
    needs: number,
    distance: number,
  ): void {
    const { u8, u16, u32 } = this.#memory;
    this.#unfuse(record);
    u8.copyWithin(shadow, record, record + RECORD_BYTES);
    const half = record >>> 1;
    u16[(shadow + REC.handler) >>> 1] = this.#handlers.plain[u16[half]!]!;
    u16[half + REC.handler / 2] = PSEUDO.region;
    u16[half + REC.rare / 2] = slot;
    u16[half + REC.r0 / 2] = entry;
    u16[half + REC.r1 / 2] = needs;
    u32[(record + REC.disp) >>> 2] = shadow;
    u32[(record + REC.imm) >>> 2] = distance;
  }
  /** Undoes {@link enterRegion}. */
  leaveRegion(record: number): void {
    const { u8, u32 } = this.#memory;
    const shadow = u32[(record + REC.disp) >>> 2]!;
    u8.copyWithin(record, shadow, shadow + RECORD_BYTES);
  }

  // ---- decoding

  /** Decodes a straight line from `offset` of a page; gives its first record, or 0 if that instruction has none. */
  #decodeLine(table: number, physical: number, offset: number, mode: CodeMode, cpu: Cpu): number {
    const space = (BLOCK_MAX + 3) * RECORD_BYTES;
    if (this.#arena + space > CODE_ARENA_END) {
      // The table goes too: the caller steps this instruction and comes back to an empty arena.
      this.flush();
      return 0;
    }
    const { u32, u8 } = this.#memory;
    const { features } = cpu.model;
    // A pseudo-record before each line ends the walk of `unfuse`.
    this.#pseudo(this.#arena, PSEUDO.stop, 0);
    const start = this.#arena + RECORD_BYTES;
    let at = start;
    let here = offset;
    for (let n = 0;; n++) {
      const slot = (table + here * 4) >>> 2;
      if (here < 4096 && u32[slot] !== 0) {
        this.#pseudo(at, PSEUDO.link, here);
        this.#memory.u32[(at + REC.disp) >>> 2] = u32[slot]!;
        at += RECORD_BYTES;
        break;
      }
      if (here >= 4096) {
        this.#pseudo(at, PSEUDO.nextPage, 0);
        at += RECORD_BYTES;
        break;
      }
      if (n >= BLOCK_MAX) {
        this.#pseudo(at, PSEUDO.lookup, here);
        at += RECORD_BYTES;
        break;
      }
      const decoded = decode(u8, RAM_BASE + physical + here, 4096 - here, mode, features);
      if (decoded === NEED_BYTES) {
        if (n === 0) return 0;
        this.#pseudo(at, PSEUDO.lookup, here);
        at += RECORD_BYTES;
        break;
      }
      u32[slot] = at;
      this.decoded++;
      if (!isDecoded(decoded)) {
        this.#exception(at, here, decoded);
        at += RECORD_BYTES;
        break;
      }
      this.writeRecord(at, decoded, here);
      this.#link(table, at, decoded, here);
      const waiting = this.#unlinked.get(slot);
      if (waiting) {
        for (const record of waiting) {
          // A record taken back meanwhile may be a link by now, with a target of its own.
          if (this.#memory.u16[(record + REC.handler) >>> 1]! >= PSEUDO.first) {
            u32[(record + REC.disp) >>> 2] = at;
          }
        }
        this.#unlinked.delete(slot);
      }
      at += RECORD_BYTES;
      here += decoded.length;
      if (decoded.form.row.flags.ends && !mayFallThrough(decoded)) {
        // Some fall through all the same, now and then (INTO, STI): they find their way by a lookup, which becomes a link within the page.
        this.#pseudo(at, here >= 4096 ? PSEUDO.nextPage : PSEUDO.lookup, here >= 4096 ? 0 : here);
        at += RECORD_BYTES;
        break;
      }
    }
    this.#arena = at;
    this.#dropDeadFlags(start, at);
    this.#fuse(start, at);
    this.#handlers.flush();
    return start;
  }

  /**
   * Replaces the handlers whose flags the line overwrites before anyone can see them. Who may see them: an instruction that reads
   * flags, and one that may leave the line. A staged copy, which may stop anywhere, has the full handlers.
   */
  #dropDeadFlags(start: number, end: number): void {
    const { u16 } = this.#memory;
    const { traits, flagless } = this.#handlers;
    let areLive = true;
    for (let at = end - RECORD_BYTES; at >= start; at -= RECORD_BYTES) {
      const field = (at + REC.handler) >>> 1;
      const handler = u16[field]!;
      const trait = traits[handler]!;
      if (!areLive) u16[field] = flagless[handler]!;
      if (trait & TRAIT.needsFlags) areLive = true;
      else if (trait & TRAIT.killsFlags) areLive = false;
    }
  }

  /** Replaces the handler of each record that can be done together with the next one, from the end: that may be fused itself. */
  #fuse(start: number, end: number): void {
    const { u16 } = this.#memory;
    for (let at = end - 2 * RECORD_BYTES; at >= start; at -= RECORD_BYTES) {
      const first = (at + REC.handler) >>> 1;
      const fused = this.#handlers.fused(u16[first]!, u16[first + RECORD_BYTES / 2]!);
      if (fused !== 0) u16[first] = fused;
    }
  }

  /** Writes the record of an instruction at page offset `offset`. */
  writeRecord(at: number, decoded: Decoded, offset: number): void {
    const { u16, u8, i32 } = this.#memory;
    const isRelative = decoded.base === S.RIPPAGE;
    let disp = isRelative ? ripRelativeDisplacement(decoded, offset) : decoded.disp;
    let index = decoded.index;
    if (isRelative && disp > 0x7fff_ffff) {
      disp -= BIAS_VALUE;
      index = S.BIAS;
    }
    const ref = this.#handlers.of(decoded.form, index !== S.ZERO);
    const half = at >>> 1, word = at >>> 2;
    u16[half + REC.handler / 2] = ref.handler;
    u16[half + REC.pageOffset / 2] = offset;
    u16[half + REC.rare / 2] = ref.rare;
    u8[at + REC.length] = decoded.length;
    u8[at + REC.scale] = decoded.scale;
    u16[half + REC.r0 / 2] = decoded.r0;
    u16[half + REC.r1 / 2] = decoded.r1;
    u16[half + REC.base / 2] = decoded.base;
    u16[half + REC.index / 2] = index;
    u16[half + REC.segment / 2] = decoded.segment;
    u16[half + REC.r2 / 2] = decoded.r2;
    i32[word + REC.disp / 4] = disp;
    let low = decoded.immLow, high = decoded.immHigh;
    if (isDirectJump(decoded)) {
      // The target relative to the IP of the page's first byte.
      const sum = (low >>> 0) + offset + decoded.length;
      high = (high + (sum > 0xffff_ffff ? 1 : 0)) | 0;
      low = sum | 0;
      i32[word + REC.disp / 4] = 0;
    }
    i32[word + REC.imm / 4] = low;
    i32[word + REC.imm / 4 + 1] = high;
  }

  /** Links a direct jump within its page, now or when the target is decoded. */
  #link(table: number, at: number, decoded: Decoded, offset: number): void {
    if (decoded.form.mode !== 2 || !isDirectJump(decoded)) return;
    const target = offset + decoded.length + decoded.immLow;
    if (decoded.immHigh !== decoded.immLow >> 31 || target < 0 || target >= 4096) return;
    const slot = (table + target * 4) >>> 2;
    const known = this.#memory.u32[slot]!;
    if (known !== 0) {
      this.#memory.u32[(at + REC.disp) >>> 2] = known;
      return;
    }
    const waiting = this.#unlinked.get(slot);
    if (waiting) waiting.push(at);
    else this.#unlinked.set(slot, [at]);
  }

  #pseudo(at: number, handler: number, offset: number): void {
    const { u16, i32 } = this.#memory;
    for (let word = at >>> 2; word < (at + RECORD_BYTES) >>> 2; word++) i32[word] = 0;
    u16[(at + REC.handler) >>> 1] = handler;
    u16[(at + REC.pageOffset) >>> 1] = offset;
  }
  #exception(at: number, offset: number, vector: DecodeFault): void {
    this.#pseudo(at, PSEUDO.exception, offset);
    const { u16, u8 } = this.#memory;
    u16[(at + REC.r0) >>> 1] = vector;
    u16[(at + REC.r2) >>> 1] = vector === 13 ? 1 : 0;
    // Whatever bytes made it undefined: a store to any of them may make it something.
    u8[at + REC.length] = INSTRUCTION_BYTES_MAX;
  }

  /** A lookup record that was just left through now leads straight to what was found. */
  patch(from: number, to: number): void {
    const { u16, u32 } = this.#memory;
    if (u16[(from + REC.handler) >>> 1] !== PSEUDO.lookup) return;
    u16[(from + REC.handler) >>> 1] = PSEUDO.link;
    u32[(from + REC.disp) >>> 2] = to;
  }

  // ---- the step area

  /** Copies up to `count` records from `from` into the step area, a stop record behind them; gives the area's address. */
  stage(cpu: Cpu, from: number, count: number): number {
    const { u8, u16, u32 } = this.#memory;
    const area = cpu.base + S.STEP;
    const limit = Math.min(count, BLOCK_MAX);
    let n = 0;
    let offset = 0;
    while (n < limit) {
      let source = from + n * RECORD_BYTES;
      if (u16[(source + REC.handler) >>> 1] === PSEUDO.region) source = u32[(source + REC.disp) >>> 2]!;
      const handler = u16[(source + REC.handler) >>> 1]!;
      const copy = area + n * RECORD_BYTES;
      u8.copyWithin(copy, source, source + RECORD_BYTES);
      u16[(copy + REC.handler) >>> 1] = this.#handlers.plain[handler]!;
      n++;
      if (handler >= PSEUDO.stop && handler < PSEUDO.first) return area;
      offset = u16[(source + REC.pageOffset) >>> 1]! + u8[source + REC.length]!;
    }
    this.#pseudo(area + n * RECORD_BYTES, PSEUDO.stop, offset);
    return area;
  }

  /** Puts the one instruction at a linear address into the step area: it crosses pages, is not in RAM, or is near CS's limit. */
  #step(cpu: Cpu, mode: CodeMode, low: number, high: number): number {
    const bytes = this.#bytes;
    const limit = mode === 2 ? INSTRUCTION_BYTES_MAX : this.#bytesInLimit(cpu);
    let available = 0;
    let decoded: Decoded | DecodeFault = NEED_BYTES;
    while (decoded === NEED_BYTES) {
      if (available >= limit) {
        cpu.setFault(13, 0);
        return LOOKUP_FAULT;
      }
      const position = (low >>> 0) + available;
      const nextLow = position | 0;
      const nextHigh = mode === 2 && position > 0xffff_ffff ? (high + 1) | 0 : high;
      if (fetchEntry(cpu, nextLow, nextHigh) === FETCH_FAULT) return LOOKUP_FAULT;
      const page = fetchedPage;
      const inPage = Math.min(4096 - (nextLow & 0xfff), INSTRUCTION_BYTES_MAX - available, limit - available);
      for (let i = 0; i < inPage; i++) {
        bytes[available++] = cpu.access.readPhysical(page + (nextLow & 0xfff) + i, 1);
      }
      decoded = decode(bytes, 0, available, mode, cpu.model.features);
    }
    const area = cpu.base + S.STEP;
    const offset = low & 0xfff;
    if (isDecoded(decoded)) {
      this.writeRecord(area, decoded, offset);
      this.#handlers.flush();
      this.#pseudo(area + RECORD_BYTES, PSEUDO.stop, offset + decoded.length);
    } else {
      this.#exception(area, offset, decoded);
    }
    return LOOKUP_STEP;
  }
  #bytesInLimit(cpu: Cpu): number {
    return Math.min(INSTRUCTION_BYTES_MAX, cpu.segLimit(SEG.CS) - cpu.get32(S.RIP) + 1);
  }

  // ---- CodeWatch

  /** @inheritDoc */
  overlaps(physical: number, bytes: number): boolean {
    return this.#visit(physical, bytes, false);
  }
  /** @inheritDoc */
  invalidate(physical: number, bytes: number): void {
    this.regions?.dropAt(physical, bytes);
    this.#visit(physical, bytes, true);
  }
  /** Finds records that cover any of `bytes` at `physical`, within its page; takes them back if `remove`. */
  #visit(physical: number, bytes: number, remove: boolean): boolean {
    const { u32, u16, u8 } = this.#memory;
    let found = false;
    let rest = bytes, at = physical;
    while (rest > 0) {
      const offset = at % 4096;
      const page = (at - offset) / 4096;
      const here = Math.min(rest, 4096 - offset);
      for (let mode = 0; mode < 3; mode++) {
        const table = u32[(CODE_TABLES_BASE + mode * CODE_TABLES_STRIDE + page * 4) >>> 2]!;
        if (table === 0) continue;
        for (let o = Math.max(0, offset - INSTRUCTION_BYTES_MAX + 1); o < offset + here; o++) {
          const slot = (table + o * 4) >>> 2;
          const record = u32[slot]!;
          if (record === 0 || o + u8[record + REC.length]! <= offset) continue;
          found = true;
          if (!remove) return true;
          u32[slot] = 0;
          u16[(record + REC.handler) >>> 1] = PSEUDO.lookup;
          this.#unfuse(record);
          this.invalidated++;
        }
      }
      rest -= here;
      at += here;
    }
    return found;
  }
  /** The records before `record` in its line count on it: fused with it, or storing no flags because it, or one behind it, does. */
  #unfuse(record: number): void {
    const { u16, u8 } = this.#memory;
    const { plain } = this.#handlers;
    let next = record;
    for (let n = 0; n < BLOCK_MAX; n++) {
      const before = next - RECORD_BYTES;
      const handler = u16[(before + REC.handler) >>> 1]!;
      // A pseudo-record stands before a line's first record.
      if (
        handler < PSEUDO.first || handler >= plain.length ||
        u16[(before + REC.pageOffset) >>> 1]! + u8[before + REC.length]! !==
          u16[(next + REC.pageOffset) >>> 1]
      ) return;
      u16[(before + REC.handler) >>> 1] = plain[handler]!;
      next = before;
    }
  }
}

/** True for rows whose one relative operand makes the record's immediate a target. */
function isDirectJump(decoded: Decoded): boolean {
  const { operands } = decoded.form;
  return operands.length > 0 && operands[operands.length - 1]!.kind === "rel";
}

/** True for instructions that end the description by a jump but may go on with the next record (conditional jumps, repeated strings). */
function mayFallThrough(decoded: Decoded): boolean {
  const { form } = decoded;
  return (isDirectJump(decoded) && form.row.mnemonic !== "JMP" && form.row.mnemonic !== "CALL") ||
    form.row.flags.string !== undefined;
}
