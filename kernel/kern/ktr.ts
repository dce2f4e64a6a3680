/**
 * The last events of a kernel (`ktr`, `sys/kern/kern_ktr.c`): a ring that panics print.
 *
 * Room: `kernel/kern/`; imports the context.
 *
 * @module
 */
import type { Cx } from "../context.ts";

/** Events that the ring keeps (a power of two). */
const KTR_ENTRIES = 256;

/** The ring. */
export class KtrState {
  /** Events so far. */
  count = 0;
  readonly what: string[] = [];
  readonly cpu: number[] = [];
  readonly thread: string[] = [];
  readonly a: number[] = [];
  readonly b: number[] = [];

  /** The last events, the oldest first, as lines. */
  lines(most: number): string[] {
    const lines: string[] = [];
    for (let i = Math.max(0, this.count - Math.min(most, KTR_ENTRIES)); i < this.count; i++) {
      const at = i & (KTR_ENTRIES - 1);
      lines.push(`cpu${this.cpu[at]} ${this.thread[at]}: ${this.what[at]} ${this.a[at]} ${this.b[at]}`);
    }
    return lines;
  }
}

/** Records an event: what, and two numbers whose meaning depends on it. */
export function ktrace(cx: Cx, what: string, a: number, b = 0): void {
  const { ktr } = cx.k;
  const at = ktr.count++ & (KTR_ENTRIES - 1);
  const gd = cx.gd;
  ktr.what[at] = what;
  ktr.cpu[at] = gd.gdCpuid;
  ktr.thread[at] = gd.gdCurthread.tdComm;
  ktr.a[at] = a;
  ktr.b[at] = b;
}
