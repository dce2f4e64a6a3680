/**
 * Memory of a device (`sys/vm/device_pager.c`): pages that stand for physical addresses which the VM system does not manage.
 *
 * Room: `kernel/vm/`; imports objects and pages.
 *
 * @module
 */
import type { Hpa } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { kassert } from "../kern/panic.ts";
import { OBJT_DEVICE, type VmObject, vmObjectAllocate } from "./vm_object.ts";
import {
  type VmPage,
  vmPageBusyTry,
  vmPageFree,
  vmPageInitfake,
  vmPageInsert,
  vmPageRemove,
  vmPageSleepBusy,
} from "./vm_page.ts";
import { type PagerOps, VM_PAGER_BAD, VM_PAGER_OK } from "./vm_pager.ts";
import { vmPageProtect } from "./vm_page_valid.ts";
import { VM_PROT_NONE } from "./vm_param.ts";

/** What a driver tells of its memory (`d_mmap`). */
export interface DeviceMemory {
  /** Physical address of the page at an index; undefined: there is none. */
  readonly pageAddress: (pindex: number) => Hpa | undefined;
  /** PAT index of its mappings. */
  readonly patMode: number;
}

/** The memory of a device as an object with one reference (`dev_pager_alloc`). @param size Pages. */
export function devPagerAlloc(cx: Cx, handle: object, memory: DeviceMemory, size: number): VmObject {
  const object = vmObjectAllocate(cx, OBJT_DEVICE, size);
  object.handle = handle;
  object.unPager = memory;
  return object;
}

function memoryOf(object: VmObject): DeviceMemory {
  return object.unPager as DeviceMemory;
}

/** `devicepagerops`. */
export const devicePagerOps: PagerOps = {
  /** Takes the stand-ins out of the object; they belong to nobody else. */
  *dealloc(cx: Cx, object: VmObject): Exec<void> {
    for (let m = object.rbMemq.min(); m !== undefined; m = object.rbMemq.min()) {
      if (vmPageBusyTry(cx, m, true)) {
        yield* vmPageSleepBusy(cx, m, true, "devdea");
        continue;
      }
      yield* vmPageProtect(cx, m, VM_PROT_NONE);
      vmPageRemove(cx, m);
    }
    object.unPager = undefined;
  },
  /** Puts a stand-in for the device's page in the place of the page that the fault has allocated. */
  *getpage(cx: Cx, object: VmObject, m: VmPage): Exec<number> {
    const { pageAddress, patMode } = memoryOf(object);
    const { pindex } = m;
    const pa = pageAddress(pindex);
    if (pa === undefined) return VM_PAGER_BAD;
    vmPageFree(cx, m);
    const fake = vmPageInitfake(cx, pa, patMode);
    kassert(vmPageInsert(cx, fake, object, pindex), "device_pager: the page's place is taken");
    return VM_PAGER_OK;
  },
  *putpages(_cx: Cx, _object: VmObject, pages: readonly VmPage[]): Exec<number[]> {
    return pages.map(() => VM_PAGER_BAD);
  },
  haspage: (_cx, object, pindex) => memoryOf(object).pageAddress(pindex) !== undefined,
};
