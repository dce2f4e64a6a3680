/**
 * Operations of a vnode that is a device (`vfs/devfs/devfs_vnops.c`, the "spec" half): they go to the driver.
 *
 * Room: `kernel/vfs/devfs/`; imports vnode and devices. A file system derives its device nodes' operations from {@link SpecOps}.
 *
 * @module
 */
import type { Exec } from "../../../hw/gates.ts";
import type { Cx } from "../../context.ts";
import { ERRNO } from "../../kern/errno.ts";
import type { Ucred } from "../../proc/ucred.ts";
import type { PollWaiter } from "../selinfo.ts";
import type { Uio } from "../uio.ts";
import { VDIR, type Vnode, VnodeOps, vopStdopen } from "../vnode.ts";
import type { File } from "../../kern/file.ts";

/** Devices. */
export class SpecOps extends VnodeOps {
  override *vopOpen(cx: Cx, vp: Vnode, fflag: number, cred: Ucred, fp: File | undefined): Exec<number> {
    const dev = vp.vRdev;
    if (vp.vType === VDIR) return vopStdopen(vp, fflag);
    if (dev === undefined) return ERRNO.ENXIO;
    const error = dev.siOps.dOpen?.(cx, dev, fflag) ?? 0;
    if (error !== 0) return error;
    dev.siOpencount++;
    return yield* super.vopOpen(cx, vp, fflag, cred, fp);
  }
  override *vopClose(cx: Cx, vp: Vnode, fflag: number): Exec<number> {
    const dev = vp.vRdev;
    if (dev !== undefined && --dev.siOpencount === 0) dev.siOps.dClose?.(cx, dev);
    return yield* super.vopClose(cx, vp, fflag);
  }
  override *vopRead(cx: Cx, vp: Vnode, uio: Uio, ioflag: number): Exec<number> {
    const dev = vp.vRdev;
    if (dev?.siOps.dRead === undefined) return ERRNO.ENXIO;
    if (uio.resid === 0) return 0;
    return yield* dev.siOps.dRead(cx, dev, uio, ioflag);
  }
  override *vopWrite(cx: Cx, vp: Vnode, uio: Uio, ioflag: number): Exec<number> {
    const dev = vp.vRdev;
    if (dev?.siOps.dWrite === undefined) return ERRNO.ENXIO;
    if (uio.resid === 0) return 0;
    return yield* dev.siOps.dWrite(cx, dev, uio, ioflag);
  }
  override *vopIoctl(cx: Cx, vp: Vnode, com: number, data: Uint8Array, _fflag: number): Exec<number> {
    const dev = vp.vRdev;
    if (dev?.siOps.dIoctl === undefined) return ERRNO.ENOTTY;
    return yield* dev.siOps.dIoctl(cx, dev, com, data);
  }
  override vopPoll(cx: Cx, vp: Vnode, events: number, waiter: PollWaiter | undefined): number {
    const dev = vp.vRdev;
    if (dev?.siOps.dPoll === undefined) return super.vopPoll(cx, vp, events, waiter);
    return dev.siOps.dPoll(cx, dev, events, waiter);
  }
}
