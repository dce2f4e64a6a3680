import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { gva } from "../../../hw/address.ts";
import type { Exec } from "../../../hw/gates.ts";
import type { Assembler } from "../../../kernel/platform/pc64/assembler.ts";
import { encodeTrapframe } from "../../../kernel/platform/pc64/frame.ts";
import {
  VMM_GUEST_RUN,
  VMM_GUEST_SIGNALS,
  VMM_KIND_FULL,
  VMM_OPTIONS,
  VMM_OPTIONS_BYTES,
} from "../../../kernel/vmm/vmm.ts";
import type { Booted, BootOptions } from "../kernel_fixture.ts";
import { guestCode } from "../vkernel/vkernel_fixture.ts";
import { type Guest, RAM, runVmm, SYS, SYS_VMM_GUEST_CTL } from "./vmm_fixture.ts";

/** Where a full guest's code, data and stack stand. */
const CODE = RAM + 0x60_0000n, DATA = RAM + 0x70_0000n, STACK = RAM + 0x80_0000n, IDT = RAM + 0x90_0000n;
/** Vector of the virtual interrupt. */
const VECTOR = 0x40;

/** `exit(EDI)` by a host call. */
function hostExit(a: Assembler): Assembler {
  return a.movImmediate32("rax", SYS.exit).db(0x0f, 0x01, 0xc1);
}
/** `exit(n)`. */
function exitWith(a: Assembler, n: number): Assembler {
  return hostExit(a.movImmediate32("rdi", n));
}
const vmcall = (a: Assembler) => a.db(0x0f, 0x01, 0xc1);

/** Makes the process a full guest that begins at `code`. */
function* enterFull(
  guest: Guest,
  build: (a: Assembler) => void,
  changes: { rflags?: bigint } = {},
): Exec<number> {
  const { u } = guest;
  yield* u.storeBytes(gva(CODE), guestCode(CODE, build));
  const at = gva(RAM + 0x10_0000n);
  yield* u.zeroBytes(at, VMM_OPTIONS_BYTES);
  yield* u.store64(gva(at + BigInt(VMM_OPTIONS.guestCr3)), RAM);
  const tf = encodeTrapframe({ rip: CODE, rsp: STACK, rflags: changes.rflags ?? 2n, rdi: 7n });
  yield* u.storeBytes(gva(at + BigInt(VMM_OPTIONS.tf)), tf);
  yield* u.store8(gva(at + BigInt(VMM_OPTIONS.master)), 1);
  yield* u.store8(gva(at + BigInt(VMM_OPTIONS.kind)), VMM_KIND_FULL);
  yield* u.store8(gva(at + BigInt(VMM_OPTIONS.vector)), VECTOR);
  return (yield* guest.sys(SYS_VMM_GUEST_CTL, VMM_GUEST_RUN, at)).errno;
}

function runFull(
  build: (a: Assembler) => void,
  options: BootOptions & { before?: (g: Guest) => Exec<void> } = {},
): Booted {
  const { before, ...rest } = options;
  return runVmm(function* (guest) {
    if (before !== undefined) yield* before(guest);
    return 100 + (yield* enterFull(guest, build));
  }, rest);
}
const ended = (booted: Booted) => [booted.stop.reason, booted.statuses] as const;

/** `lgdt` of a GDT with kernel code at 8, data at 10h; `lidt` of gates that were written to {@link IDT}. */
function loadTables(a: Assembler): void {
  a.movImmediate("rbx", IDT).lidt("rbx", 0xf00).lgdt("rbx", 0xf10);
}
/** Writes the IDT (vector to handler) and a GDT for {@link loadTables}. */
function* writeTables(guest: Guest, gates: Readonly<Record<number, bigint>>): Exec<void> {
  const { u } = guest;
  for (const [vector, handler] of Object.entries(gates)) {
    const at = IDT + BigInt(vector) * 16n;
    yield* u.store64(
      gva(at),
      (handler & 0xffffn) | (8n << 16n) | (0x8en << 40n) | (((handler >> 16n) & 0xffffn) << 48n),
    );
    yield* u.store64(gva(at + 8n), handler >> 32n);
  }
  yield* u.store16(gva(IDT + 0xf00n), 0xeff);
  yield* u.store64(gva(IDT + 0xf02n), IDT);
  yield* u.store16(gva(IDT + 0xf10n), 23);
  yield* u.store64(gva(IDT + 0xf12n), IDT + 0xf20n);
  for (const [i, word] of [0n, 0x00af_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn].entries()) {
    yield* u.store64(gva(IDT + 0xf20n + BigInt(i * 8)), word);
  }
}

describe("a full guest (VMM_KIND_FULL)", () => {
  it("begins in ring 0 with the registers of options.tf, and makes host calls by VMCALL", () => {
    const booted = runFull((a) => {
      a.db(0x8c, 0xc8); // mov eax, cs
      a.db(0x01, 0xc7); // add edi, eax
      hostExit(a);
    });
    assertEquals(ended(booted), ["poweroff", [15]]);
    assertEquals(booted.kernel.vmm.counters.exits[18], 1);
  });

  it("has its own descriptor tables and exceptions: a page fault of its own never leaves it", () => {
    const handler = CODE + 0x800n;
    const booted = runFull((a) => {
      loadTables(a);
      a.movImmediate("rbx", 0x7000_0000_0000n).load("rcx", "rbx", 0); // not mapped
      exitWith(a, 1);
      while (a.here < 0x800) a.db(0xcc);
      a.movFromCr2().db(0x48, 0xc1, 0xe8, 0x28).move("rdi", "rax"); // shr rax, 40
      hostExit(a);
    }, { before: (guest) => writeTables(guest, { 14: handler }) });
    assertEquals(ended(booted), ["poweroff", [0x70]]);
    assertEquals(booted.kernel.vmm.counters.exits[0], 0, "no exception has exited");
  });

  it("gets signals as its virtual interrupt, sleeping in HLT", () => {
    const handler = CODE + 0x800n;
    const booted = runFull((a) => {
      loadTables(a);
      // sigaction(SIGALRM, DATA), setitimer(ITIMER_REAL, DATA + 40h)
      a.movImmediate32("rdi", 14).movImmediate("rsi", DATA).movImmediate32("rdx", 0).movImmediate32(
        "rax",
        SYS.sigaction,
      );
      vmcall(a);
      a.movImmediate32("rdi", 0).movImmediate("rsi", DATA + 0x40n).movImmediate32("rdx", 0)
        .movImmediate32("rax", SYS.setitimer);
      vmcall(a);
      a.sti().hlt();
      exitWith(a, 1);
      while (a.here < 0x800) a.db(0xcc);
      a.movImmediate32("rdi", VMM_GUEST_SIGNALS).movImmediate32("rax", SYS_VMM_GUEST_CTL);
      vmcall(a);
      a.db(0x48, 0xc1, 0xe8, 0x0e).move("rdi", "rax"); // shr rax, 14
      hostExit(a);
    }, {
      *before(guest) {
        yield* writeTables(guest, { [VECTOR]: handler });
        yield* guest.u.store64(gva(DATA), 0x1000n); // any handler
        yield* guest.u.store64(gva(DATA + 0x58n), 20_000n); // 20 ms
      },
    });
    assertEquals(ended(booted), ["poweroff", [1]]);
    const { counters } = booted.kernel.vmm;
    assertEquals([counters.injections, counters.exits[12]], [1, 1]);
  });

  it("waits for its interrupt flag with an interrupt window", () => {
    const handler = CODE + 0x800n;
    const booted = runFull((a) => {
      loadTables(a);
      a.movImmediate32("rdi", 14).movImmediate("rsi", DATA).movImmediate32("rdx", 0).movImmediate32(
        "rax",
        SYS.sigaction,
      );
      vmcall(a);
      a.movImmediate32("rax", SYS.getpid);
      vmcall(a);
      a.move("rdi", "rax").movImmediate32("rsi", 14).movImmediate32("rax", SYS.kill);
      vmcall(a);
      a.movImmediate32("rdi", 5).sti().db(0x90, 0x90);
      exitWith(a, 1);
      while (a.here < 0x800) a.db(0xcc);
      hostExit(a);
    }, {
      *before(guest) {
        yield* writeTables(guest, { [VECTOR]: handler });
        yield* guest.u.store64(gva(DATA), 0x1000n);
      },
    });
    assertEquals(ended(booted), ["poweroff", [5]]);
    assertEquals(booted.kernel.vmm.counters.exits[7], 1, "interrupt window");
  });

  it("has STAR, LSTAR and KERNEL_GS_BASE for itself, and no other MSR of the host", () => {
    const handler = CODE + 0x800n;
    const booted = runFull((a) => {
      loadTables(a);
      const wrmsr = (msr: number, value: number) =>
        a.movImmediate32("rcx", msr).movImmediate32("rax", value).movImmediate32("rdx", 0).wrmsr();
      wrmsr(0xc000_0082, 0x1234);
      wrmsr(0xc000_0102, 0x5678);
      a.swapgs(); // GS base 5678h, KERNEL_GS_BASE 0
      a.movImmediate32("rax", SYS.getpid);
      vmcall(a);
      a.movImmediate32("rcx", 0xc000_0102).rdmsr().move("rsi", "rax");
      a.movImmediate32("rcx", 0xc000_0101).rdmsr().db(0x01, 0xc6); // add esi, eax
      a.movImmediate32("rcx", 0xc000_0082).rdmsr().db(0x01, 0xc6);
      a.db(0x81, 0xfe).dd(0x68ac).jumpIf("z", "good"); // cmp esi
      exitWith(a, 1);
      a.label("good").movImmediate32("rdi", 9).movImmediate32("rcx", 0x480).rdmsr(); // IA32_VMX_BASIC: #GP
      exitWith(a, 2);
      while (a.here < 0x800) a.db(0xcc);
      hostExit(a);
    }, { before: (guest) => writeTables(guest, { 13: handler }) });
    assertEquals(ended(booted), ["poweroff", [9]]);
  });

  it("cannot reach ports, VMX, XCR0 or bits of CR0 and CR4 that are the host's: each is an exception of its own", () => {
    const attempts: readonly (readonly [bytes: readonly number[], vector: number])[] = [
      [[0xe6, 0xe9], 13], // out e9h, al
      [[0xec], 13], // in al, dx
      [[0x0f, 0x01, 0xc4], 6], // vmxoff
      [[0x0f, 0x01, 0xc3], 6], // vmresume
      [[0x0f, 0x01, 0xd1], 6], // xsetbv: CR4.OSXSAVE is clear
      [[0xb8, 0x20, 0x26, 0, 0, 0x0f, 0x22, 0xe0], 13], // CR4.VMXE
      [[0xb8, 0x20, 0x06, 0x04, 0, 0x0f, 0x22, 0xe0], 13], // CR4.OSXSAVE
      [[0xb8, 0x33, 0, 0, 0, 0x0f, 0x22, 0xc0], 13], // CR0 without PG
      [[0xb9, 0x80, 0x04, 0, 0, 0x0f, 0x32], 13], // rdmsr IA32_VMX_BASIC
      [[0xb9, 0x1b, 0, 0, 0, 0x0f, 0x30], 13], // wrmsr IA32_APIC_BASE
    ];
    for (const [bytes, vector] of attempts) {
      const general = CODE + 0x800n, undefinedOpcode = CODE + 0x880n;
      const booted = runFull((a) => {
        loadTables(a);
        a.db(...bytes);
        exitWith(a, 1);
        while (a.here < 0x800) a.db(0xcc);
        exitWith(a, 13);
        while (a.here < 0x880) a.db(0xcc);
        exitWith(a, 6);
      }, { before: (guest) => writeTables(guest, { 13: general, 6: undefinedOpcode }) });
      assertEquals(ended(booted), ["poweroff", [vector]], bytes.map((byte) => byte.toString(16)).join(" "));
    }
  });

  it("ends alone when it cannot go on", () => {
    const booted = runFull((a) => {
      a.db(0x0f, 0x0b); // no IDT: triple fault
    });
    assertEquals(ended(booted), ["poweroff", [134]]);
  });

  it("refuses registers that VM entry would not take", () => {
    const booted = runFull((a) => {
      a.db(0x90);
    }, {
      *before(guest) {
        const errno = yield* enterFull(guest, () => {}, { rflags: 0x8000_0000n });
        if (errno !== 22) throw new Error(`errno ${errno}`);
        yield* guest.ok(SYS.exit, 3);
      },
    });
    assertEquals(ended(booted), ["poweroff", [3]]);
  });
});
