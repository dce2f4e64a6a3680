/**
 * The rules of maps and objects, recomputed from nothing: what the fields say must be one story.
 *
 * Room: `kernel/vm/`; for tests and the lab; imports maps, objects and the pmap's tables. To be called when nobody is in the middle of a
 * map, fault or object operation.
 *
 * 1. Entries ascend, do not overlap, and are counted (`vmMapCheck`).
 * 2. A mapping lies in an entry; it maps the page that a walk down the entry's object chain meets first; it may be written only if the
 *    entry may, does not need a copy, and the page is in the entry's own object.
 * 3. `refCount` of an anonymous object = entries and shadows that use it (and files' users beside, for others at least that).
 * 4. The shadow list of an object holds exactly those whose backing object it is.
 * 5. `residentPageCount` = pages in the tree; each names the object; no index is beyond the object.
 * 6. Nobody has a chain lock, a hold or paging in progress.
 * 7. ONEMAPPING: no two entries can see one page of the object, and no shadow can.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { PG_RW_IDX, PG_V_IDX } from "../pmap/pmap_bits.ts";
import { pmapPte, pteFrame } from "../pmap/pmap_pte.ts";
import { type VmMap, vmMapCheck } from "./vm_map.ts";
import type { VmMapEntry } from "./vm_map_entry.ts";
import {
  OBJ_DEAD,
  OBJ_ONEMAPPING,
  OBJT_DEVICE,
  OBJT_VNODE,
  type VmObject,
  vmObjectIsAnonymous,
} from "./vm_object.ts";
import type { VmPage } from "./vm_page.ts";
import {
  MAP_ENTRY_NEEDS_COPY,
  offToIdx,
  PAGE_SIZE,
  VM_MAPTYPE_NORMAL,
  VM_PROT_NONE,
  VM_PROT_WRITE,
} from "./vm_param.ts";

/** The page that a chain shows at an index of its top object, and whose it is. Looks without locks: nobody may be at work. */
export function chainPage(top: VmObject, pindex: number): VmPage | undefined {
  let at = pindex;
  for (let object: VmObject | undefined = top; object !== undefined; object = object.backingObject) {
    const m = object.rbMemq.find(at);
    if (m !== undefined) return m;
    at += offToIdx(object.backingObjectOffset);
  }
  return undefined;
}

/**
 * Checks maps, and the objects behind them.
 *
 * @param maps All maps that use anonymous objects, beside the kernel's own.
 * @param extraRefs References that others hold, by object.
 */
export function* vmCheck(
  cx: Cx,
  maps: readonly VmMap[],
  extraRefs: ReadonlyMap<VmObject, number> = new Map(),
): Exec<string[]> {
  const wrong: string[] = [];
  const users = new Map<VmObject, VmMapEntry[]>();
  for (const map of maps) {
    wrong.push(...vmMapCheck(map));
    for (const entry of map.entries()) {
      if (entry.object !== undefined) users.set(entry.object, [...users.get(entry.object) ?? [], entry]);
      if (entry.maptype === VM_MAPTYPE_NORMAL) yield* checkMappings(cx, map, entry, wrong);
    }
  }
  const { kernelObject } = cx.k;
  for (const object of cx.k.vmObject.objectList) {
    if (object !== kernelObject) {
      checkObject(object, users.get(object) ?? [], extraRefs.get(object) ?? 0, wrong);
    }
  }
  for (const object of users.keys()) {
    if (!cx.k.vmObject.objectList.has(object)) {
      wrong.push(`object ${object.id} is mapped and not on the list`);
    }
  }
  return wrong;
}

/** Rule 2. */
function* checkMappings(cx: Cx, map: VmMap, entry: VmMapEntry, wrong: string[]): Exec<void> {
  const bits = map.pmap.pmapBits;
  for (let va: bigint = entry.start; va < entry.end; va += BigInt(PAGE_SIZE)) {
    const ptep = yield* pmapPte(cx, map.pmap, va as Gva);
    if (ptep === undefined) {
      // No page table: nothing is mapped up to the next one.
      va |= 0x1f_f000n;
      continue;
    }
    const pte = yield* cx.cpu.load64(ptep);
    if ((pte & bits[PG_V_IDX]!) === 0n) continue;
    const where = `0x${va.toString(16)}`;
    if (entry.object === undefined) {
      wrong.push(`${where} is mapped without an object`);
      continue;
    }
    const m = chainPage(entry.object, offToIdx(entry.offset + Number(va - entry.start)));
    if (m?.physAddr !== pteFrame(pte)) {
      wrong.push(
        `${where} maps frame 0x${pteFrame(pte).toString(16)}, the chain has 0x${m?.physAddr.toString(16)}`,
      );
      continue;
    }
    if (entry.protection === VM_PROT_NONE) wrong.push(`${where} is mapped and must not be used`);
    if ((pte & bits[PG_RW_IDX]!) === 0n) continue;
    if ((entry.protection & VM_PROT_WRITE) === 0) wrong.push(`${where} is writable, its entry is not`);
    if (entry.eflags & MAP_ENTRY_NEEDS_COPY) wrong.push(`${where} is writable and needs a copy`);
    if (m.object !== entry.object) {
      wrong.push(`${where} is writable and maps a page of object ${m.object?.id}`);
    }
  }
}

/** Rules 3 to 7. */
function checkObject(object: VmObject, entries: readonly VmMapEntry[], extra: number, wrong: string[]): void {
  const say = (text: string) => wrong.push(`object ${object.id}: ${text}`);
  if (object.flags & OBJ_DEAD) say("is dead and on the list");
  const refs = entries.length + object.shadowHead.size + extra;
  if (vmObjectIsAnonymous(object) && object.refCount !== refs) {
    say(
      `refCount ${object.refCount}, but ${entries.length} entries, ${object.shadowHead.size} shadows, ${extra} others`,
    );
  }
  if (object.shadowCount !== object.shadowHead.size) {
    say(`shadowCount ${object.shadowCount}, list ${object.shadowHead.size}`);
  }
  for (const shadow of object.shadowHead) {
    if (shadow.backingObject !== object) {
      say(`has object ${shadow.id} on its shadow list, which does not shadow it`);
    }
  }
  const backing = object.backingObject;
  if (backing !== undefined && backing.type !== OBJT_VNODE && !backing.shadowHead.has(object)) {
    say(`shadows object ${backing.id} and is not on its list`);
  }
  let pages = 0;
  for (const m of object.rbMemq) {
    pages++;
    if (m.object !== object) say(`page ${m.pindex} names another object`);
    if (m.pindex >= object.size && object.type !== OBJT_DEVICE) {
      say(`page ${m.pindex} is beyond size ${object.size}`);
    }
  }
  if (pages !== object.residentPageCount) {
    say(`residentPageCount ${object.residentPageCount}, pages ${pages}`);
  }
  if (object.chainlk !== 0) say(`chain lock 0x${object.chainlk.toString(16)} is held`);
  if (object.holdCount !== 0) say(`holdCount ${object.holdCount}`);
  if (object.pagingInProgress !== 0) say(`pagingInProgress ${object.pagingInProgress}`);
  if (object.flags & OBJ_ONEMAPPING) checkOneMapping(object, entries, say);
}

function checkOneMapping(
  object: VmObject,
  entries: readonly VmMapEntry[],
  say: (text: string) => void,
): void {
  if (object.shadowCount > 0 && vmObjectIsAnonymous(object)) say("says ONEMAPPING and has shadows");
  const ranges = entries.map((entry) => ({
    from: entry.offset,
    to: entry.offset + Number(entry.end - entry.start),
  }))
    .sort((a, b) => a.from - b.from);
  for (let i = 1; i < ranges.length; i++) {
    if (ranges[i]!.from < ranges[i - 1]!.to) say("says ONEMAPPING and two entries see one page");
  }
}
