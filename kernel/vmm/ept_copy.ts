/**
 * User memory of a process in VMM mode (`ept_copyin`, `ept_copyout` and their kin, `guest_phys_addr`; `sys/platform/pc64/vmm/ept.c`; sections
 * 16.2 and 16.3 of the reference).
 *
 * Room: `kernel/vmm/`; imports vm_fault_page and the direct map.
 *
 * The process's addresses are guest-physical ones; what its code uses are linear ones, which its own tables translate. The kernel walks those
 * tables as the processor would, except that it looks neither at U nor at RW and sets no A or M: so DragonFly has it. A page of the
 * tables, or the page itself, that is not there is faulted in as any page of the process.
 *
 * @module
 */
import { gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { stdUserAccess } from "../kern/copy.ts";
import { ERRNO } from "../kern/errno.ts";
import { physToDmap } from "../platform/layout.ts";
import type { PmapUserAccess } from "../pmap/pmap.ts";
import { PG_FRAME, PG_PS_IDX, PG_V_IDX, REGULAR_FORMAT } from "../pmap/pmap_bits.ts";
import { VM_FAULT_DIRTY, VM_FAULT_NORMAL } from "../vm/vm_fault_object.ts";
import { vmFaultPage } from "../vm/vm_fault_page.ts";
import type { VmMap } from "../vm/vm_map.ts";
import { type VmPage, vmPageUnhold, vmPageWakeup } from "../vm/vm_page.ts";
import { PAGE_SIZE, VM_PROT_READ, VM_PROT_WRITE } from "../vm/vm_param.ts";

const OFFSET = BigInt(PAGE_SIZE - 1);
/** Bytes from an address to the end of its page. */
const rest = (at: bigint): number => PAGE_SIZE - Number(at & OFFSET);

/**
 * The guest-physical address behind a guest-linear one (`guest_phys_addr`), by the tables at `guestCr3`; undefined where they have none.
 *
 * @param map The process's map: guest-physical addresses are its addresses.
 */
export function* guestPhysAddr(cx: Cx, map: VmMap, guestCr3: bigint, va: bigint): Exec<bigint | undefined> {
  const { counters } = cx.k.vmm;
  const valid = REGULAR_FORMAT.pmapBits[PG_V_IDX]!, large = REGULAR_FORMAT.pmapBits[PG_PS_IDX]!;
  counters.guestWalks++;
  let table = guestCr3 & PG_FRAME;
  for (let shift = 39n;; shift -= 9n) {
    const entry = yield* readGuestPhysical(cx, map, table + ((va >> shift) & 511n) * 8n);
    counters.guestWalkRefs++;
    if (entry === undefined || (entry & valid) === 0n) return undefined;
    if (shift === 12n || (shift < 39n && (entry & large) !== 0n)) {
      const within = (1n << shift) - 1n;
      return (entry & PG_FRAME & ~within) | (va & within);
    }
    table = entry & PG_FRAME;
  }
}

/** Eight bytes at a guest-physical address. */
function* readGuestPhysical(cx: Cx, map: VmMap, at: bigint): Exec<bigint | undefined> {
  const m = yield* pageAt(cx, map, at, false);
  if (m === undefined) return undefined;
  const value = yield* cx.cpu.load64(gva(physToDmap(cx.k, m.physAddr) + (at & OFFSET)));
  vmPageUnhold(cx, m);
  return value;
}

/** The page at an address of the process: held for reading, busy for writing. */
function* pageAt(cx: Cx, map: VmMap, at: bigint, write: boolean): Exec<VmPage | undefined> {
  if (at >= map.max) return undefined;
  const m = write
    ? yield* vmFaultPage(cx, map, at, VM_PROT_READ | VM_PROT_WRITE, VM_FAULT_DIRTY, { busy: true })
    : yield* vmFaultPage(cx, map, at, VM_PROT_READ, VM_FAULT_NORMAL);
  return typeof m === "number" ? undefined : m;
}

/** The page behind a linear address of the running thread, with the offset in it; undefined = EFAULT. */
function* pageOf(
  cx: Cx,
  va: bigint,
  write: boolean,
): Exec<{ readonly m: VmPage; readonly at: bigint } | undefined> {
  const lwp = cx.lwp, vti = lwp?.lwpVmm, map = lwp?.lwpProc.pVmspace?.vmMap;
  if (vti === undefined || map === undefined) return undefined;
  const gpa = yield* guestPhysAddr(cx, map, vti.guestCr3, va);
  if (gpa === undefined) return undefined;
  const m = yield* pageAt(cx, map, gpa, write);
  return m === undefined ? undefined : { m, at: physToDmap(cx.k, m.physAddr) + (gpa & OFFSET) };
}

/** Linear addresses that a process may name: the lower half; a kernel in ring 0 has the upper half too. */
const LOW_END = 0x8000_0000_0000n, HIGH_START = 0xffff_8000_0000_0000n, HIGH_END = 1n << 64n;
function isLinear(cx: Cx, va: bigint, bytes: number): boolean {
  const end = va + BigInt(bytes);
  if (va >= 0n && end <= LOW_END) return true;
  return cx.lwp?.lwpVmm?.full !== undefined && va >= HIGH_START && end <= HIGH_END;
}

/** The hooks of an EPT pmap. */
export const eptUserAccess: PmapUserAccess = {
  *copyin(cx, from, bytes) {
    if (!isLinear(cx, from, bytes)) return undefined;
    const out = new Uint8Array(bytes);
    for (let done = 0; done < bytes;) {
      const va = from + BigInt(done), piece = Math.min(rest(va), bytes - done);
      const page = yield* pageOf(cx, va, false);
      if (page === undefined) return undefined;
      out.set(yield* cx.cpu.loadBytes(gva(page.at), piece), done);
      vmPageUnhold(cx, page.m);
      done += piece;
    }
    return out;
  },
  *copyout(cx, to, bytes) {
    if (!isLinear(cx, to, bytes.length)) return ERRNO.EFAULT;
    for (let done = 0; done < bytes.length;) {
      const va = to + BigInt(done), piece = Math.min(rest(va), bytes.length - done);
      const page = yield* pageOf(cx, va, true);
      if (page === undefined) return ERRNO.EFAULT;
      yield* cx.cpu.storeBytes(gva(page.at), bytes.subarray(done, done + piece));
      vmPageWakeup(cx, page.m);
      done += piece;
    }
    return 0;
  },
};

/** Addresses that guests with a twin have at themselves: the identity map of slot 0. */
const IDENTITY_END = 1n << 39n;

/** Whether the running code's linear addresses are the process's: the vkernel's own, and not those of a guest of its. */
function isIdentity(cx: Cx, va: bigint, bytes: number): boolean {
  const vti = cx.lwp?.lwpVmm;
  return va >= 0n && va + BigInt(bytes) <= IDENTITY_END && vti?.guestCr3 === vti?.vp.guestCr3;
}

/** The hooks of a pmap with a twin: `std_copyin` and its kin by the process's own addresses, others by way of the guest's tables. */
export const twinUserAccess: PmapUserAccess = {
  *copyin(cx, from, bytes) {
    if (!isIdentity(cx, from, bytes)) return yield* eptUserAccess.copyin(cx, from, bytes);
    cx.k.vmm.counters.twinCopies++;
    return yield* stdUserAccess.copyin(cx, from, bytes);
  },
  *copyout(cx, to, bytes) {
    if (to < 0n || to + BigInt(bytes.length) > IDENTITY_END) {
      return yield* eptUserAccess.copyout(cx, to, bytes);
    }
    cx.k.vmm.counters.twinCopies++;
    return yield* stdUserAccess.copyout(cx, to, bytes);
  },
};

/**
 * Exchanges eight bytes at a linear address of the running thread, in one step; undefined = EFAULT. The address is a multiple of 8.
 */
export function* eptSwap64(cx: Cx, va: bigint, value: bigint): Exec<bigint | undefined> {
  if (!isLinear(cx, va, 8)) return undefined;
  const page = yield* pageOf(cx, va, true);
  if (page === undefined) return undefined;
  const old = yield* cx.cpu.xchg64(gva(page.at), value);
  vmPageWakeup(cx, page.m);
  return old;
}
