/**
 * What the tests of EPT share: a processor in VMX non-root operation without VMX operation around it, and a builder of EPT tables.
 *
 * Guest-physical addresses are host-physical ones plus {@link GuestBench.offset}, so that one taken for the other is noticed.
 *
 * @module
 */
import { CR0_PG, CR4_LA57, CR4_PAE, EFER_LMA } from "../../hw/paging.ts";
import { contextChanged, contextChanging } from "../../hw/ept.ts";
import { S } from "../../hw/state.ts";
import { EXIT_VECTOR } from "../../hw/vmx/contract.ts";
import { Bench } from "./paging_fixture.ts";

/** Rights and type of an EPT entry that allows everything: R W X, write-back. */
export const RWX = 7n;
/** Memory type write-back in a leaf. */
export const WB = 0x30n;

/** What an access of the guest came to. */
export type Outcome =
  | { readonly kind: "done"; readonly value: number }
  | { readonly kind: "fault"; readonly vector: number; readonly code: number }
  | {
    readonly kind: "exit";
    readonly reason: number;
    readonly qualification: number;
    readonly linear: bigint;
    readonly physical: bigint;
  };

/** Options of a {@link GuestBench}. */
export interface GuestOptions {
  /** Guest-physical minus host-physical address; default 256 GiB. */
  readonly offset?: bigint;
  /** Accessed and dirty flags for EPT; default off. */
  readonly ad?: boolean;
  /** EPT levels; default 4. */
  readonly levels?: 4 | 5;
  /** VPID of the guest; default 1, 0 for "enable VPID" = 0. */
  readonly vpid?: number;
  /** Secondary controls beside EPT and VPID. */
  readonly proc2?: number;
}

/** A bench whose processor can be in non-root operation, with EPT. */
export class GuestBench extends Bench {
  readonly offset: bigint;
  readonly eptRoot: number;
  readonly #options: GuestOptions;
  readonly #levels: number;
  /** EPT pointer of the guest. */
  eptp: bigint;
  /** VPID of the guest. */
  vpid: number;
  #hostCr3 = 0n;
  #guestCr3: bigint;

  constructor(options: ConstructorParameters<typeof Bench>[0] & GuestOptions = {}) {
    super(options);
    this.#options = options;
    this.offset = options.offset ?? 0x40_0000_0000n;
    this.#levels = options.levels ?? 4;
    this.vpid = options.vpid ?? 1;
    this.eptRoot = this.page();
    this.eptp = this.pointerTo(this.eptRoot);
    this.#guestCr3 = this.gpa(this.root);
    this.#hostCr3 = this.cpu.get64(S.CR3);
    this.cpu.set32(S.VMX_MODE, 1);
    this.cpu.set64(S.VMX_APIC_ACCESS, 0xffff_ffff_ffff_ffffn);
    // Everything the bench may hand out, in pages of 4 KiB; tests remap what they are about.
    for (let page = 0x10_000; page < 0x40_0000; page += 4096) this.eptMap(this.gpa(page), page, RWX | WB);
  }

  /** An EPT pointer to a root table. */
  pointerTo(root: number): bigint {
    return BigInt(root) | BigInt((this.#levels - 1) << 3) | 6n | (this.#options.ad ? 0x40n : 0n);
  }

  /** The guest-physical address of a host-physical one. */
  gpa(hpa: number): bigint {
    return BigInt(hpa) + this.offset;
  }

  /** VM entry as translation sees it: contexts change, nothing else. */
  enter(cr3: bigint = this.#guestCr3): void {
    const { cpu } = this;
    contextChanging(cpu);
    this.#hostCr3 = cpu.get64(S.CR3);
    cpu.set32(S.VMX_MODE, 2);
    cpu.set32(S.VMX_VPID, this.vpid);
    cpu.set32(S.VMX_EPT, 1);
    cpu.set64(S.VMX_EPTP, this.eptp);
    cpu.set32(S.VMX_PROC2, 2 | (this.vpid === 0 ? 0 : 0x20) | (this.#options.proc2 ?? 0));
    cpu.set64(S.VMX_APIC_ACCESS, 0xffff_ffff_ffff_ffffn);
    cpu.set64(S.CR3, cr3);
    contextChanged(cpu, true);
  }

  /** VM exit as translation sees it. */
  leave(): void {
    const { cpu } = this;
    contextChanging(cpu);
    this.#guestCr3 = cpu.get64(S.CR3);
    cpu.set32(S.VMX_MODE, 1);
    cpu.set32(S.VMX_VPID, 0);
    cpu.set32(S.VMX_EPT, 0);
    cpu.set64(S.VMX_EPTP, 0n);
    cpu.set32(S.VMX_PROC2, 0);
    cpu.set64(S.VMX_APIC_ACCESS, 0xffff_ffff_ffff_ffffn);
    cpu.set64(S.CR3, this.#hostCr3);
    contextChanged(cpu, false);
  }

  /**
   * Maps a guest-physical page in the EPT, making tables as needed (R W X). Returns the entries' host addresses by level.
   *
   * @param bits Bits of the leaf beside its address.
   */
  eptMap(gpa: bigint, hpa: number, bits: bigint, level = 1, root = this.eptRoot): number[] {
    const entries: number[] = [];
    let table = root;
    for (let l = this.#levels; l > level; l--) {
      const at = table + Number((gpa >> BigInt(3 + 9 * l)) & 511n) * 8;
      entries[l] = at;
      if (!(this.peek64(at) & 7n)) this.poke64(at, BigInt(this.page()) | RWX);
      table = Number(this.peek64(at) & 0xf_ffff_ffff_f000n);
    }
    const at = table + Number((gpa >> BigInt(3 + 9 * level)) & 511n) * 8;
    entries[level] = at;
    this.poke64(at, BigInt(hpa) | bits | (level > 1 ? 0x80n : 0n));
    return entries;
  }

  /** Host address of the EPT entry of a level for a guest-physical address, which must be mapped down to it. */
  eptEntry(gpa: bigint, level = 1, root = this.eptRoot): number {
    let table = root;
    for (let l = this.#levels;; l--) {
      const at = table + Number((gpa >> BigInt(3 + 9 * l)) & 511n) * 8;
      if (l === level) return at;
      table = Number(this.peek64(at) & 0xf_ffff_ffff_f000n);
    }
  }

  /**
   * Maps a linear page in the guest's tables, which stand in host pages and name each other by guest-physical addresses. Returns the host
   * addresses of the entries by level.
   *
   * @param physical Guest-physical address.
   */
  guestMap(linear: bigint, physical: bigint, bits: bigint, level = 1, root = this.root): number[] {
    const { cpu } = this;
    const entries: number[] = [];
    let table = root, from: number;
    const follow = (entry: bigint) => Number((entry & 0xf_ffff_ffff_f000n) - this.offset);
    if (!(cpu.get32(S.CR4) & CR4_PAE)) {
      const directory = table + Number(linear >> 22n) * 4;
      entries[2] = directory;
      if (level === 2) {
        this.poke32(directory, Number((physical | bits | 0x80n) & 0xffff_ffffn));
        return entries;
      }
      if (!(this.peek32(directory) & 1)) {
        this.poke32(directory, Number((this.gpa(this.page()) | 7n) & 0xffff_ffffn));
      }
      const at = follow(BigInt(this.peek32(directory))) + Number((linear >> 12n) & 0x3ffn) * 4;
      entries[1] = at;
      this.poke32(at, Number((physical | bits) & 0xffff_ffffn));
      return entries;
    }
    if (cpu.get32(S.EFER) & EFER_LMA) from = cpu.get32(S.CR4) & CR4_LA57 ? 5 : 4;
    else {
      from = 2;
      const register = S.PDPTE + Number((linear >> 30n) & 3n) * 8;
      if (cpu.get64(register) === 0n) cpu.set64(register, this.gpa(this.page()) | 1n);
      table = follow(cpu.get64(register));
    }
    for (let l = from; l > level; l--) {
      const at = table + Number((linear >> BigInt(3 + 9 * l)) & 511n) * 8;
      entries[l] = at;
      if (!(this.peek64(at) & 1n)) this.poke64(at, this.gpa(this.page()) | 7n);
      table = follow(this.peek64(at));
    }
    const at = table + Number((linear >> BigInt(3 + 9 * level)) & 511n) * 8;
    entries[level] = at;
    this.poke64(at, physical | bits | (level > 1 ? 0x80n : 0n));
    return entries;
  }

  /** Turns the guest's paging off. */
  pagingOff(): void {
    this.cr0(0, CR0_PG);
    this.cpu.set32(S.EFER, 0);
    this.cpu.set32(S.CODEMODE, 1);
  }

  /** Carries out an access and says what it came to. */
  outcome(access: () => number | void): Outcome {
    let value = 0;
    const fault = this.fault(() => {
      value = access() ?? 0;
      // fetchPage does not throw.
      if (value === -1) this.#throwRecorded();
    });
    if (fault === undefined) return { kind: "done", value };
    if (fault.vector !== EXIT_VECTOR) return { kind: "fault", vector: fault.vector, code: fault.code };
    const { cpu } = this;
    return {
      kind: "exit",
      reason: cpu.get32(S.VMX_REASON),
      qualification: Number(cpu.get64(S.VMX_QUALIFICATION)),
      linear: cpu.get64(S.VMX_LINEAR),
      physical: cpu.get64(S.VMX_PHYSICAL),
    };
  }

  #throwRecorded(): void {
    const { cpu } = this;
    cpu.raise(cpu.get32(S.FAULTVECTOR), cpu.get32(S.FAULTCODE) | 0);
  }
}
