/**
 * The virtual disk of a vkernel (`sys/dev/virtual/vkernel/disk`): a file of the host, used for swap. A cothread makes the calls, so that
 * a request does not stop the processor that gave it.
 *
 * Room: `kernel/platform/vkernel64/`; imports cothreads, bios.
 *
 * @module
 */
import type { Hpa } from "../../../hw/address.ts";
import type { Exec, GateCpu } from "../../../hw/gates.ts";
import type { Cx } from "../../context.ts";
import { type Bio, biodone, type BlockDevice } from "../../kern/bio.ts";
import { ERRNO } from "../../kern/errno.ts";
import { kprintf } from "../../kern/subr_prf.ts";
import { PINTERLOCKED, tsleep, tsleepInterlock, wakeup } from "../../lwkt/sleep.ts";
import { kthreadCreate } from "../../lwkt/thread.ts";
import { type Cothread, cothreadCreate, type CothreadHost, cothreadKick, cothreadWait } from "./cothread.ts";
import { host, IRQ_DISK, putString, SYS } from "./host.ts";

const O_RDWR = 2, O_CREAT = 0x0200, O_EXCL = 0x0800;
const SECTOR = 512;

/** What the disk needs of the vkernel that it is in. */
export interface VkdHost extends CothreadHost {
  readonly options: { readonly swapBytes: number; readonly pid: number };
  /** Address of physical memory for host calls. */
  dmap(pa: Hpa): bigint;
  /** Registers an interrupt handler. */
  registerInt(cx: Cx, irq: number, name: string, fn: (cx: Cx) => void | Exec<void>): Exec<void>;
}

/** A request on its way, and what the host said. */
interface Request {
  readonly bio: Bio;
  errno: number;
}

/** The disk. */
class Vkd implements BlockDevice {
  readonly name = "vkd0";
  readonly sectorBytes = SECTOR;
  readonly readOnly = false;
  readonly mediaBytes: number;
  readonly #platform: VkdHost;
  readonly #fd: number;
  readonly #todo: Request[] = [];
  readonly #done: Request[] = [];
  #cothread: Cothread | undefined;

  constructor(platform: VkdHost, fd: number, bytes: number) {
    this.#platform = platform;
    this.#fd = fd;
    this.mediaBytes = bytes;
  }

  /** Makes the two threads: the host's, and the one that ends requests. */
  *start(cx: Cx): Exec<void> {
    this.#cothread = yield* cothreadCreate(cx.cpu, this.#platform, IRQ_DISK, (u, me) => this.#serve(u, me));
    yield* this.#platform.registerInt(cx, IRQ_DISK, this.name, (at) => wakeup(at, this));
    yield* kthreadCreate(cx, (at) => this.#finish(at), "ithread vkd0");
  }

  *strategy(cx: Cx, bio: Bio): Exec<void> {
    this.#todo.push({ bio, errno: 0 });
    yield* cothreadKick(cx.cpu, this.#cothread!);
  }

  /** The cothread: never touches anything of the kernel's but the two lists. */
  *#serve(u: GateCpu, cothread: Cothread): Exec<void> {
    for (;;) {
      const request = this.#todo.shift();
      if (request === undefined) {
        yield* cothreadWait(u, cothread, () => this.#todo.length > 0);
        continue;
      }
      request.errno = yield* this.#carryOut(u, request.bio);
      this.#done.push(request);
      yield* cothread.interrupt(u);
    }
  }

  *#carryOut(u: GateCpu, bio: Bio): Exec<number> {
    if (bio.bCmd === "flush") return 0;
    const number = bio.bCmd === "read" ? SYS.extpread : SYS.extpwrite;
    let offset = bio.bioOffset;
    for (const { pa, bytes } of bio.segments) {
      for (let at = 0; at < bytes;) {
        const from = this.#platform.dmap(pa) + BigInt(at);
        const { errno, value } = yield* host(u, number, this.#fd, from, bytes - at, 0, offset);
        if (errno === ERRNO.EINTR) continue;
        if (errno !== 0 || value <= 0n) return errno || ERRNO.EIO;
        at += Number(value);
        offset += Number(value);
      }
    }
    return 0;
  }

  *#finish(cx: Cx): Exec<void> {
    for (;;) {
      const request = this.#done.shift();
      if (request === undefined) {
        tsleepInterlock(cx, this, 0);
        yield* tsleep(cx, this, PINTERLOCKED, "vkd", 0);
        continue;
      }
      request.bio.bError = request.errno;
      if (request.errno === 0) request.bio.bResid = 0;
      yield* biodone(cx, request.bio);
    }
  }
}

/** Makes the swap file and its disk; undefined without swap, or when the host has no room for it. */
export function* vkdAttach(cx: Cx, platform: VkdHost): Exec<BlockDevice | undefined> {
  const { swapBytes, pid } = platform.options;
  if (swapBytes === 0) return undefined;
  const u = cx.cpu, path = `/var/vkernel/swap.${String(pid).padStart(6, "0")}`;
  const at = yield* putString(u, platform.io(u), path);
  const { errno, value } = yield* host(u, SYS.open, at, O_RDWR | O_CREAT | O_EXCL, 0o600);
  let error = errno;
  if (error === 0) {
    // Nobody else's, and gone with the process.
    yield* host(u, SYS.unlink, yield* putString(u, platform.io(u), path));
    error = (yield* host(u, SYS.ftruncate, value, 0, swapBytes)).errno;
  }
  if (error !== 0) {
    kprintf(cx, `vkd0: ${path}: error ${error}; no swap\n`);
    return undefined;
  }
  const disk = new Vkd(platform, Number(value), swapBytes);
  yield* disk.start(cx);
  kprintf(cx, `vkd0: ${swapBytes >>> 20} MB (${path})\n`);
  return disk;
}
