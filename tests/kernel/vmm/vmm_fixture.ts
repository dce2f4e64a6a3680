/**
 * Vkernels on the VMM, of a few lines: TypeScript programs at ring 3 that make their memory and page tables, go into VMX non-root operation, and
 * run small machine code as their guests.
 *
 *     RAM = 0x1_0000_0000   anonymous shared memory, guest-physical = process address
 *       + 0       PML4: slot 0 = identity of [0, 1 GiB) and of the GiB of RAM, in 2-MiB pages; the old stack's 2 MiB
 *       + 2 MiB   the new stack
 *       + 4 MiB   free: {@link Guest.page}
 *
 * @module
 */
import { type Gva, gva } from "../../../hw/address.ts";
import type { Exec, GateCpu } from "../../../hw/gates.ts";
import type { Assembler } from "../../../kernel/platform/pc64/assembler.ts";
import { decodeTrapframe, TF_BYTES, type Trapframe } from "../../../kernel/platform/pc64/frame.ts";
import { VM_MAX_USER_ADDRESS } from "../../../kernel/platform/pc64/vmparam.ts";
import { userSyscall, type UserSyscallResult } from "../../../kernel/proc/user_gate.ts";
import { VMM_GUEST_RUN, VMM_OPTIONS, VMM_OPTIONS_BYTES } from "../../../kernel/vmm/vmm.ts";
import type { Booted, BootOptions } from "../kernel_fixture.ts";
import { type GateProgram, runGates } from "../proc/gate_program.ts";
import {
  ANON,
  FIXED,
  guestCode,
  guestFrame,
  PROT_RWX,
  PS,
  SHARED,
  SYS,
  U,
  V,
  VRWU,
} from "../vkernel/vkernel_fixture.ts";

export { guestFrame, PROT_RWX, SHARED, SYS, U, V, VRWU };

/** Where the memory stands. */
export const RAM = 0x1_0000_0000n;
/** Its bytes. */
export const RAM_BYTES = 16 << 20;
/** The new stack's 2 MiB. */
const STACK = RAM + 0x20_0000n;
/** First free page. */
const FREE = RAM + 0x40_0000n;
const LARGE = 0x20_0000n;
/** DragonFly's numbers. */
export const SYS_VMM_GUEST_CTL = 534, SYS_VMM_GUEST_SYNC_ADDR = 535;
/** Guest code of the guests' own programs. */
export const GUEST_CODE = 0x50_0000n, GUEST_DATA = 0x60_0000n;

/** A vkernel on the VMM. */
export class Guest {
  readonly u: GateCpu;
  /** Next free page. */
  next = FREE;
  constructor(u: GateCpu) {
    this.u = u;
  }

  /** A page of zeros. */
  *page(): Exec<bigint> {
    const pa = this.next;
    this.next += 4096n;
    yield* this.u.zeroBytes(gva(pa), 4096);
    return pa;
  }
  /** A host call. */
  sys(number: number, ...args: readonly (bigint | number)[]): Exec<UserSyscallResult> {
    return userSyscall(this.u, number, ...args);
  }
  /** A host call that must work. */
  *ok(number: number, ...args: readonly (bigint | number)[]): Exec<bigint> {
    const { errno, value } = yield* this.sys(number, ...args);
    if (errno !== 0) throw new Error(`system call ${number} gives error ${errno}`);
    return value;
  }

  /** Memory and page tables; nothing of the VMM yet. */
  static *prepare(u: GateCpu): Exec<Guest> {
    const guest = new Guest(u);
    yield* guest.ok(SYS.create, 0, 0, 0);
    yield* guest.ok(SYS.mmap, RAM, RAM_BYTES, PROT_RWX, SHARED | ANON | FIXED, -1, 0, 0);
    const entry = (table: number, slot: bigint, value: bigint) =>
      u.store64(gva(RAM + BigInt(table * 4096) + slot * 8n), value);
    const table = (n: number) => RAM + BigInt(n * 4096) | VRWU;
    const top = VM_MAX_USER_ADDRESS & ~(LARGE - 1n);
    yield* entry(0, 0n, table(1));
    yield* entry(0, top >> 39n, table(4));
    yield* entry(1, 0n, table(2));
    yield* entry(1, RAM >> 30n, table(3));
    yield* entry(4, (top >> 30n) & 511n, table(5));
    yield* entry(5, (top >> 21n) & 511n, STACK | VRWU | PS);
    for (let i = 0n; i < 512n; i++) yield* entry(2, i, i * LARGE | VRWU | PS);
    for (let i = 0n; i < BigInt(RAM_BYTES) / LARGE; i++) yield* entry(3, i, RAM + i * LARGE | VRWU | PS);
    return guest;
  }
  /** Goes into non-root operation; the error number. */
  *enter(changes: { readonly cr3?: bigint; readonly newStack?: bigint } = {}): Exec<number> {
    const { u } = this;
    const at = gva(RAM + 0x10_0000n);
    const within = VM_MAX_USER_ADDRESS & (LARGE - 1n);
    yield* u.zeroBytes(at, VMM_OPTIONS_BYTES);
    yield* u.store64(gva(at + BigInt(VMM_OPTIONS.guestCr3)), changes.cr3 ?? RAM);
    yield* u.store64(gva(at + BigInt(VMM_OPTIONS.newStack)), changes.newStack ?? STACK + within);
    yield* u.store8(gva(at + BigInt(VMM_OPTIONS.master)), 1);
    u.rebindNext = true;
    return (yield* this.sys(SYS_VMM_GUEST_CTL, VMM_GUEST_RUN, at)).errno;
  }

  /** Address of the entry for `va` in the tables under `root`; tables in between are made. */
  *entry(root: bigint, va: bigint, level = 0): Exec<Gva> {
    let table = root;
    for (let at = 3;; at--) {
      const slot = gva(table + ((va >> BigInt(12 + 9 * at)) & 511n) * 8n);
      if (at === level) return slot;
      let pte = yield* this.u.load64(slot);
      if ((pte & V) === 0n) {
        pte = (yield* this.page()) | VRWU;
        yield* this.u.store64(slot, pte);
      }
      table = pte & 0x000f_ffff_ffff_f000n;
    }
  }
  /** Maps a page into the tables under `root`. */
  *map(root: bigint, va: bigint, pa: bigint, bits = VRWU): Exec<Gva> {
    const slot = yield* this.entry(root, va);
    yield* this.u.store64(slot, pa | bits);
    return slot;
  }
  /** A guest's address space with this code at {@link GUEST_CODE} and a page of data: its id. */
  *program(
    build: (a: Assembler) => void,
  ): Exec<{ readonly root: bigint; readonly data: bigint; readonly slot: Gva }> {
    const root = yield* this.page(), code = yield* this.page(), data = yield* this.page();
    yield* this.u.storeBytes(gva(code), guestCode(GUEST_CODE, build));
    yield* this.map(root, GUEST_CODE, code);
    const slot = yield* this.map(root, GUEST_DATA, data);
    return { root, data, slot };
  }
  /** Runs guest code until it traps; the frame. */
  *run(root: bigint, fields: Partial<Trapframe>, at = RAM + 0x11_0000n): Exec<Trapframe> {
    yield* this.u.storeBytes(gva(at), guestFrame({ rip: GUEST_CODE, ...fields }));
    yield* this.u.zeroBytes(gva(at + 0x100n), 16);
    return yield* this.again(root, at);
  }
  /** Runs on with the frame that is there. */
  *again(root: bigint, at = RAM + 0x11_0000n): Exec<Trapframe> {
    const { errno } = yield* this.sys(SYS.ctl, root, 1, at, at + 0x100n);
    if (errno !== 0) throw new Error(`vmspace_ctl gives error ${errno}`);
    return decodeTrapframe(yield* this.u.loadBytes(gva(at), TF_BYTES));
  }
}

/** Runs a vkernel on a kernel that allows them; `body` begins outside the VMM, with memory and tables. */
export function runVmm(
  body: (guest: Guest) => Exec<number | void>,
  options: BootOptions = {},
  others: Readonly<Record<string, GateProgram>> = {},
): Booted {
  return runGates({
    *guest(u) {
      return (yield* body(yield* Guest.prepare(u))) ?? 0;
    },
    ...others,
  }, {
    ...options,
    prepare(machine, kernel) {
      kernel.vmMap.vkernelEnable = true;
      options.prepare?.(machine, kernel);
    },
  });
}
