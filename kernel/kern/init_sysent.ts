/**
 * All system calls of DragonFly programs, gathered from their owners (`sys/kern/init_sysent.c`).
 *
 * Room: `kernel/kern/`; imports every owner of system calls. A number that nobody has is ENOSYS and a line in the log (trap.ts).
 *
 * @module
 */
import { execSyscalls } from "../proc/kern_exec.ts";
import { exitSyscalls } from "../proc/kern_exit.ts";
import { forkSyscalls } from "../proc/kern_fork.ts";
import { protSyscalls } from "../proc/kern_prot.ts";
import { resourceSyscalls } from "../proc/kern_resource.ts";
import { sysctlSyscalls } from "../proc/kern_sysctl.ts";
import { timeSyscalls } from "../proc/kern_time.ts";
import { umtxSyscalls } from "../proc/kern_umtx.ts";
import { sendsigSyscalls } from "../proc/sendsig.ts";
import { sigSyscalls } from "../proc/sig_syscalls.ts";
import { vmVmspaceSyscalls } from "../vm/vm_vmspace.ts";
import { vmMmapSyscalls } from "../vm/vm_mmap.ts";
import { vmUnixSyscalls } from "../vm/vm_unix.ts";
import { kernDescripSyscalls } from "./kern_descrip_syscalls.ts";
import { sysGenericSyscalls } from "./sys_generic.ts";
import { vmmSyscalls } from "../vmm/vmm.ts";
import type { SyscallTable } from "./sysent.ts";
import { vfsAttrSyscalls } from "./vfs_attr_syscalls.ts";
import { vfsSyscalls } from "./vfs_syscalls.ts";

/** Every system call. */
export const sysent: SyscallTable = [
  ...exitSyscalls,
  ...forkSyscalls,
  ...execSyscalls,
  ...sigSyscalls,
  ...sendsigSyscalls,
  ...protSyscalls,
  ...resourceSyscalls,
  ...timeSyscalls,
  ...umtxSyscalls,
  ...sysctlSyscalls,
  ...sysGenericSyscalls,
  ...kernDescripSyscalls,
  ...vfsSyscalls,
  ...vfsAttrSyscalls,
  ...vmMmapSyscalls,
  ...vmUnixSyscalls,
  ...vmmSyscalls,
  ...vmVmspaceSyscalls,
];
