/**
 * The heap that brk moves (`sys/vm/vm_unix.c`).
 *
 * Room: `kernel/vm/`; imports maps.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { ERRNO } from "../kern/errno.ts";
import { SYSCALL_OK, type SyscallArgs, type SyscallResult, type SyscallTable } from "../kern/sysent.ts";
import { VM_MAX_USER_ADDRESS } from "../platform/pc64/vmparam.ts";
import type { Proc } from "../proc/proc.ts";
import { RLIMIT_DATA, RLIMIT_VMEM } from "../proc/resource.ts";
import { MAP_WIREFUTURE } from "./vm_map.ts";
import { vmMapFind } from "./vm_map_insert.ts";
import { vmMapRemove } from "./vm_map_remove.ts";
import { mayWireFuture, vmMapUnwire } from "./vm_map_wire.ts";
import { roundPage, VM_PROT_ALL } from "./vm_param.ts";
import type { Vmspace } from "./vmspace.ts";

/** Most bytes of data: mmap's choices begin behind (`MAXDSIZ`). */
export const VM_MAXDSIZ: bigint = 32n << 30n;

/** The end of the heap, rounded up to a page. */
export function heapEnd(vm: Vmspace): bigint {
  return roundPage(vm.vmDaddr + vm.vmDsize);
}

/** Moves the end of the heap (`sys_obreak`): 0 or an error number. */
export function* kernObreak(cx: Cx, p: Proc, vm: Vmspace, nsize: bigint): Exec<number> {
  const base = roundPage(vm.vmDaddr);
  const old = heapEnd(vm);
  if (nsize < base || nsize > VM_MAX_USER_ADDRESS) return nsize < base ? ERRNO.EINVAL : ERRNO.ENOMEM;
  const end = roundPage(nsize);
  const limits = p.pLimit.plRlimit;
  if (end - base > limits[RLIMIT_DATA]!.rlimCur) return ERRNO.ENOMEM;
  const map = vm.vmMap;
  if (end > old) {
    if (map.size + (end - old) > limits[RLIMIT_VMEM]!.rlimCur) return ERRNO.ENOMEM;
    if (!mayWireFuture(cx, map, end - old)) return ERRNO.ENOMEM;
    const at = yield* vmMapFind(cx, map, {
      addr: old,
      length: end - old,
      fitit: false,
      prot: VM_PROT_ALL,
      max: VM_PROT_ALL,
    });
    if (at.addr === undefined) return ERRNO.ENOMEM;
    if (map.flags & MAP_WIREFUTURE) yield* vmMapUnwire(cx, map, old, end, false);
  } else if (end < old) {
    yield* vmMapRemove(cx, map, end, old);
  }
  vm.vmDsize = end - vm.vmDaddr;
  return 0;
}

function* sysObreak(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const error = yield* kernObreak(cx, cx.proc!, cx.proc!.pVmspace!, uap.arg(0));
  return error === 0 ? SYSCALL_OK : { error };
}

/** sbrk: moves the end by so many bytes, gives where it was. */
function* sysSbrk(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const p = cx.proc!, vm = p.pVmspace!;
  const old = heapEnd(vm);
  const by = uap.long(0);
  if (by !== 0n) {
    const error = old + by < 0n ? ERRNO.EINVAL : yield* kernObreak(cx, p, vm, old + by);
    if (error !== 0) return { error };
  }
  return { value: old };
}

/** DragonFly's numbers. */
export const vmUnixSyscalls: SyscallTable = [
  [17, "break", 1, sysObreak],
  [69, "sbrk", 1, sysSbrk],
];
