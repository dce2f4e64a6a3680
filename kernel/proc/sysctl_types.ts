/**
 * What a row of the sysctl tree is (`sys/sys/sysctl.h`).
 *
 * Room: leaf of `kernel/proc/`; imports types.
 *
 * @module
 */
import type { Cx } from "../context.ts";

/** Kinds of places: a node has others below it. */
export const CTLTYPE_NODE = 1;
/** A C int. */
export const CTLTYPE_INT = 2;
/** Text. */
export const CTLTYPE_STRING = 3;
/** A structure. */
export const CTLTYPE_OPAQUE = 5;
/** A C long. */
export const CTLTYPE_LONG = 7;

/** A value: numbers for INT and LONG, text for STRING, bytes for any. */
export type SysctlValue = number | string | Uint8Array;

/** A leaf. */
export interface SysctlRow {
  /** From the root: `kern.ostype`. */
  readonly name: string;
  /** CTLTYPE_*. */
  readonly type: number;
  /** Format for sysctl(8), as `S,vmtotal`; default by the type. */
  readonly format?: string;
  readonly description?: string;
  /** It understands numbers behind its own: `kern.proc.pid.7`. */
  readonly takesArguments?: boolean;
  /** Its value now; undefined: there is none for these arguments. */
  readonly get: (cx: Cx, args: readonly number[]) => SysctlValue | undefined;
  /** Sets it; gives 0 or an error number. Without it, it can only be read. */
  readonly set?: (cx: Cx, value: SysctlValue, args: readonly number[]) => number;
}
