/**
 * VMX instructions: rows of the instruction table (SDM vol. 3C, "VMX Instruction Reference"). What they do is in hw/vmx/.
 *
 * Where an instruction has a memory operand, a procedure comes first that raises what comes before an access: #UD, the VM exit, #GP(0).
 *
 * Room: `hw/isa/`; imports only the row's own vocabulary.
 *
 * @module
 */
import type { Builder, Semantic } from "./builder.ts";
import { type Form, type Operand, type Row, row } from "./form.ts";
import { S } from "../state.ts";

/** Exit reasons that the prologues name. */
const VMCLEAR = 19, VMPTRLD = 21, VMPTRST = 22;

const ends = { cpuid: "vmx", ends: true } as const;

/** VMCLEAR, VMPTRLD: a pointer of 64 bits in memory. */
function withPointer(reason: number, procedure: string): Semantic {
  return (b, o, f) => {
    b.call("vmPointerPrologue", b.imm(reason));
    b.callEnd(procedure, b.load(f.segment, b.ea(o[0]!), 64));
  };
}

const vmxon: Semantic = (b, o, f) => {
  const over = b.callResult("vmxonPrologue");
  b.if(b.eq(over, b.imm(0)), () => b.callEnd("vmxon", b.load(f.segment, b.ea(o[0]!), 64)));
};

const vmptrst: Semantic = (b, o, f) => {
  b.call("vmPointerPrologue", b.imm(VMPTRST));
  b.store(f.segment, b.ea(o[0]!), 64, b.state(S.VMX_POINTER, 64));
  b.callEnd("vmSucceed");
};

/** VMREAD: the destination changes only where the field is read. */
const vmread: Semantic = (b, o) => {
  const encoding = b.read(o[1]!);
  b.call("vmreadPrologue", encoding);
  b.call("vmread", encoding);
  const status = b.state(S.ARG + 8, 32), value = b.state(S.ARG, 64);
  const narrow = o[0]!.width === 64 ? value : b.zx(32, value);
  b.if(b.eq(status, b.imm(0)), () => b.write(o[0]!, narrow));
  b.callEnd("vmreadStatus", status);
};

const vmwrite: Semantic = (b, o) => {
  const encoding = b.read(o[0]!);
  b.call("vmwritePrologue", encoding);
  b.callEnd("vmwrite", encoding, b.read(o[1]!));
};

/** INVEPT, INVVPID: a type in a register, a descriptor of 16 bytes in memory. */
function invalidation(procedure: string): Semantic {
  return <I, C, X>(b: Builder<I, C, X>, o: readonly Operand[], f: Form) => {
    b.call(`${procedure}Prologue`);
    const type = b.read(o[0]!), ea = b.ea(o[1]!);
    const first = b.load(f.segment, ea, 64), second = b.load(f.segment, b.add(f.aw, ea, b.imm(8)), 64);
    b.callEnd(procedure, type, first, second);
  };
}

/** Rows of this file. */
export const vmxRows: readonly Row[] = [
  row("VMCALL", ["NP 0F 01 /C1"], ends, (b) => b.callEnd("vmcall")),
  row("VMLAUNCH", ["NP 0F 01 /C2"], ends, (b) => b.callEnd("vmlaunch")),
  row("VMRESUME", ["NP 0F 01 /C3"], ends, (b) => b.callEnd("vmresume")),
  row("VMXOFF", ["NP 0F 01 /C4"], ends, (b) => b.callEnd("vmxoff")),
  row("VMFUNC", ["NP 0F 01 /D4"], ends, (b) => b.callEnd("vmfunc")),
  row("VMPTRLD", ["NP 0F C7 /6:mem Mq:none"], ends, withPointer(VMPTRLD, "vmptrld")),
  row("VMCLEAR", ["66 0F C7 /6:mem Mq:none"], ends, withPointer(VMCLEAR, "vmclear")),
  row("VMXON", ["F3 0F C7 /6:mem Mq:none"], ends, vmxon),
  row("VMPTRST", ["NP 0F C7 /7:mem Mq:none"], ends, vmptrst),
  row("VMREAD", ["NP 0F 78 /r Eq:w Gq"], { ...ends, only64: true }, vmread),
  row("VMREAD", ["NP 0F 78 /r Ed:w Gd"], { ...ends, no64: true }, vmread),
  row("VMWRITE", ["NP 0F 79 /r Gq Eq"], { ...ends, only64: true }, vmwrite),
  row("VMWRITE", ["NP 0F 79 /r Gd Ed"], { ...ends, no64: true }, vmwrite),
  row("INVEPT", ["66 0F 38 80 /r:mem Gq Mdq:none"], { ...ends, only64: true }, invalidation("invept")),
  row("INVEPT", ["66 0F 38 80 /r:mem Gd Mdq:none"], { ...ends, no64: true }, invalidation("invept")),
  row("INVVPID", ["66 0F 38 81 /r:mem Gq Mdq:none"], { ...ends, only64: true }, invalidation("invvpid")),
  row("INVVPID", ["66 0F 38 81 /r:mem Gd Mdq:none"], { ...ends, no64: true }, invalidation("invvpid")),
];
