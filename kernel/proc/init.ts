/**
 * The first processes (`sys/kern/init_main.c`: proc0_init, create_init, start_init).
 *
 * Room: `kernel/proc/`; imports fork, exec and wait, and the console.
 *
 * Process 1 is `/sbin/init`, or, when the kernel was given command lines to run, the kernel's own: it runs them one after the other,
 * waits for every orphan meanwhile, and switches the machine off with the last one's status.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { ERRNO } from "../kern/errno.ts";
import { File, FREAD, FWRITE } from "../kern/file.ts";
import { falloc, fdalloc, fdcopy, fdinit, fdrop, fsetfd } from "../kern/kern_descrip.ts";
import { panic } from "../kern/panic.ts";
import { kprintf } from "../kern/subr_prf.ts";
import { TIOCSCTTY } from "../kern/termios.ts";
import { getnanouptime } from "../lwkt/callout.ts";
import { tsleep } from "../lwkt/sleep.ts";
import { lwktCreate, lwktSchedule, TDPRI } from "../lwkt/thread.ts";
import { encodeTrapframe } from "../platform/pc64/frame.ts";
import { SELECTOR, VM_MAX_USER_ADDRESS } from "../platform/pc64/vmparam.ts";
import { pmapPinit2 } from "../pmap/pmap_pinit.ts";
import { vnOpen } from "../vfs/vfs_vnops.ts";
import { gva } from "../../hw/address.ts";
import { vmspaceAlloc, vmspaceCacheDrain } from "../vm/vmspace.ts";
import { kernExecve } from "./kern_exec.ts";
import { exit1, kernWait, wExitcode } from "./kern_exit.ts";
import { enterpgrp, fixjobc, joinpgrp, procAddAllproc, procGetnewpid } from "./kern_proc.ts";
import { sigSignalled } from "./kern_sig.ts";
import { statclock } from "./kern_synch.ts";
import { Lwp, P_SYSTEM, Proc, SACTIVE, type Sysentvec } from "./proc.ts";
import { chooseCpu } from "./usched_dfly.ts";
import { imageActivators } from "./sysvec.ts";
import type { ElfBrand } from "./imgact_elf.ts";

/** First address that a program may map: page 0 stays empty, so that null pointers fault. */
const VM_MIN_USER_ADDRESS = 0x1000n;
/** Programs that are tried as process 1 (`init_path`). */
const INIT_PATHS = ["/sbin/init", "/sbin/init.bak"];
/** Environment of the first program. */
const ENVIRONMENT = [
  "PATH=/sbin:/bin:/usr/sbin:/usr/bin",
  "HOME=/root",
  "TERM=vt100",
  "SHELL=/bin/sh",
  "USER=root",
];
/** Exit status of a command that could not be executed, and of one that was not found. */
const CANNOT_EXECUTE = 126, NOT_FOUND = 127;
/** Shells give 128 + the signal's number for what a signal ended. */
const SIGNAL_STATUS = 128;

/** Process 0 and what the process part hooks into the others. Before any thread of a process exists. */
export function procInit(cx: Cx, sysent: Sysentvec, brands: readonly ElfBrand[] = []): void {
  const { k } = cx;
  const proc0 = new Proc(0);
  proc0.pComm = "swapper";
  proc0.pFlags = P_SYSTEM;
  proc0.pStat = SACTIVE;
  proc0.pSysent = sysent;
  k.procs.proc0 = proc0;
  procAddAllproc(k.procs, proc0, undefined);
  enterpgrp(cx, proc0, 0, true);
  k.sleep.signalled = sigSignalled;
  k.hardclockHooks.push(statclock);
  k.imageActivators.push(...imageActivators(sysent, brands));
}

/** Makes process 1 and lets it run (`create_init`, `kick_init`). The root file system is mounted. */
export function* createInit(cx: Cx): Exec<Proc> {
  const { options } = cx.k;
  const commands = options.commands ?? (options.exec ?? []).map((line) => ["/bin/sh", "-c", line]);
  const body = commands.length === 0 ? startInit : (at: Cx) => runCommands(at, commands);
  const p = yield* newProcess(cx, "init", body, undefined);
  cx.k.procs.initproc = p;
  return p;
}

/**
 * A process without a program, whose thread runs `body` in the kernel: what that leaves in the frame is what it enters user mode with.
 * Scheduled at once.
 *
 * @param parent Undefined for process 1.
 */
export function* newProcess(
  cx: Cx,
  comm: string,
  body: (cx: Cx) => Exec<void>,
  parent: Proc | undefined,
): Exec<Proc> {
  const { procs } = cx.k;
  const p = new Proc(procGetnewpid(procs));
  p.pComm = comm;
  p.pArgs = [comm];
  p.pSysent = procs.proc0.pSysent;
  p.pStart = getnanouptime(cx);
  procAddAllproc(procs, p, parent ?? procs.proc0);
  if (parent === undefined) enterpgrp(cx, p, p.pPid, true);
  else {
    joinpgrp(p, parent.pPgrp);
    fixjobc(cx, p, p.pPgrp, true);
  }
  p.pFd = parent?.pFd === undefined ? fdinit(cx) : fdcopy(cx, parent);
  const vm = yield* vmspaceAlloc(cx, gva(VM_MIN_USER_ADDRESS), VM_MAX_USER_ADDRESS);
  yield* pmapPinit2(cx, vm.vmPmap);
  p.pVmspace = vm;
  const lp = new Lwp(p, ++p.pLasttid);
  lp.lwpVmspace = vm;
  lp.lwpUsdata.cpbase = cx.k.ticks;
  const td = yield* lwktCreate(cx, body, { name: comm, pri: TDPRI.KERN_USER, gd: chooseCpu(cx), lwp: lp });
  td.tdProc = p;
  lp.lwpThread = td;
  const frame = encodeTrapframe({
    cs: BigInt(SELECTOR.UCODE),
    ss: BigInt(SELECTOR.UDATA),
    rflags: 0x202n,
    xflags: 1n,
  });
  yield* cx.k.platform.cpuForkLwp(cx, lp, frame, { fpu: undefined, tls: 0n });
  p.pLwps.set(lp.lwpTid, lp);
  p.pNthreads++;
  p.pStat = SACTIVE;
  lwktSchedule(cx, td);
  return p;
}

const encode = (text: string) => new TextEncoder().encode(text);

function environment(cx: Cx): Uint8Array[] {
  return [...ENVIRONMENT, ...cx.k.options.envp ?? []].map(encode);
}

/**
 * Descriptors 0, 1 and 2 on the console.
 *
 * @param controlling It becomes the session's controlling terminal: for commands. init(8) leaves it to its children.
 */
function* openConsole(cx: Cx, controlling: boolean): Exec<void> {
  const p = cx.proc!, fp = falloc(cx);
  if (!(fp instanceof File)) return;
  const vp = yield* vnOpen(cx, "/dev/console", FREAD | FWRITE, 0, fp);
  if (typeof vp !== "number") {
    for (let i = 0; i < 3; i++) {
      const fd = fdalloc(cx, p, 0);
      if (fd !== undefined) fsetfd(p.pFd!, fp, fd);
    }
    if (controlling) yield* fp.fOps!.foIoctl(cx, fp, TIOCSCTTY, new Uint8Array(0));
  }
  yield* fdrop(cx, fp);
}

/** Process 1 becomes /sbin/init (`start_init`). */
function* startInit(cx: Cx): Exec<void> {
  yield* openConsole(cx, false);
  for (const path of INIT_PATHS) {
    const error = yield* kernExecve(cx, { path, argv: [encode(path)], envv: environment(cx) });
    if (error === 0) return;
    if (error !== ERRNO.ENOENT) kprintf(cx, `exec ${path}: error ${error}\n`);
  }
  kprintf(cx, `init: not found in path ${INIT_PATHS.join(":")}\n`);
  panic(cx, "no init");
}

/** Process 1 runs commands, each in a session of its own on the console, and switches off. */
function* runCommands(cx: Cx, commands: readonly (readonly string[])[]): Exec<void> {
  const { procs } = cx.k;
  for (const argv of commands) {
    const child = yield* newProcess(cx, "sh", (at) => startCommand(at, argv), cx.proc!);
    procs.exitStatus = yield* waitForCommand(cx, child);
    procs.statuses.push(procs.exitStatus);
    const { onCommandEnd } = cx.k.options;
    if (onCommandEnd !== undefined) {
      // What the command's last threads held is given back by then.
      yield* tsleep(cx, procs, 0, "settle", 2);
      yield* vmspaceCacheDrain(cx);
      onCommandEnd(cx.k, procs.exitStatus);
    }
  }
  yield* exit1(cx, wExitcode(procs.exitStatus));
}

function* startCommand(cx: Cx, argv: readonly string[]): Exec<void> {
  const p = cx.proc!;
  enterpgrp(cx, p, p.pPid, true);
  yield* openConsole(cx, true);
  const path = argv[0] ?? "";
  const error = yield* kernExecve(cx, { path, argv: argv.map(encode), envv: environment(cx) });
  if (error === 0) return;
  kprintf(cx, `exec: cannot run "${path}": error ${error}\n`);
  yield* exit1(cx, wExitcode(error === ERRNO.ENOENT ? NOT_FOUND : CANNOT_EXECUTE));
}

/** Waits for every child until it is this one: as /sbin/init, process 1 buries the orphans. */
function* waitForCommand(cx: Cx, child: Proc): Exec<number> {
  for (;;) {
    const found = yield* kernWait(cx, -1, 0);
    if (found === 0 || "error" in found) continue;
    if (found.pid !== child.pPid) continue;
    const signal = found.status & 0x7f;
    return signal === 0 ? found.status >> 8 : SIGNAL_STATUS + signal;
  }
}
