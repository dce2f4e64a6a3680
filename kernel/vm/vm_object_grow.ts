/**
 * Putting a shadow on top of an object, and growing an object for a neighbouring mapping (`vm_object_shadow`, `vm_object_coalesce` of
 * `sys/vm/vm_object.c`).
 *
 * Room: `kernel/vm/`; imports objects, collapse, pages.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import {
  OBJ_ONEMAPPING,
  OBJ_ONSHADOW,
  OBJT_DEFAULT,
  OBJT_VNODE,
  type VmObject,
  vmObjectAllocate,
  vmObjectChainAcquire,
  vmObjectChainRelease,
  vmObjectChainWait,
  vmObjectClearFlag,
  vmObjectDrop,
  vmObjectHold,
  vmObjectIsAnonymous,
} from "./vm_object.ts";
import { vmObjectCollapse } from "./vm_object_collapse.ts";
import { vmObjectPageRemove } from "./vm_object_pages.ts";
import { vmObjectDeallocateList } from "./vm_object_terminate.ts";

/** An object and where in it a mapping begins. */
export interface Shadowed {
  /** The object to map. */
  readonly object: VmObject;
  /** Offset in bytes. */
  readonly offset: number;
}

/**
 * What a private mapping writes to (`vm_object_shadow`): a new object in front of `source`, which takes over the caller's reference; or
 * `source` itself, if nobody else can see it.
 *
 * @param offset Bytes into `source`.
 * @param length Pages.
 * @param addref One reference more than the caller's.
 */
export function* vmObjectShadow(
  cx: Cx,
  source: VmObject | undefined,
  offset: number,
  length: number,
  addref: boolean,
): Exec<Shadowed> {
  // Files keep no shadow list, and many hold them shared: no token of theirs is needed to stand in front of one.
  const listed = source !== undefined && source.type !== OBJT_VNODE;
  if (listed) {
    yield* vmObjectHold(cx, source);
    yield* vmObjectChainWait(cx, source, false);
    if (source.refCount === 1 && vmObjectIsAnonymous(source)) {
      if (addref) {
        source.refCount++;
        vmObjectClearFlag(source, OBJ_ONEMAPPING);
      }
      vmObjectDrop(cx, source);
      return { object: source, offset };
    }
  }
  const object = vmObjectAllocate(cx, OBJT_DEFAULT, length);
  object.backingObject = source;
  object.backingObjectOffset = source === undefined ? 0 : offset;
  if (addref) {
    object.refCount++;
    vmObjectClearFlag(object, OBJ_ONEMAPPING);
  }
  if (listed) {
    source.shadowHead.add(object);
    source.shadowCount++;
    source.generation++;
    object.flags |= OBJ_ONSHADOW;
    vmObjectClearFlag(source, OBJ_ONEMAPPING);
    vmObjectDrop(cx, source);
  }
  return { object, offset: 0 };
}

/**
 * Makes an anonymous object cover what follows a mapping of it (`vm_object_coalesce`).
 *
 * @param pindex First page of the mapping.
 * @param prevSize Pages of the mapping.
 * @param nextSize Pages to cover behind it.
 * @returns Whether it does now. Its pages there are gone: the new mapping starts as zeros.
 */
export function* vmObjectCoalesce(
  cx: Cx,
  object: VmObject | undefined,
  pindex: number,
  prevSize: number,
  nextSize: number,
): Exec<boolean> {
  if (object === undefined) return true;
  yield* vmObjectHold(cx, object);
  const dlist: VmObject[] = [];
  let grown = false;
  if (vmObjectIsAnonymous(object)) {
    yield* vmObjectChainAcquire(cx, object, false);
    yield* vmObjectCollapse(cx, object, dlist);
    grown = yield* grow(cx, object, pindex + prevSize, nextSize);
    vmObjectChainRelease(cx, object);
  }
  vmObjectDrop(cx, object);
  yield* vmObjectDeallocateList(cx, dlist);
  return grown;
}

/** The rules of {@link vmObjectCoalesce}: nobody else may see the pages behind the mapping. */
function* grow(cx: Cx, object: VmObject, next: number, nextSize: number): Exec<boolean> {
  if (object.backingObject !== undefined) return false;
  // Others may use what is inside the object; behind its end there is nothing that they could use.
  if (object.refCount > 1 && object.size !== next) return false;
  // Left over from a mapping that has been removed.
  if (next < object.size) yield* vmObjectPageRemove(cx, object, next, next + nextSize, false);
  if (next + nextSize > object.size) object.size = next + nextSize;
  return true;
}
