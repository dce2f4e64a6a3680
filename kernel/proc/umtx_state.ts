/**
 * Who waits for words of user memory (`sys/kern/kern_umtx.c`), as the kernel keeps it.
 *
 * Room: leaf of `kernel/proc/`; imports nothing.
 *
 * @module
 */

/** What waiters of one word sleep on. */
export class UmtxIdent {
  /** Threads that sleep on it or are about to. When the last leaves it is forgotten. */
  waiters = 0;
}

/** The words that somebody waits for: by address space and address, or for shared memory by object and offset. */
export class UmtxState {
  /** First key: a Vmspace or a VmObject. Second: address or byte offset. */
  readonly idents: Map<object, Map<bigint, UmtxIdent>> = new Map();
}
