/**
 * What the VM system needs before its first fault (`sys/vm/vm_init.c`).
 *
 * Room: `kernel/vm/`; imports the pagers. Swap and files enter their pagers themselves.
 *
 * @module
 */
import type { Cx } from "../context.ts";
import { defaultPagerOps } from "./default_pager.ts";
import { devicePagerOps } from "./device_pager.ts";
import { physPagerOps } from "./phys_pager.ts";
import {
  OBJ_MIGHTBEDIRTY,
  OBJ_WRITEABLE,
  OBJT_DEFAULT,
  OBJT_DEVICE,
  OBJT_MGTDEVICE,
  OBJT_PHYS,
  OBJT_VNODE,
} from "./vm_object.ts";
import { vmMapGrowstack } from "./vm_map_stack.ts";
import { vmPagerRegister } from "./vm_pager.ts";

/** Enters the pagers into the table (`vm_pager_init`), and tells pages how objects hear of their changes. */
export function vmPagerInit(cx: Cx): void {
  vmPagerRegister(cx, OBJT_DEFAULT, defaultPagerOps);
  vmPagerRegister(cx, OBJT_DEVICE, devicePagerOps);
  vmPagerRegister(cx, OBJT_MGTDEVICE, devicePagerOps);
  vmPagerRegister(cx, OBJT_PHYS, physPagerOps);
  cx.k.vmMap.growstack = vmMapGrowstack;
  // `vm_object_set_writeable_dirty`: the syncer asks files only.
  cx.k.vmPages.objectDirtied = (_cx, object) => {
    if (object.type === OBJT_VNODE) object.flags |= OBJ_WRITEABLE | OBJ_MIGHTBEDIRTY;
  };
}
