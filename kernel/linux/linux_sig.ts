/**
 * Linux's system calls about signals.
 *
 * Room: `kernel/linux/`; imports DragonFly's signals.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { copyin, copyout, fuword, suword } from "../kern/copy.ts";
import { ERRNO } from "../kern/errno.ts";
import type { SyscallArgs, SyscallResult, SyscallTable } from "../kern/sysent.ts";
import { decodeTrapframe, TF_BYTES } from "../platform/pc64/frame.ts";
import { lwpsignal } from "../proc/kern_sig_send.ts";
import { sigonstack } from "../proc/sendsig.ts";
import { canSignal, kernSigsuspend, setSigaction, setSigmask } from "../proc/sig_syscalls.ts";
import {
  MINSIGSTKSZ,
  SIG_CANTMASK,
  SIG_DFL,
  type Sigaction,
  siginfo,
  SIGKILL,
  SIGSTOP,
  SS_DISABLE,
} from "../proc/signal.ts";
import { linuxTfind } from "./linux_emul.ts";
import { mapped, result } from "./linux_native.ts";
import { encodeLinuxStack, LINUX_STACK_BYTES, linuxRtSigreturn } from "./linux_sendsig.ts";
import {
  LINUX_NSIG,
  LINUX_SA_RESTORER,
  linuxSaFlags,
  linuxSigset,
  nativeSaFlags,
  nativeSignal,
  nativeSigset,
  SI_TKILL,
} from "./linux_signal.ts";

const OK: SyscallResult = { value: 0n };
const FAULT: SyscallResult = { error: ERRNO.EFAULT };
const INVALID: SyscallResult = { error: ERRNO.EINVAL };

/** The only `sigsetsize` that the kernel takes. */
const SIGSET_BYTES = 8n;
/** Bytes of the kernel's `struct sigaction`: handler, flags, restorer, mask. */
const SIGACTION_BYTES = 32;
const SIG_BLOCK = 0, SIG_UNBLOCK = 1, SIG_SETMASK = 2;
const LINUX_SS_DISABLE = 2, LINUX_SS_ONSTACK = 1, LINUX_SS_AUTODISARM = 0x8000_0000 | 0;

function isSignal(sig: number): boolean {
  return sig > 0 && sig <= LINUX_NSIG;
}

/** Reads a set; undefined: EFAULT. */
export function* copyinLinuxSigset(cx: Cx, at: bigint): Exec<bigint | undefined> {
  const set = yield* fuword(cx, at);
  return set === undefined ? undefined : nativeSigset(set);
}

/** rt_sigaction(sig, act, oact, sigsetsize). */
function* rtSigaction(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const [act, oact] = [uap.arg(1), uap.arg(2)], p = cx.proc!;
  if (uap.arg(3) !== SIGSET_BYTES || !isSignal(uap.int(0))) return INVALID;
  const sig = nativeSignal(uap.int(0));
  let next: Sigaction | undefined;
  if (act !== 0n) {
    const bytes = yield* copyin(cx, act, SIGACTION_BYTES);
    if (bytes === undefined) return FAULT;
    const view = new DataView(bytes.buffer), flags = view.getUint32(8, true);
    next = {
      handler: view.getBigUint64(0, true),
      flags: nativeSaFlags(flags),
      mask: nativeSigset(view.getBigUint64(24, true)),
      ...(flags & LINUX_SA_RESTORER ? { restorer: view.getBigUint64(16, true) } : {}),
    };
    if ((sig === SIGKILL || sig === SIGSTOP) && next.handler !== SIG_DFL) return INVALID;
  }
  const old = p.pSigacts.psAction[sig]!;
  if (next !== undefined) setSigaction(p, sig, next);
  if (oact === 0n) return OK;
  const bytes = new Uint8Array(SIGACTION_BYTES), view = new DataView(bytes.buffer);
  const restorer = old.restorer !== undefined ? LINUX_SA_RESTORER : 0;
  view.setBigUint64(0, old.handler, true);
  view.setUint32(8, linuxSaFlags(old.flags) | restorer, true);
  view.setBigUint64(16, old.restorer ?? 0n, true);
  view.setBigUint64(24, linuxSigset(old.mask), true);
  return (yield* copyout(cx, oact, bytes)) === 0 ? OK : FAULT;
}

/** rt_sigprocmask(how, set, oset, sigsetsize). */
function* rtSigprocmask(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  if (uap.arg(3) !== SIGSET_BYTES) return INVALID;
  const lp = cx.lwp!, old = lp.lwpSigmask, how = uap.int(0);
  if (uap.arg(1) !== 0n) {
    const set = yield* copyinLinuxSigset(cx, uap.arg(1));
    if (set === undefined) return FAULT;
    if (how === SIG_BLOCK) setSigmask(cx, lp, old | set);
    else if (how === SIG_UNBLOCK) setSigmask(cx, lp, old & ~set);
    else if (how === SIG_SETMASK) setSigmask(cx, lp, set);
    else return INVALID;
  }
  if (uap.arg(2) !== 0n && (yield* suword(cx, uap.arg(2), linuxSigset(old))) !== 0) return FAULT;
  return OK;
}

/** rt_sigpending(set, sigsetsize). */
function* rtSigpending(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  if (uap.arg(1) > SIGSET_BYTES) return INVALID;
  const lp = cx.lwp!, set = (lp.lwpProc.pSiglist | lp.lwpSiglist) & lp.lwpSigmask;
  return (yield* suword(cx, uap.arg(0), linuxSigset(set))) === 0 ? OK : FAULT;
}

/** rt_sigsuspend(set, sigsetsize). */
function* rtSigsuspend(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  if (uap.arg(1) !== SIGSET_BYTES) return INVALID;
  const set = yield* copyinLinuxSigset(cx, uap.arg(0));
  return set === undefined ? FAULT : yield* kernSigsuspend(cx, set & ~SIG_CANTMASK);
}

/** pause(). */
function* pause(cx: Cx): Exec<SyscallResult> {
  return yield* kernSigsuspend(cx, cx.lwp!.lwpSigmask);
}

/** sigaltstack(ss, oss). */
function* sigaltstack(cx: Cx, uap: SyscallArgs): Exec<SyscallResult> {
  const lp = cx.lwp!;
  const { rsp } = decodeTrapframe(yield* cx.cpu.loadBytes(lp.lwpMdRegs as Gva, TF_BYTES));
  const old = encodeLinuxStack(lp, rsp);
  if (uap.arg(0) !== 0n) {
    const bytes = yield* copyin(cx, uap.arg(0), LINUX_STACK_BYTES);
    if (bytes === undefined) return FAULT;
    const view = new DataView(bytes.buffer);
    const flags = view.getInt32(8, true) & ~LINUX_SS_AUTODISARM, ssSize = view.getBigUint64(16, true);
    if (sigonstack(lp, rsp)) return { error: ERRNO.EPERM };
    // SS_ONSTACK means nothing here, and some programs pass it.
    if (flags !== 0 && flags !== LINUX_SS_DISABLE && flags !== LINUX_SS_ONSTACK) return INVALID;
    const off = flags === LINUX_SS_DISABLE;
    if (!off && ssSize < BigInt(MINSIGSTKSZ)) return { error: ERRNO.ENOMEM };
    lp.lwpSigstk = off
      ? { ssSp: 0n, ssSize: 0n, ssFlags: SS_DISABLE }
      : { ssSp: view.getBigUint64(0, true), ssSize, ssFlags: 0 };
  }
  return uap.arg(1) === 0n || (yield* copyout(cx, uap.arg(1), old)) === 0 ? OK : FAULT;
}

/** A signal to one thread, of process `tgid` if that is not −1. */
function tkill(cx: Cx, tgid: number, tid: number, sig: number): SyscallResult {
  if (tid <= 0 || (sig !== 0 && !isSignal(sig))) return INVALID;
  const found = linuxTfind(cx, tid);
  if (found === undefined || (tgid !== -1 && found.p.pPid !== tgid)) return { error: ERRNO.ESRCH };
  const self = cx.proc!, native = nativeSignal(sig);
  if (!canSignal(self, found.p, native)) return { error: ERRNO.EPERM };
  if (sig !== 0) {
    const info = siginfo(native, { siCode: SI_TKILL, siPid: self.pPid, siUid: self.pUcred.crRuid });
    lwpsignal(cx, found.p, found.lp, native, info);
  }
  return result(0);
}

/** System calls of this file. */
export const linuxSigSyscalls: SyscallTable = [
  [13, "rt_sigaction", 4, rtSigaction],
  [14, "rt_sigprocmask", 4, rtSigprocmask],
  [15, "rt_sigreturn", 0, linuxRtSigreturn],
  [34, "pause", 0, pause],
  mapped(62, "kill", 2, 37, (uap) => [uap.int(0), nativeSignal(uap.int(1))]),
  [127, "rt_sigpending", 2, rtSigpending],
  [130, "rt_sigsuspend", 2, rtSigsuspend],
  [131, "sigaltstack", 2, sigaltstack],
  [200, "tkill", 2, function* (cx, uap) {
    return tkill(cx, -1, uap.int(0), uap.int(1));
  }],
  [234, "tgkill", 3, function* (cx, uap) {
    if (uap.int(0) <= 0) return INVALID;
    return tkill(cx, uap.int(0), uap.int(1), uap.int(2));
  }],
];
