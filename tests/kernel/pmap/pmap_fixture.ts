/**
 * A thread with an address space of its own, in a booted kernel: what the pmap's tests begin with.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { type Gva, gva } from "../../../hw/address.ts";
import { type Exec, OperationAborted } from "../../../hw/gates.ts";
import type { Cx } from "../../../kernel/context.ts";
import { physToDmap } from "../../../kernel/platform/layout.ts";
import { checkInvariants } from "../../../kernel/pmap/invariants.ts";
import { type Pmap, pmapPtePindex } from "../../../kernel/pmap/pmap.ts";
import { PG_A_IDX, PG_M_IDX, PG_RW_IDX, PG_V_IDX } from "../../../kernel/pmap/pmap_bits.ts";
import { pmapSetlwpvm } from "../../../kernel/pmap/pmap_switch.ts";
import { pmapPte } from "../../../kernel/pmap/pmap_pte.ts";
import { Lwp, Proc } from "../../../kernel/proc/proc.ts";
import { VM_ALLOC_NORMAL, type VmPage, vmPageFree } from "../../../kernel/vm/vm_page.ts";
import { vmPageAlloc } from "../../../kernel/vm/vm_page_alloc.ts";
import { type Vmspace, vmspaceAlloc } from "../../../kernel/vm/vmspace.ts";
import { pmapPinit2 } from "../../../kernel/pmap/pmap_pinit.ts";

/** First user address of the tests, page `n` from there. */
export function page(n: number): Gva {
  return gva(0x40_0000n + BigInt(n) * 0x1000n);
}

/** A new address space, nothing mapped. */
export function* newSpace(cx: Cx): Exec<Vmspace> {
  const vm = yield* vmspaceAlloc(cx, gva(0x1000), gva(0x7fff_ffff_f000n));
  yield* pmapPinit2(cx, vm.vmPmap);
  return vm;
}

/** Makes the running kernel thread an lwp in `vm`: user addresses are that space's from now on. */
export function* enterSpace(cx: Cx, vm: Vmspace): Exec<void> {
  const proc = new Proc(90 + cx.gd.gdCpuid);
  proc.pNthreads = 1;
  const lwp = new Lwp(proc, 1);
  lwp.lwpThread = cx.td;
  cx.td.tdLwp = lwp;
  yield* pmapSetlwpvm(cx, lwp, vm);
}

/** The thread is a kernel thread again, at its next switch. */
export function leaveSpace(cx: Cx): void {
  cx.td.tdLwp = undefined;
}

/** A busy page of nobody's, filled with a number. */
export function* newPage(cx: Cx, tag: bigint): Exec<VmPage> {
  const m = vmPageAlloc(cx, undefined, 0, VM_ALLOC_NORMAL);
  if (m === undefined) throw new Error("no page is left");
  yield* cx.cpu.store64(physToDmap(cx.k, m.physAddr), tag);
  return m;
}

/** Gives a busy page back; nothing may map it. */
export function freePage(cx: Cx, m: VmPage): void {
  vmPageFree(cx, m);
}

/** Reads user memory; undefined if that faults. */
export function* peek(cx: Cx, va: Gva): Exec<bigint | undefined> {
  return yield* attempt(cx, () => cx.cpu.load64(va));
}

/** Writes user memory; whether that worked. */
export function* poke(cx: Cx, va: Gva, value: bigint): Exec<boolean> {
  const done = yield* attempt(cx, function* () {
    yield* cx.cpu.store64(va, value);
    return true;
  });
  return done === true;
}

function* attempt<T>(cx: Cx, operation: () => Exec<T>): Exec<T | undefined> {
  cx.cpu.mayAbort = true;
  try {
    return yield* operation();
  } catch (error) {
    if (error instanceof OperationAborted) return undefined;
    throw error;
  } finally {
    cx.cpu.mayAbort = false;
  }
}

/** The entry for an address in words: "V RW A M" and so on, or "". */
export function* entryBits(cx: Cx, pmap: Pmap, va: Gva): Exec<string> {
  const ptep = yield* pmapPte(cx, pmap, va);
  if (ptep === undefined) return "";
  const entry = yield* cx.cpu.load64(ptep);
  const names = [["V", PG_V_IDX], ["RW", PG_RW_IDX], ["A", PG_A_IDX], ["M", PG_M_IDX]] as const;
  return names.filter(([, index]) => (entry & pmap.pmapBits[index]!) !== 0n).map(([name]) => name).join(" ");
}

/** All rules hold. */
export function assertSound(cx: Cx): void {
  assertEquals(checkInvariants(cx, true), []);
}

/** pindex of page `n`. */
export function pindexOf(n: number): number {
  return pmapPtePindex(page(n));
}
