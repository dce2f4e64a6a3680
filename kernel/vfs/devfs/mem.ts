/**
 * null, zero, full, random, urandom, fd (`kern/kern_memio.c`, `kern/kern_nrandom.c`).
 *
 * Room: `kernel/vfs/devfs/`; imports devices.
 *
 * Deviation: the random devices are a generator (xoshiro128**) with a fixed start: a run repeats bit for bit. What is written to them is
 * mixed in, as the entropy of a real one.
 *
 * @module
 */
import { hpa } from "../../../hw/address.ts";
import type { Exec } from "../../../hw/gates.ts";
import type { Cx } from "../../context.ts";
import type { Kernel } from "../../kernel.ts";
import { physToDmap } from "../../platform/layout.ts";
import { ERRNO } from "../../kern/errno.ts";
import { type Uio, uiomove } from "../uio.ts";
import { type DevOps, makeDev } from "./cdev.ts";

/** Bytes that are made at once. */
const CHUNK = 4096;
/** How many /dev/fd/N there are. */
const FD_COUNT = 64;

/** Takes everything. */
function* sink(_cx: Cx, _dev: object, uio: Uio): Exec<number> {
  uio.offset += uio.resid;
  uio.resid = 0;
  return 0;
}

const zeros = new Uint8Array(CHUNK);

/** Gives zeros without end. */
function* zeroRead(cx: Cx, _dev: object, uio: Uio): Exec<number> {
  while (uio.resid > 0) {
    const error = yield* uiomove(cx, zeros.slice(0, Math.min(CHUNK, uio.resid)), uio);
    if (error !== 0) return error;
    // A long read of zeros must not hold the processor.
    yield;
  }
  return 0;
}

function rotl(x: number, k: number): number {
  return (x << k) | (x >>> (32 - k));
}

/** 32 bits of the kernel's generator (`read_random`). */
export function readRandom32(k: Kernel): number {
  const s = k.vfs.randomState as [number, number, number, number];
  const result = Math.imul(rotl(Math.imul(s[1], 5), 7), 9);
  const mixed = s[1] << 9;
  s[2] ^= s[0];
  s[3] ^= s[1];
  s[1] ^= s[2];
  s[0] ^= s[3];
  s[2] ^= mixed;
  s[3] = rotl(s[3], 11);
  return result >>> 0;
}

/** Fills bytes from the generator. */
export function readRandom(k: Kernel, bytes: Uint8Array): void {
  for (let i = 0; i < bytes.length; i++) bytes[i] = readRandom32(k) >>> 24;
}

function* randomRead(cx: Cx, _dev: object, uio: Uio): Exec<number> {
  while (uio.resid > 0) {
    const bytes = new Uint8Array(Math.min(CHUNK, uio.resid));
    readRandom(cx.k, bytes);
    const error = yield* uiomove(cx, bytes, uio);
    if (error !== 0) return error;
    yield;
  }
  return 0;
}

function* randomWrite(cx: Cx, _dev: object, uio: Uio): Exec<number> {
  while (uio.resid > 0) {
    const bytes = new Uint8Array(Math.min(CHUNK, uio.resid));
    const before = uio.resid;
    const error = yield* uiomove(cx, bytes, uio);
    const s = cx.k.vfs.randomState;
    bytes.subarray(0, before - uio.resid).forEach((byte, i) =>
      s[i & 3] = Math.imul(s[i & 3]! ^ byte, 0x0100_0193) | 1
    );
    if (error !== 0) return error;
  }
  return 0;
}

const nullOps: DevOps = {
  *dRead(): Exec<number> {
    return 0;
  },
  dWrite: sink,
};
const zeroOps: DevOps = { dRead: zeroRead, dWrite: sink, dMmapZero: true };
const fullOps: DevOps = {
  dRead: zeroRead,
  *dWrite(): Exec<number> {
    return ERRNO.ENOSPC;
  },
};
const randomOps: DevOps = { dRead: randomRead, dWrite: randomWrite };

/** The archives that the kernel was started with, as they stand in memory (`md`): for vkernels that are to have the same root. */
function mdOps(start: number, end: number): DevOps {
  return {
    *dRead(cx: Cx, _dev: object, uio: Uio): Exec<number> {
      while (uio.resid > 0 && uio.offset < end - start) {
        const at = start + uio.offset;
        const length = Math.min(uio.resid, end - at, CHUNK);
        const bytes = yield* cx.cpu.loadBytes(physToDmap(cx.k, hpa(at)), length);
        const error = yield* uiomove(cx, bytes, uio);
        if (error !== 0) return error;
        yield;
      }
      return 0;
    },
  };
}

/** Makes the devices. */
export function memDrvinit(k: Kernel): void {
  k.rootArchives.forEach(({ start, end }, n) =>
    makeDev(k, `md${n}`, { ops: mdOps(start, end), perms: 0o444 })
  );
  makeDev(k, "null", { ops: nullOps, perms: 0o666 });
  makeDev(k, "zero", { ops: zeroOps, perms: 0o666 });
  makeDev(k, "full", { ops: fullOps, perms: 0o666 });
  makeDev(k, "random", { ops: randomOps, perms: 0o666 });
  makeDev(k, "urandom", { ops: randomOps, perms: 0o666 });
  // Opening one of these is a dup of the descriptor; see kernOpen.
  ["stdin", "stdout", "stderr"].forEach((name, dupfd) => makeDev(k, name, { ops: {}, perms: 0o666, dupfd }));
  for (let fd = 0; fd < FD_COUNT; fd++) makeDev(k, `fd/${fd}`, { ops: {}, perms: 0o666, dupfd: fd });
}
