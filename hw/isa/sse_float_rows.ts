/**
 * SSE floating point: arithmetic, comparison, conversion, rounding, reciprocals. SDM vol. 1, "Programming with SSE",
 * "SSE and SSE2 Exceptions"; the operations themselves stand in vector.ts's list and sse_proc.ts.
 *
 * Room: `hw/isa/`.
 *
 * @module
 */
import type { Row, RowFlags } from "./form.ts";
import { row } from "./form.ts";
import { alternateLanes, checkMmx, enterMmx, imm8, readSource, zeroX } from "./packed.ts";
import type { FpOp } from "./vector.ts";

/** Row flags of an SSE instruction of one feature. */
function sse(cpuid: string): RowFlags {
  return { trap: "sse", cpuid };
}

/** The four shapes: mandatory prefix, source operand, feature. */
const SHAPES = {
  PS: ["NP", "Wdq", "sse"],
  PD: ["66", "Wdq", "sse2"],
  SS: ["F3", "Wd", "sse"],
  SD: ["F2", "Wq", "sse2"],
} as const;
type Shape = keyof typeof SHAPES;
const ALL_SHAPES = ["PS", "PD", "SS", "SD"] as const;

/** dst := op(dst, src[, imm8]). */
function operationRow(op: FpOp, encoding: string, cpuid: string, mnemonic: string = op): Row {
  return row(mnemonic, [encoding], sse(cpuid), (b, [dst, src, imm]) => {
    const source = readSource(b, src!);
    b.writeX(dst!, b.fp(op, b.readX(dst!), source, imm && imm8(b, imm)));
  });
}

/** One arithmetic operation in several shapes. */
function shapedRows<N extends string, H extends Shape>(
  name: N & (`${N}${H}` extends FpOp ? unknown : never),
  opcode: string,
  shapes: readonly H[],
  imm = "",
): Row[] {
  return shapes.map((shape) => {
    const [prefix, source, cpuid] = SHAPES[shape];
    return operationRow(`${name}${shape}` as FpOp, `${prefix} 0F ${opcode} /r Vdq:rw ${source}${imm}`, cpuid);
  });
}

/** HADDx, HSUBx: even lanes of (dst, src) with odd lanes. */
function horizontalRow(mnemonic: string, encoding: string, op: FpOp, bytes: 4 | 8): Row {
  const even = alternateLanes(bytes, 0), odd = alternateLanes(bytes, 1);
  return row(mnemonic, [encoding], sse("sse3"), (b, [dst, src]) => {
    const source = readSource(b, src!), value = b.readX(dst!);
    b.writeX(dst!, b.fp(op, b.shuffle(value, source, even), b.shuffle(value, source, odd)));
  });
}

/** COMISx, UCOMISx: ZF, PF, CF from the comparison; OF, SF, AF cleared. */
function compareRow(op: FpOp, encoding: string, cpuid: string): Row {
  return row(op, [encoding], sse(cpuid), (b, [first, second]) => {
    const source = b.readX(second!);
    const image = b.extract(32, b.fp(op, b.readX(first!), source), 0);
    b.setFlags({
      CF: b.bit(image, 0),
      PF: b.bit(image, 2),
      ZF: b.bit(image, 6),
      AF: b.always(false),
      SF: b.always(false),
      OF: b.always(false),
    });
  });
}

/** An integer register or memory to a scalar. */
function fromIntegerRow(mnemonic: "CVTSI2SS" | "CVTSI2SD", prefix: string, cpuid: string): Row {
  return row(mnemonic, [`${prefix} 0F 2A /r Vdq:rw Ey`], sse(cpuid), (b, [dst, src]) => {
    const value = b.insert(64, zeroX(b), 0, b.read(src!));
    b.writeX(dst!, b.fp(`${mnemonic}${src!.width === 64 ? 64 : 32}`, b.readX(dst!), value));
  });
}

/** A scalar to an integer register. */
function toIntegerRow(
  mnemonic: "CVTSS2SI" | "CVTSD2SI" | "CVTTSS2SI" | "CVTTSD2SI",
  encoding: string,
  cpuid: string,
): Row {
  return row(mnemonic, [encoding], sse(cpuid), (b, [dst, src]) => {
    const w = dst!.width === 64 ? 64 : 32, source = b.readX(src!);
    b.write(dst!, b.extract(w, b.fp(`${mnemonic}${w}`, source, source), 0));
  });
}

/**
 * Conversions with an MMX register on one side. A pending x87 exception comes first, then SSE's own exceptions, then the
 * transition to MMX state. `quietMemory`: a memory source has nothing to do with MMX state (CVTPI2PD).
 */
function mmxConvertRow(
  mnemonic: string,
  op: FpOp,
  encoding: string,
  cpuid: string,
  quietMemory = false,
): Row {
  return row(mnemonic, [encoding], sse(cpuid), (b, [dst, src]) => {
    const touchesMmx = !(quietMemory && src!.kind === "mem");
    if (touchesMmx) checkMmx(b);
    const source = readSource(b, src!);
    const result = b.fp(op, dst!.kind === "xmm" ? b.readX(dst!) : source, source);
    if (touchesMmx) enterMmx(b);
    b.writeX(dst!, result);
  });
}

/** The floating-point rows. */
export const sseFloatRows: readonly Row[] = [
  ...shapedRows("SQRT", "51", ALL_SHAPES),
  ...shapedRows("RSQRT", "52", ["PS", "SS"]),
  ...shapedRows("RCP", "53", ["PS", "SS"]),
  ...shapedRows("ADD", "58", ALL_SHAPES),
  ...shapedRows("MUL", "59", ALL_SHAPES),
  ...shapedRows("SUB", "5C", ALL_SHAPES),
  ...shapedRows("MIN", "5D", ALL_SHAPES),
  ...shapedRows("DIV", "5E", ALL_SHAPES),
  ...shapedRows("MAX", "5F", ALL_SHAPES),
  ...shapedRows("CMP", "C2", ALL_SHAPES, " Ib"),

  operationRow("ADDSUBPS", "F2 0F D0 /r Vdq:rw Wdq", "sse3"),
  operationRow("ADDSUBPD", "66 0F D0 /r Vdq:rw Wdq", "sse3"),
  horizontalRow("HADDPS", "F2 0F 7C /r Vdq:rw Wdq", "ADDPS", 4),
  horizontalRow("HADDPD", "66 0F 7C /r Vdq:rw Wdq", "ADDPD", 8),
  horizontalRow("HSUBPS", "F2 0F 7D /r Vdq:rw Wdq", "SUBPS", 4),
  horizontalRow("HSUBPD", "66 0F 7D /r Vdq:rw Wdq", "SUBPD", 8),
  operationRow("ROUNDPS", "66 0F 3A 08 /r Vdq:rw Wdq Ib", "sse4_1"),
  operationRow("ROUNDPD", "66 0F 3A 09 /r Vdq:rw Wdq Ib", "sse4_1"),
  operationRow("ROUNDSS", "66 0F 3A 0A /r Vdq:rw Wd Ib", "sse4_1"),
  operationRow("ROUNDSD", "66 0F 3A 0B /r Vdq:rw Wq Ib", "sse4_1"),
  operationRow("DPPS", "66 0F 3A 40 /r Vdq:rw Wdq Ib", "sse4_1"),
  operationRow("DPPD", "66 0F 3A 41 /r Vdq:rw Wdq Ib", "sse4_1"),

  compareRow("UCOMISS", "NP 0F 2E /r Vdq Wd", "sse"),
  compareRow("UCOMISD", "66 0F 2E /r Vdq Wq", "sse2"),
  compareRow("COMISS", "NP 0F 2F /r Vdq Wd", "sse"),
  compareRow("COMISD", "66 0F 2F /r Vdq Wq", "sse2"),

  fromIntegerRow("CVTSI2SS", "F3", "sse"),
  fromIntegerRow("CVTSI2SD", "F2", "sse2"),
  toIntegerRow("CVTTSS2SI", "F3 0F 2C /r Gy:w Wd", "sse"),
  toIntegerRow("CVTTSD2SI", "F2 0F 2C /r Gy:w Wq", "sse2"),
  toIntegerRow("CVTSS2SI", "F3 0F 2D /r Gy:w Wd", "sse"),
  toIntegerRow("CVTSD2SI", "F2 0F 2D /r Gy:w Wq", "sse2"),
  mmxConvertRow("CVTPI2PS", "CVTPI2PS", "NP 0F 2A /r Vdq:rw Qq", "sse"),
  mmxConvertRow("CVTPI2PD", "CVTDQ2PD", "66 0F 2A /r Vdq:w Qq", "sse2", true),
  mmxConvertRow("CVTTPS2PI", "CVTTPS2PI", "NP 0F 2C /r Pq:w Wq", "sse"),
  mmxConvertRow("CVTTPD2PI", "CVTTPD2DQ", "66 0F 2C /r Pq:w Wdq", "sse2"),
  mmxConvertRow("CVTPS2PI", "CVTPS2PI", "NP 0F 2D /r Pq:w Wq", "sse"),
  mmxConvertRow("CVTPD2PI", "CVTPD2DQ", "66 0F 2D /r Pq:w Wdq", "sse2"),
  operationRow("CVTPS2PD", "NP 0F 5A /r Vdq:rw Wq", "sse2"),
  operationRow("CVTPD2PS", "66 0F 5A /r Vdq:rw Wdq", "sse2"),
  operationRow("CVTSS2SD", "F3 0F 5A /r Vdq:rw Wd", "sse2"),
  operationRow("CVTSD2SS", "F2 0F 5A /r Vdq:rw Wq", "sse2"),
  operationRow("CVTDQ2PS", "NP 0F 5B /r Vdq:rw Wdq", "sse2"),
  operationRow("CVTPS2DQ", "66 0F 5B /r Vdq:rw Wdq", "sse2"),
  operationRow("CVTTPS2DQ", "F3 0F 5B /r Vdq:rw Wdq", "sse2"),
  operationRow("CVTTPD2DQ", "66 0F E6 /r Vdq:rw Wdq", "sse2"),
  operationRow("CVTPD2DQ", "F2 0F E6 /r Vdq:rw Wdq", "sse2"),
  operationRow("CVTDQ2PD", "F3 0F E6 /r Vdq:rw Wq", "sse2"),
];
