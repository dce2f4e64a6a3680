/**
 * The page tables that a kernel in ring 0 begins on, as a loader makes them: 2-MiB pages, before the kernel makes its own.
 *
 * Room: `kernel/platform/ring0/`; imports the table of PTE bits. Runs in the process, on its own addresses.
 *
 *     the process's first bytes   where they are, for ring 3 too: the start runs there still
 *     RAM                         where it is, for ring 3 too; and in the direct map
 *     image                       in the kernel's own window
 *
 * @module
 */
import { gva } from "../../../hw/address.ts";
import type { Exec, GateCpu } from "../../../hw/gates.ts";
import { PG_PS_IDX, PG_RW_IDX, PG_U_IDX, PG_V_IDX, REGULAR_FORMAT } from "../../pmap/pmap_bits.ts";
import { DMAP_MIN_ADDRESS, KERNBASE } from "../pc64/vmparam.ts";
import { BOOT_TABLE_PAGES, BOOT_TABLES, RAM_START } from "./vmparam.ts";

const LARGE = 0x20_0000n, PAGE = 0x1000n;
/** Bytes at the start of the process that its own pages are in. */
const PROCESS_BYTES = 0x200_0000n;
const BITS = REGULAR_FORMAT.pmapBits;
const KERNEL = BITS[PG_V_IDX]! | BITS[PG_RW_IDX]!;
const USER = KERNEL | BITS[PG_U_IDX]!;

/** Builds them. @param bytes Of RAM. */
export function* buildBootTables(u: GateCpu, bytes: number): Exec<void> {
  const tables = new BootTables(u);
  yield* u.zeroBytes(gva(BOOT_TABLES), BOOT_TABLE_PAGES * Number(PAGE));
  const ram = BigInt(RAM_START), size = BigInt(bytes);
  yield* tables.map(0n, 0n, PROCESS_BYTES, USER);
  yield* tables.map(ram, ram, size, USER);
  yield* tables.map(DMAP_MIN_ADDRESS + ram, ram, size, KERNEL);
  yield* tables.map(KERNBASE, ram, LARGE, KERNEL);
}

class BootTables {
  readonly #u: GateCpu;
  #next = BigInt(BOOT_TABLES) + PAGE;

  constructor(u: GateCpu) {
    this.#u = u;
  }

  *map(va: bigint, pa: bigint, bytes: bigint, bits: bigint): Exec<void> {
    let pd = 0n;
    for (let at = 0n; at < bytes; at += LARGE) {
      const slot = (shift: bigint) => ((va + at) >> shift) & 511n;
      if (at === 0n || slot(21n) === 0n) {
        pd = yield* this.#below(yield* this.#below(BigInt(BOOT_TABLES), slot(39n), bits), slot(30n), bits);
      }
      yield* this.#u.store64(gva(pd + slot(21n) * 8n), (pa + at) | bits | BITS[PG_PS_IDX]!);
    }
  }

  /** The table that an entry leads to. */
  *#below(table: bigint, slot: bigint, bits: bigint): Exec<bigint> {
    const at = gva(table + slot * 8n);
    const entry = yield* this.#u.load64(at);
    if (entry !== 0n) return entry & ~(PAGE - 1n);
    const made = this.#next;
    this.#next += PAGE;
    if (made >= BigInt(BOOT_TABLES) + BigInt(BOOT_TABLE_PAGES) * PAGE) {
      this.#u.panic("boot tables: too few pages");
    }
    yield* this.#u.store64(at, made | bits);
    return made;
  }
}
