/**
 * UD0, the opcode that is undefined for good, of which two forms join machine code and TypeScript (DESIGN 2.5).
 *
 *     0F FF 05 n32          GATE n     (UD0 with a RIP-relative memory operand whose displacement is n)
 *     0F FF 05 FF FF FF FF  RESUME     (the same with displacement −1)
 *
 * Every other form, and these two on a machine without gates or for a gate that is not there, raises #UD (SDM vol. 2B, "UD").
 * The operand is never accessed; Intel processors decode the ModRM byte and so do we, which gives the form a length of 7.
 *
 * Room: `hw/isa/`; imports the vocabulary of rows. What a gate does is in hw/gates.ts.
 *
 * @module
 */
import { type Row, row } from "./form.ts";

/** Vector of the invalid-opcode exception. */
const UD = 6;

/** The rows of UD0. */
export const gateRows: readonly Row[] = [
  row("UD0", ["0F FF /r Gv:none Ev:none"], { ends: true }, (b, [, rm], f) => {
    if (rm === undefined || rm.kind !== "mem" || f.mode !== 2 || f.aw !== 64) {
      b.fault(UD);
      return;
    }
    // With a RIP-relative operand this difference is the displacement; with any other it is no gate's number, or if a
    // guest makes it one, that is just a second spelling of the same request.
    b.callEnd("gate", b.sub(64, b.ea(rm), b.nextIp()));
  }),
];
