/**
 * The kernel finds that it is wrong (`panic`, `KASSERT` in `sys/kern/kern_shutdown.c`).
 *
 * Room: leaf of `kernel/kern/`; imports the gate's exception.
 *
 * A panic is an exception that leaves the body: the machine stops with it. The first one wins; what the console shows of it (the sentence,
 * the kernel's frames, the last events) is added by whoever catches it at the gate (`platform/pc64/gate_guard.ts`).
 *
 * @module
 */
import { KernelPanic } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";

/** Stops the machine: a sentence of what is wrong. */
export function panic(_cx: Cx | undefined, message: string): never {
  throw new KernelPanic(message);
}

/** Stops the machine unless `condition` holds (`KASSERT`). A message that is composed, on a path that is often taken, comes as a function. */
export function kassert(condition: boolean, message: string | (() => string)): asserts condition {
  if (!condition) throw new KernelPanic(typeof message === "string" ? message : message());
}
