/**
 * Character devices (`sys/sys/device.h`, `conf.h`): what a driver offers to devfs.
 *
 * Room: `kernel/vfs/devfs/`; imports types.
 *
 * @module
 */
import type { Exec } from "../../../hw/gates.ts";
import type { Cx } from "../../context.ts";
import type { Kernel } from "../../kernel.ts";
import type { PollWaiter } from "../selinfo.ts";
import type { Uio } from "../uio.ts";

/** What a device does (`struct dev_ops`); what is missing fails or does nothing. Numbers are error numbers. */
export interface DevOps {
  dOpen?(cx: Cx, dev: Cdev, fflag: number): number;
  dClose?(cx: Cx, dev: Cdev): void;
  dRead?(cx: Cx, dev: Cdev, uio: Uio, ioflag: number): Exec<number>;
  dWrite?(cx: Cx, dev: Cdev, uio: Uio, ioflag: number): Exec<number>;
  dIoctl?(cx: Cx, dev: Cdev, com: number, data: Uint8Array): Exec<number>;
  /** POLL* that are there now. Default: always ready. */
  dPoll?(cx: Cx, dev: Cdev, events: number, waiter: PollWaiter | undefined): number;
  /** mmap: anonymous zeros (/dev/zero). Without it mmap gives ENODEV. */
  readonly dMmapZero?: boolean;
}

/** A device (`struct cdev`). */
export class Cdev {
  /** `si_name`: its path below /dev. */
  readonly siName: string;
  /** `si_umajor` and `si_uminor` as `st_rdev` shows them. */
  readonly siRdev: number;
  /** Owner, group, permission bits. */
  readonly siUid: number;
  readonly siGid: number;
  readonly siPerms: number;
  /** `si_ops`. */
  readonly siOps: DevOps;
  /** `si_drv1`: the driver's own. */
  readonly siDrv1: object | undefined;
  /** The descriptor that opening it duplicates (/dev/fd/N, /dev/stdin …). */
  readonly siDupfd: number | undefined;
  /** Opens not closed yet. */
  siOpencount = 0;

  /** See {@link makeDev}. */
  constructor(name: string, rdev: number, options: MakeDevOptions) {
    this.siName = name;
    this.siRdev = rdev;
    this.siUid = options.uid ?? 0;
    this.siGid = options.gid ?? 0;
    this.siPerms = options.perms;
    this.siOps = options.ops;
    this.siDrv1 = options.drv1;
    this.siDupfd = options.dupfd;
  }
}

/** How a device is made. */
export interface MakeDevOptions {
  readonly ops: DevOps;
  readonly perms: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly drv1?: object;
  readonly dupfd?: number;
}

/** Makes a device and puts it into /dev (`make_dev`). @throws {Error} when there is one of that name. */
export function makeDev(k: Kernel, name: string, options: MakeDevOptions): Cdev {
  const { vfs } = k;
  if (vfs.devices.has(name)) throw new Error(`make_dev: there is a device "${name}" already`);
  const dev = new Cdev(name, vfs.nextMinor++, options);
  vfs.devices.set(name, dev);
  return dev;
}

/** The device that a number names, if any (`udev2dev`). */
export function udev2dev(k: Kernel, rdev: number): Cdev | undefined {
  for (const dev of k.vfs.devices.values()) if (dev.siRdev === rdev) return dev;
  return undefined;
}
