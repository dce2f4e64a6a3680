/**
 * Exuvia: a complete simulated x86-64 PC, and a small kernel in TypeScript that runs on it.
 *
 * A machine is built from options, loaded with an image, and run until something stops it:
 *
 * ```ts
 * import { Machine } from "@exuvia/exuvia";
 *
 * const machine = new Machine({ memory: 1 << 20, seed: 7 });
 * const stop = machine.run({ steps: 100 }); // no image: the reset vector asks for a reset
 * console.log(stop.reason, machine.instructions, machine.hash());
 * ```
 *
 * {@link loadImage} loads multiboot, Linux and ELF64 images; {@link bootKernel} loads the TypeScript kernel into a machine that has gates.
 *
 * @module
 */

// ---- the machine
export * from "./hw/machine.ts";
export * from "./hw/address.ts";
export { TICKS_PER_SECOND } from "./hw/clock.ts";
export type { Timer } from "./hw/clock.ts";
export { cpuModels, customModel, defaultModel } from "./hw/cpuid.ts";
export type { CacheShape, CpuModel, ModelChanges } from "./hw/cpuid.ts";
export type { Cpu, Procedure, Procedures } from "./hw/cpu.ts";
export type { MachineMemory } from "./hw/memory.ts";
export type { RunBounds } from "./hw/scheduler.ts";
export { R, S, SEG } from "./hw/state.ts";
export type { AccessSize, Bus, MmioDevice, PortDevice } from "./hw/bus.ts";
export { MemoryDisk } from "./hw/dev/virtio_blk.ts";
export type { BlockStore } from "./hw/dev/virtio_blk.ts";
export type { StuckBit } from "./hw/dev/stuck_bits.ts";

// ---- images
export * from "./hw/boot/boot_error.ts";
export * from "./hw/boot/image.ts";
export type { BootTarget } from "./hw/boot/memory_map.ts";
export type { BootModule } from "./hw/boot/multiboot.ts";

// ---- translation, and looking into it
export type { TlbChoice } from "./hw/tlb.ts";
export type { NestedGeometry, TlbArrayShape, TlbGeometry } from "./hw/tlb_geometry.ts";
export { Sanitizer } from "./hw/sanitizer.ts";
export type { MappingKind, StaleUse, TableChange } from "./hw/sanitizer.ts";
export type { Birth } from "./hw/tlb_rules.ts";
export type { Counters, CounterValues } from "./hw/counters.ts";
export * from "./hw/trace.ts";
export * from "./hw/explain_walk.ts";
export * from "./hw/explain_ept.ts";
export type { VmxParameters } from "./hw/vmx/features.ts";

// ---- VMX, and why it failed
export * from "./hw/vmx/explain.ts";
export { vmxCapability } from "./hw/vmx/capability.ts";
export type { ControlRange, VmxCapability } from "./hw/vmx/capability.ts";
export { F } from "./hw/vmx/fields.ts";
export type { FieldName } from "./hw/vmx/fields.ts";
export { machineCheckAtEntry } from "./hw/vmx/entry.ts";

// ---- gates
export {
  CONTINUATIONS_MAX,
  GATE_BYTES,
  GateCpu,
  GateTable,
  KernelPanic,
  OperationAborted,
} from "./hw/gates.ts";
export { RESUME_NUMBER } from "./hw/gates.ts";
export type { Exec, GateBody, GateOptions, GateSpace, GateTableOptions, Step } from "./hw/gates.ts";

// ---- the kernel
export { bootKernel } from "./kernel/boot.ts";
export * from "./kernel/kernel.ts";
export type { KernelLayout } from "./kernel/platform/layout.ts";
export { type ArchiveEntry, cpio } from "./kernel/vfs/cpio.ts";
export { Cx } from "./kernel/context.ts";
export { HISTORICAL_BUGS, type HistoricalBug } from "./kernel/bugs.ts";
export { userSyscall, type UserSyscallResult } from "./kernel/proc/user_gate.ts";
export { VkernelState } from "./kernel/vm/vkernel_state.ts";
export { Vmmeter } from "./kernel/vm/vmmeter.ts";
export type { FaultReport } from "./kernel/trap/report.ts";
export type { TF, TrapField, Trapframe } from "./kernel/platform/pc64/frame.ts";
export type { VmmAdMode, VmmDesign, VmmOptions } from "./kernel/vmm/vmm_state.ts";
