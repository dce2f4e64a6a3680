/**
 * Exuvia: a complete simulated x86-64 PC, and a small kernel in TypeScript that runs on it.
 *
 * A machine is built from options, loaded with an image, and run until something stops it:
 *
 * ```ts
 * import { loadImage, Machine } from "@exuvia/exuvia";
 *
 * const machine = new Machine({ memory: 32 << 20, seed: 7 });
 * // ... loadImage(machine, await Deno.readFile("image.elf"));
 * const stop = machine.run({ steps: 1_000_000 });
 * console.log(stop.reason, machine.hash());
 * ```
 *
 * The kernel is loaded with {@link bootKernel} into a machine that has gates.
 *
 * @module
 */

// ---- the machine
export * from "./hw/machine.ts";
export { TICKS_PER_SECOND } from "./hw/clock.ts";
export * from "./hw/address.ts";
export * from "./hw/boot/boot_error.ts";
export * from "./hw/boot/image.ts";

// ---- looking into it
export * from "./hw/explain_walk.ts";

// ---- gates
export * from "./hw/gates.ts";

// ---- the kernel
export { bootKernel } from "./kernel/boot.ts";
export * from "./kernel/kernel.ts";
