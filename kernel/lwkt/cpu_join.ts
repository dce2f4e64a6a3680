/**
 * A processor joins the kernel: its globaldata and its idle thread (`init_param`, `ap_init`'s end).
 *
 * Room: `kernel/lwkt/`; imports threads and globaldata.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Kernel } from "../kernel.ts";
import { Globaldata } from "./globaldata.ts";
import { TDF, TDPRI, Thread } from "./thread.ts";

/** What the platform has made for it. */
export interface CpuMemory {
  /** Linear address of what machine code sees of its globaldata. */
  readonly globaldata: Gva;
  /** Lowest address of the idle thread's stack. */
  readonly kstack: Gva;
  /** The idle thread's pcb. */
  readonly pcb: Gva;
}

/** Makes the running continuation a processor's idle thread; from then on there is a `mycpu`. */
export function cpuJoin(k: Kernel, id: number, { globaldata, kstack, pcb }: CpuMemory): Globaldata {
  const idle = new Thread({ name: `idle_${id}`, pri: TDPRI.IDLE_THREAD, pcb, kstack, fn: undefined });
  const gd = new Globaldata(id, globaldata, idle);
  idle.tdGd = gd;
  idle.tdFlags |= TDF.KERNTHREAD | TDF.RUNNING;
  k.lwkt.allThreads.add(idle);
  k.lwkt.gds[id] = gd;
  k.lwkt.smpActiveMask |= gd.gdCpumask;
  return gd;
}
