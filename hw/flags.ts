/**
 * The lazy form of the status flags, as the generated engines keep it: two 64-bit words instead of six bits.
 *
 * `FRES` is the last result sign-extended to 64 bits, `FCV` the carry-out vector of its top bits, plus deltas:
 *
 *     CF = FCV[63]          OF = FCV[63] ^ FCV[62]        AF = FCV[3]
 *     ZF = (FRES == 0)      SF = FRES[63] ^ FCV[0]        PF = even parity of (FRES[7:0] ^ FCV[15:8])
 *
 * All other bits of FCV are zero. Arithmetic writes FCV[15:8] = FCV[0] = 0; loading an arbitrary image (POPF,
 * IRET, SAHF) uses them to say what no single result can (ZF = 1 with SF = 1, or with PF = 0).
 *
 * Room: `hw/`; imports state.ts only. The reference engine computes flags from their definitions and passes through here.
 *
 * @module
 */
import { RFLAGS, RFLAGS_STATUS, S } from "./state.ts";

/** Reads the six status flags of the processor at `base` as an RFLAGS image. */
export function loadStatusFlags(i32: Int32Array, base: number): number {
  const low = i32[(base + S.FRES) >>> 2]!, high = i32[(base + S.FRES + 4) >>> 2]!;
  const cvLow = i32[(base + S.FCV) >>> 2]!, cvHigh = i32[(base + S.FCV + 4) >>> 2]!;
  let flags = 0;
  if (cvHigh < 0) flags |= RFLAGS.CF;
  if ((cvHigh ^ (cvHigh << 1)) < 0) flags |= RFLAGS.OF;
  if (cvLow & 8) flags |= RFLAGS.AF;
  if ((low | high) === 0) flags |= RFLAGS.ZF;
  if ((high < 0) !== ((cvLow & 1) !== 0)) flags |= RFLAGS.SF;
  let parity = (low ^ (cvLow >>> 8)) & 0xff;
  parity ^= parity >>> 4;
  if (!((0x6996 >>> (parity & 15)) & 1)) flags |= RFLAGS.PF;
  return flags;
}

/** Sets the six status flags of the processor at `base` from an RFLAGS image; other bits of `flags` are ignored. */
export function storeStatusFlags(i32: Int32Array, base: number, flags: number): void {
  const cf = flags & RFLAGS.CF ? 1 : 0;
  const of = flags & RFLAGS.OF ? 1 : 0;
  const cvHigh = (cf << 31) | ((cf ^ of) << 30);
  let cvLow = flags & RFLAGS.AF ? 8 : 0;
  const zf = (flags & RFLAGS.ZF) !== 0, sf = (flags & RFLAGS.SF) !== 0;
  // A result of 0 has even parity and a clear sign; a result of 1 odd parity and a clear sign.
  if (sf) cvLow |= 1;
  const parityOfResult = zf;
  if (((flags & RFLAGS.PF) !== 0) !== parityOfResult) cvLow |= 0x100;
  i32[(base + S.FRES) >>> 2] = zf ? 0 : 1;
  i32[(base + S.FRES + 4) >>> 2] = 0;
  i32[(base + S.FCV) >>> 2] = cvLow;
  i32[(base + S.FCV + 4) >>> 2] = cvHigh;
}

/** The whole RFLAGS image of the processor at `base`. */
export function loadRflags(i32: Int32Array, base: number): number {
  return (i32[(base + S.RFLAGS) >>> 2]! & ~RFLAGS_STATUS) | loadStatusFlags(i32, base) | 2;
}
