/**
 * Instructions that change nothing, or nothing but the cache: NOP in all its forms, PAUSE, prefetches, fences, cache
 * line flushes; the undefined instructions UD1 and UD2; random numbers and RDPID (SDM vol. 2).
 *
 * UD0 (0F FF) is not here: two of its encodings are the gates (DESIGN 2.5).
 *
 * Room: `hw/isa/`; rows of the instruction table, imports only the row's own vocabulary.
 *
 * @module
 */
import type { Semantic } from "./builder.ts";
import { type Row, row } from "./form.ts";
import { S } from "../state.ts";
import { widthOf } from "./integer_common.ts";

const UD = 6;

const nothing: Semantic = () => {};

/** PAUSE: a hint, but for a VMX guest whose PAUSEs are counted or exit. */
const pause: Semantic = (b) => b.if(b.eq(b.state(S.VMX_MODE, 32), b.imm(2)), () => b.call("pause"));

const undefinedInstruction: Semantic = (b) => b.fault(UD);

/** A flush counts as a read of its byte: the same checks, and the accessed bit. */
const flushLine: Semantic = (b, o) => {
  b.read(o[0]!);
};

/** RDRAND and RDSEED never run dry. */
const random: Semantic = (b, o) => {
  const no = b.always(false);
  b.write(o[0]!, b.zx(widthOf(o[0]!), b.callResult("rdrand")));
  b.setFlags({ CF: b.always(true), PF: no, AF: no, ZF: no, SF: no, OF: no });
};

/** IA32_TSC_AUX has 32 bits; a 64-bit destination is zero-extended. */
const processorId: Semantic = (b, o) => {
  // A VMX guest has it with "enable RDTSCP" (secondary control 3).
  const enabled = b.bit(b.state(S.VMX_PROC2, 32), 3);
  b.faultIf(b.andC(b.eq(b.state(S.VMX_MODE, 32), b.imm(2)), b.notC(enabled)), UD);
  b.write(o[0]!, b.state(S.TSC_AUX, 32));
};

/** Hints, fences and the like. */
export const hintRows: readonly Row[] = [
  row("NOP", ["90"], {}, nothing),
  row("PAUSE", ["F3 90"], {}, pause),
  row("NOP", ["0F 1F /r Ev:none"], {}, nothing),
  // Group 16 and the reserved hints: PREFETCHh, BNDxx, CLDEMOTE, RDSSP and ENDBR of processors without those.
  row("PREFETCHNTA", ["0F 18 /0:mem Mb:none"], {}, nothing),
  row("PREFETCHT0", ["0F 18 /1:mem Mb:none"], {}, nothing),
  row("PREFETCHT1", ["0F 18 /2:mem Mb:none"], {}, nothing),
  row("PREFETCHT2", ["0F 18 /3:mem Mb:none"], {}, nothing),
  row("PREFETCH", ["0F 0D /r:mem Mb:none"], {}, nothing),
  row(
    "NOP",
    [
      "0F 0D /r:reg Ev:none",
      "0F 18 /0:reg Ev:none",
      "0F 18 /1:reg Ev:none",
      "0F 18 /2:reg Ev:none",
      "0F 18 /3:reg Ev:none",
      "0F 18 /4 Ev:none",
      "0F 18 /5 Ev:none",
      "0F 18 /6 Ev:none",
      "0F 18 /7 Ev:none",
      "0F 19 /r Ev:none",
      "0F 1A /r Ev:none",
      "0F 1B /r Ev:none",
      "0F 1C /r Ev:none",
      "0F 1D /r Ev:none",
      "0F 1E /r Ev:none",
    ],
    {},
    nothing,
  ),
  row("LFENCE", ["NP 0F AE /5:reg"], { cpuid: "sse2" }, nothing),
  row("MFENCE", ["NP 0F AE /6:reg"], { cpuid: "sse2" }, nothing),
  row("SFENCE", ["NP 0F AE /7:reg"], { cpuid: "sse" }, nothing),
  row("CLFLUSH", ["NP 0F AE /7:mem Mb"], { cpuid: "clfsh" }, flushLine),
  row("CLFLUSHOPT", ["66 0F AE /7:mem Mb"], { cpuid: "clflushopt" }, flushLine),
  row("CLWB", ["66 0F AE /6:mem Mb"], { cpuid: "clwb" }, flushLine),
  row("UD1", ["0F B9 /r Gv:none Ev:none"], { ends: true }, undefinedInstruction),
  row("UD2", ["0F 0B"], { ends: true }, undefinedInstruction),
  row("RDRAND", ["NFx 0F C7 /6:reg Rv:w"], { cpuid: "rdrand" }, random),
  row("RDSEED", ["NFx 0F C7 /7:reg Rv:w"], { cpuid: "rdseed" }, random),
  row("RDPID", ["F3 0F C7 /7:reg Rq:w"], { cpuid: "rdpid", only64: true }, processorId),
  row("RDPID", ["F3 0F C7 /7:reg Rd:w"], { cpuid: "rdpid", no64: true }, processorId),
];
