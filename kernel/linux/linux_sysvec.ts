/**
 * The second personality: unmodified static Linux x86-64 programs (`sys/emulation/linux/linux_sysvec.c`).
 *
 * Room: `kernel/linux/`; the top of it, imported by init_main. What a system call does is DragonFly's; this directory has Linux's numbers,
 * structures and the few meanings that differ.
 *
 * A program is Linux's if its EI_OSABI says so, or if it has the note "GNU", type 1, whose first word is 0: `.note.ABI-tag` for the Linux
 * kernel. Dynamic programs want an interpreter and are ENOEXEC, as DragonFly's are.
 *
 * @module
 */
import type { Cx } from "../context.ts";
import type { SyscallTable } from "../kern/sysent.ts";
import type { AuxEntry, ImageParams } from "../proc/imgact.ts";
import type { ElfBrand } from "../proc/imgact_elf.ts";
import { type Elf64Image, ELFOSABI_LINUX } from "../proc/elf64.ts";
import type { Sysentvec } from "../proc/proc.ts";
import { tableOf } from "../proc/sysvec.ts";
import { readRandom } from "../vfs/devfs/mem.ts";
import { linuxErrno } from "./linux_errno.ts";
import { linuxFcntlSyscalls } from "./linux_fcntl.ts";
import { linuxFileSyscalls } from "./linux_file.ts";
import { linuxForkSyscalls } from "./linux_fork.ts";
import { linuxFutexSyscalls } from "./linux_futex.ts";
import { linuxIoctlSyscalls } from "./linux_ioctl.ts";
import { linuxMiscSyscalls } from "./linux_misc.ts";
import { linuxMmapSyscalls } from "./linux_mmap.ts";
import { linuxSendsig } from "./linux_sendsig.ts";
import { linuxSigSyscalls } from "./linux_sig.ts";
import { linuxSignal, linuxTrapSignal } from "./linux_signal.ts";
import { linuxTimeSyscalls } from "./linux_time.ts";

/** Linux's system calls, as far as there are any here. */
export const linuxSyscalls: SyscallTable = [
  ...linuxFileSyscalls,
  ...linuxFcntlSyscalls,
  ...linuxIoctlSyscalls,
  ...linuxMmapSyscalls,
  ...linuxSigSyscalls,
  ...linuxForkSyscalls,
  ...linuxFutexSyscalls,
  ...linuxTimeSyscalls,
  ...linuxMiscSyscalls,
];

const SYS_EXIT = 60;

/** The personality. */
export const linuxSysvec: Sysentvec = {
  svName: "Linux",
  svTable: tableOf(linuxSyscalls),
  svErrno: linuxErrno,
  svSignal: linuxSignal,
  svTrap: linuxTrapSignal,
  svNegativeErrno: true,
  svExit: SYS_EXIT,
  svSendsig: linuxSendsig,
};

/** Types of auxiliary entries that only Linux has, or has by these numbers. */
const AT_UID = 11, AT_EUID = 12, AT_GID = 13, AT_EGID = 14, AT_PLATFORM = 15, AT_HWCAP = 16, AT_CLKTCK = 17;
const AT_SECURE = 23, AT_RANDOM = 25, AT_EXECFN = 31;
const CLK_TCK = 100n;
const S_ISUID = 0o4000, S_ISGID = 0o2000;
const RANDOM_BYTES = 16;
/** CPUID leaf 1's EDX in AT_HWCAP: FPU TSC MSR PAE CX8 APIC PGE CMOV PAT FXSR SSE SSE2. */
const HWCAP = 0x0701_a371n;

/** Whether a note says that the program is for Linux (`NT_GNU_ABI_TAG`, `ELF_NOTE_OS_LINUX`). */
function saysLinux(image: Elf64Image): boolean {
  return image.notes.some(({ name, type, word }) => name === "GNU" && type === 1 && word === 0);
}

function text(string: string): Uint8Array {
  return new TextEncoder().encode(`${string}\0`);
}

/** Which files are Linux's, and what they find on their stacks. */
export const linuxBrand: ElfBrand = {
  sysent: linuxSysvec,
  matches: (image) => image.osabi === ELFOSABI_LINUX || (image.osabi === 0 && saysLinux(image)),
  aux(cx: Cx, imgp: ImageParams): readonly AuxEntry[] {
    const cred = cx.proc!.pUcred, random = new Uint8Array(RANDOM_BYTES);
    readRandom(cx.k, random);
    // As they will be: exec changes them when the stack stands.
    const { vaMode, vaUid, vaGid } = imgp.vp.vOps.vopGetattr(cx, imgp.vp);
    const uid = vaMode & S_ISUID ? vaUid : cred.crUid, gid = vaMode & S_ISGID ? vaGid : cred.crGroups[0]!;
    return [
      { type: AT_UID, value: BigInt(cred.crRuid) },
      { type: AT_EUID, value: BigInt(uid) },
      { type: AT_GID, value: BigInt(cred.crRgid) },
      { type: AT_EGID, value: BigInt(gid) },
      { type: AT_SECURE, value: uid !== cred.crRuid || gid !== cred.crRgid ? 1n : 0n },
      { type: AT_RANDOM, value: random },
      { type: AT_HWCAP, value: HWCAP },
      { type: AT_CLKTCK, value: CLK_TCK },
      { type: AT_EXECFN, value: text(imgp.path) },
      { type: AT_PLATFORM, value: text("x86_64") },
    ];
  },
};
