/**
 * The activator of ELF64 programs (`sys/kern/imgact_elf.c`): maps segments as private mappings of the file, paged in on demand.
 *
 * Room: `kernel/proc/`; imports the headers' parser, exec and the maps. Which personality a file belongs to is asked of the brands.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { copyout } from "../kern/copy.ts";
import { ERRNO } from "../kern/errno.ts";
import { vnReadBytes } from "../vfs/vfs_vnops.ts";
import type { Vnode } from "../vfs/vnode.ts";
import { vmMapLock, vmMapUnlock } from "../vm/vm_map.ts";
import { MAP_RESERVE_COUNT, vmMapEntryRelease, vmMapEntryReserve } from "../vm/vm_map_entry.ts";
import { vmMapInsert } from "../vm/vm_map_insert.ts";
import { vmMapProtect } from "../vm/vm_map_protect.ts";
import {
  KERN_SUCCESS,
  MAP_COPY_ON_WRITE,
  MAP_PREFAULT,
  roundPage,
  truncPage,
  VM_PROT_ALL,
  VM_PROT_EXECUTE,
  VM_PROT_READ,
  VM_PROT_RW,
  VM_PROT_WRITE,
  type VmProt,
} from "../vm/vm_param.ts";
import { vnodePagerReference } from "../vm/vnode_pager.ts";
import type { Vmspace } from "../vm/vmspace.ts";
import { type Elf64Image, ET_DYN, isElf, type LoadSegment, parseElf64, PF_R, PF_W, PF_X } from "./elf64.ts";
import { type AuxEntry, type ImageActivator, type ImageParams, NOT_MINE } from "./imgact.ts";
import { execNewVmspace } from "./kern_exec.ts";
import type { Sysentvec } from "./proc.ts";
import { RLIMIT_DATA, RLIMIT_VMEM } from "./resource.ts";

/** Where position-independent programs go. */
export const PIE_BASE = 0x5555_5555_4000n;
/** Types of auxiliary entries. */
export const AT = {
  NULL: 0,
  PHDR: 3,
  PHENT: 4,
  PHNUM: 5,
  PAGESZ: 6,
  BASE: 7,
  FLAGS: 8,
  ENTRY: 9,
} as const;

/** Who runs files that look like this. */
export interface ElfBrand {
  readonly sysent: Sysentvec;
  /** Whether the file is this brand's. */
  readonly matches: (image: Elf64Image) => boolean;
  /** Auxiliary entries beyond the usual ones. */
  readonly aux: (cx: Cx, imgp: ImageParams) => readonly AuxEntry[];
}

/** An activator for ELF files of the brands, asked in their order. */
export function elfActivator(brands: readonly ElfBrand[]): ImageActivator {
  return function* (cx, imgp) {
    if (!isElf(imgp.header)) return NOT_MINE;
    const p = cx.proc!, limit = p.pVmspace!.vmMap.max - 0x2000n;
    const attr = imgp.vp.vOps.vopGetattr(cx, imgp.vp);
    const image = parseElf64(imgp.header, attr.vaSize, limit);
    if (image === undefined || image.interp !== undefined) return ERRNO.ENOEXEC;
    const brand = brands.find((one) => one.matches(image));
    if (brand === undefined) return ERRNO.ENOEXEC;
    const slide = image.type === ET_DYN ? PIE_BASE - image.low : 0n;
    const size = image.high - image.low;
    if (image.high + slide > limit) return ERRNO.ENOEXEC;
    if (Number(size) > Math.min(p.pLimit.cur(RLIMIT_DATA), p.pLimit.cur(RLIMIT_VMEM))) return ERRNO.ENOMEM;

    let error = yield* execNewVmspace(cx, imgp);
    const vm = p.pVmspace!;
    for (const segment of image.segments) {
      if (error !== 0) return error;
      error = yield* loadSegment(cx, vm, imgp.vp, segment, slide);
    }
    if (error !== 0) return error;
    sizes(vm, image, slide);
    imgp.entry = image.entry + slide;
    imgp.sysent = brand.sysent;
    imgp.aux = [
      { type: AT.PHDR, value: image.phdr === 0n ? 0n : image.phdr + slide },
      { type: AT.PHENT, value: 56n },
      { type: AT.PHNUM, value: BigInt(image.phnum) },
      { type: AT.PAGESZ, value: 4096n },
      { type: AT.BASE, value: 0n },
      { type: AT.FLAGS, value: 0n },
      { type: AT.ENTRY, value: image.entry + slide },
      ...brand.aux(cx, imgp),
    ];
    return 0;
  };
}

/** Where text and data stand, for brk and for those who count. */
function sizes(vm: Vmspace, image: Elf64Image, slide: bigint): void {
  const text = image.segments.find((s) => (s.flags & PF_W) === 0) ?? image.segments[0]!;
  const data = image.segments.find((s) => (s.flags & PF_W) !== 0) ?? image.segments.at(-1)!;
  vm.vmTaddr = truncPage(text.va + slide);
  vm.vmTsize = roundPage(text.va + text.memoryBytes) - truncPage(text.va);
  vm.vmDaddr = truncPage(data.va + slide);
  // brk begins behind everything, in whatever order the segments are.
  vm.vmDsize = image.high - truncPage(data.va);
}

function protOf(flags: number): VmProt {
  return (flags & PF_R ? VM_PROT_READ : 0) | (flags & PF_W ? VM_PROT_WRITE : 0) |
    (flags & PF_X ? VM_PROT_EXECUTE : 0);
}

/**
 * Maps a segment: whole pages of the file, then zeros. The page in which the file's bytes end and zeros begin is anonymous, its bytes are
 * copied.
 */
function* loadSegment(cx: Cx, vm: Vmspace, vp: Vnode, segment: LoadSegment, slide: bigint): Exec<number> {
  const va = segment.va + slide, prot = protOf(segment.flags);
  const fileEnd = va + BigInt(segment.fileBytes), end = roundPage(va + segment.memoryBytes);
  const allFile = BigInt(segment.fileBytes) === segment.memoryBytes;
  const mapped = segment.fileBytes === 0 ? truncPage(va) : allFile ? roundPage(fileEnd) : truncPage(fileEnd);
  const start = truncPage(va);
  if (mapped > start) {
    const offset = segment.offset - Number(va - start);
    const error = yield* insert(cx, vm, start, mapped, prot, { vp, offset });
    if (error !== 0) return error;
  }
  if (mapped >= end) return 0;
  const rest = mapped > start ? mapped : start;
  const tail = segment.fileBytes === 0 ? 0 : Number(fileEnd - (rest > va ? rest : va));
  // Copying wants to write; a segment that may not be written becomes so afterwards.
  const error = yield* insert(cx, vm, rest, end, tail > 0 ? prot | VM_PROT_RW : prot, undefined);
  if (error !== 0 || tail <= 0) return error;
  const bytes = yield* vnReadBytes(cx, vp, segment.offset + segment.fileBytes - tail, tail);
  if (typeof bytes === "number") return bytes;
  if (bytes.length !== tail) return ERRNO.EIO;
  const copied = yield* copyout(cx, fileEnd - BigInt(tail), bytes);
  if (copied !== 0) return copied;
  if ((prot & VM_PROT_RW) !== VM_PROT_RW) yield* vmMapProtect(cx, vm.vmMap, rest as Gva, end, prot, false);
  return 0;
}

function* insert(
  cx: Cx,
  vm: Vmspace,
  start: bigint,
  end: bigint,
  prot: VmProt,
  file: { readonly vp: Vnode; readonly offset: number } | undefined,
): Exec<number> {
  const map = vm.vmMap;
  const object = file === undefined ? undefined : vnodePagerReference(cx, file.vp);
  if (file !== undefined && object === undefined) return ERRNO.ENOEXEC;
  const count = vmMapEntryReserve(MAP_RESERVE_COUNT);
  yield* vmMapLock(cx, map);
  const rv = yield* vmMapInsert(cx, map, count, {
    object,
    offset: file?.offset ?? 0,
    start,
    end,
    prot,
    max: VM_PROT_ALL,
    cow: file === undefined ? 0 : MAP_COPY_ON_WRITE | MAP_PREFAULT,
  });
  yield* vmMapUnlock(cx, map);
  vmMapEntryRelease(count);
  return rv === KERN_SUCCESS ? 0 : ERRNO.ENOMEM;
}
