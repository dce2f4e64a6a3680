import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { gva } from "../../../hw/address.ts";
import type { Exec } from "../../../hw/gates.ts";
import { Sanitizer } from "../../../hw/sanitizer.ts";
import type { Assembler } from "../../../kernel/platform/pc64/assembler.ts";
import { encodeTrapframe } from "../../../kernel/platform/pc64/frame.ts";
import { VMM_GUEST_RUN, VMM_KIND_FULL, VMM_OPTIONS, VMM_OPTIONS_BYTES } from "../../../kernel/vmm/vmm.ts";
import type { BootOptions } from "../kernel_fixture.ts";
import { guestCode } from "../vkernel/vkernel_fixture.ts";
import { type Guest, RAM, runVmm, SYS, SYS_VMM_GUEST_CTL, SYS_VMM_GUEST_SYNC_ADDR } from "./vmm_fixture.ts";

const CODE = RAM + 0x60_0000n,
  PARAMS = RAM + 0x16_0000n,
  COUNTS = RAM + 0x17_0000n,
  STACKS = RAM + 0x80_0000n;

/** Starts a thread of the vkernel in machine code, with `arg` in RDI. */
function* thread(guest: Guest, at: bigint, arg: bigint, stack: bigint): Exec<number> {
  const { u } = guest;
  for (const [i, word] of [at, arg, stack, 0n, 0n].entries()) {
    yield* u.store64(gva(PARAMS + BigInt(i * 8)), word);
  }
  return (yield* guest.sys(SYS.lwpCreate, PARAMS)).errno;
}

function run(cpus: number, body: (guest: Guest) => Exec<number>, options: BootOptions = {}) {
  const sanitizer = new Sanitizer();
  const booted = runVmm(body, { cpus, tlb: "sticky", sanitizer, seed: cpus, ...options });
  assertEquals(
    [booted.stop, booted.statuses, sanitizer.count],
    [{ reason: "poweroff" }, [0], 0],
    `${cpus} CPUs`,
  );
  return booted.kernel.vmm;
}

describe("threads of a vkernel on the VMM", () => {
  it("run at once on 1 to 4 processors, in one memory; each has its VMCS, and gives it back", () => {
    for (const cpus of [1, 4]) {
      const vmm = run(cpus, function* (guest) {
        const { u } = guest;
        if ((yield* guest.enter()) !== 0) return 1;
        const code = guestCode(CODE, (a) => {
          a.movImmediate32("rcx", 1000).label("more");
          a.db(0xf0, 0x48, 0xff, 0x07); // lock inc qword [rdi]
          a.db(0xff, 0xc9).jumpIf("nz", "more");
          a.db(0xf0, 0x48, 0xff, 0x47, 0x08); // lock inc qword [rdi + 8]
          // extexit(EXTEXIT_LWP, 0, 0)
          a.movImmediate32("rdi", 0x1_0000).movImmediate32("rsi", 0).movImmediate32("rdx", 0)
            .movImmediate32("rax", 494).db(0x0f, 0x05, 0x0f, 0x0b);
        });
        yield* u.storeBytes(gva(CODE), code);
        for (let i = 0n; i < 4n; i++) {
          if ((yield* thread(guest, CODE, COUNTS, STACKS + i * 0x1_0000n)) !== 0) return 2;
        }
        yield* u.store64(gva(RAM + 0x15_0008n), 1_000_000n);
        for (let i = 0; i < 300 && (yield* u.load64(gva(COUNTS + 8n))) !== 4n; i++) {
          yield* guest.ok(SYS.nanosleep, RAM + 0x15_0000n, 0);
        }
        return (yield* u.load64(gva(COUNTS))) === 4000n ? 0 : 3;
      });
      assertEquals([vmm.threads, vmm.procs.size], [0, 0]);
      assert(vmm.counters.vmptrlds >= 5);
    }
  });

  it("have their own SSE registers, which neither exits nor other threads touch", () => {
    run(1, function* (guest) {
      const { u } = guest;
      if ((yield* guest.enter()) !== 0) return 1;
      const code = guestCode(CODE, (a) => {
        a.db(0x48, 0x8b, 0x1f); // mov rbx, [rdi]: this thread's word
        a.db(0x66, 0x48, 0x0f, 0x6e, 0xc3); // movq xmm0, rbx
        a.movImmediate32("rbp", 400).label("more");
        a.movImmediate32("rax", SYS.getpid).db(0x0f, 0x05);
        a.db(0x66, 0x48, 0x0f, 0x7e, 0xc0); // movq rax, xmm0
        a.db(0x48, 0x39, 0xd8).jumpIf("nz", "wrong"); // cmp rax, rbx
        a.db(0xff, 0xcd).jumpIf("nz", "more");
        a.movImmediate("rbx", COUNTS).db(0xf0, 0x48, 0xff, 0x03); // lock inc qword [rbx]
        a.label("wrong").movImmediate32("rdi", 0x1_0000).movImmediate32("rsi", 0).movImmediate32("rdx", 0)
          .movImmediate32("rax", 494).db(0x0f, 0x05, 0x0f, 0x0b);
      });
      yield* u.storeBytes(gva(CODE), code);
      for (let i = 0n; i < 3n; i++) {
        yield* u.store64(gva(COUNTS + 0x100n + i * 8n), 0x1111_2222_3333n * (i + 1n));
        yield* thread(guest, CODE, COUNTS + 0x100n + i * 8n, STACKS + i * 0x1_0000n);
      }
      yield* u.store64(gva(RAM + 0x15_0008n), 1_000_000n);
      for (let i = 0; i < 100 && (yield* u.load64(gva(COUNTS))) !== 3n; i++) {
        yield* guest.ok(SYS.nanosleep, RAM + 0x15_0000n, 0);
      }
      return (yield* u.load64(gva(COUNTS))) === 3n ? 0 : 2;
    });
  });

  it("see a change of the tables at once behind vmm_guest_sync_addr; NULL flushes the caller's own", () => {
    for (const cpus of [1, 2, 4]) {
      const vmm = run(cpus, function* (guest) {
        const { u } = guest;
        if ((yield* guest.enter()) !== 0) return 1;
        // A page at its own address and another one in turn; threads count which of the two they see.
        const window = 0x90_0000_0000n, first = yield* guest.page(), second = yield* guest.page();
        const slot = yield* guest.map(RAM, window, first);
        yield* u.store64(gva(second), 1n);
        const code = guestCode(CODE, (a) => {
          a.movImmediate("rbx", window).label("more");
          a.load("rax", "rbx", 0).db(0xf0, 0x48, 0xff, 0x04, 0xc7); // lock inc qword [rdi + rax * 8]
          a.jump("more");
        });
        yield* u.storeBytes(gva(CODE), code);
        for (let i = 0n; i < 2n; i++) yield* thread(guest, CODE, COUNTS, STACKS + i * 0x1_0000n);
        const word = RAM + 0x15_1000n;
        for (let turn = 0; turn < 8; turn++) {
          const next = turn & 1 ? first : second, before = turn & 1 ? second : first;
          yield* u.store64(gva(word), next | 7n);
          yield* guest.ok(SYS_VMM_GUEST_SYNC_ADDR, slot, word);
          if (((yield* u.load64(gva(word))) & ~0xfffn) !== before) return 2; // the old entry comes back
          // Who had read the old page before may count it once more; nobody reads it again.
          yield* guest.ok(SYS.nanosleep, RAM + 0x15_0000n, 0);
          const index = turn & 1 ? 1n : 0n;
          const seen = yield* u.load64(gva(COUNTS + index * 8n));
          for (let i = 0; i < 40; i++) yield* guest.ok(SYS.getpid);
          if ((yield* u.load64(gva(COUNTS + index * 8n))) - seen > 2n) return 3;
        }
        yield* guest.ok(SYS_VMM_GUEST_SYNC_ADDR, 0, 0);
        if ((yield* guest.sys(SYS_VMM_GUEST_SYNC_ADDR, slot + 1n, word)).errno !== 22) return 4;
        if ((yield* guest.sys(SYS_VMM_GUEST_SYNC_ADDR, 0x6666_0000_0000n, word)).errno !== 14) return 5;
        if ((yield* guest.sys(SYS_VMM_GUEST_SYNC_ADDR, slot, 0x6666_0000_0000n)).errno !== 14) return 6;
        return 0;
      });
      assertEquals(vmm.counters.syncAddrs, 12);
      if (cpus > 1) assert(vmm.counters.syncIpis > 0, "a processor that runs the guest is interrupted");
    }
  });

  it("see memory that the process gives up go, wherever they run", () => {
    const vmm = run(3, function* (guest) {
      const { u } = guest;
      if ((yield* guest.enter()) !== 0) return 1;
      const window = 0x2000_0000n;
      const map = () => guest.ok(SYS.mmap, window, 0x1000, 3, 0x1011, -1, 0, 0);
      yield* map();
      const code = guestCode(CODE, (a) => {
        // The page is rewritten by this thread; a fault (nothing there) is a signal, whose handler returns: tried again.
        a.movImmediate("rbx", window).label("more");
        a.db(0x48, 0xff, 0x03); // inc qword [rbx]
        a.db(0xf0, 0x48, 0xff, 0x07).jump("more");
      });
      yield* u.storeBytes(gva(CODE), code);
      yield* thread(guest, CODE, COUNTS, STACKS);
      for (let turn = 0; turn < 6; turn++) {
        for (let i = 0; i < 30; i++) yield* guest.ok(SYS.getpid);
        // MAP_FIXED over it: the old page is gone in one step of the map, the new one is zero.
        yield* map();
        const seen = yield* u.load64(gva(window));
        if (seen > (yield* u.load64(gva(COUNTS))) + 1n) return 2;
      }
      return (yield* u.load64(gva(COUNTS))) > 0n ? 0 : 3;
    });
    assert(vmm.counters.invepts > 3);
  });
});

describe("processors of a full guest", () => {
  const vmcall = (a: Assembler) => a.db(0x0f, 0x01, 0xc1);

  it("a guest of ring 3 becomes a full one; lwp_create makes processors, which begin in ring 0", () => {
    for (const cpus of [2]) {
      const vmm = run(cpus, function* (guest) {
        const { u } = guest;
        if ((yield* guest.enter()) !== 0) return 1;
        const code = guestCode(CODE, (a) => {
          for (let i = 0n; i < 3n; i++) {
            a.movAddress("rcx", "processor").movImmediate("rbx", PARAMS).store("rbx", 0, "rcx");
            a.movImmediate("rcx", COUNTS).store("rbx", 8, "rcx");
            a.movImmediate("rcx", STACKS + 0x2_0000n + i * 0x1_0000n).store("rbx", 16, "rcx");
            a.move("rdi", "rbx").movImmediate32("rax", SYS.lwpCreate);
            vmcall(a);
          }
          a.movImmediate("rbx", COUNTS).label("wait").db(0xf3, 0x90); // pause
          a.load("rax", "rbx", 0).db(0x48, 0x83, 0xf8, 0x03).jumpIf("nz", "wait"); // cmp rax, 3
          a.movImmediate32("rdi", 0).movImmediate32("rax", SYS.exit);
          vmcall(a);
          a.label("processor").db(0x8c, 0xc8, 0xa8, 0x03).jumpIf("nz", "processor"); // CS: CPL 0
          a.db(0xf0, 0x48, 0xff, 0x07).label("stay").jump("stay"); // lock inc qword [rdi]
        });
        yield* u.storeBytes(gva(CODE), code);
        const at = gva(RAM + 0x10_0000n);
        yield* u.zeroBytes(at, VMM_OPTIONS_BYTES);
        yield* u.store64(gva(at + BigInt(VMM_OPTIONS.guestCr3)), RAM);
        yield* u.storeBytes(
          gva(at + BigInt(VMM_OPTIONS.tf)),
          encodeTrapframe({ rip: CODE, rsp: STACKS + 0x1_0000n, rflags: 2n }),
        );
        yield* u.store8(gva(at + BigInt(VMM_OPTIONS.master)), 1);
        yield* u.store8(gva(at + BigInt(VMM_OPTIONS.kind)), VMM_KIND_FULL);
        return 100 + (yield* guest.sys(SYS_VMM_GUEST_CTL, VMM_GUEST_RUN, at)).errno;
      });
      assertEquals([vmm.threads, vmm.procs.size], [0, 0]);
    }
  });
});
