/**
 * What the system calls itself (`sys/conf/newvers.sh`).
 *
 * Room: leaf of `kernel/proc/`; imports nothing.
 *
 * @module
 */

/** `kern.ostype`: programs that ask expect DragonFly. */
export const OSTYPE = "DragonFly";
/** `kern.osrelease`: the tree that this kernel follows. */
export const OSRELEASE = "3.7-EXUVIA";
/** `kern.version`. */
export const VERSION = "DragonFly v3.7-EXUVIA";
/** `kern.osreldate`. */
export const OSRELDATE = 300701;
