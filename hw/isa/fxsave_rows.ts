/**
 * Rows that save and restore x87, SSE and protection-key state: FXSAVE, FXRSTOR, the XSAVE family, XGETBV, XSETBV. The work
 * is in fxsave_proc.ts.
 *
 * Room: `hw/isa/`; imports the state layout and types.
 *
 * @module
 */
import { S } from "../state.ts";
import type { Builder, Semantic } from "./builder.ts";
import { type Row, row } from "./form.ts";

const UD = 6, NM = 7, GP = 13;
/** CR4.OSXSAVE is bit 18, CR0.TS bit 3. */
const CR4_OSXSAVE_BIT = 18, CR0_TS_BIT = 3;

/** #UD unless the operating system has enabled the XSAVE feature set. */
function enabled<I, C, X>(b: Builder<I, C, X>): void {
  b.faultIf(b.notC(b.bit(b.state(S.CR4, 64), CR4_OSXSAVE_BIT)), UD);
}

/** FXSAVE, FXRSTOR: effective address, segment, and whether REX.W asks for 64-bit pointers. */
function legacy(procedure: string, wide: boolean): Semantic {
  return (b, [area]) => b.call(procedure, b.ea(area!), b.segmentOf(area!), b.imm(wide ? 1 : 0));
}

/** The XSAVE family: needs CR4.OSXSAVE, and CR0.TS clear (CR0.EM does not matter). */
function extended(procedure: string, wide: boolean): Semantic {
  return (b, [area]) => {
    enabled(b);
    b.faultIf(b.bit(b.state(S.CR0, 64), CR0_TS_BIT), NM);
    b.call(procedure, b.ea(area!), b.segmentOf(area!), b.imm(wide ? 1 : 0));
  };
}

/**
 * XSAVES and XRSTORS: for CPL 0; a VMX guest needs "enable XSAVES/XRSTORS" (secondary control 20). The XSS-exiting bitmap never makes them
 * exit: no bit of IA32_XSS can be set.
 */
function supervisor(procedure: string, wide: boolean): Semantic {
  return (b, [area]) => {
    enabled(b);
    const enabledForGuest = b.bit(b.state(S.VMX_PROC2, 32), 20);
    b.faultIf(b.andC(b.eq(b.state(S.VMX_MODE, 32), b.imm(2)), b.notC(enabledForGuest)), UD);
    b.faultIf(b.bit(b.state(S.CR0, 64), CR0_TS_BIT), NM);
    b.faultIf(b.ne(b.state(S.CPL, 32), b.imm(0)), GP, 0);
    b.call(procedure, b.ea(area!), b.segmentOf(area!), b.imm(wide ? 1 : 0));
  };
}

/** Both formats of one instruction. */
function both(
  mnemonic: string,
  encoding: string,
  cpuid: string,
  describe: (procedure: string, wide: boolean) => Semantic,
): Row[] {
  const procedure = mnemonic.toLowerCase();
  const flags = cpuid === "fxsr" ? { cpuid, trap: "x87" } as const : { cpuid };
  return [
    row(mnemonic, [`NP W0 ${encoding} M`], flags, describe(procedure, false)),
    row(`${mnemonic}64`, [`NP W1 ${encoding} M`], flags, describe(procedure, true)),
  ];
}

/** All rows of this file. */
export const fxsaveRows: readonly Row[] = [
  ...both("FXSAVE", "0F AE /0:mem", "fxsr", legacy),
  ...both("FXRSTOR", "0F AE /1:mem", "fxsr", legacy),
  ...both("XSAVE", "0F AE /4:mem", "xsave", extended),
  ...both("XRSTOR", "0F AE /5:mem", "xsave", extended),
  ...both("XSAVEOPT", "0F AE /6:mem", "xsaveopt", extended),
  ...both("XSAVEC", "0F C7 /4:mem", "xsavec", extended),
  ...both("XSAVES", "0F C7 /5:mem", "xsaves", supervisor),
  ...both("XRSTORS", "0F C7 /3:mem", "xsaves", supervisor),
  row("XGETBV", ["NP 0F 01 /D0"], { cpuid: "xsave" }, (b) => {
    enabled(b);
    b.call("xgetbv");
  }),
  row("XSETBV", ["NP 0F 01 /D1"], { cpuid: "xsave" }, (b) => {
    enabled(b);
    b.faultIf(b.ne(b.state(S.CPL, 32), b.imm(0)), GP, 0);
    b.call("xsetbv");
  }),
];
