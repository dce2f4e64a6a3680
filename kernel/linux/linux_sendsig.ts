/**
 * Signal frames of Linux programs (`arch/x86/kernel/signal_64.c`: `x64_setup_rt_frame`, `rt_sigreturn`).
 *
 * Room: `kernel/linux/`; imports DragonFly's sendsig for what both share.
 *
 *     struct rt_sigframe   0 pretcode   8 ucontext   312 siginfo   440 end        an FXSAVE image stands above, at a 64-byte boundary
 *     struct ucontext      0 uc_flags   8 uc_link   16 uc_stack   40 sigcontext   296 uc_sigmask   304 end
 *     struct sigcontext    0 r8 … r15   64 di si bp bx dx ax cx sp ip flags   144 cs gs fs ss   152 err trapno oldmask cr2   184 fpstate   256 end
 *
 * The handler is entered as if it had been called from `sa_restorer`, whose code calls rt_sigreturn with RSP behind pretcode. A program
 * without a restorer has no way back: as on Linux the frame is not built.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { copyin, copyout } from "../kern/copy.ts";
import { EJUSTRETURN, type SyscallResult } from "../kern/sysent.ts";
import { decodeTrapframe, encodeTrapframe, TF_BYTES, type TrapField } from "../platform/pc64/frame.ts";
import { lwpsignal } from "../proc/kern_sig_send.ts";
import { handlerStack, restoreUserFrame, sigonstack } from "../proc/sendsig.ts";
import { SA_ONSTACK, SIG_CANTMASK, type SigDelivery, SIGSEGV, SS_DISABLE } from "../proc/signal.ts";
import type { Lwp } from "../proc/proc.ts";
import { setSigmask } from "../proc/sig_syscalls.ts";
import {
  encodeLinuxSiginfo,
  LINUX_SIGINFO_BYTES,
  linuxSignal,
  linuxSigset,
  nativeSigset,
} from "./linux_signal.ts";

const SF_UC = 8, UC_STACK = 16, UC_MCONTEXT = 40, UC_SIGMASK = 296, UC_BYTES = 304;
const SF_SI = SF_UC + UC_BYTES;
const SIGFRAME_BYTES = SF_SI + LINUX_SIGINFO_BYTES;
const SC_SELECTORS = 144, SC_ERR = 152, SC_TRAPNO = 160, SC_OLDMASK = 168, SC_CR2 = 176, SC_FPSTATE = 184;
/** Registers of a sigcontext, in its order. */
const SC_REGISTERS: readonly TrapField[] = [
  "r8",
  "r9",
  "r10",
  "r11",
  "r12",
  "r13",
  "r14",
  "r15",
  "rdi",
  "rsi",
  "rbp",
  "rbx",
  "rdx",
  "rax",
  "rcx",
  "rsp",
  "rip",
  "rflags",
];
const FPU_BYTES = 512;
/** `uc_flags`: SS is in the context, and is to be restored as it is there. */
const UC_SIGCONTEXT_SS = 2n, UC_STRICT_RESTORE_SS = 4n;
/** RFLAGS bits that rt_sigreturn takes from the context (`FIX_EFLAGS`): AC OF DF TF SF ZF AF PF CF RF. */
const FIX_EFLAGS = 0x5_0dd5n;
/** RFLAGS bits that a handler starts without: DF, TF and RF. */
const HANDLER_CLEAR = 0x1_0500n;
/** `ss_flags` of Linux's sigaltstack. */
const LINUX_SS_ONSTACK = 1, LINUX_SS_DISABLE = 2;

/** Bytes of Linux's `stack_t`: ss_sp, ss_flags (4, and 4 unused), ss_size. */
export const LINUX_STACK_BYTES = 24;

/** A thread's alternate stack as Linux's `stack_t`. */
export function encodeLinuxStack(lp: Lwp, rsp: bigint): Uint8Array<ArrayBuffer> {
  const { ssSp, ssSize, ssFlags } = lp.lwpSigstk;
  const bytes = new Uint8Array(LINUX_STACK_BYTES), view = new DataView(bytes.buffer);
  view.setBigUint64(0, ssSp, true);
  view.setUint32(
    8,
    ssFlags & SS_DISABLE ? LINUX_SS_DISABLE : sigonstack(lp, rsp) ? LINUX_SS_ONSTACK : 0,
    true,
  );
  view.setBigUint64(16, ssSize, true);
  return bytes;
}

/** Puts a frame on the user's stack and makes the thread enter its handler; false if the stack does not take it. */
export function* linuxSendsig(cx: Cx, { sig, info, returnmask, action }: SigDelivery): Exec<boolean> {
  const { restorer } = action;
  if (restorer === undefined) return false;
  const lp = cx.lwp!, at = lp.lwpMdRegs as Gva;
  const frame = decodeTrapframe(yield* cx.cpu.loadBytes(at, TF_BYTES));
  const top = handlerStack(lp, frame.rsp, (action.flags & SA_ONSTACK) !== 0);
  const fpstate = BigInt.asUintN(64, top - BigInt(FPU_BYTES)) & ~63n;
  // RSP + 8 is a multiple of 16, as behind a call.
  const sfp = BigInt.asUintN(64, ((fpstate - BigInt(SIGFRAME_BYTES)) & ~15n) - 8n);

  const bytes = new Uint8Array(SIGFRAME_BYTES), view = new DataView(bytes.buffer);
  const put = (offset: number, value: bigint) => view.setBigUint64(offset, BigInt.asUintN(64, value), true);
  put(0, restorer);
  put(SF_UC, UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS);
  bytes.set(encodeLinuxStack(lp, frame.rsp), SF_UC + UC_STACK);
  const sc = SF_UC + UC_MCONTEXT;
  SC_REGISTERS.forEach((name, i) => put(sc + i * 8, frame[name]));
  view.setUint16(sc + SC_SELECTORS, Number(frame.cs), true);
  view.setUint16(sc + SC_SELECTORS + 6, Number(frame.ss), true);
  if (info.siTrapno !== 0) {
    put(sc + SC_ERR, frame.err);
    put(sc + SC_CR2, info.siAddr);
  }
  put(sc + SC_TRAPNO, BigInt(info.siTrapno));
  put(sc + SC_OLDMASK, linuxSigset(returnmask));
  put(sc + SC_FPSTATE, fpstate);
  put(SF_UC + UC_SIGMASK, linuxSigset(returnmask));
  bytes.set(encodeLinuxSiginfo(info), SF_SI);
  if ((yield* copyout(cx, fpstate, yield* cx.k.platform.saveFpu(cx))) !== 0) return false;
  if ((yield* copyout(cx, sfp, bytes)) !== 0) return false;
  // IRETQ to an address that is not the user's would fault in the kernel.
  if (action.handler >= lp.lwpVmspace!.vmMap.max) return false;

  const handler = encodeTrapframe({
    ...frame,
    rdi: BigInt(linuxSignal(sig)),
    rsi: sfp + BigInt(SF_SI),
    rdx: sfp + BigInt(SF_UC),
    rax: 0n,
    rip: action.handler,
    rsp: sfp,
    rflags: frame.rflags & ~HANDLER_CLEAR,
  });
  yield* cx.cpu.storeBytes(at, handler);
  return true;
}

/** rt_sigreturn() (15): a frame that is not one ends in SIGSEGV. */
export function* linuxRtSigreturn(cx: Cx): Exec<SyscallResult> {
  const lp = cx.lwp!;
  if (!(yield* restore(cx, lp))) lwpsignal(cx, lp.lwpProc, lp, SIGSEGV);
  return { error: EJUSTRETURN };
}

function* restore(cx: Cx, lp: Lwp): Exec<boolean> {
  const now = decodeTrapframe(yield* cx.cpu.loadBytes(lp.lwpMdRegs as Gva, TF_BYTES));
  // The restorer's return has taken pretcode off.
  const bytes = yield* copyin(cx, now.rsp - 8n, SF_SI);
  if (bytes === undefined) return false;
  const view = new DataView(bytes.buffer), sc = SF_UC + UC_MCONTEXT;
  const next = { ...now };
  SC_REGISTERS.forEach((name, i) => next[name] = view.getBigUint64(sc + i * 8, true));
  next.rflags = (now.rflags & ~FIX_EFLAGS) | (next.rflags & FIX_EFLAGS);
  const fpstate = view.getBigUint64(sc + SC_FPSTATE, true);
  const fpu = fpstate === 0n ? undefined : yield* copyin(cx, fpstate, FPU_BYTES);
  if (fpstate !== 0n && fpu === undefined) return false;
  if ((yield* restoreUserFrame(cx, encodeTrapframe(next))) !== 0) return false;
  yield* cx.k.platform.restoreFpu(cx, fpu);
  const stack = SF_UC + UC_STACK, ssFlags = view.getUint32(stack + 8, true);
  lp.lwpSigstk = {
    ssSp: view.getBigUint64(stack, true),
    ssSize: view.getBigUint64(stack + 16, true),
    ssFlags: ssFlags & LINUX_SS_DISABLE ? SS_DISABLE : 0,
  };
  setSigmask(cx, lp, nativeSigset(view.getBigUint64(SF_UC + UC_SIGMASK, true)) & ~SIG_CANTMASK);
  return true;
}
