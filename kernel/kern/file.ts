/**
 * Open files (`sys/sys/file.h`): what a descriptor points at, shared by all that dup and fork made of it.
 *
 * Room: `kernel/kern/`; imports types.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import type { Ucred } from "../proc/ucred.ts";
import type { Namecache } from "../vfs/namecache.ts";
import type { PollWaiter } from "../vfs/selinfo.ts";
import type { Uio } from "../vfs/uio.ts";
import type { Vattr } from "../vfs/vnode.ts";

/** `f_type`: a vnode. */
export const DTYPE_VNODE = 1;
/** `f_type`: an end of a pipe. */
export const DTYPE_PIPE = 3;

/** `f_flag`: open for reading. */
export const FREAD = 0x0001;
/** `f_flag`: open for writing. */
export const FWRITE = 0x0002;

/** open(2): reading only. */
export const O_RDONLY = 0x0000;
/** open(2): writing only. */
export const O_WRONLY = 0x0001;
/** open(2): both. */
export const O_RDWR = 0x0002;
/** Mask of the three. */
export const O_ACCMODE = 0x0003;
/** Do not wait. */
export const O_NONBLOCK = 0x0004;
/** Every write goes to the end. */
export const O_APPEND = 0x0008;
/** Take a shared flock. */
export const O_SHLOCK = 0x0010;
/** Take an exclusive flock. */
export const O_EXLOCK = 0x0020;
/** Signals when ready; accepted, without effect. */
export const O_ASYNC = 0x0040;
/** Synchronous writes. */
export const O_FSYNC = 0x0080;
/** Fail if the last name is a symbolic link. */
export const O_NOFOLLOW = 0x0100;
/** Make it if it is not there. */
export const O_CREAT = 0x0200;
/** Cut it to nothing. */
export const O_TRUNC = 0x0400;
/** With O_CREAT: fail if it is there. */
export const O_EXCL = 0x0800;
/** Do not make a terminal the controlling one. */
export const O_NOCTTY = 0x8000;
/** Bypass caches; accepted, without effect. */
export const O_DIRECT = 0x0001_0000;
/** Set FD_CLOEXEC. */
export const O_CLOEXEC = 0x0002_0000;
/** Per-call flags of extpread and extpwrite. */
export const O_FBLOCKING = 0x0004_0000;
/** As O_NONBLOCK, for this call. */
export const O_FNONBLOCKING = 0x0008_0000;
/** As O_APPEND, for this call. */
export const O_FAPPEND = 0x0010_0000;
/** Use the offset given, and leave the file's alone. */
export const O_FOFFSET = 0x0020_0000;
/** Fail if it is not a directory. */
export const O_DIRECTORY = 0x0800_0000;

/** Bits of open's flags that stay in `f_flag` (`FMASK`). */
export const FMASK: number = FREAD | FWRITE | O_APPEND | O_ASYNC | O_FSYNC | O_NONBLOCK | O_DIRECT;
/** Bits that F_SETFL changes (`FCNTLFLAGS`). */
export const FCNTLFLAGS: number = O_APPEND | O_ASYNC | O_FSYNC | O_NONBLOCK | O_DIRECT;

/** Seek types. */
export const SEEK_SET = 0;
/** From where it stands. */
export const SEEK_CUR = 1;
/** From the end. */
export const SEEK_END = 2;

/** What files of a type can do (`struct fileops`). Numbers are error numbers. */
export interface Fileops {
  /** Reads into the uio. `flags`: O_FOFFSET (the uio's offset counts), O_FNONBLOCKING … */
  foRead(cx: Cx, fp: File, uio: Uio, flags: number): Exec<number>;
  /** Writes from the uio. */
  foWrite(cx: Cx, fp: File, uio: Uio, flags: number): Exec<number>;
  /** `data` is the argument as copied in, and what will be copied out. */
  foIoctl(cx: Cx, fp: File, com: number, data: Uint8Array): Exec<number>;
  /** POLL* of `events` that are there; registers `waiter` for the others. */
  foPoll(cx: Cx, fp: File, events: number, waiter: PollWaiter | undefined): number;
  /** Attributes. */
  foStat(cx: Cx, fp: File): Vattr;
  /** The last descriptor is gone. */
  foClose(cx: Cx, fp: File): Exec<number>;
}

/** An open file (`struct file`). */
export class File {
  /** `f_type`: DTYPE_*; 0 before it is one. */
  fType = 0;
  /** `f_flag`: FREAD, FWRITE and O_* of {@link FMASK}. */
  fFlag = 0;
  /** `f_count`: descriptors and running calls that use it. At 0 it is closed. */
  fCount = 1;
  /** `f_ops`. */
  fOps: Fileops | undefined = undefined;
  /** `f_data`: a Vnode or an end of a pipe. */
  fData: object | undefined = undefined;
  /** `f_offset`. */
  fOffset = 0;
  /** `FOFFSETLOCK`: a read or write that moves fOffset is on its way; the next one sleeps. */
  fOffsetLocked = false;
  /** `f_cred`: who opened it. */
  readonly fCred: Ucred;
  /** `f_nchandle`: the name it was opened by; held. */
  fNchandle: Namecache | undefined = undefined;
  /** `FHASLOCK`: holds a flock. */
  fHaslock = false;

  /** Made by falloc. */
  constructor(cred: Ucred) {
    this.fCred = cred;
  }
}
