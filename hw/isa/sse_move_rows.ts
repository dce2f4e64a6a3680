/**
 * SSE data movement: loads, stores, register moves, non-temporal and masked stores, MXCSR. SDM vol. 1, "SSE Data
 * Transfer Instructions" and its successors.
 *
 * Room: `hw/isa/`. Non-temporal hints mean nothing here: memory has one order.
 *
 * @module
 */
import { VECTOR } from "../cpu.ts";
import { S } from "../state.ts";
import type { Builder, Semantic } from "./builder.ts";
import type { Row, RowFlags } from "./form.ts";
import { row } from "./form.ts";
import { checkMmx, enterMmx, lowHalf, zeroX } from "./packed.ts";

/** MXCSR bits that exist: all of 15:0, DAZ included. A load of any other bit is #GP(0). */
export const MXCSR_MASK = 0xffff;

/** Row flags of an SSE instruction of one feature. */
function sse(cpuid: string): RowFlags {
  return { trap: "sse", cpuid };
}

/** dst := src, all 128 bits, both ways; memory aligned or not. */
function moveRow(mnemonic: string, load: string, store: string, cpuid: string, aligned: boolean): Row {
  return row(
    mnemonic,
    [`${load} /r Vdq:w Wdq`, `${store} /r Wdq:w Vdq`],
    sse(cpuid),
    (b, [dst, src]) => b.writeX(dst!, b.readX(src!, aligned), aligned),
  );
}

/** MOVSS, MOVSD: a register source replaces the low lane only, a memory source clears the rest. */
function scalarMoveRow(mnemonic: string, prefix: string, memory: string, cpuid: string, bits: 32 | 64): Row {
  return row(
    mnemonic,
    [
      `${prefix} 0F 10 /r:reg Vdq:rw Udq`,
      `${prefix} 0F 10 /r:mem Vdq:w ${memory}`,
      `${prefix} 0F 11 /r:reg Udq:rw Vdq`,
      `${prefix} 0F 11 /r:mem ${memory}:w Vdq`,
    ],
    sse(cpuid),
    (b, [dst, src]) => {
      const value = b.readX(src!);
      if (dst!.kind === "mem" || src!.kind === "mem") b.writeX(dst!, value);
      else b.writeX(dst!, b.insert(bits, b.readX(dst!), 0, b.extract(bits, value, 0)));
    },
  );
}

/** MOVLPS, MOVHPS and their double forms: one half of a register from or to memory. */
function halfMoveRow(
  mnemonic: string,
  prefix: string,
  load: string,
  store: string,
  cpuid: string,
  lane: 0 | 1,
): Row {
  return row(
    mnemonic,
    [`${prefix} 0F ${load} /r:mem Vdq:rw Mq`, `${prefix} 0F ${store} /r:mem Mq:w Vdq`],
    sse(cpuid),
    (b, [dst, src]) => {
      if (dst!.kind === "mem") b.write(dst!, b.extract(64, b.readX(src!), lane));
      else {
        const value = b.read(src!);
        b.writeX(dst!, b.insert(64, b.readX(dst!), lane, value));
      }
    },
  );
}

/** A store of a whole register past the caches. */
function streamRow(mnemonic: string, encoding: string, cpuid: string): Row {
  return row(mnemonic, [encoding], sse(cpuid), (b, [dst, src]) => b.writeX(dst!, b.readX(src!), true));
}

/** dst := a fixed selection of the bytes of src. */
function duplicateRow(mnemonic: string, encoding: string, sources: readonly number[]): Row {
  return row(mnemonic, [encoding], sse("sse3"), (b, [dst, src]) => {
    const value = b.readX(src!, src!.width === 128);
    b.writeX(dst!, b.shuffle(value, value, sources));
  });
}

/** An integer to the low lane of a vector register, or back. */
const moveInteger: Semantic = (b, [dst, src]) => {
  if (dst!.kind === "xmm") b.writeX(dst!, b.insert(64, zeroX(b), 0, b.read(src!)));
  else b.write(dst!, b.extract(dst!.width === 64 ? 64 : 32, b.readX(src!), 0));
};

/**
 * Stores the bytes of `value` whose mask byte has its top bit set at DS:rDI (segment override applied). Every selected
 * byte is probed before the first is stored; a byte that is not selected is never touched. The row names an operand `X`, which is
 * nowhere read, so that the form has a segment.
 */
export function maskedStore<I, C, X>(
  b: Builder<I, C, X>,
  value: X,
  mask: X,
  bytes: 8 | 16,
  aw: 16 | 32 | 64,
): void {
  const selected = b.and(b.signMask(8, mask), b.imm((1 << bytes) - 1));
  const start = b.reg(aw, 7);
  const eachSelected = (action: (offset: I, n: I) => void) => {
    const n = b.variable(b.imm(0));
    b.while(() => b.ltU(n.get(), b.imm(bytes)), () => {
      b.if(b.ne(b.and(b.shr(64, selected, n.get()), b.imm(1)), b.imm(0)), () => {
        action(b.add(aw, start, n.get()), n.get());
      });
      n.set(b.add(64, n.get(), b.imm(1)));
    });
  };
  eachSelected((offset) => b.probeWrite(b.dataSegment, offset, 8));
  eachSelected((offset, n) => {
    b.store(b.dataSegment, offset, 8, b.extract(8, b.permute("PSRLDQ", value, value, n), 0));
  });
}

const EVEN_DWORDS = [0, 1, 2, 3, 0, 1, 2, 3, 8, 9, 10, 11, 8, 9, 10, 11];
const ODD_DWORDS = [4, 5, 6, 7, 4, 5, 6, 7, 12, 13, 14, 15, 12, 13, 14, 15];
const LOW_TWICE = [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7];

/** Moves between XMM registers, memory, general-purpose and MMX registers. */
export const sseMoveRows: readonly Row[] = [
  moveRow("MOVUPS", "NP 0F 10", "NP 0F 11", "sse", false),
  moveRow("MOVUPD", "66 0F 10", "66 0F 11", "sse2", false),
  moveRow("MOVAPS", "NP 0F 28", "NP 0F 29", "sse", true),
  moveRow("MOVAPD", "66 0F 28", "66 0F 29", "sse2", true),
  moveRow("MOVDQA", "66 0F 6F", "66 0F 7F", "sse2", true),
  moveRow("MOVDQU", "F3 0F 6F", "F3 0F 7F", "sse2", false),
  row("LDDQU", ["F2 0F F0 /r:mem Vdq:w Mdq"], sse("sse3"), (b, [dst, src]) => b.writeX(dst!, b.readX(src!))),
  scalarMoveRow("MOVSS", "F3", "Md", "sse", 32),
  scalarMoveRow("MOVSD", "F2", "Mq", "sse2", 64),
  halfMoveRow("MOVLPS", "NP", "12", "13", "sse", 0),
  halfMoveRow("MOVLPD", "66", "12", "13", "sse2", 0),
  halfMoveRow("MOVHPS", "NP", "16", "17", "sse", 1),
  halfMoveRow("MOVHPD", "66", "16", "17", "sse2", 1),
  row("MOVHLPS", ["NP 0F 12 /r:reg Vdq:rw Udq"], sse("sse"), (b, [dst, src]) => {
    b.writeX(dst!, b.lanes("unpackHigh", 64, b.readX(src!), b.readX(dst!)));
  }),
  row("MOVLHPS", ["NP 0F 16 /r:reg Vdq:rw Udq"], sse("sse"), (b, [dst, src]) => {
    b.writeX(dst!, b.lanes("unpackLow", 64, b.readX(dst!), b.readX(src!)));
  }),
  duplicateRow("MOVDDUP", "F2 0F 12 /r Vdq:w Wq", LOW_TWICE),
  duplicateRow("MOVSLDUP", "F3 0F 12 /r Vdq:w Wdq", EVEN_DWORDS),
  duplicateRow("MOVSHDUP", "F3 0F 16 /r Vdq:w Wdq", ODD_DWORDS),

  row("MOVD", ["66 W0 0F 6E /r Vdq:w Ed", "66 W0 0F 7E /r Ed:w Vdq"], sse("sse2"), moveInteger),
  row("MOVQ", ["66 W1 0F 6E /r Vdq:w Eq", "66 W1 0F 7E /r Eq:w Vdq"], sse("sse2"), moveInteger),
  row("MOVQ", ["F3 0F 7E /r Vdq:w Wq", "66 0F D6 /r Wq:w Vdq"], sse("sse2"), (b, [dst, src]) => {
    b.writeX(dst!, lowHalf(b, b.readX(src!)));
  }),
  row("MOVQ2DQ", ["F3 0F D6 /r:reg Vdq:w Nq"], sse("sse2"), (b, [dst, src]) => {
    checkMmx(b);
    const value = b.readX(src!);
    enterMmx(b);
    b.writeX(dst!, value);
  }),
  row("MOVDQ2Q", ["F2 0F D6 /r:reg Pq:w Udq"], sse("sse2"), (b, [dst, src]) => {
    checkMmx(b);
    enterMmx(b);
    b.writeX(dst!, b.readX(src!));
  }),

  streamRow("MOVNTPS", "NP 0F 2B /r:mem Mdq:w Vdq", "sse"),
  streamRow("MOVNTPD", "66 0F 2B /r:mem Mdq:w Vdq", "sse2"),
  streamRow("MOVNTDQ", "66 0F E7 /r:mem Mdq:w Vdq", "sse2"),
  row("MOVNTDQA", ["66 0F 38 2A /r:mem Vdq:w Mdq"], sse("sse4_1"), (b, [dst, src]) => {
    b.writeX(dst!, b.readX(src!, true));
  }),
  row("MASKMOVDQU", ["66 0F F7 /r:reg Xdq:none Vdq Udq"], sse("sse2"), (b, [_, src, mask], f) => {
    maskedStore(b, b.readX(src!), b.readX(mask!), 16, f.aw);
  }),

  row("LDMXCSR", ["NP 0F AE /2:mem Md"], sse("sse"), (b, [src]) => {
    const value = b.read(src!);
    b.faultIf(b.ltU(b.imm(MXCSR_MASK), value), VECTOR.GP, 0);
    b.setState(S.MXCSR, 32, value);
  }),
  row("STMXCSR", ["NP 0F AE /3:mem Md:w"], sse("sse"), (b, [dst]) => b.write(dst!, b.state(S.MXCSR, 32))),
];
