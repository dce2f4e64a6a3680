/**
 * Asks the host to back a machine's memory with large pages: host speed only, nothing that a guest can see.
 *
 * Guest RAM is one big array that guests touch all over: with pages of 4 KiB the host's own TLB misses cost more than ours (a random
 * walk over 64 MiB ran twice as fast with large ones). Emulators in C ask for them as well. Linux alone has the call; where it is
 * missing, forbidden or refused, everything stays as it was.
 *
 * Room: `lab/`; imports the machine's memory by its type.
 *
 * @module
 */
import type { MachineMemory } from "../hw/memory.ts";

/** MADV_HUGEPAGE of madvise(2). */
const MADV_HUGEPAGE = 14;
/** Bytes of a large page of the host. */
const LARGE = 0x20_0000n;

type Madvise = (address: Deno.PointerValue, bytes: bigint, advice: number) => number;
let madvise: Madvise | null | undefined;

/** The C library's madvise, or null. */
function findMadvise(): Madvise | null {
  if (Deno.build.os !== "linux") return null;
  // Without asking: a question on the terminal would be worth less than what it asks for.
  if (Deno.permissions.querySync({ name: "ffi" }).state !== "granted") return null;
  try {
    const library = Deno.dlopen("libc.so.6", {
      madvise: { parameters: ["pointer", "usize", "i32"], result: "i32" },
    });
    return (address, bytes, advice) => library.symbols.madvise(address, bytes, advice);
  } catch {
    return null;
  }
}

/**
 * Asks for large pages under a machine's memory; before the machine has run, since pages that are there stay as they are.
 *
 * @returns Whether the host agreed.
 */
export function useHugePages(memory: MachineMemory): boolean {
  madvise ??= findMadvise();
  if (madvise === null) return false;
  const start = Deno.UnsafePointer.value(Deno.UnsafePointer.of(memory.u8));
  const first = (start + LARGE - 1n) & ~(LARGE - 1n), end = start + BigInt(memory.u8.length);
  if (end <= first) return false;
  return madvise(Deno.UnsafePointer.create(first), end - first, MADV_HUGEPAGE) === 0;
}
