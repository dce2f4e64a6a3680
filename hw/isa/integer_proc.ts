/**
 * Procedures of the general-purpose rows.
 *
 * Room: `hw/isa/`; knows the processor.
 *
 * @module
 */
import type { Procedures } from "../cpu.ts";
import { EXIT_NONE } from "../state.ts";

/** `rdrand`: the next 64 bits of the processor's seeded generator, for RDRAND and RDSEED. */
export const integerProcedures: Procedures = {
  rdrand: (cpu) => {
    const low = cpu.random32();
    cpu.setResult(low, cpu.random32());
    return EXIT_NONE;
  },
};
