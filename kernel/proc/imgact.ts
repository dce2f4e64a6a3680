/**
 * What image activators are given and what they answer (`sys/sys/imgact.h`).
 *
 * Room: leaf of `kernel/proc/`; imports types only.
 *
 * exec asks the kernel's activators (k.imageActivators) one after the other. One that knows the file decides everything first (any
 * error before the old address space is gone is exec's error), then calls execNewVmspace and maps; from there on a failure ends the process.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import type { Vnode } from "../vfs/vnode.ts";
import type { Sysentvec } from "./proc.ts";

/** One entry of the auxiliary vector. Bytes are put on the stack, and the entry points at them. */
export interface AuxEntry {
  readonly type: number;
  readonly value: bigint | Uint8Array;
}

/** A file on its way to being a process (`struct image_params`). */
export class ImageParams {
  /** The path that is executed; changes when an interpreter is. */
  path: string;
  /** The file; referenced. */
  vp: Vnode;
  /** Its first page, or less. */
  header: Uint8Array;
  /** Arguments and environment, without their zero bytes. */
  argv: Uint8Array[];
  readonly envv: readonly Uint8Array[];
  /** Set by the `#!` activator: look at {@link path} instead, once. */
  interpreted = false;
  /** Set by execNewVmspace: there is no way back. */
  vmspaceDestroyed = false;
  /** Where the program starts; set by the activator. */
  entry = 0n;
  /** Its personality; set by the activator. */
  sysent: Sysentvec | undefined;
  /** The auxiliary vector without its end; set by the activator. */
  aux: readonly AuxEntry[] = [];

  constructor(path: string, vp: Vnode, header: Uint8Array, argv: Uint8Array[], envv: readonly Uint8Array[]) {
    this.path = path;
    this.vp = vp;
    this.header = header;
    this.argv = argv;
    this.envv = envv;
  }
}

/** The answer of an activator that does not know the file. */
export const NOT_MINE = -1;

/** Looks at a file and, if it knows it, makes it the current process's image: 0, an error number, or {@link NOT_MINE}. */
export type ImageActivator = (cx: Cx, imgp: ImageParams) => Exec<number>;
