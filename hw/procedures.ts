/**
 * The procedures that descriptions call by name, gathered.
 *
 * Room: `hw/`; imports the files that have them.
 *
 * @module
 */
import type { Procedures } from "./cpu.ts";
import { gateProcedures } from "./gates.ts";
import { fxsaveProcedures } from "./isa/fxsave_proc.ts";
import { integerProcedures } from "./isa/integer_proc.ts";
import { sseProcedures } from "./isa/sse_proc.ts";
import { x87Procedures } from "./isa/x87_proc.ts";
import { msrProcedures } from "./msr.ts";
import { controlRegisterProcedures } from "./sys/control_registers.ts";
import { debugProcedures } from "./sys/debug.ts";
import { eventProcedures } from "./sys/event.ts";
import { ioProcedures } from "./sys/io.ts";
import { returnProcedures } from "./sys/return.ts";
import { segmentProcedures } from "./sys/segments.ts";
import { syscallProcedures } from "./sys/syscall.ts";
import { transferProcedures } from "./sys/transfer.ts";
import { vmeProcedures } from "./sys/vme.ts";
import { vmxProcedures } from "./vmx/instructions.ts";

/** Every procedure of the instruction table. */
export const procedures: Procedures = {
  ...controlRegisterProcedures,
  ...debugProcedures,
  ...eventProcedures,
  ...fxsaveProcedures,
  ...gateProcedures,
  ...integerProcedures,
  ...ioProcedures,
  ...msrProcedures,
  ...returnProcedures,
  ...segmentProcedures,
  ...sseProcedures,
  ...syscallProcedures,
  ...transferProcedures,
  ...vmeProcedures,
  ...vmxProcedures,
  ...x87Procedures,
};
