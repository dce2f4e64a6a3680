/**
 * The order in which the kernel comes up (`sys/kern/init_main.c`: the SYSINITs).
 *
 * Room: `kernel/kern/`; imports every part's start.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { linuxBrand } from "../linux/linux_sysvec.ts";
import { lwktExit } from "../lwkt/thread.ts";
import { pmapInit } from "../pmap/pmap_bootstrap.ts";
import { createInit, procInit } from "../proc/init.ts";
import { dragonflySysvec } from "../proc/sysvec.ts";
import { vfsInit } from "../vfs/vfs_conf.ts";
import { vmPagerInit } from "../vm/vm_init.ts";
import { swapPagerInit } from "../vm/swap_pager.ts";
import { kmemInit } from "../vm/vm_kern.ts";
import { vmPageStartup } from "../vm/vm_page_alloc.ts";
import { vmPageoutStart } from "../vm/vm_pageout_daemon.ts";
import { swapon } from "../vm/vm_swap.ts";
import { sysent } from "./init_sysent.ts";
import { kprintf } from "./subr_prf.ts";

/** The part that needs no threads: memory. Runs on the boot processor's idle thread, interrupts off. */
export function initMemory(cx: Cx): void {
  const { k } = cx;
  vmPageStartup(k, k.pmap.physAvail);
  pmapInit(k);
  kmemInit(cx);
  vmPagerInit(cx);
  swapPagerInit(cx);
  k.platform.kmemReady = true;
  const free = k.vmmeter.vFreeCount;
  kprintf(cx, `avail memory = ${free * 4096} (${Math.floor(free / 256)} MB)\n`);
}

/** The rest, in a thread of its own: daemons, devices, file systems, process 1. */
export function* initMain(cx: Cx): Exec<void> {
  const { k } = cx;
  const { body, swap } = k.options;
  yield* vmPageoutStart(cx);
  const disk = yield* k.platform.attachDisk(cx);
  if (disk !== undefined && swap !== false) {
    const error = swapon(cx, disk);
    if (error !== 0) kprintf(cx, `swapon: the disk cannot be used (error ${error})\n`);
  }
  procInit(cx, dragonflySysvec(sysent), [linuxBrand]);
  yield* vfsInit(cx);
  yield* k.platform.cnStartInput(cx);
  if (body === undefined) yield* createInit(cx);
  else {
    yield* body(cx);
    yield* k.platform.powerOff(cx);
  }
  yield* lwktExit(cx);
}
