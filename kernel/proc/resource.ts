/**
 * What a process has used and may use (`sys/sys/resource.h`, `resourcevar.h`).
 *
 * Room: leaf of `kernel/proc/`; imports nothing.
 *
 * @module
 */

/** `rlimit_cpu`: Seconds of processor time. */
export const RLIMIT_CPU = 0;
/** `rlimit_fsize`: Bytes of a file. */
export const RLIMIT_FSIZE = 1;
/** `rlimit_data`: Bytes of data. */
export const RLIMIT_DATA = 2;
/** `rlimit_stack`: Bytes of stack. */
export const RLIMIT_STACK = 3;
/** `rlimit_core`: Bytes of a core file. */
export const RLIMIT_CORE = 4;
/** `rlimit_rss`: Resident bytes. */
export const RLIMIT_RSS = 5;
/** `rlimit_memlock`: Locked bytes. */
export const RLIMIT_MEMLOCK = 6;
/** `rlimit_nproc`: Processes of the user. */
export const RLIMIT_NPROC = 7;
/** `rlimit_nofile`: Descriptors. */
export const RLIMIT_NOFILE = 8;
/** `rlimit_sbsize`: Bytes of socket buffers. */
export const RLIMIT_SBSIZE = 9;
/** `rlimit_vmem`: Bytes of address space. */
export const RLIMIT_VMEM = 10;
/** `rlimit_as`: The same. */
export const RLIMIT_AS: number = RLIMIT_VMEM;
/** `rlimit_posixlocks`: Record locks. */
export const RLIMIT_POSIXLOCKS = 11;
/** How many there are (`RLIM_NLIMITS`). */
export const RLIM_NLIMITS = 12;
/** No limit. */
export const RLIM_INFINITY = 0x7fff_ffff_ffff_ffffn;

/** One limit. */
export interface Rlimit {
  readonly rlimCur: bigint;
  readonly rlimMax: bigint;
}

/** A process's limits (`struct plimit`). */
export class Plimit {
  readonly plRlimit: Rlimit[];

  constructor(from?: Plimit) {
    if (from !== undefined) this.plRlimit = [...from.plRlimit];
    else this.plRlimit = Array.from({ length: RLIM_NLIMITS }, (_, which) => initialLimit(which));
  }
  /** The current limit as a number; {@link RLIM_INFINITY} becomes Infinity. */
  cur(which: number): number {
    const limit = this.plRlimit[which]!.rlimCur;
    return limit >= RLIM_INFINITY ? Infinity : Number(limit);
  }
}

/** Sizes of pc64's vmparam.h: DFLDSIZ, MAXDSIZ, DFLSSIZ, MAXSSIZ. */
const INITIAL: Readonly<Record<number, Rlimit>> = {
  [RLIMIT_DATA]: { rlimCur: 128n << 20n, rlimMax: 32n << 30n },
  [RLIMIT_STACK]: { rlimCur: 8n << 20n, rlimMax: 512n << 20n },
  [RLIMIT_NPROC]: { rlimCur: 1000n, rlimMax: 1000n },
  [RLIMIT_NOFILE]: { rlimCur: 1024n, rlimMax: 4096n },
};

function initialLimit(which: number): Rlimit {
  return INITIAL[which] ?? { rlimCur: RLIM_INFINITY, rlimMax: RLIM_INFINITY };
}

/** Counts of `struct rusage`, as a process or its waited-for children made them. Times are in microseconds. */
export class Rusage {
  ruUtime = 0;
  ruStime = 0;
  /** Largest resident set, KiB. */
  ruMaxrss = 0;
  ruMinflt = 0;
  ruMajflt = 0;
  ruNswap = 0;
  ruInblock = 0;
  ruOublock = 0;
  ruNsignals = 0;
  ruNvcsw = 0;
  ruNivcsw = 0;

  /** `ruadd`: sums, and the larger of the two resident sets. */
  add(other: Rusage): void {
    this.ruUtime += other.ruUtime;
    this.ruStime += other.ruStime;
    this.ruMaxrss = Math.max(this.ruMaxrss, other.ruMaxrss);
    this.ruMinflt += other.ruMinflt;
    this.ruMajflt += other.ruMajflt;
    this.ruNswap += other.ruNswap;
    this.ruInblock += other.ruInblock;
    this.ruOublock += other.ruOublock;
    this.ruNsignals += other.ruNsignals;
    this.ruNvcsw += other.ruNvcsw;
    this.ruNivcsw += other.ruNivcsw;
  }
}
