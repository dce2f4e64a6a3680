/**
 * Rows that need no image: parts of the machine called from TypeScript.
 *
 * Room: `bench/`; imports `hw/`.
 *
 * @module
 */
import { Access } from "../hw/access.ts";
import { Bus } from "../hw/bus.ts";
import { Cpu } from "../hw/cpu.ts";
import { defaultModel } from "../hw/cpuid.ts";
import type { EngineKind } from "../hw/machine.ts";
import { MachineMemory } from "../hw/memory.ts";
import { ACCESS, CR0_PG, CR0_WP, CR4_PAE, EFER_LMA, EFER_NXE, PTE, Walker } from "../hw/paging.ts";
import { RAM_BASE, S } from "../hw/state.ts";
import type { Target } from "./programs.ts";

/** One row: a function that does `times` of something and gives a sum that nobody can optimise away. */
export interface Micro {
  readonly name: string;
  readonly about: string;
  /** What is counted, as a plural. */
  readonly event: string;
  /** Set when it does not run on an engine, but in TypeScript alone. */
  readonly withoutEngine?: true;
  readonly target?: Target;
  make(engine: EngineKind): (times: number) => number;
}

const TABLES = 0x10_000, PAGES = 64;

/** A processor in 64-bit mode with 64 pages of 4 KiB mapped through four levels at linear address 0, A and D set. */
function pagedCpu(): Cpu {
  const memory = new MachineMemory(4 << 20);
  const cpu = new Cpu({ id: 0, memory, bus: new Bus(memory), model: defaultModel });
  cpu.access = new Access(cpu);
  const flags = PTE.P | PTE.W | PTE.U | PTE.A | PTE.D;
  const entry = (table: number, index: number, value: number) => {
    memory.u32[(RAM_BASE + TABLES + table * 4096 + index * 8) >>> 2] = value | flags;
  };
  for (let table = 0; table < 3; table++) entry(table, 0, TABLES + (table + 1) * 4096);
  for (let page = 0; page < PAGES; page++) entry(3, page, 0x10_0000 + page * 4096);
  cpu.set32(S.CODEMODE, 2);
  cpu.set32(S.CR0, 1 | CR0_PG | CR0_WP);
  cpu.set32(S.CR4, CR4_PAE);
  cpu.set32(S.EFER, EFER_LMA | EFER_NXE);
  cpu.set32(S.CR3, TABLES);
  return cpu;
}

/** The rows. */
export const MICROS: readonly Micro[] = [
  {
    name: "walk",
    about: "page walks of four levels, without any TLB",
    event: "page walks",
    withoutEngine: true,
    make: () => {
      const cpu = pagedCpu();
      const walker = new Walker(cpu, cpu.access.features, { pure: false, storeSlow: () => {} });
      return (times) => {
        let sum = 0;
        for (let i = 0; i < times; i++) {
          if (walker.walk((i % PAGES) * 4096, 0, ACCESS.READ) >= 0) throw new Error("a walk failed");
          sum += walker.page;
        }
        return sum;
      };
    },
  },
];
