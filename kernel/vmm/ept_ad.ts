/**
 * Accessed and dirty bits where the processor has none for EPT (sections 16.4 and 19 of the reference).
 *
 * Room: `kernel/vmm/`; imports the pmap's tables.
 *
 * @module
 */
import type { Gva } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import type { Pmap } from "../pmap/pmap.ts";
import type { VmProt } from "../vm/vm_param.ts";

/** Placeholder until the format is there. */
export function* eptEmulateAccessedDirty(_cx: Cx, _pmap: Pmap, _va: Gva, _type: VmProt): Exec<boolean> {
  return yield* no();
}
function* no(): Exec<boolean> {
  return false;
}
