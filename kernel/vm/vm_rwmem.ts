/**
 * Reading and writing another process's memory from the kernel (`procfs_rwmem`): a debugger's way.
 *
 * Room: `kernel/vm/`; imports vm_fault_page, vmspace and the direct map.
 *
 * The other address space need not be loaded anywhere, so its pmap is not touched: the page is asked for and used through the direct map.
 *
 * @module
 */
import { gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { copyin } from "../kern/copy.ts";
import { ERRNO } from "../kern/errno.ts";
import { physToDmap } from "../platform/layout.ts";
import { guestPhysAddr } from "../vmm/ept_copy.ts";
import { VM_FAULT_DIRTY } from "./vm_fault_object.ts";
import { vmFaultPage } from "./vm_fault_page.ts";
import { vmPageUnhold, vmPageWakeup } from "./vm_page.ts";
import { KERN_INVALID_ADDRESS, PAGE_SIZE, VM_PROT_READ, VM_PROT_WRITE } from "./vm_param.ts";
import { type Vmspace, vmspaceDrop, vmspaceHold } from "./vmspace.ts";

const OFFSET = BigInt(PAGE_SIZE - 1);

/** What the kernel has to look for at an address of a program: under VMM its own tables say it (`vm_get_gpa`). Undefined: EFAULT. */
function* processAddress(cx: Cx, vm: Vmspace, va: bigint): Exec<bigint | undefined> {
  return vm.vmGuestCr3 === undefined ? va : yield* guestPhysAddr(cx, vm.vmMap, vm.vmGuestCr3, va);
}

/**
 * Reads bytes of one page of an address space that the caller has no reference to; undefined when they are not there.
 *
 * Preconditions: the structure exists when this is called (its process was found in this very step); the bytes lie in one page.
 */
export function* vmspaceReadmem(
  cx: Cx,
  vm: Vmspace,
  va: bigint,
  bytes: number,
): Exec<Uint8Array<ArrayBuffer> | undefined> {
  yield* vmspaceHold(cx, vm);
  const at = yield* processAddress(cx, vm, va);
  const m = at === undefined ? KERN_INVALID_ADDRESS : yield* vmFaultPage(cx, vm.vmMap, at, VM_PROT_READ, 0);
  let result: Uint8Array<ArrayBuffer> | undefined;
  if (typeof m !== "number") {
    result = yield* cx.cpu.loadBytes(gva(physToDmap(cx.k, m.physAddr) + (va & OFFSET)), bytes);
    vmPageUnhold(cx, m);
  }
  yield* vmspaceDrop(cx, vm);
  return result;
}

/**
 * Writes bytes of the current process to one page of an address space; 0 or EFAULT. Preconditions as for {@link vmspaceReadmem}.
 *
 * The page is busy meanwhile (January 2017, `dc039ae0ab`), and the bytes have been fetched before: a page that is only held can be copied on
 * write while they come from swap, and they would go to the one that is nobody's any more.
 *
 * @param from Address of the bytes in the current process.
 */
export function* vmspaceWritemem(
  cx: Cx,
  vm: Vmspace,
  va: bigint,
  from: bigint,
  bytes: number,
): Exec<number> {
  const busy = !cx.k.bug("fault-page-not-busy");
  let data = busy ? yield* copyin(cx, from, bytes) : undefined;
  if (busy && data === undefined) return ERRNO.EFAULT;
  yield* vmspaceHold(cx, vm);
  const at = yield* processAddress(cx, vm, va);
  const m = at === undefined
    ? KERN_INVALID_ADDRESS
    : yield* vmFaultPage(cx, vm.vmMap, at, VM_PROT_READ | VM_PROT_WRITE, VM_FAULT_DIRTY, { busy });
  if (typeof m !== "number") {
    data ??= yield* copyin(cx, from, bytes);
    if (data !== undefined) {
      yield* cx.cpu.storeBytes(gva(physToDmap(cx.k, m.physAddr) + (va & OFFSET)), data);
    }
    if (busy) vmPageWakeup(cx, m);
    else vmPageUnhold(cx, m);
  }
  yield* vmspaceDrop(cx, vm);
  return typeof m === "number" || data === undefined ? ERRNO.EFAULT : 0;
}
