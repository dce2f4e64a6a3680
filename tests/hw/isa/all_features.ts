/**
 * Every feature that a row asks for.
 *
 * @module
 */
import { rows } from "../../../hw/isa/table.ts";

/** Every feature that a row asks for. */
export const ALL_FEATURES: ReadonlySet<string> = new Set(
  rows.map((row) => row.flags.cpuid).filter((name) => name !== undefined),
);
