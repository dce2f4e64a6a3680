/**
 * The wasm ways through a miss of the fast TLB, for one machine.
 *
 * Room: `hw/engine/`; imports `wasm/misses.ts`, which says what the functions are. Handlers and compiled regions import them in the place
 * of the TypeScript functions of the same names.
 *
 * @module
 */
import type { Cpu } from "../cpu.ts";
import type { MachineMemory } from "../memory.ts";
import { MISS_IMPORTS, QUICK_PROCEDURES, writeMisses } from "./wasm/misses.ts";

/** A function between wasm and TypeScript; all numbers are i32. */
export type HostFunction = (...args: number[]) => number | void;

function missing(): never {
  throw new Error("A miss of a kind that this machine has no function for");
}

/** Compiled modules by what they depend on: machines of one model and memory size share one. */
const modules = new Map<string, WebAssembly.Module>();

/**
 * Makes the wasm functions for these processors.
 *
 * @param slow The TypeScript functions that they fall back on.
 * @returns What wasm/misses.ts exports.
 */
export function missFunctions(
  memory: MachineMemory,
  cpus: readonly Cpu[],
  slow: Readonly<Record<string, HostFunction>>,
): Record<string, HostFunction> {
  const pages = memory.buffer.byteLength / 0x1_0000;
  const { features, eptFeatures } = cpus[0]!.access;
  const key = `${pages} ${JSON.stringify(features)} ${JSON.stringify(eptFeatures)}`;
  let module = modules.get(key);
  if (module === undefined) {
    module = new WebAssembly.Module(writeMisses(pages, { paging: features, ept: eptFeatures }));
    modules.set(key, module);
  }
  const names = [...MISS_IMPORTS, ...QUICK_PROCEDURES.map((name) => `proc:${name}`)];
  const f = Object.fromEntries(names.map((name) => [name, slow[name] ?? missing]));
  const instance = new WebAssembly.Instance(module, { m: { memory: memory.wasm }, f });
  return { ...instance.exports } as Record<string, HostFunction>;
}
