/**
 * Near control transfers: Jcc, JMP, CALL, RET, LOOP, JrCXZ, and BOUND (SDM vol. 2).
 *
 * Branch operands are 64 bits wide in 64-bit mode whatever the prefixes (Intel; AMD processors obey 66H). Elsewhere a
 * 16-bit operand size truncates the target to 16 bits.
 *
 * Room: `hw/isa/`; rows of the instruction table, imports only the row's own vocabulary.
 *
 * @module
 */
import type { Builder, Semantic } from "./builder.ts";
import { type Form, type Operand, type Row, row } from "./form.ts";
import { R } from "../state.ts";
import { isZero, widthOf } from "./integer_common.ts";

const BR = 5;

/** Pushes the return address and goes to `target`: all checks first. */
function callTo<I, C, X>(b: Builder<I, C, X>, f: Form, target: I): void {
  const size = f.w / 8;
  b.checkTarget(target);
  b.stackStore(f.w, -size, b.zx(f.w, b.nextIp()));
  b.stackAdjust(b.imm(-size));
  b.jump(target);
}

/** Pops the return address, and `parameters` bytes more. */
function returnPast<I, C, X>(b: Builder<I, C, X>, f: Form, parameters: number | I): void {
  const size = f.w / 8;
  const target = b.stackLoad(f.w, 0);
  b.checkTarget(target);
  b.stackAdjust(
    typeof parameters === "number" ? b.imm(size + parameters) : b.add(64, parameters as I, b.imm(size)),
  );
  b.jump(target);
}

/** LOOP, LOOPE (ZF must be set), LOOPNE (ZF must be clear). The count changes only if the jump does not fault. */
function loop(zf: boolean | undefined): Semantic {
  return (b, o, f) => {
    const rel: Operand = o[0]!;
    const left = b.sub(f.aw, b.reg(f.aw, R.RCX), b.imm(1));
    const more = b.notC(isZero(b, left));
    const taken = zf === undefined ? more : b.andC(more, zf ? b.flag("ZF") : b.notC(b.flag("ZF")));
    b.if(taken, () => b.checkTarget(b.relTarget(rel)));
    b.setReg(f.aw, R.RCX, left);
    b.jumpRelIf(taken, rel);
  };
}

const ends = { ends: true } as const;

/** Rows of near transfers. */
export const controlRows: readonly Row[] = [
  row("J", ["70 +c f64 Jb", "0F 80 +c f64 Jz"], ends, (b, o, f) => b.jumpRelIf(b.condition(f.cc), o[0]!)),
  row("JRCXZ", ["E3 f64 Jb"], ends, (b, o, f) => b.jumpRelIf(isZero(b, b.reg(f.aw, R.RCX)), o[0]!)),
  row("LOOPNE", ["E0 f64 Jb"], ends, loop(false)),
  row("LOOPE", ["E1 f64 Jb"], ends, loop(true)),
  row("LOOP", ["E2 f64 Jb"], ends, loop(undefined)),
  row("JMP", ["E9 f64 Jz", "EB f64 Jb"], ends, (b, o) => b.jumpRel(o[0]!)),
  row("JMP", ["FF /4 f64 Ev"], ends, (b, o) => {
    const target = b.read(o[0]!);
    b.checkTarget(target);
    b.jump(target);
  }),
  row("CALL", ["E8 f64 Jz"], ends, (b, o, f) => callTo(b, f, b.relTarget(o[0]!))),
  row("CALL", ["FF /2 f64 Ev"], ends, (b, o, f) => callTo(b, f, b.read(o[0]!))),
  row("RET", ["C3 f64"], ends, (b, _o, f) => returnPast(b, f, 0)),
  row("RET", ["C2 f64 Iw"], ends, (b, o, f) => returnPast(b, f, b.zx(16, b.read(o[0]!)))),
  row("BOUND", ["62 /r:mem Gv Ma"], { no64: true }, (b, o, f) => {
    const w = widthOf(o[0]!);
    const index = b.read(o[0]!), bounds = b.ea(o[1]!);
    const lower = b.load(f.segment, bounds, w);
    const upper = b.load(f.segment, b.add(f.aw, bounds, b.imm(w / 8)), w);
    b.faultIf(b.orC(b.ltS(w, index, lower), b.ltS(w, upper, index)), BR);
  }),
];
