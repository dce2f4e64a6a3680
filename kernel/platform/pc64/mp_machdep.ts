/**
 * Starting the other processors (`mp_machdep.c`): INIT and start-up IPIs through the local APIC, then each parks in HLT.
 *
 * Room: `kernel/platform/pc64/`; imports machdep.ts. SDM vol. 3A, "Multiple-Processor (MP) Initialization".
 *
 * @module
 */
import { type Gva, gva } from "../../../hw/address.ts";
import type { Exec, GateCpu } from "../../../hw/gates.ts";
import type { Kernel, KernelCpu } from "../../kernel.ts";
import { kprint } from "./console.ts";
import { GD } from "./globaldata.ts";
import { cpuSetup } from "./machdep.ts";
import { LAPIC_VA, MPTRAMPOLINE, physToDmap } from "./vmparam.ts";

/** Local APIC registers, byte offsets. */
const LAPIC = { ID: 0x20, SVR: 0xf0, ICR_LOW: 0x300, ICR_HIGH: 0x310 } as const;
/** Spurious-interrupt vector register: software enable, vector FFH. */
const SVR_ENABLE = 0x1ff;
/** INIT, level assert; start-up with the vector = page number. */
const ICR_INIT = 0x4500;
const ICR_STARTUP = 0x4600;
/** Steps to wait for a processor that was started; each is an instruction here and many there. */
const WAIT_STEPS_MAX = 200_000;
/** Local APIC ids of this machine count up from 0 without holes. */
const APIC_IDS_MAX = 16;

function lapic(register: number): Gva {
  return gva(LAPIC_VA + BigInt(register));
}

/** Enables the boot processor's local APIC and starts every processor that answers. */
export function* cpuMpAnnounce(k: Kernel, cpu: GateCpu, count: number): Exec<void> {
  yield* cpu.store32(lapic(LAPIC.SVR), SVR_ENABLE);
  if (count <= 1) return;
  yield* cpu.storeBytes(physToDmap(MPTRAMPOLINE), k.locore.trampoline);
  for (let id = 1; id < Math.min(count, APIC_IDS_MAX); id++) {
    const ap = yield* cpuSetup(k, cpu, id);
    yield* cpu.store64(gva(k.locore.apGlobaldata), ap.globaldata);
    yield* sendIpi(cpu, id, ICR_INIT);
    yield* sendIpi(cpu, id, ICR_STARTUP | (MPTRAMPOLINE >>> 12));
    for (let i = 0; i < WAIT_STEPS_MAX && k.cpus[id] === undefined; i++) yield;
    if (k.cpus[id] === undefined) yield* kprint(cpu, `cpu${id}: does not start\n`);
  }
  if (k.options.verbose !== false) yield* kprint(cpu, `smp: ${k.cpus.length} processors\n`);
}

function* sendIpi(cpu: GateCpu, apicId: number, command: number): Exec<void> {
  yield* cpu.store32(lapic(LAPIC.ICR_HIGH), apicId << 24);
  yield* cpu.store32(lapic(LAPIC.ICR_LOW), command);
}

/** First TypeScript on another processor: it says that it is there. */
export function* apInit(k: Kernel, cpu: GateCpu): Exec<void> {
  const globaldata = gva(yield* cpu.load64(gva(k.locore.apGlobaldata)));
  yield* cpu.store32(lapic(LAPIC.SVR), SVR_ENABLE);
  const id = Number(yield* cpu.load64(gva(globaldata + BigInt(GD.cpuid))));
  const stackTop = gva(yield* cpu.load64(gva(globaldata + BigInt(GD.kernelStack))));
  const me: KernelCpu = { id, globaldata, stackTop };
  k.cpus[id] = me;
}
