/**
 * The layout of the one linear memory (DESIGN 2.1): where a processor's architectural state, its fast TLBs,
 * the decoded code and the guest's RAM stand. TypeScript reads it through typed arrays, generated wasm at
 * constant offsets from the processor's base.
 *
 * Room: leaf of `hw/`; imports nothing. Every offset is written here once and nowhere else.
 *
 * @module
 */

// ---- The whole memory -------------------------------------------------------------------------------

/** Most processors that one machine can have. */
export const CPU_MAX = 16;
/** First processor's block. The pages below stay zero, so that a null record or host address reads as zero. */
export const CPU_BLOCK_BASE = 0x0010_0000;
/** 4096 bytes: what a gate's body moves, on its way within one step (hw/gates.ts). The last of the low pages; it does not stay zero. */
export const GATE_PAGE = 0x000f_f000;
/** Bytes in one processor's block: state, step records, fast TLBs. */
export const CPU_BLOCK_SIZE = 0x0004_0000;
/** Byte selections of the vector permutations (see isa/vector.ts), 64 KiB at most. */
export const VECTOR_TABLES_BASE = 0x0050_0000;
/** What TypeScript and generated code keep together for each processor beside its block (see {@link AUX}). */
export const AUX_BASE = 0x0051_0000;
/** Bytes of one processor's share of {@link AUX_BASE}. */
export const AUX_BYTES = 0xe000;
/** One byte per 4-KiB physical page below 4 GiB: a set of {@link PAGE_RAM} … bits. */
export const PAGE_FLAGS_BASE = 0x0060_0000;
/** One u32 per page and code mode: address of the page's slot table (see {@link SLOT_TABLE_BYTES}), or 0. */
export const CODE_TABLES_BASE = 0x0080_0000;
/** Bytes of {@link CODE_TABLES_BASE} for one code mode (16-, 32-, 64-bit in this order). */
export const CODE_TABLES_STRIDE = 0x0040_0000;
/** Slot tables and decoded records. */
export const CODE_ARENA_BASE = 0x0140_0000;
/** End of the arena (exclusive). */
export const CODE_ARENA_END = 0x0400_0000;
/** Host address of physical address 0. */
export const RAM_BASE = 0x0400_0000;
/** Largest RAM that fits: below the 32-bit MMIO hole and inside a 4-GiB wasm memory. */
export const RAM_MAX = 0xc000_0000;

/** Page flag: plain RAM, may be read (and written unless another bit forbids) at RAM_BASE + address. */
export const PAGE_RAM = 1;
/** Page flag: read-only memory; stores are dropped. */
export const PAGE_ROM = 2;
/** Page flag: decoded code of any mode stands in this page; stores must look for it. */
export const PAGE_CODE = 4;
/** Page flag: stores are watched by a listener or a fault injector; never in a fast TLB. */
export const PAGE_WATCH = 8;

// ---- Decoded records ----------------------------------------------------------------------------------

/** Bytes in one decoded record; records of a straight line stand one after the other. */
export const RECORD_BYTES = 32;
/** A slot table has one u32 (record address or 0) per byte offset of the page. */
export const SLOT_TABLE_BYTES = 4096 * 4;

/**
 * Field offsets of a decoded record. Register operands are byte offsets into the processor's block. The first eight bytes are
 * what nearly every handler needs; the interpreter reads them at once, and with them decides what is next.
 */
export const REC = {
  /** u16: number of the handler in the interpreter's switch. */
  handler: 0,
  /** u16: first register operand. */
  r0: 2,
  /** u16: second register operand. */
  r1: 4,
  /** u16: base register of the memory operand ({@link S.ZERO} when there is none, {@link S.RIPPAGE} when RIP-relative). */
  base: 6,
  /** i32: displacement; in a direct jump the linked record's address, or 0. */
  disp: 8,
  /** u16: index register of the memory operand ({@link S.ZERO} when there is none). */
  index: 12,
  /** u8: log2 of the index scale. */
  scale: 14,
  /** u8: instruction length in bytes. */
  length: 15,
  /** i64: immediate; in a direct jump the target's IP relative to the IP of the page's first byte. */
  imm: 16,
  /** u16: offset of the instruction's first byte in its page. */
  pageOffset: 24,
  /** u16: index in the table of called (rare) handlers. */
  rare: 26,
  /** u16: segment-base slot of the memory operand ({@link S.ZERO} when the base is architecturally zero). */
  segment: 28,
  /** u16: third register operand. */
  r2: 30,
} as const;

// ---- One processor's block -----------------------------------------------------------------------------

/**
 * Field offsets in a processor's block. Widths are in the comments; everything is little-endian and naturally
 * aligned. Names are the SDM's where the SDM has one.
 */
export const S = {
  /** u64 × 16: RAX RCX RDX RBX RSP RBP RSI RDI R8 … R15. */
  GPR: 0x000,
  /** u64: RIP of the instruction to execute next (or, inside an instruction's procedure, of that instruction). */
  RIP: 0x080,
  /** u64: IP of the first byte of the page that the interpreter executes in (linear page address minus CS base). */
  RIPPAGE: 0x088,
  /** u64: always zero; the base of an operand that has none. */
  ZERO: 0x090,
  /** i64: lazy flags, the last result sign-extended to 64 bits (see flags.ts). */
  FRES: 0x098,
  /** i64: lazy flags, carry vector and deltas (see flags.ts). */
  FCV: 0x0a0,
  /** u32: RFLAGS bits other than CF PF AF ZF SF OF (which read 0 here); bit 1 always set. */
  RFLAGS: 0x0a8,
  /** u32: current privilege level. */
  CPL: 0x0ac,
  /** u32: code mode of CS: 0 = 16-bit, 1 = 32-bit, 2 = 64-bit. */
  CODEMODE: 0x0b0,
  /** u32: nonzero when SS.B = 1 or 64-bit mode: 0 = 16-bit stack, 1 = 32-bit, 2 = 64-bit. */
  STACKMODE: 0x0b4,
  /** u32: host address of the fast TLB context in force (read, write, fetch tables, in this order). */
  TLBCTX: 0x0b8,
  /** u32: nonzero when SSE instructions must trap: 6 = #UD, 7 = #NM. */
  SSETRAP: 0x0bc,
  /** u32: nonzero when x87 instructions must trap: 7 = #NM. */
  FPUTRAP: 0x0c0,
  /** u32: nonzero when MMX instructions must trap: 6 = #UD, 7 = #NM. */
  MMXTRAP: 0x0c4,
  /** u32: length in bytes of the instruction whose procedure is running. */
  ILEN: 0x0c8,
  /** u32: instructions left in the slice as of the instruction whose procedure runs (it is not counted yet). */
  REMAINING: 0x0cc,
  /** u32: one of the EXIT_ codes, set by whoever stops the engine. */
  EXIT: 0x0d0,
  /** u32: vector of the pending fault (EXIT_FAULT). */
  FAULTVECTOR: 0x0d4,
  /** u32: error code of the pending fault, or 0xFFFF_FFFF for none. */
  FAULTCODE: 0x0d8,
  /** u32: bit set of ATTENTION_ reasons to look at before the next instruction. */
  ATTENTION: 0x0dc,
  /** u64 × 4: arguments and results of procedures. */
  ARG: 0x0e0,
  /** u64 × 8: segment bases ES CS SS DS FS GS LDTR TR (hidden part). */
  SEGBASE: 0x100,
  /** u32 × 8: segment limits in bytes, granularity applied (hidden part). */
  SEGLIMIT: 0x140,
  /** u32 × 8: access rights, in the VMCS format (type 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15, unusable 16). */
  SEGAR: 0x160,
  /** u32 × 8: selectors. */
  SEGSEL: 0x180,
  /** i64 × 6: highest offset that a read may touch without a closer look outside 64-bit mode, −1 for none. */
  SEGRMAX: 0x1a0,
  /** i64 × 6: the same for writes. */
  SEGWMAX: 0x1d0,
  /** u64: GDTR base; u32 at +8: limit. */
  GDTR: 0x200,
  /** u64: IDTR base; u32 at +8: limit. */
  IDTR: 0x210,
  /** u64 each: control registers. CR8 is kept by the local APIC (TPR). */
  CR0: 0x220,
  CR2: 0x228,
  CR3: 0x230,
  CR4: 0x238,
  XCR0: 0x240,
  EFER: 0x248,
  /** u64 × 8: DR0 … DR7 (4 and 5 unused). */
  DR: 0x250,
  /** u64 × 4: PDPTE0 … 3 of PAE paging. */
  PDPTE: 0x290,
  STAR: 0x2b0,
  LSTAR: 0x2b8,
  CSTAR: 0x2c0,
  FMASK: 0x2c8,
  KERNEL_GS_BASE: 0x2d0,
  SYSENTER_CS: 0x2d8,
  SYSENTER_ESP: 0x2e0,
  SYSENTER_EIP: 0x2e8,
  TSC_AUX: 0x2f0,
  PAT: 0x2f8,
  TSC_ADJUST: 0x300,
  APIC_BASE: 0x308,
  MISC_ENABLE: 0x310,
  /** u32: PKRU. */
  PKRU: 0x318,
  /** u32: MXCSR. */
  MXCSR: 0x31c,
  /** u16 each: x87 control, status (TOP inside), abridged tag (bit i: physical register i is not empty), opcode. */
  FCW: 0x320,
  FSW: 0x322,
  FTW: 0x324,
  FOP: 0x326,
  /** u64 each: x87 last instruction and operand pointers (selectors in FCS, FDS as u32). */
  FIP: 0x328,
  FDP: 0x330,
  FCS: 0x338,
  FDS: 0x33c,
  /** u64: instructions retired by this processor. */
  RETIRED: 0x340,
  /** u32: activity state as in the VMCS: 0 active, 1 HLT, 2 shutdown, 3 wait-for-SIPI. */
  ACTIVITY: 0x348,
  /** u32: blocking, as in the VMCS interruptibility state: 1 STI, 2 MOV SS, 8 NMI. */
  BLOCKING: 0x34c,
  /** u32: nonzero while the engine single-steps and slow accesses (MMIO, code pages) may be carried out. */
  STEPPING: 0x350,
  /** u32: a crossing store waits in SPILL (see access.ts): its size in bytes, or 0. */
  SPILLSIZE: 0x354,
  /** u64: linear address of the spilled store. */
  SPILLADDR: 0x358,
  /** u32: DR6 bits of debug traps that wait for the end of the instruction (hw/sys/debug.ts). */
  PENDINGDB: 0x360,
  /** u32: set by an instruction being stepped: TF (bit 8) = no single-step trap after it, RF (bit 16) = it loaded RF, which stays. */
  STEPFLAGS: 0x364,
  /** u32 × 4: the random generator behind RDRAND and RDSEED. */
  RANDOM: 0x368,
  /** u32: record at which a lookup exit happened in a straight line, or 0. */
  EXITRECORD: 0x378,
  /** u64: always BIAS_VALUE; carries a RIP-relative displacement that 32 bits no longer hold. */
  BIAS: 0x7c0,
  /** 16 × 16 bytes: x87 physical registers R0 … R7, 80-bit in the low ten bytes (MMi is the low eight of Ri). */
  FPR: 0x380,
  /** 16 × 16 bytes: XMM0 … XMM15. */
  XMM: 0x400,
  /** 64 bytes, 16-aligned: gathers a load that crosses pages, holds a store on its way. */
  SPILL: 0x500,
  /** 256 bytes, 16-aligned: temporaries of vector procedures. */
  VTEMP: 0x540,
  /** u64 each: MSRs that are only stored (hw/msr.ts). */
  FEATURE_CONTROL: 0x640,
  BIOS_SIGN_ID: 0x648,
  MCG_STATUS: 0x650,
  MTRR_DEF_TYPE: 0x658,
  DEBUGCTL: 0x660,
  /** u64 × 20: MTRR PHYSBASE0, PHYSMASK0, PHYSBASE1 … PHYSMASK9. */
  MTRR_VAR: 0x680,
  /** u64 × 11: fixed-range MTRRs in the order of their numbers (250H, 258H, 259H, 268H … 26FH). */
  MTRR_FIX: 0x720,
  /** 64 bytes, 16-aligned: the frame that event delivery and IRET assemble. */
  FRAME: 0x780,
  /** 640 bytes, 64-aligned: an FXSAVE or XSAVE image on its way (hw/isa/fxsave_proc.ts). */
  XTEMP: 0x800,
  /** u32: VMX operation: 0 off, 1 root, 2 non-root (`VMX` in vmx/contract.ts). The VMX fields are written by hw/vmx/ alone. */
  VMX_MODE: 0xa80,
  /** u32: current VPID; 0 outside non-root operation and without "enable VPID". */
  VMX_VPID: 0xa84,
  /** u32: 1 while EPT translates (non-root operation with "enable EPT"), else 0. */
  VMX_EPT: 0xa88,
  /** u32 each: controls in force in non-root operation, 0 outside it; what an inactive control word would say reads 0. */
  VMX_PIN: 0xa8c,
  VMX_PROC: 0xa90,
  VMX_PROC2: 0xa94,
  /** u32 each: VM-exit controls, VM-entry controls, exception bitmap of the guest that runs. */
  VMX_EXIT_CONTROLS: 0xa98,
  VMX_ENTRY_CONTROLS: 0xa9c,
  VMX_EXCEPTIONS: 0xaa0,
  /** u32: VM-function controls in force. */
  VMX_FUNCTIONS: 0xaa4,
  /** u64: EPT pointer in force (VMFUNC changes it); 0 while {@link S.VMX_EPT} is 0. */
  VMX_EPTP: 0xaa8,
  /** u64: current-VMCS pointer, all ones when there is none. */
  VMX_POINTER: 0xab0,
  /** u64: VMXON pointer. */
  VMX_ON_POINTER: 0xab8,
  /** u64: APIC-access page while "virtualize APIC accesses" is in force, all ones otherwise. */
  VMX_APIC_ACCESS: 0xac0,
  /** u64: virtual-APIC page while "use TPR shadow" is in force, all ones otherwise. */
  VMX_VIRTUAL_APIC: 0xac8,
  /** u32: basic reason of the VM exit that is requested. */
  VMX_REASON: 0xad0,
  /** u32: its VM-exit instruction information. */
  VMX_INSTRUCTION: 0xad4,
  /** u64: its exit qualification. */
  VMX_QUALIFICATION: 0xad8,
  /** u64: its guest-linear address. */
  VMX_LINEAR: 0xae0,
  /** u64: its guest-physical address. */
  VMX_PHYSICAL: 0xae8,
  /** u32: interruption information of the event that is being delivered in non-root operation, 0 when none is. */
  VMX_VECTORING: 0xaf0,
  /** u32: error code of that event. */
  VMX_VECTORING_CODE: 0xaf4,
  /** u32: instruction length of that event where it is a software one. */
  VMX_VECTORING_LENGTH: 0xaf8,
  /** u32: what the run loop has to do for the guest at the next instruction boundary: PENDING bits of vmx/boundary.ts. */
  VMX_PENDING: 0xafc,
  /** u32: offset of the register in the virtual-APIC page whose write waits to be virtualized. */
  VMX_APIC_WRITE: 0xb00,
  /** u32: nonzero while an instruction executes that unblocked NMIs ("NMI unblocking due to IRET"). */
  VMX_UNBLOCKED: 0xb04,
  /** u64: tick-counter value (ticks shifted by the timer's rate) at which the preemption timer is at 0. */
  VMX_TIMER_END: 0xb08,
  /** u64 each: ticks of the last PAUSE at CPL 0, and of the first one of its loop. */
  VMX_PAUSE_LAST: 0xb10,
  VMX_PAUSE_FIRST: 0xb18,
  /** u32: 1 while a virtual interrupt is recognised. */
  VMX_VIRTUAL_INTERRUPT: 0xb20,
  /** u32: nonzero after a VMX abort: only RESET helps. */
  VMX_ABORTED: 0xb24,
  /** u32: 1 while MONITOR is armed. */
  VMX_MONITOR: 0xb28,
  /** u32: DR6 bits of a #DB that is on its way in non-root operation; DR6 gets them if it is delivered, the qualification if it exits. */
  VMX_DEBUG: 0xb2c,
  /** u32: 1 when the next VM entry shall meet a machine check (fault injection). */
  VMX_MACHINE_CHECK: 0xb30,
  /** u32: VM-exit interruption information of the exit that is requested, 0 for none. */
  VMX_INTERRUPTION: 0xb34,
  /** u32: RFLAGS as the event that is being delivered in non-root operation pushes them. */
  VMX_VECTORING_FLAGS: 0xb38,
  /** u32: host address of the bank of fast TLB contexts in force: {@link S.TLB}, in non-root operation {@link S.TLBGUEST}. */
  TLBBANK: 0xb80,
  /** u32: host address of what is kept beside the block, see {@link AUX}. */
  AUX: 0xb88,
  /** u32: VPID of the latest VM entry, 0 without "enable VPID"; the VM exit goes by it. */
  TLBVPID: 0xb84,
  /** Step records: copies of up to STEP_RECORDS_MAX records, then a stop record. */
  STEP: 0x1000,
  /** Fast TLB contexts (see FTLB_CONTEXTS) of root operation, and outside VMX operation. */
  TLB: 0x2000,
  /** The same for non-root operation: VM transitions leave both as they are where VPIDs let them. */
  TLBGUEST: 0x2_0000,
  /** A fetch table that never hits: in force while CS is not flat. Follows the contexts. */
  NOFETCH: 0x3_e000,
} as const;

/** Content of {@link S.BIAS}. */
export const BIAS_VALUE = 0x1_0000;

/** Segment register numbers: the index into SEGBASE, SEGLIMIT, SEGAR, SEGSEL. */
export const SEG = { ES: 0, CS: 1, SS: 2, DS: 3, FS: 4, GS: 5, LDTR: 6, TR: 7 } as const;

/** General-purpose register numbers as encoded. */
export const R = {
  RAX: 0,
  RCX: 1,
  RDX: 2,
  RBX: 3,
  RSP: 4,
  RBP: 5,
  RSI: 6,
  RDI: 7,
  R8: 8,
  R9: 9,
  R10: 10,
  R11: 11,
  R12: 12,
  R13: 13,
  R14: 14,
  R15: 15,
} as const;

// ---- Fast TLBs -----------------------------------------------------------------------------------------

/** Entries of one direct-mapped table; the index is linear-address bits 12 and up. */
export const FTLB_ENTRIES = 512;
/** Bytes of an entry: tag (u64, the linear page address, or FTLB_EMPTY) and at +8 a u32. */
export const FTLB_ENTRY_BYTES = 16;
/** Bytes of one table. */
export const FTLB_TABLE_BYTES = FTLB_ENTRIES * FTLB_ENTRY_BYTES;
/** Offsets of the tables in a context. Read and write entries hold (host address − linear address) mod 2^32 at +8; fetch entries the slot table's address. */
export const FTLB_READ = 0;
export const FTLB_WRITE = FTLB_TABLE_BYTES;
export const FTLB_FETCH = 2 * FTLB_TABLE_BYTES;
/** Bytes of one context. */
export const FTLB_CONTEXT_BYTES = 3 * FTLB_TABLE_BYTES;
/**
 * Number of contexts: 0 supervisor, 1 user, 2 supervisor under SMAP with AC = 0, 3 supervisor and 4 user while every data
 * access must be looked at (alignment checks, data breakpoints): their read and write tables stay empty. `fastContext`
 * in tlb_fast.ts says which one is in force.
 */
export const FTLB_CONTEXTS = 5;
/** Low and high half of the tag of an empty entry; never equal to a page address. */
export const FTLB_EMPTY = 0xffff_ffff;

/** What is kept of one bank of the fast TLB, so that it can be emptied cheaply (tlb_fast.ts): offsets in the bank's share of {@link AUX}. */
export const KEEP = {
  /** u16 each: numbers of entries (table · FTLB_ENTRIES + index) that may be in use, each once. */
  list: 0,
  /** u8 by entry: 0 not in the list, else 1; +2 when global; +4, +8, +16 for a piece of a 2-MiB, 4-MiB, 1-GiB page. */
  state: 0x3c00,
  /** u8 × 3 × 256: by size class and hashed region, whether pieces of a large page of this region may be here. */
  regions: 0x5a00,
  /** u32: entries of the list. */
  listed: 0x5d00,
  /** u32: tables that may have entries, as bits. */
  usedTables: 0x5d04,
  /** u32: size classes of large pages that pieces are here of, as bits. */
  largeSizes: 0x5d08,
  /** u32: one more than the number of the one fetch entry of modes in which translations are counted or checked, or 0. */
  onlyFetch: 0x5d0c,
} as const;
/** Bytes of one bank's {@link KEEP}. */
export const KEEP_BYTES = 0x6000;

/** What stands beside a processor's block (S.AUX names it): offsets. */
export const AUX = {
  /** {@link KEEP} of the bank of root operation, then that of non-root operation. */
  keep: 0,
  /** f64 × 16: counters that generated code counts too (counters.ts). */
  counters: 0xc000,
  /** f64 × 48: page walks by path (counters.ts). */
  paths: 0xc080,
  /** f64 × 384: EPT walks by slot and path (counters.ts). */
  eptPaths: 0xc200,
  /** u32 × 16: what a walk of generated code has counted so far and takes back when it gives up. */
  undo: 0xce00,
  /** u32: kinds of trace event that somebody listens to, as `Trace.wants`. */
  wants: 0xd000,
  /** u32: 1 when generated code may walk and fill: `fast` TLB, no sanitizer. */
  walks: 0xd004,
} as const;

/** Most instructions that a straight line of records has before a link record ends it. */
export const BLOCK_MAX = 32;

// ---- Why an engine stopped -------------------------------------------------------------------------------

/** The procedure or access is done; go on with the next instruction. */
export const EXIT_NONE = 0;
/** The slice's budget is used up (or too small for another block). */
export const EXIT_BUDGET = 1;
/** No record at RIP is known. */
export const EXIT_LOOKUP = 2;
/** A fault is pending in FAULTVECTOR and FAULTCODE; RIP is the faulting instruction's and it is not counted. */
export const EXIT_FAULT = 3;
/** The instruction needs an access that only a stepped instruction may carry out; nothing has changed. */
export const EXIT_RETRY = 4;
/** The instruction is done and counted, RIP is set; look at everything afresh. */
export const EXIT_END = 5;
/** A stop record was reached. */
export const EXIT_STOP = 6;

/** Attention: an interrupt may be deliverable. */
export const ATTENTION_INTERRUPT = 1;
/** Attention: an NMI is pending. */
export const ATTENTION_NMI = 2;
/** Attention: INIT or SIPI is pending. */
export const ATTENTION_INIT = 4;
/** Attention: the machine's scheduler wants control (a device set an earlier deadline, a debug exit). */
export const ATTENTION_MACHINE = 8;

/** Attention: non-root operation wants the run loop to look before the next instruction (vmx/boundary.ts). */
export const ATTENTION_VMX = 16;

/** RFLAGS bits (SDM vol. 1, "EFLAGS Register"). */
export const RFLAGS = {
  CF: 0x1,
  PF: 0x4,
  AF: 0x10,
  ZF: 0x40,
  SF: 0x80,
  TF: 0x100,
  IF: 0x200,
  DF: 0x400,
  OF: 0x800,
  IOPL: 0x3000,
  NT: 0x4000,
  RF: 0x10000,
  VM: 0x20000,
  AC: 0x40000,
  VIF: 0x80000,
  VIP: 0x100000,
  ID: 0x200000,
} as const;

/** The six arithmetic flags, kept lazily in FRES and FCV. */
export const RFLAGS_STATUS = 0x8d5;
