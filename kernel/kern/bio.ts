/**
 * A request to a block device (`struct bio` and `struct buf`, `sys/sys/bio.h`, `buf.h`): what is asked, where the bytes are, and who is told
 * when it is done.
 *
 * Room: `kernel/kern/`; leaf, imports types and tsleep.
 *
 * DragonFly stacks bios on a buf as a request goes down through file system, slices and device. Here a request goes to the device at once,
 * so that buf and bio are one.
 *
 * @module
 */
import type { Hpa } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { PINTERLOCKED, tsleep, tsleepInterlock, wakeup } from "../lwkt/sleep.ts";

/** What is asked (`buf_cmd_t`). */
export type BufCmd = "read" | "write" | "flush";

/** A piece of physical memory that data goes to or comes from. */
export interface BioSegment {
  /** Address. */
  readonly pa: Hpa;
  /** Bytes; a multiple of the device's sector. */
  readonly bytes: number;
}

/** One request. */
export class Bio {
  /** `b_cmd`. */
  readonly bCmd: BufCmd;
  /** `bio_offset`: bytes from the start of the device, a multiple of its sector. */
  readonly bioOffset: number;
  /** The memory, in order. */
  readonly segments: readonly BioSegment[];
  /** `bio_done`: called once, by a thread, when the request has ended; must not sleep for long (it holds up other completions). */
  bioDone: ((cx: Cx, bio: Bio) => Exec<void>) | undefined;
  /** Errno, 0 if it worked. Valid when done. */
  bError = 0;
  /** Bytes that were not moved (`b_resid`). */
  bResid: number;
  /** It has ended. */
  done = false;

  /** A request for `strategy`. */
  constructor(
    cmd: BufCmd,
    offset: number,
    segments: readonly BioSegment[],
    done?: (cx: Cx, bio: Bio) => Exec<void>,
  ) {
    this.bCmd = cmd;
    this.bioOffset = offset;
    this.segments = segments;
    this.bioDone = done;
    this.bResid = this.bytes;
  }

  /** Bytes to move (`b_bcount`). */
  get bytes(): number {
    return this.segments.reduce((sum, { bytes }) => sum + bytes, 0);
  }
}

/** A disk that requests can be given to. */
export interface BlockDevice {
  /** For people: `vbd0`. */
  readonly name: string;
  /** Size, a multiple of `sectorBytes`. */
  readonly mediaBytes: number;
  /** Bytes of the smallest request. */
  readonly sectorBytes: number;
  /** Writes fail. */
  readonly readOnly: boolean;
  /** Starts a request (`dev_dstrategy`). It may have ended when this comes back, or ends later. Waits only while too many are on their way. */
  strategy(cx: Cx, bio: Bio): Exec<void>;
}

/** A request has ended (`biodone`): tells who asked, then wakes {@link biowait}. Called by a thread. */
export function* biodone(cx: Cx, bio: Bio): Exec<void> {
  if (bio.bioDone !== undefined) yield* bio.bioDone(cx, bio);
  bio.done = true;
  wakeup(cx, bio);
}

/** Sleeps until a request has ended (`biowait`); gives its errno. */
export function* biowait(cx: Cx, bio: Bio): Exec<number> {
  while (!bio.done) {
    tsleepInterlock(cx, bio, 0);
    yield* tsleep(cx, bio, PINTERLOCKED, "biowait", 0);
  }
  return bio.bError;
}
