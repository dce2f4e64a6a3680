/**
 * Event delivery, INT n, IRET, SYSCALL and SYSRET in wasm: the 64-bit common case of the procedures of hw/sys/ (event.ts, return.ts,
 * syscall.ts), which are asked whenever anything is unusual.
 *
 * Here: 64-bit code before and after, gates and segments in the GDT with their accessed bits set, tables and stacks that the fast TLB
 * has. Given up, with nothing changed: faults on the way, call and task gates, conforming and compatibility segments, the LDT, TF,
 * breakpoints, alignment checks, single steps, exceptions of VMX guests, listeners, a processor that something else waits for.
 *
 * Room: `hw/engine/wasm/`; imports expressions.ts and flushes.ts, and the data of state.ts and others.
 *
 * @module
 */
import { CR0_AM } from "../../paging.ts";
import { FTLB_CONTEXT_BYTES, FTLB_READ, FTLB_WRITE, RFLAGS, S, SEG } from "../../state.ts";
import { type ModuleWriter, T } from "./emit.ts";
import {
  add,
  and,
  any,
  Body,
  call,
  type Callee,
  eq,
  eqz,
  extendU,
  gtU,
  load32,
  load64,
  type Local,
  ltU,
  ne,
  none,
  or,
  select,
  shl,
  shrU,
  sub,
  type Value,
  xor,
} from "./expressions.ts";
import {
  DELIVERED,
  descriptor,
  DONE,
  END,
  flagsImage,
  type GiveUp,
  implicitContext,
  interrupted,
  IRET_FLAGS,
  IRET_FLAGS_CPL0,
  isGuest,
  quick,
  requireOrdinary,
  RSP,
  setFlags,
  setNull,
  setSegment,
  setSupervisorContext,
  STATUS,
  UNUSABLE,
  WITH_ERROR_CODE,
} from "./event_parts.ts";
import { writeDeliver32, writeIret32 } from "./events32.ts";
import { canonical } from "./flushes.ts";

const SCE = 1;
/** Access rights of flat 64-bit code and of flat data, less DPL. */
const FLAT_CODE = 0xa09b, FLAT_DATA = 0xc093;
/** RFLAGS bits that SYSRET loads. */
const SYSRET_FLAGS = 0x3c_7fd7;
const RCX = S.GPR + 8, R11 = S.GPR + 11 * 8;

/** (base, vector, software, error code) → {@link DELIVERED}. RIP is what the frame shall hold. */
function writeDeliver(module: ModuleWriter): Callee {
  const b = new Body([T.i32, T.i32, T.i32, T.i32], T.i32);
  const [base, vector, software, code] = b.parameters as [Local, Local, Local, Local];
  b.block((out) => {
    const giveUp: GiveUp = (c) => b.brIf(out, c);
    requireOrdinary(base, 2, giveUp);
    giveUp(eq(vector, 1));
    // A guest's exceptions may be VM exits.
    giveUp(and(isGuest(base), eqz(software)));
    giveUp(gtU(add(shl(vector, 4), 15), and(load32(base, S.IDTR + 8), 0xffff)));
    const implicit = b.let(implicitContext(base));
    const gateAt = b.let(add(load64(base, S.IDTR), extendU(shl(vector, 4))));
    const gate = quick(b, implicit, gateAt, 16, FTLB_READ, giveUp);
    const word0 = b.let(load32(gate)), word1 = b.let(load32(gate, 4)), targetHigh = b.let(load32(gate, 8));
    // A present 64-bit interrupt or trap gate.
    giveUp(ne(and(word1, 0x9e00), 0x8e00));
    const cpl = b.let(load32(base, S.CPL));
    b.if(software, () => giveUp(ltU(and(shrU(word1, 13), 3), cpl)));
    const selector = b.let(shrU(word0, 16));
    const cs = descriptor(b, base, implicit, selector, giveUp);
    const csLow = b.let(load32(cs)), csHigh = b.let(load32(cs, 4));
    // Accessed, non-conforming, present 64-bit code.
    giveUp(ne(and(csHigh, 0x60_9d00), 0x20_9900));
    const newCpl = b.let(and(shrU(csHigh, 13), 3));
    giveUp(gtU(newCpl, cpl));
    const inner = b.let(ltU(newCpl, cpl));

    // The stack.
    const oldRsp = b.let(load64(base, RSP)), rsp = b.let(oldRsp);
    const ist = b.let(and(word1, 7));
    b.if(or(ist, inner), () => {
      const offset = b.let(add(4, shl(newCpl, 3)));
      b.if(ist, () => b.set(offset, add(28, shl(ist, 3))));
      giveUp(gtU(add(offset, 7), load32(base, S.SEGLIMIT + SEG.TR * 4)));
      const at = b.let(add(load64(base, S.SEGBASE + SEG.TR * 8), extendU(offset)));
      b.set(rsp, load64(quick(b, implicit, at, 8, FTLB_READ, giveUp)));
    });
    b.set(rsp, and(rsp, -16n));
    const hasCode = b.let(
      and(and(eqz(software), ltU(vector, 32)), and(shrU(WITH_ERROR_CODE, and(vector, 31)), 1)),
    );
    giveUp(eqz(canonical(base, rsp)));
    // With room for an error code in any case, so that it is one page; the frame itself begins above it if there is none.
    const low = b.let(sub(rsp, 48n));
    giveUp(eqz(canonical(base, low)));
    const target = b.let(
      or(extendU(or(and(word0, 0xffff), and(word1, 0xffff_0000 | 0))), shl(extendU(targetHigh), 32n)),
    );
    giveUp(eqz(canonical(base, target)));
    const explicit = load32(base, S.TLBCTX);
    const frame = quick(b, select(inner, implicit, explicit), low, 48, FTLB_WRITE, giveUp);

    // Nothing can fault any more.
    const flags = flagsImage(b, base);
    b.if(software, () => b.set(flags, and(flags, ~RFLAGS.RF)), () => b.set(flags, or(flags, RFLAGS.RF)));
    b.set(rsp, add(low, 8n));
    b.if(hasCode, () => {
      b.store64(frame, 0, extendU(code));
      b.set(rsp, low);
    });
    b.store64(frame, 8, load64(base, S.RIP));
    b.store64(frame, 16, extendU(load32(base, S.SEGSEL + SEG.CS * 4)));
    b.store64(frame, 24, extendU(flags));
    b.store64(frame, 32, oldRsp);
    b.store64(frame, 40, extendU(load32(base, S.SEGSEL + SEG.SS * 4)));
    b.store64(base, RSP, rsp);
    b.store64(base, S.RIP, target);
    setSegment(b, base, SEG.CS, or(and(selector, 0xfffc), newCpl), csLow, csHigh);
    b.store32(base, S.CPL, newCpl);
    const cleared = RFLAGS.TF | RFLAGS.NT | RFLAGS.RF | RFLAGS.VM;
    const left = b.let(and(load32(base, S.RFLAGS), ~cleared));
    b.if(none(word1, 0x100), () => b.set(left, and(left, ~RFLAGS.IF)));
    b.store32(base, S.RFLAGS, left);
    b.if(inner, () => {
      setNull(b, base, SEG.SS, newCpl, or(UNUSABLE, shl(newCpl, 5)));
      setSupervisorContext(b, base, left);
    });
    b.store32(base, S.BLOCKING, and(load32(base, S.BLOCKING), ~3));
    b.store32(base, S.VMX_VECTORING, 0);
    b.return(select(interrupted(base, left), DELIVERED.END, DELIVERED.RESYNC));
  });
  b.return(DELIVERED.NOT);
  return b.define(module);
}

/** The delivery of the mode in force. */
function writeEither(module: ModuleWriter, wide: Callee, narrow: Callee): Callee {
  const b = new Body([T.i32, T.i32, T.i32, T.i32], T.i32);
  b.if(eq(load32(b.parameter(0), S.CODEMODE), 2), () => b.return(call(wide, ...b.parameters)));
  b.return(call(narrow, ...b.parameters));
  return b.define(module);
}

/** `deliverFault` (base) → {@link DELIVERED}: the fault in FAULTVECTOR and FAULTCODE. */
function writeDeliverFault(module: ModuleWriter, deliver: Callee): void {
  const b = new Body([T.i32], T.i32);
  const base = b.parameter(0);
  const code = b.let(load32(base, S.FAULTCODE));
  b.set(code, select(eq(code, -1), 0, code));
  b.return(call(deliver, base, load32(base, S.FAULTVECTOR), 0, code));
  b.define(module, "deliverFault");
}

function writeInt(module: ModuleWriter, deliver: Callee, slow: Callee): void {
  const b = new Body([T.i32], T.i32);
  const base = b.parameter(0);
  const done = b.let(call(deliver, base, load32(base, S.ARG), 1, 0));
  b.if(eq(done, DELIVERED.RESYNC), () => b.return(DONE));
  b.if(eq(done, DELIVERED.END), () => b.return(END));
  b.return(call(slow, base));
  b.define(module, "proc:int");
}

/** IRETQ in 64-bit mode, and {@link writeIret32}. */
function writeIret(module: ModuleWriter, narrow: Callee, slow: Callee): void {
  const b = new Body([T.i32], T.i32);
  const base = b.parameter(0);
  b.if(eq(load32(base, S.CODEMODE), 1), () => {
    const done = b.let(call(narrow, base));
    b.if(ne(done, DELIVERED.NOT), () => b.return(select(eq(done, DELIVERED.END), END, DONE)));
  });
  b.block((out) => {
    const giveUp: GiveUp = (c) => b.brIf(out, c);
    giveUp(ne(load32(base, S.ARG), 64));
    requireOrdinary(base, 2, giveUp);
    const old = b.let(load32(base, S.RFLAGS));
    giveUp(any(old, RFLAGS.NT));
    const stack = b.let(load64(base, RSP));
    const words = quick(b, load32(base, S.TLBCTX), stack, 40, FTLB_READ, giveUp);
    const rip = b.let(load64(words)), selector = b.let(and(load32(words, 8), 0xffff));
    const image = b.let(load32(words, 16));
    const ss = b.let(and(load32(words, 32), 0xffff));
    giveUp(eqz(canonical(base, rip)));
    const implicit = b.let(implicitContext(base));
    const cpl = b.let(load32(base, S.CPL)), rpl = b.let(and(selector, 3));
    giveUp(ltU(rpl, cpl));
    const cs = descriptor(b, base, implicit, selector, giveUp);
    const csLow = b.let(load32(cs)), csHigh = b.let(load32(cs, 4));
    // Accessed, non-conforming, present 64-bit code of this privilege.
    giveUp(ne(and(csHigh, 0x60_fd00), or(0x20_9900, shl(rpl, 13))));
    const ssLow = b.local(T.i32), ssHigh = b.local(T.i32), isNull = b.let(none(ss, 0xfffc));
    b.if(
      isNull,
      () => giveUp(or(eq(rpl, 3), ne(and(ss, 3), rpl))),
      () => {
        giveUp(ne(and(ss, 3), rpl));
        const at = descriptor(b, base, implicit, ss, giveUp);
        b.set(ssLow, load32(at));
        b.set(ssHigh, load32(at, 4));
        // Accessed, present, writable data, not expand-down, of this privilege.
        giveUp(ne(and(ssHigh, 0xff00), or(0x9300, shl(rpl, 13))));
      },
    );
    const mask = b.let(IRET_FLAGS);
    b.if(eqz(cpl), () => b.set(mask, or(mask, IRET_FLAGS_CPL0)));
    b.if(eqz(gtU(cpl, and(shrU(old, 12), 3))), () => b.set(mask, or(mask, RFLAGS.IF)));
    // No breakpoint is armed: RF would say nothing.
    const flags = b.let(and(or(and(image, mask), and(old, xor(mask, -1))), ~RFLAGS.RF));
    giveUp(any(flags, RFLAGS.TF));
    giveUp(and(and(eq(rpl, 3), ne(and(flags, RFLAGS.AC), 0)), ne(and(load32(base, S.CR0), CR0_AM), 0)));

    b.if(ne(rpl, cpl), () => {
      // Segment registers that the new level may not use become null.
      for (const seg of [SEG.ES, SEG.DS, SEG.FS, SEG.GS]) {
        const rights = b.let(load32(base, S.SEGAR + seg * 4));
        const keeps = or(any(rights, UNUSABLE), eq(and(rights, 0xc), 0xc));
        b.if(and(eqz(keeps), ltU(and(shrU(rights, 5), 3), rpl)), () => setNull(b, base, seg, 0, UNUSABLE));
      }
    });
    const statusFlags = b.let(or(and(flags, ~STATUS), and(image, STATUS)));
    setFlags(b, base, statusFlags);
    setSegment(b, base, SEG.CS, or(and(selector, 0xfffc), rpl), csLow, csHigh);
    b.store32(base, S.CPL, rpl);
    b.if(
      isNull,
      () => setNull(b, base, SEG.SS, ss, or(UNUSABLE, shl(rpl, 5))),
      () => {
        const limit = setSegment(b, base, SEG.SS, ss, ssLow, ssHigh);
        b.store64(base, S.SEGRMAX + SEG.SS * 8, extendU(limit));
        b.store64(base, S.SEGWMAX + SEG.SS * 8, extendU(limit));
      },
    );
    b.store64(base, S.RIP, rip);
    b.store64(base, RSP, load64(words, 24));
    b.if(
      eq(rpl, 3),
      () => b.store32(base, S.TLBCTX, add(load32(base, S.TLBBANK), FTLB_CONTEXT_BYTES)),
      () => setSupervisorContext(b, base, flags),
    );
    b.store32(base, S.BLOCKING, and(load32(base, S.BLOCKING), ~8));
    b.store32(base, S.VMX_UNBLOCKED, 0);
    b.return(select(interrupted(base, flags), END, DONE));
  });
  b.return(call(slow, base));
  b.define(module, "proc:iret");
}

/** Flat 64-bit code and data segments of privilege `cpl`, as SYSCALL and SYSRET load them. */
function setFlat(b: Body, base: Local, code: Value, stack: Value, cpl: number): void {
  const { CS, SS } = SEG;
  b.store32(base, S.SEGSEL + CS * 4, code);
  b.store32(base, S.SEGSEL + SS * 4, stack);
  b.store64(base, S.SEGBASE + CS * 8, 0n);
  b.store64(base, S.SEGBASE + SS * 8, 0n);
  b.store32(base, S.SEGLIMIT + CS * 4, -1);
  b.store32(base, S.SEGLIMIT + SS * 4, -1);
  b.store32(base, S.SEGAR + CS * 4, FLAT_CODE | (cpl << 5));
  b.store32(base, S.SEGAR + SS * 4, FLAT_DATA | (cpl << 5));
  b.store64(base, S.SEGRMAX + CS * 8, 0xffff_ffffn);
  b.store64(base, S.SEGRMAX + SS * 8, 0xffff_ffffn);
  b.store64(base, S.SEGWMAX + CS * 8, -1n);
  b.store64(base, S.SEGWMAX + SS * 8, 0xffff_ffffn);
  b.store32(base, S.CPL, cpl);
}

function writeSyscall(module: ModuleWriter, slow: Callee): void {
  const b = new Body([T.i32], T.i32);
  const base = b.parameter(0);
  b.block((out) => {
    const giveUp: GiveUp = (c) => b.brIf(out, c);
    giveUp(none(load32(base, S.EFER), SCE));
    requireOrdinary(base, 2, giveUp);
    const flags = b.let(and(flagsImage(b, base), ~RFLAGS.RF));
    b.store64(base, RCX, load64(base, S.RIP));
    b.store64(base, R11, extendU(flags));
    b.store64(base, S.RIP, load64(base, S.LSTAR));
    const left = b.let(and(flags, xor(load32(base, S.FMASK), -1)));
    setFlags(b, base, left);
    const star = b.let(and(load32(base, S.STAR + 4), 0xfffc));
    setFlat(b, base, star, add(star, 8), 0);
    setSupervisorContext(b, base, left);
    b.return(select(interrupted(base, left), END, DONE));
  });
  b.return(call(slow, base));
  b.define(module, "proc:syscall");
}

function writeSysret(module: ModuleWriter, slow: Callee): void {
  const b = new Body([T.i32], T.i32);
  const base = b.parameter(0);
  b.block((out) => {
    const giveUp: GiveUp = (c) => b.brIf(out, c);
    giveUp(or(ne(load32(base, S.ARG), 64), load32(base, S.CPL)));
    giveUp(none(load32(base, S.EFER), SCE));
    requireOrdinary(base, 2, giveUp);
    const rip = b.let(load64(base, RCX));
    giveUp(eqz(canonical(base, rip)));
    const flags = b.let(and(load32(base, R11), SYSRET_FLAGS));
    giveUp(any(flags, RFLAGS.TF | RFLAGS.AC));
    b.store64(base, S.RIP, rip);
    setFlags(b, base, flags);
    const star = b.let(shrU(load32(base, S.STAR + 4), 16));
    const code = or(and(add(star, 16), 0xffff), 3), stack = or(and(add(star, 8), 0xffff), 3);
    setFlat(b, base, code, stack, 3);
    b.store32(base, S.TLBCTX, add(load32(base, S.TLBBANK), FTLB_CONTEXT_BYTES));
    b.return(select(interrupted(base, flags), END, DONE));
  });
  b.return(call(slow, base));
  b.define(module, "proc:sysret");
}

/** Writes `deliverFault` and the procedures `int`, `iret`, `syscall` and `sysret`. */
export function writeEvents(module: ModuleWriter, slow: (name: string) => Callee): void {
  const deliver = writeEither(module, writeDeliver(module), writeDeliver32(module));
  writeDeliverFault(module, deliver);
  writeInt(module, deliver, slow("proc:int"));
  writeIret(module, writeIret32(module), slow("proc:iret"));
  writeSyscall(module, slow("proc:syscall"));
  writeSysret(module, slow("proc:sysret"));
}
