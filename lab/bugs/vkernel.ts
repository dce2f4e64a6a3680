/**
 * Hunts for what went wrong in the host's part of vkernels: software page tables that change while they are walked, and address spaces
 * that are destroyed while they are worked on.
 *
 * Room: `lab/bugs/`; imports the stage and the kernel.
 *
 * The memory is one anonymous object behind two pieces of a mapping, each with a root of its own: the lower piece shows the object byte by byte, the
 * upper one through tables in it. So the vkernel's memory and its window need no file.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../../kernel/context.ts";
import { fuword, suword } from "../../kernel/kern/copy.ts";
import { lwktYield } from "../../kernel/lwkt/thread.ts";
import { PG_PS_IDX, PG_RW_IDX, PG_V_IDX, VPTE_FORMAT } from "../../kernel/pmap/pmap_bits.ts";
import { MADV_INVAL, MADV_SETMAP, MAP_VPAGETABLE } from "../../kernel/vm/vm_param.ts";
import { evict, MAP, SYS } from "./mill.ts";
import { type Act, type Stage, system, waitFor } from "./stage.ts";

const { pmapBits } = VPTE_FORMAT;
const VALID = pmapBits[PG_V_IDX]! | pmapBits[PG_RW_IDX]!;
const MCONTROL = 485, CREATE = 486, DESTROY = 487, VMMAP = 489, VMUNMAP = 490, VMCONTROL = 491;

const MEMORY = 0x3000_0000n, PAGE = 4096n, HALF = 32n;
/** Frames: the four tables, and two pages of data. */
const TABLES = [1n, 2n, 3n, 4n] as const, DATA_FRAMES = [5n, 6n] as const;
/** The page that is looked at through the tables, its number and its address. */
const WINDOW_PAGE = 40n, WINDOW: bigint = MEMORY + WINDOW_PAGE * PAGE;
/** Where its entry is seen. */
const ENTRY: bigint = MEMORY + TABLES[3] * PAGE + WINDOW_PAGE * 8n;
const TURNS = 40;
/** Turns that read from swap, which take long. */
const SWAP_TURNS = 12;

function* must(cx: Cx, what: string, number: number, ...words: bigint[]): Exec<void> {
  const error = yield* system(cx, number, ...words);
  if (error !== 0) throw new Error(`${what} failed with error ${error}`);
}

/** Memory, tables, and the two roots. */
function* setUp(cx: Cx): Exec<void> {
  cx.k.vmMap.vkernelEnable = true;
  const flags = BigInt(MAP_VPAGETABLE) | MAP.ANON | MAP.SHARED | MAP.FIXED;
  yield* must(cx, "mmap", SYS.mmap, MEMORY, 2n * HALF * PAGE, 3n, flags, -1n, 0n, 0n);
  const half = HALF * PAGE, setmap = BigInt(MADV_SETMAP);
  yield* must(cx, "SETMAP", MCONTROL, MEMORY, half, setmap, VALID | pmapBits[PG_PS_IDX]!);
  yield* must(cx, "SETMAP", MCONTROL, MEMORY + half, half, setmap, TABLES[0] * PAGE | VALID);
  for (let i = 0; i < 3; i++) yield* suword(cx, MEMORY + TABLES[i]! * PAGE, TABLES[i + 1]! * PAGE | VALID);
}

function* pause(stage: Stage, most: number): Exec<void> {
  for (let i = stage.below(most); i > 0; i--) yield;
}

/**
 * A page is taken out of the tables, and has another use at once, while other processors store to it through the tables.
 *
 * @param most Longest time that it is in the tables, in steps.
 * @param evicted It has to be read from swap, which makes faults take long between the walk and the mapping.
 */
export function takeAway(most: number, evicted: boolean): Act {
  return (cx, stage) => takeAwayIn(cx, stage, most, evicted);
}

function* takeAwayIn(cx: Cx, stage: Stage, most: number, evicted: boolean): Exec<void> {
  yield* setUp(cx);
  let over = false;
  const own = cx.gd.gdCpuid;
  for (let cpu = 1; cpu < cx.k.ncpus; cpu++) {
    yield* stage.child(cx, "share", own + cpu, function* (inner) {
      yield* stage.meet(inner, inner.k.ncpus);
      for (let n = 1n; !over && stage.failure === undefined; n++) {
        yield* suword(inner, WINDOW, n);
        yield* pause(stage, 20);
        yield* lwktYield(inner);
      }
    });
  }
  yield* stage.meet(cx, cx.k.ncpus);
  for (let turn = 0; turn < (evicted ? SWAP_TURNS : TURNS) && stage.failure === undefined; turn++) {
    const frame = DATA_FRAMES[turn & 1]!, page = MEMORY + frame * PAGE, mark = 0xabcd_0000n + BigInt(turn);
    // Written, then taken away.
    for (let i = 0; i < 2 && evicted; i++) yield* evict(cx, cx.proc!.pVmspace!, page);
    yield* suword(cx, ENTRY, frame * PAGE | VALID);
    yield* pause(stage, most);
    yield* suword(cx, ENTRY, 0n);
    yield* must(cx, "INVAL", MCONTROL, WINDOW, PAGE, BigInt(MADV_INVAL), 0n);
    yield* suword(cx, page, mark);
    yield* pause(stage, 400);
    const word = yield* fuword(cx, page), entry = yield* fuword(cx, ENTRY);
    if (word !== mark) {
      stage.fail(`data: a page that is out of the tables was stored to through them: ${word}`);
    }
    if (entry !== 0n) stage.fail(`data: an entry that was cleared is 0x${entry?.toString(16)}`);
  }
  over = true;
  yield* waitFor(cx);
}

/** An address space is destroyed and made anew while others map memory into it. */
export function* destroyAtWork(cx: Cx, stage: Stage): Exec<void> {
  cx.k.vmMap.vkernelEnable = true;
  const id = 77n, flags = MAP.ANON | MAP.PRIVATE | MAP.FIXED;
  yield* must(cx, "vmspace_create", CREATE, id, 0n, 0n);
  let over = false;
  const own = cx.gd.gdCpuid;
  for (let cpu = 1; cpu < cx.k.ncpus; cpu++) {
    yield* stage.child(cx, "share", own + cpu, function* (inner) {
      yield* stage.meet(inner, inner.k.ncpus);
      while (!over && stage.failure === undefined) {
        const at = 0x40_0000n + BigInt(stage.below(8)) * PAGE;
        const what = stage.below(3);
        if (what === 0) yield* system(inner, VMMAP, id, at, PAGE, 3n, flags, -1n, 0n);
        else if (what === 1) yield* system(inner, VMUNMAP, id, at, PAGE);
        else yield* system(inner, VMCONTROL, id, at, PAGE, BigInt(MADV_INVAL), 0n);
        yield* pause(stage, 20);
        yield* lwktYield(inner);
      }
    });
  }
  yield* stage.meet(cx, cx.k.ncpus);
  for (let turn = 0; turn < TURNS && stage.failure === undefined; turn++) {
    yield* pause(stage, 200);
    // EBUSY while somebody is at work on it: then once more.
    for (let tries = 0; tries < 100 && (yield* system(cx, DESTROY, id)) !== 0; tries++) yield;
    yield* system(cx, CREATE, id, 0n, 0n);
  }
  over = true;
  yield* waitFor(cx);
}
