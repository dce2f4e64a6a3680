/**
 * Starting the other processors (`mp_machdep.c`): INIT and start-up IPIs through the local APIC; each becomes its idle thread.
 *
 * Room: `kernel/platform/pc64/`; imports machdep.ts and lwkt. SDM vol. 3A, "Multiple-Processor (MP) Initialization".
 *
 * @module
 */
import { gva } from "../../../hw/address.ts";
import type { Exec } from "../../../hw/gates.ts";
import type { Cx } from "../../context.ts";
import { pmapInitPat } from "../../pmap/pmap_bootstrap.ts";
import { kprintf } from "../../kern/subr_prf.ts";
import { cpuJoin } from "../../lwkt/cpu_join.ts";
import type { Globaldata } from "../../lwkt/globaldata.ts";
import { ICR_INIT, ICR_STARTUP, lapicInit, lapicIpi } from "./lapic.ts";
import { cpuSetup } from "./machdep.ts";
import type { Pc64 } from "./pc64.ts";
import { MPTRAMPOLINE, physToDmap } from "./vmparam.ts";

/** Steps to wait for a processor that was started; each is an instruction here and many there. */
const WAIT_STEPS_MAX = 200_000;
/** Local APIC ids of this machine count up from 0 without holes. */
const CPUS_MAX = 16;

/** Starts every processor that answers. */
export function* cpuMpAnnounce(cx: Cx, pc64: Pc64, count: number): Exec<void> {
  const { k, cpu } = cx;
  if (count <= 1) return;
  yield* cpu.storeBytes(physToDmap(MPTRAMPOLINE), pc64.locore.trampoline);
  for (let id = 1; id < Math.min(count, CPUS_MAX); id++) {
    const tables = yield* cpuSetup(k, pc64, cpu, id);
    yield* cpu.store64(gva(pc64.locore.apGlobaldata), tables.globaldata);
    yield* lapicIpi(cpu, id, ICR_INIT);
    yield* lapicIpi(cpu, id, ICR_STARTUP | (MPTRAMPOLINE >>> 12));
    for (let i = 0; i < WAIT_STEPS_MAX && k.lwkt.gds[id] === undefined; i++) yield;
    if (k.lwkt.gds[id] === undefined) {
      kprintf(cx, `cpu${id}: does not start\n`);
      break;
    }
  }
  k.ncpus = k.lwkt.gds.length;
  kprintf(cx, `SMP: ${k.ncpus} CPUs\n`);
}

/** Makes the running continuation a processor's idle thread; from then on there is a `mycpu`. */
export function becomeIdleThread(cx: Cx, pc64: Pc64, id: number): Globaldata {
  const { globaldata, kstack, stackTop } = pc64.tables[id]!;
  return cpuJoin(cx.k, id, { globaldata, kstack, pcb: stackTop });
}

/** First TypeScript on another processor. */
export function* apInit(cx: Cx, pc64: Pc64): Exec<void> {
  yield* lapicInit(cx.cpu);
  const id = cx.cpu.cpu.id;
  // The pcb must say what a switch back to this thread needs.
  yield* pc64.initIdlePcb(cx, id);
  yield* pmapInitPat(cx.cpu);
  becomeIdleThread(cx, pc64, id);
  // Invalidations of kernel mappings reach this processor from now on; what it missed before must not stay.
  pc64.invltlb(cx, cx.k.pmap.kernelPmap);
}
