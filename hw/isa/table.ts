/**
 * The instruction table: all rows, gathered. A row's position here is its number in form keys and in nothing that
 * outlives a run.
 *
 * Room: `hw/isa/`; imports the row files.
 *
 * @module
 */
import { bitRows } from "./bit_rows.ts";
import { controlRows } from "./control_rows.ts";
import { fxsaveRows } from "./fxsave_rows.ts";
import { gateRows } from "./gate_rows.ts";
import { hintRows } from "./hint_rows.ts";
import { integerRows } from "./integer_rows.ts";
import { legacyRows } from "./legacy_rows.ts";
import { mmxRows } from "./mmx_rows.ts";
import { moveRows } from "./move_rows.ts";
import { shiftRows } from "./shift_rows.ts";
import { sseFloatRows } from "./sse_float_rows.ts";
import { sseIntegerRows } from "./sse_integer_rows.ts";
import { sseMoveRows } from "./sse_move_rows.ts";
import { stackRows } from "./stack_rows.ts";
import { stringRows } from "./string_rows.ts";
import { system2Rows } from "./system2_rows.ts";
import { systemRows } from "./system_rows.ts";
import { vmxRows } from "./vmx_rows.ts";
import { x87Rows } from "./x87_rows.ts";
import type { Row } from "./form.ts";

/** Every row of the instruction table. */
export const rows: readonly Row[] = [
  ...bitRows,
  ...controlRows,
  ...fxsaveRows,
  ...gateRows,
  ...hintRows,
  ...integerRows,
  ...legacyRows,
  ...mmxRows,
  ...moveRows,
  ...shiftRows,
  ...sseFloatRows,
  ...sseIntegerRows,
  ...sseMoveRows,
  ...stackRows,
  ...stringRows,
  ...system2Rows,
  ...systemRows,
  ...vmxRows,
  ...x87Rows,
];
