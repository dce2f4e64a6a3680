/**
 * User memory of a vkernel's processes (`copyio.c` of `sys/platform/vkernel64`): they live in other address spaces, so that every copy goes
 * by pages through the direct map.
 *
 * Room: `kernel/platform/vkernel64/`; imports vm_fault_page.
 *
 * @module
 */
import { gva } from "../../../hw/address.ts";
import type { Exec } from "../../../hw/gates.ts";
import type { Cx } from "../../context.ts";
import { inUserSpace } from "../../kern/copy.ts";
import { ERRNO } from "../../kern/errno.ts";
import type { PmapUserAccess } from "../../pmap/pmap.ts";
import { VM_FAULT_DIRTY } from "../../vm/vm_fault_object.ts";
import { vmFaultPage } from "../../vm/vm_fault_page.ts";
import { vmPageUnhold, vmPageWakeup } from "../../vm/vm_page.ts";
import { PAGE_SIZE, VM_PROT_READ, VM_PROT_WRITE } from "../../vm/vm_param.ts";
import { physToDmap } from "../layout.ts";

const OFFSET = BigInt(PAGE_SIZE - 1);

/** Bytes of one page of the current process, into `into`; whether they were there. */
function* readPiece(cx: Cx, va: bigint, into: Uint8Array<ArrayBuffer>): Exec<boolean> {
  const vm = cx.proc!.pVmspace!;
  const m = yield* vmFaultPage(cx, vm.vmMap, va, VM_PROT_READ, 0);
  if (typeof m === "number") return false;
  const from = gva(physToDmap(cx.k, m.physAddr) + (va & OFFSET));
  into.set(yield* cx.cpu.loadBytes(from, into.length));
  vmPageUnhold(cx, m);
  return true;
}

/** The other way. The page is busy meanwhile (2017): a held one could be copied on write under the bytes. */
function* writePiece(cx: Cx, va: bigint, bytes: Uint8Array): Exec<boolean> {
  const vm = cx.proc!.pVmspace!;
  const type = VM_PROT_READ | VM_PROT_WRITE;
  const m = yield* vmFaultPage(cx, vm.vmMap, va, type, VM_FAULT_DIRTY, { busy: true });
  if (typeof m === "number") return false;
  yield* cx.cpu.storeBytes(gva(physToDmap(cx.k, m.physAddr) + (va & OFFSET)), bytes);
  vmPageWakeup(cx, m);
  return true;
}

/** Pieces of `[va, va + bytes)` that lie in one page each. */
function* pieces(va: bigint, bytes: number): Generator<readonly [at: number, length: number]> {
  for (let at = 0; at < bytes;) {
    const length = Math.min(bytes - at, PAGE_SIZE - Number((va + BigInt(at)) & OFFSET));
    yield [at, length];
    at += length;
  }
}

/** The hooks of all pmaps of a vkernel's processes. */
export const vkernelUserAccess: PmapUserAccess = {
  *copyin(cx, from, bytes) {
    if (!inUserSpace(from, bytes)) return undefined;
    const out = new Uint8Array(bytes);
    for (const [at, length] of pieces(from, bytes)) {
      if (!(yield* readPiece(cx, from + BigInt(at), out.subarray(at, at + length)))) return undefined;
    }
    return out;
  },
  *copyout(cx, to, bytes) {
    if (!inUserSpace(to, bytes.length)) return ERRNO.EFAULT;
    for (const [at, length] of pieces(to, bytes.length)) {
      const done = yield* writePiece(cx, to + BigInt(at), bytes.subarray(at, at + length));
      if (!done) return ERRNO.EFAULT;
    }
    return 0;
  },
};
