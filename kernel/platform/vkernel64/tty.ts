/**
 * The terminal under a vkernel's console: raw while it runs, since the guest's own line discipline does the editing.
 *
 * Room: `kernel/platform/vkernel64/`; imports the host's calls and the layout of termios.
 *
 * @module
 */
import { gva } from "../../../hw/address.ts";
import type { Exec, GateCpu } from "../../../hw/gates.ts";
import { Termios, TERMIOS_BYTES, TIOCGETA, TIOCSETA } from "../../kern/termios.ts";
import { host, SYS } from "./host.ts";

/** Makes descriptor 0 raw if it is a terminal; gives what it was, or undefined. @param io Bytes for the calls. */
export function* rawTty(u: GateCpu, io: bigint): Exec<Uint8Array<ArrayBuffer> | undefined> {
  if ((yield* host(u, SYS.ioctl, 0, TIOCGETA, io)).errno !== 0) return undefined;
  const old = yield* u.loadBytes(gva(io), TERMIOS_BYTES);
  const raw = new Termios();
  raw.decode(old);
  raw.cIflag = 0;
  raw.cOflag = 0;
  raw.cLflag = 0;
  yield* setTty(u, io, raw.encode());
  return old;
}

/** Sets descriptor 0's modes. */
export function* setTty(u: GateCpu, io: bigint, modes: Uint8Array): Exec<void> {
  yield* u.storeBytes(gva(io), modes);
  yield* host(u, SYS.ioctl, 0, TIOCSETA, io);
}
