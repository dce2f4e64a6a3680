/**
 * Signal frames of DragonFly programs (`sendsig`, `sys_sigreturn` of `sys/platform/pc64/x86_64/machdep.c`).
 *
 * Room: `kernel/proc/`; imports proc, copy and the trap frame's layout, which both platforms share.
 *
 *     struct sigframe   0 handler    64 ucontext_t    1472 siginfo_t    1600 end
 *     ucontext_t        0 uc_sigmask[16]    64 uc_mcontext    1344 uc_link    1352 uc_stack    1376 spare    1408 end
 *     mcontext_t        0 mc_onstack    8 the trap frame's 25 words    208 mc_len, mc_fpformat, mc_ownedfp    256 mc_fpregs[1024]
 *     siginfo_t         0 signo  4 errno  8 code  12 pid  16 uid  20 status  24 addr  32 value  40 band  48 spare    80 end
 *
 * The frame stands at a 64-byte boundary below the red zone. The handler is entered by the trampoline, one page that every program has at the
 * top of its address space: `call *(%rsp)`, and behind it sigreturn.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { copyin, copyout } from "../kern/copy.ts";
import { ERRNO } from "../kern/errno.ts";
import { EJUSTRETURN, type SyscallArgs, type SyscallResult, type SyscallTable } from "../kern/sysent.ts";
import { decodeTrapframe, encodeTrapframe, TF_BYTES } from "../platform/pc64/frame.ts";
import type { Lwp } from "./proc.ts";
import { PSL_RF, PSL_USERCHANGE } from "./psl.ts";
import {
  SA_ONSTACK,
  SA_SIGINFO,
  SIG_CANTMASK,
  type SigDelivery,
  type Siginfo,
  type Sigset,
  SS_DISABLE,
  SS_ONSTACK,
} from "./signal.ts";

const SF_UC = 64;
const SF_SI = 1472;
const SIGFRAME_BYTES = 1600;
const UC_MCONTEXT = 64;
const UC_STACK = 1352;
const UCONTEXT_BYTES = 1408;
const MC_FRAME = 8;
const MC_LEN = 208;
const MC_FPREGS = 256;
const MC_BYTES = 1280;
const MC_FPFMT_XMM = 0x1_0002;
const MC_FPOWNED_FPU = 0x2_0001;
const FPU_BYTES = 512;
/** Bytes under RSP that the ABI lets a leaf function use. */
const RED_ZONE = 128n;
const SYS_SIGRETURN = 344;

/** RFLAGS bits that a handler starts without: TF and DF. */
const PSL_HANDLER_CLEAR = 0x500n;

/** The trampoline's machine code: `call *(%rsp); lea SF_UC(%rsp),%rdi; mov $SYS_sigreturn,%eax; syscall; ud2`. */
export const SIGCODE: Uint8Array = Uint8Array.of(
  ...[0xff, 0x14, 0x24],
  ...[0x48, 0x8d, 0x7c, 0x24, SF_UC],
  ...[0xb8, SYS_SIGRETURN & 0xff, SYS_SIGRETURN >> 8, 0, 0],
  ...[0x0f, 0x05],
  ...[0x0f, 0x0b],
);

/** Whether an address is on the thread's alternate stack (`sigonstack`). */
export function sigonstack(lp: Lwp, rsp: bigint): boolean {
  const { ssSp, ssSize, ssFlags } = lp.lwpSigstk;
  return (ssFlags & SS_DISABLE) === 0 && rsp - ssSp >= 0n && rsp - ssSp < ssSize;
}

/** Top of the stack that a handler gets: the alternate one if it asked for it, else below the red zone. */
export function handlerStack(lp: Lwp, rsp: bigint, onstack: boolean): bigint {
  const { ssSp, ssSize, ssFlags } = lp.lwpSigstk;
  return onstack && (ssFlags & SS_DISABLE) === 0 && !sigonstack(lp, rsp) ? ssSp + ssSize : rsp - RED_ZONE;
}

/** Where the trampoline stands: the last page of the address space. */
export function sigcodeAddress(lp: Lwp): bigint {
  return lp.lwpVmspace!.vmMap.max - 4096n;
}

/** Puts a frame on the user's stack and makes the thread enter its handler (`sendsig`); false if the stack does not take it. */
export function* sendsig(cx: Cx, { sig, info, returnmask, action }: SigDelivery): Exec<boolean> {
  const lp = cx.lwp!, at = lp.lwpMdRegs as Gva;
  const raw = yield* cx.cpu.loadBytes(at, TF_BYTES);
  const frame = decodeTrapframe(raw);
  const top = handlerStack(lp, frame.rsp, (action.flags & SA_ONSTACK) !== 0);
  const sfp = BigInt.asUintN(64, top - BigInt(SIGFRAME_BYTES)) & ~63n;

  const bytes = new Uint8Array(SIGFRAME_BYTES), view = new DataView(bytes.buffer);
  view.setBigUint64(0, action.handler, true);
  encodeSigset(bytes.subarray(SF_UC), returnmask);
  const mc = SF_UC + UC_MCONTEXT;
  const onstack = sigonstack(lp, frame.rsp);
  view.setBigUint64(mc, onstack ? 1n : 0n, true);
  bytes.set(raw, mc + MC_FRAME);
  view.setUint32(mc + MC_LEN, MC_BYTES, true);
  view.setUint32(mc + MC_LEN + 4, MC_FPFMT_XMM, true);
  view.setUint32(mc + MC_LEN + 8, MC_FPOWNED_FPU, true);
  bytes.set(yield* cx.k.platform.saveFpu(cx), mc + MC_FPREGS);
  bytes.set(encodeStack(lp, onstack), SF_UC + UC_STACK);
  bytes.set(encodeSiginfo(info), SF_SI);
  if ((yield* copyout(cx, sfp, bytes)) !== 0) return false;

  const withInfo = (action.flags & SA_SIGINFO) !== 0;
  const handler = encodeTrapframe({
    ...frame,
    rdi: BigInt(sig),
    rsi: withInfo ? sfp + BigInt(SF_SI) : BigInt(info.siCode),
    rdx: sfp + BigInt(SF_UC),
    rcx: info.siAddr,
    rip: sigcodeAddress(lp),
    rsp: sfp,
    rflags: frame.rflags & ~PSL_HANDLER_CLEAR,
  });
  yield* cx.cpu.storeBytes(at, handler);
  yield* cx.k.platform.restoreFpu(cx, undefined);
  return true;
}

/** A `sigset_t`: four words, of which this kernel uses two. */
export function encodeSigset(into: Uint8Array, set: Sigset): void {
  new DataView(into.buffer, into.byteOffset).setBigUint64(0, set, true);
}

/** A `siginfo_t`. */
export function encodeSiginfo(info: Siginfo): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(80), view = new DataView(bytes.buffer);
  view.setInt32(0, info.siSigno, true);
  view.setInt32(8, info.siCode, true);
  view.setInt32(12, info.siPid, true);
  view.setUint32(16, info.siUid, true);
  view.setInt32(20, info.siStatus, true);
  view.setBigUint64(24, BigInt.asUintN(64, info.siAddr), true);
  return bytes;
}

/** A `stack_t` as it is now. */
export function encodeStack(lp: Lwp, onstack: boolean): Uint8Array<ArrayBuffer> {
  const { ssSp, ssSize, ssFlags } = lp.lwpSigstk;
  const bytes = new Uint8Array(24), view = new DataView(bytes.buffer);
  view.setBigUint64(0, ssSp, true);
  view.setBigUint64(8, ssSize, true);
  view.setUint32(16, ssFlags & SS_DISABLE ? SS_DISABLE : onstack ? SS_ONSTACK : 0, true);
  return bytes;
}

/** Whether an address can be in RIP at all. */
function isUserAddress(cx: Cx, rip: bigint): boolean {
  return rip < cx.lwp!.lwpVmspace!.vmMap.max;
}

/** Checks and takes user registers out of 25 words in the trap frame's order; EINVAL if they are not a program's to have. */
export function* restoreUserFrame(cx: Cx, words: Uint8Array<ArrayBuffer>): Exec<number> {
  const at = cx.lwp!.lwpMdRegs as Gva;
  const now = decodeTrapframe(yield* cx.cpu.loadBytes(at, TF_BYTES));
  const next = decodeTrapframe(words);
  if (((next.rflags ^ now.rflags) & ~PSL_USERCHANGE) !== 0n) return ERRNO.EINVAL;
  // CS and SS as they are: there is one user code segment. An RIP that is not the user's would fault inside IRETQ.
  if (next.cs !== now.cs || !isUserAddress(cx, next.rip)) return ERRNO.EINVAL;
  // A breakpoint is hit again.
  next.rflags &= ~PSL_RF;
  for (const field of ["xflags", "trapno", "addr", "flags", "err", "cs", "ss"] as const) {
    next[field] = now[field];
  }
  yield* cx.cpu.storeBytes(at, encodeTrapframe(next));
  return 0;
}

/** sigreturn(ucontext) (344). */
function* sysSigreturn(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const bytes = yield* copyin(cx, uap.arg(0), UCONTEXT_BYTES);
  if (bytes === undefined) return { error: ERRNO.EFAULT };
  const view = new DataView(bytes.buffer), lp = cx.lwp!;
  const words = bytes.slice(UC_MCONTEXT + MC_FRAME, UC_MCONTEXT + MC_FRAME + TF_BYTES);
  const error = yield* restoreUserFrame(cx, words);
  if (error !== 0) return { error };
  lp.lwpSigmask = view.getBigUint64(0, true) & ~SIG_CANTMASK;
  if (view.getUint32(UC_MCONTEXT + MC_LEN + 8, true) === MC_FPOWNED_FPU) {
    const at = UC_MCONTEXT + MC_FPREGS;
    yield* cx.k.platform.restoreFpu(cx, bytes.slice(at, at + FPU_BYTES));
  }
  return { error: EJUSTRETURN };
}

/** System calls of this file. */
export const sendsigSyscalls: SyscallTable = [[SYS_SIGRETURN, "sigreturn", 1, sysSigreturn]];
