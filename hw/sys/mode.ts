/**
 * The derived state of a processor (code and stack mode, fast-TLB context, trap words, quick segment limits), and
 * its state after power-up, reset and INIT.
 *
 * Room: `hw/sys/`; imports state.ts, and the processor's type. Whoever changes CR0, CR4, EFER, CPL, a segment
 * or RFLAGS.VM or AC calls {@link updateMode}, or one of its parts where it knows which part can have changed.
 *
 * @module
 */
import type { Cpu } from "../cpu.ts";
import * as state from "../state.ts";
import { CONTEXT, fastContextAddress } from "../tlb_fast.ts";
import { storeStatusFlags } from "../flags.ts";

// Bound here because an imported constant is loaded and checked at each use, and a local one is folded.
const { FTLB_CONTEXT_BYTES, RFLAGS, S, SEG } = state;

/** Bits of CR0 (SDM vol. 3A, "Control Registers"). */
export const CR0 = {
  PE: 1,
  MP: 2,
  EM: 4,
  TS: 8,
  ET: 0x10,
  NE: 0x20,
  WP: 0x1_0000,
  AM: 0x4_0000,
  NW: 0x2000_0000,
  CD: 0x4000_0000,
  PG: 0x8000_0000 | 0,
} as const;

/** Bits of CR4. */
export const CR4 = {
  VME: 1,
  PVI: 2,
  TSD: 4,
  DE: 8,
  PSE: 0x10,
  PAE: 0x20,
  MCE: 0x40,
  PGE: 0x80,
  PCE: 0x100,
  OSFXSR: 0x200,
  OSXMMEXCPT: 0x400,
  UMIP: 0x800,
  LA57: 0x1000,
  VMXE: 0x2000,
  SMXE: 0x4000,
  FSGSBASE: 0x1_0000,
  PCIDE: 0x2_0000,
  OSXSAVE: 0x4_0000,
  SMEP: 0x10_0000,
  SMAP: 0x20_0000,
  PKE: 0x40_0000,
} as const;

/** Bits of IA32_EFER. */
export const EFER = { SCE: 1, LME: 0x100, LMA: 0x400, NXE: 0x800 } as const;

/** Bits of access rights in the VMCS format. */
export const AR = {
  TYPE: 0xf,
  S: 0x10,
  DPL: 0x60,
  P: 0x80,
  L: 0x2000,
  DB: 0x4000,
  G: 0x8000,
  UNUSABLE: 0x1_0000,
} as const;

/** True in protected mode, virtual-8086 mode included. */
export function isProtected(cpu: Cpu): boolean {
  return (cpu.get32(S.CR0) & CR0.PE) !== 0;
}
/** True in virtual-8086 mode. */
export function isVirtual8086(cpu: Cpu): boolean {
  return (cpu.get32(S.RFLAGS) & RFLAGS.VM) !== 0;
}
/** True in IA-32e mode (64-bit or compatibility mode). */
export function isLongMode(cpu: Cpu): boolean {
  return (cpu.get32(S.EFER) & EFER.LMA) !== 0;
}
/** True where segments are loaded as in the 8086: real mode and virtual-8086 mode. */
export function isRealOrVirtual8086(cpu: Cpu): boolean {
  return !isProtected(cpu) || isVirtual8086(cpu);
}

/** True when a 64-bit address with upper half `high` is canonical in the current paging mode. */
export function isCanonical(cpu: Cpu, high: number): boolean {
  const unused = cpu.memory.i32[(cpu.base + S.CR4) >>> 2]! & CR4.LA57 ? 7 : 16;
  return ((high << unused) >> unused) === (high | 0);
}
/** True when it is canonical for the widest linear addresses that the processor supports (system registers; SDM vol. 1, "Canonicality Checking"). */
export function isCpuCanonical(cpu: Cpu, high: number): boolean {
  const unused = 64 - cpu.model.linearBits;
  return ((high << unused) >> unused) === (high | 0);
}

/** Recomputes what depends on CS, SS and EFER: CODEMODE and STACKMODE. */
export function updateCodeAndStackMode(cpu: Cpu): void {
  const i32 = cpu.memory.i32, at = cpu.base >>> 2;
  const cs = i32[at + ((S.SEGAR + SEG.CS * 4) >>> 2)]!;
  const ss = i32[at + ((S.SEGAR + SEG.SS * 4) >>> 2)]!;
  const long = (i32[at + (S.EFER >>> 2)]! & EFER.LMA) !== 0;
  const code = long && (cs & AR.L) ? 2 : cs & AR.DB ? 1 : 0;
  i32[at + (S.CODEMODE >>> 2)] = code;
  i32[at + (S.STACKMODE >>> 2)] = code === 2 ? 2 : ss & AR.DB ? 1 : 0;
}

/** Recomputes the fast-TLB context from CPL, CR4.SMAP, RFLAGS.AC, CR0.AM and DR7 (see `fastContext`). */
export function updateTlbContext(cpu: Cpu): void {
  const i32 = cpu.memory.i32, at = cpu.base >>> 2;
  const user = i32[at + (S.CPL >>> 2)] === 3;
  const checksAlignment = (i32[at + (S.RFLAGS >>> 2)]! & RFLAGS.AC) !== 0;
  if ((i32[at + ((S.DR + 56) >>> 2)]! & 0xff) !== 0 || checksAlignment) {
    i32[at + (S.TLBCTX >>> 2)] = fastContextAddress(cpu);
    return;
  }
  const smap = (i32[at + (S.CR4 >>> 2)]! & CR4.SMAP) !== 0;
  const context = user ? CONTEXT.USER : smap ? CONTEXT.SUPERVISOR_SMAP : CONTEXT.SUPERVISOR;
  i32[at + (S.TLBCTX >>> 2)] = i32[at + (S.TLBBANK >>> 2)]! + context * FTLB_CONTEXT_BYTES;
}

/** Recomputes SSETRAP, FPUTRAP and MMXTRAP from CR0 and CR4. */
export function updateTraps(cpu: Cpu): void {
  const cr0 = cpu.get32(S.CR0), cr4 = cpu.get32(S.CR4);
  const switched = cr0 & CR0.TS ? 7 : 0;
  cpu.set32(S.SSETRAP, (cr0 & CR0.EM) || !(cr4 & CR4.OSFXSR) ? 6 : switched);
  cpu.set32(S.FPUTRAP, cr0 & CR0.EM ? 7 : switched);
  cpu.set32(S.MMXTRAP, cr0 & CR0.EM ? 6 : switched);
}

/** Recomputes the quick limits of one segment register (0 … 5) from its hidden part. */
export function updateSegmentLimits(cpu: Cpu, seg: number): void {
  const i32 = cpu.memory.i32, at = cpu.base >>> 2;
  const ar = i32[at + (S.SEGAR >>> 2) + seg]!;
  const limit = i32[at + (S.SEGLIMIT >>> 2) + seg]!;
  const usable = (ar & (AR.UNUSABLE | AR.P | AR.S)) === (AR.P | AR.S);
  const code = (ar & 8) !== 0;
  // Expand-down data segments always take the closer look.
  const plain = usable && (code || !(ar & 4));
  const readable = plain && (!code || (ar & 2) !== 0);
  const writable = plain && !code && (ar & 2) !== 0;
  const r = at + (S.SEGRMAX >>> 2) + seg * 2, w = at + (S.SEGWMAX >>> 2) + seg * 2;
  i32[r] = readable ? limit : -1;
  i32[r + 1] = readable ? 0 : -1;
  i32[w] = writable ? limit : -1;
  i32[w + 1] = writable ? 0 : -1;
}

/** Recomputes all derived state of the processor's block. */
export function updateMode(cpu: Cpu): void {
  updateCodeAndStackMode(cpu);
  updateTlbContext(cpu);
  updateTraps(cpu);
  for (let seg = 0; seg < 6; seg++) updateSegmentLimits(cpu, seg);
}

/** Sets a segment register with its hidden part; the quick limits follow, other derived state does not. */
export function setSegment(
  cpu: Cpu,
  seg: number,
  selector: number,
  baseLow: number,
  baseHigh: number,
  limit: number,
  ar: number,
): void {
  const i32 = cpu.memory.i32, at = cpu.base >>> 2;
  i32[at + (S.SEGSEL >>> 2) + seg] = selector;
  i32[at + (S.SEGBASE >>> 2) + seg * 2] = baseLow;
  i32[at + (S.SEGBASE >>> 2) + seg * 2 + 1] = baseHigh;
  i32[at + (S.SEGLIMIT >>> 2) + seg] = limit;
  i32[at + (S.SEGAR >>> 2) + seg] = ar;
  if (seg < 6) updateSegmentLimits(cpu, seg);
}

// ---- power-up, reset and INIT (SDM vol. 3A, "Processor State After Reset")

/** Value of DR6 and DR7 at reset. */
export const DR6_RESET = 0xffff_0ff0, DR7_RESET = 0x400;
/** PAT at reset: WB, WT, UC−, UC, twice. */
const PAT_RESET_HALF = 0x0007_0406;
/** IA32_MISC_ENABLE: fast strings, MONITOR; no branch trace storage, no event-based sampling. */
const MISC_ENABLE_RESET = 1 | (1 << 18) | 0x1800;

/** What reset and INIT have in common. */
function initCommon(cpu: Cpu): void {
  for (let n = 0; n < 16; n++) cpu.set64Halves(S.GPR + n * 8, 0, 0);
  const { family, model, stepping } = cpu.model;
  cpu.set32(S.GPR + 2 * 8, (family << 8) | ((model >>> 4) << 16) | ((model & 0xf) << 4) | stepping);
  cpu.set64Halves(S.RIP, 0xfff0, 0);
  cpu.set64Halves(S.RIPPAGE, 0, 0);
  cpu.set32(S.RFLAGS, 2);
  storeStatusFlags(cpu.memory.i32, cpu.base, 0);
  cpu.set32(S.CPL, 0);
  for (let seg = 0; seg < 6; seg++) setSegment(cpu, seg, 0, 0, 0, 0xffff, 0x93);
  setSegment(cpu, SEG.CS, 0xf000, 0xffff_0000, 0, 0xffff, 0x93);
  setSegment(cpu, SEG.LDTR, 0, 0, 0, 0xffff, 0x82);
  setSegment(cpu, SEG.TR, 0, 0, 0, 0xffff, 0x8b);
  cpu.set64Halves(S.GDTR, 0, 0);
  cpu.set32(S.GDTR + 8, 0xffff);
  cpu.set64Halves(S.IDTR, 0, 0);
  cpu.set32(S.IDTR + 8, 0xffff);
  cpu.set64Halves(S.CR2, 0, 0);
  cpu.set64Halves(S.CR3, 0, 0);
  cpu.set64Halves(S.CR4, 0, 0);
  cpu.set64Halves(S.EFER, 0, 0);
  for (let n = 0; n < 4; n++) {
    cpu.set64Halves(S.DR + n * 8, 0, 0);
    cpu.set64Halves(S.PDPTE + n * 8, 0, 0);
  }
  cpu.set64Halves(S.DR + 6 * 8, DR6_RESET, 0);
  cpu.set64Halves(S.DR + 7 * 8, DR7_RESET, 0);
  cpu.set32(S.BLOCKING, 0);
  cpu.set32(S.PENDINGDB, 0);
  cpu.set32(S.STEPFLAGS, 0);
  cpu.set32(S.SPILLSIZE, 0);
  cpu.set32(S.PKRU, 0);
}

/**
 * Power-up and reset. The caller resets the local APIC, which sets IA32_APIC_BASE.
 *
 * @param waitForSipi Whether this is an application processor, which waits for a start-up IPI.
 */
export function resetCpu(cpu: Cpu, waitForSipi = false): void {
  initCommon(cpu);
  cpu.set64Halves(S.CR0, 0x6000_0010, 0);
  cpu.set64Halves(S.XCR0, 1, 0);
  for (
    const at of [
      S.STAR,
      S.LSTAR,
      S.CSTAR,
      S.FMASK,
      S.KERNEL_GS_BASE,
      S.SYSENTER_CS,
      S.SYSENTER_ESP,
      S.SYSENTER_EIP,
      S.TSC_AUX,
      S.TSC_ADJUST,
      S.FEATURE_CONTROL,
      S.BIOS_SIGN_ID,
      S.MCG_STATUS,
      S.MTRR_DEF_TYPE,
      S.DEBUGCTL,
    ]
  ) cpu.set64Halves(at, 0, 0);
  for (let at: number = S.VMX_MODE; at < S.TLBBANK; at += 4) cpu.set32(at, 0);
  for (let i = 0; i < 20; i++) cpu.set64Halves(S.MTRR_VAR + i * 8, 0, 0);
  for (let i = 0; i < 11; i++) cpu.set64Halves(S.MTRR_FIX + i * 8, 0, 0);
  cpu.set64Halves(S.PAT, PAT_RESET_HALF, PAT_RESET_HALF);
  cpu.set64Halves(S.MISC_ENABLE, MISC_ENABLE_RESET, 0);
  // x87 as after power-up (not FNINIT): control word 40H, all registers zero and valid.
  cpu.set32(S.FCW, 0x40);
  cpu.set32(S.FTW, 0xff);
  for (let at: number = S.FIP; at < S.RETIRED; at += 4) cpu.set32(at, 0);
  for (let at: number = S.FPR; at < S.SPILL; at += 4) cpu.set32(at, 0);
  cpu.set32(S.MXCSR, 0x1f80);
  cpu.set32(S.ACTIVITY, waitForSipi ? 3 : 0);
  cpu.access?.tlb.reset();
  updateMode(cpu);
}

/**
 * INIT: as reset, but caches, x87, SSE and most MSRs stay, and CR0.CD and NW with them. An application processor then
 * waits for a start-up IPI; the bootstrap processor goes on at FFFFFFF0H. The caller calls `apic.acceptInit()`.
 */
export function initCpu(cpu: Cpu): void {
  const cache = cpu.get32(S.CR0) & (CR0.CD | CR0.NW);
  initCommon(cpu);
  cpu.set64Halves(S.CR0, cache | CR0.ET, 0);
  const bootstrap = (cpu.get32(S.APIC_BASE) & 0x100) !== 0;
  cpu.set32(S.ACTIVITY, bootstrap ? 0 : 3);
  cpu.access?.tlb.flushAll();
  updateMode(cpu);
}

/** Start-up IPI: real mode at `vector` × 1000H. Only meaningful in the wait-for-SIPI state. */
export function startCpu(cpu: Cpu, vector: number): void {
  setSegment(cpu, SEG.CS, vector << 8, vector << 12, 0, 0xffff, 0x93);
  cpu.set64Halves(S.RIP, 0, 0);
  cpu.set32(S.ACTIVITY, 0);
  updateMode(cpu);
}
