import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { Assembler } from "../../../kernel/platform/pc64/assembler.ts";
import { gva } from "../../../hw/address.ts";
import type { Kernel } from "../../../kernel/kernel.ts";
import { T_FAST_SYSCALL, type Trapframe } from "../../../kernel/platform/pc64/frame.ts";
import { T_DIVIDE } from "../../../kernel/vm/vkernel_trap.ts";
import { A, guestFrame, M, NX, RUN, runVkernel, RW, SCRATCH, SYS, U, V, VRWU } from "./vkernel_fixture.ts";

const CODE = 0x40_0000n, DATA = 0x50_0000n;
const PAGE_FAULT = 14;
const EFAULT = 14, EINVAL = 22;
const SIGALRM = 14, SIGUSR1 = 30;

/** `mov rax, [rbx]`, `mov [rbx], rax`, `jmp rbx`, `syscall`. */
const READ = [0x48, 0x8b, 0x03], WRITE = [0x48, 0x89, 0x03], JUMP = [0xff, 0xe3], SYSCALL = [0x0f, 0x05];
/** `1: inc rax; jmp 1b`. */
const COUNT = [0x48, 0xff, 0xc0, 0xeb, 0xfb];

describe("vkernel_trap", () => {
  it("a guest's system call comes back as T_FAST_SYSCALL with every register, and the host does not carry it out", () => {
    const sent: Partial<Trapframe> = {
      ...{ rdi: 1n, rsi: 2n, rdx: 3n, r8: 4n, r9: 5n, rbx: 6n, rbp: 7n, r10: 8n },
      ...{ r12: 9n, r13: 10n, r14: 11n, r15: 12n, rsp: 0x1234n, rflags: 0x202n | 0x8d5n },
    };
    let got: Trapframe | undefined;
    const { statuses, kernel } = runVkernel(function* (vk) {
      const id = yield* vk.space();
      yield* vk.code(id, CODE, (a) => a.movImmediate32("rax", SYS.exit).db(...SYSCALL));
      got = yield* vk.go(id, { ...sent, rip: CODE });
      return 7;
    });
    assertEquals(statuses, [7]);
    const { trapno, err, rip, rax, rcx, r11, ...rest } = got!;
    assertEquals([trapno, err, rip, rax], [BigInt(T_FAST_SYSCALL), 2n, CODE + 7n, 1n]);
    assertEquals([rcx, r11], [rip, rest.rflags]);
    for (const [name, value] of Object.entries(sent)) assertEquals(rest[name as "rdi"], value, name);
    assertEquals([kernel.vkernel.runs, kernel.vkernel.traps], [1, 1]);
  });

  it("the vkernel has its own registers and segment bases again, the guest had those of the call", () => {
    const seen: bigint[] = [];
    const { statuses } = runVkernel(function* (vk) {
      const id = yield* vk.space(), own = SCRATCH + 0x1000n, data = yield* vk.page();
      yield* vk.map(id, DATA, data);
      yield* vk.u.store64(vk.at(data), 0x1111n);
      yield* vk.u.store64(vk.at(data + 8n), 0x2222n);
      // mov rax, fs:[0]; mov rbx, gs:[0]; syscall
      yield* vk.code(id, CODE, (a) =>
        a.db(0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0)
          .db(0x65, 0x48, 0x8b, 0x1c, 0x25, 0, 0, 0, 0).db(...SYSCALL));
      for (const [which, base] of [[0, own], [1, own + 64n]] as const) {
        yield* vk.u.store64(gva(own + 128n), base);
        yield* vk.u.store64(gva(own + 136n), 4n);
        yield* vk.ok(472, which, own + 128n, 12);
      }
      yield* vk.setFrame(guestFrame({ rip: CODE }), SCRATCH, [DATA, DATA + 8n]);
      seen.push(BigInt(yield* vk.run(id)));
      const frame = yield* vk.frame();
      seen.push(frame.rax, frame.rbx);
      for (const which of [0, 1]) {
        yield* vk.ok(473, which, own + 128n, 12);
        seen.push((yield* vk.u.load64(gva(own + 128n))) - own);
      }
    });
    assertEquals(statuses, [0]);
    assertEquals(seen, [0n, 0x1111n, 0x2222n, 0n, 64n]);
  });

  /** What guest code does, and the trap that its vkernel finds. The page at DATA has the bits `data`. */
  const traps: Readonly<
    Record<string, {
      readonly code: (a: Assembler) => unknown;
      readonly trapno: number;
      readonly err?: bigint;
      readonly addr?: bigint;
      readonly rbx?: bigint;
      readonly rflags?: bigint;
      readonly data?: bigint;
      readonly rip?: bigint;
    }>
  > = {
    "read of nothing": {
      code: (a) => a.db(...READ),
      rbx: 0x60_0000n,
      trapno: PAGE_FAULT,
      err: 4n,
      addr: 0x60_0000n,
    },
    "write to nothing": { code: (a) => a.db(...WRITE), rbx: 8n, trapno: PAGE_FAULT, err: 6n, addr: 8n },
    "write to what is read only": {
      code: (a) => a.db(...WRITE),
      data: V | U,
      trapno: PAGE_FAULT,
      err: 6n,
      addr: DATA,
    },
    "write after a read, to what is read only": {
      code: (a) => a.db(...READ).db(...WRITE),
      ...{ data: V | U, trapno: PAGE_FAULT, err: 7n, addr: DATA, rip: CODE + 3n },
    },
    "read of what is not the user's": {
      code: (a) => a.db(...READ),
      data: V | RW,
      trapno: PAGE_FAULT,
      err: 4n,
    },
    "execution of data": {
      code: (a) => a.db(...JUMP),
      data: VRWU | NX,
      trapno: PAGE_FAULT,
      err: 0x14n,
      rip: DATA,
    },
    "a frame that the memory does not have": {
      code: (a) => a.db(...READ),
      ...{ data: VRWU | 0xf_ffff_f000n, trapno: PAGE_FAULT, err: 4n },
    },
    "read of the host's direct map": {
      code: (a) => a.db(...READ),
      ...{ rbx: 0xffff_c000_0000_0000n, trapno: PAGE_FAULT, err: 5n, addr: 0xffff_c000_0000_0000n },
    },
    "the page above all users": {
      code: (a) => a.db(...READ),
      ...{ rbx: 0x7fff_ffff_f000n, trapno: PAGE_FAULT, err: 4n, addr: 0x7fff_ffff_f000n },
    },
    "no canonical address": { code: (a) => a.db(...READ), rbx: 1n << 60n, trapno: 13, err: 0n },
    "division by zero": { code: (a) => a.db(0x31, 0xc9, 0xf7, 0xf1), trapno: T_DIVIDE, rip: CODE + 2n },
    "int3": { code: (a) => a.db(0xcc), trapno: 3, rip: CODE + 1n },
    "ud2": { code: (a) => a.db(0x0f, 0x0b), trapno: 6, rip: CODE },
    "hlt": { code: (a) => a.hlt(), trapno: 13, err: 0n, rip: CODE },
    "cli": { code: (a) => a.cli(), trapno: 13, err: 0n, rip: CODE },
    "in": { code: (a) => a.db(0xec), trapno: 13, err: 0n },
    "int 0x80": { code: (a) => a.db(0xcd, 0x80), trapno: 13, err: 0x402n },
    "mov cr3": { code: (a) => a.db(0x0f, 0x22, 0xd8), trapno: 13, err: 0n },
    "swapgs": { code: (a) => a.swapgs(), trapno: 13, err: 0n },
    "single step": { code: (a) => a.db(0x90, 0x90), trapno: 1, rflags: 0x302n, rip: CODE + 1n },
    "a misaligned access with AC set": {
      code: (a) => a.db(...READ),
      ...{ rbx: DATA + 1n, data: VRWU, rflags: 0x4_0202n, trapno: 17, err: 0n },
    },
    "RESUME of nothing": { code: (a) => a.db(0x0f, 0xff, 0x05, 0xff, 0xff, 0xff, 0xff), trapno: 13, err: 0n },
  };
  it("exceptions of a guest are its vkernel's, with error code and address, and no signal", () => {
    const got: Record<string, readonly bigint[]> = {}, wanted: typeof got = {};
    const { statuses, stop, faults } = runVkernel(function* (vk) {
      for (const [name, trap] of Object.entries(traps)) {
        const id = yield* vk.space();
        yield* vk.code(id, CODE, (a) => trap.code(a));
        if (trap.data !== undefined) {
          yield* vk.map(id, DATA, trap.data & 0xf_ffff_f000n ? 0n : yield* vk.page(), trap.data);
        }
        const frame = yield* vk.go(id, { rip: CODE, rbx: trap.rbx ?? DATA, rflags: trap.rflags ?? 0x202n });
        const pick = ["err", "addr", "rip"].filter((field) => field in trap) as ("err" | "addr" | "rip")[];
        got[name] = [frame.trapno, ...pick.map((field) => frame[field])];
        wanted[name] = [BigInt(trap.trapno), ...pick.map((field) => trap[field]!)];
        yield* vk.ok(SYS.destroy, id);
      }
    }, { memory: 32 << 20 });
    assertEquals(got, wanted);
    assertEquals([stop.reason, statuses, faults.length], ["poweroff", [0], 0]);
  });

  it("a vkernel's own continuation cannot be resumed inside its guest", () => {
    let trapno = 0n;
    const { statuses } = runVkernel(function* (vk) {
      const id = yield* vk.space();
      yield* vk.code(id, CODE, (a) => a.db(0x0f, 0xff, 0x05, 0xff, 0xff, 0xff, 0xff));
      trapno = (yield* vk.go(id, { rip: CODE, r15: vk.u.gpr(15) })).trapno;
      return 3;
    });
    assertEquals([trapno, statuses], [13n, [3]]);
  });

  it("a signal ends an endless guest: the handler runs in the vkernel, and trapno is 0", () => {
    let frame: Trapframe | undefined, handled = 0n, answer = -1;
    const { statuses } = runVkernel(function* (vk) {
      const id = yield* vk.space();
      yield* vk.code(id, CODE, (a) => a.db(...COUNT));
      const count = yield* vk.handler(SIGALRM);
      // 20 ms, once.
      yield* vk.u.store64(gva(SCRATCH + 0x1000n), 0n);
      yield* vk.u.store64(gva(SCRATCH + 0x1008n), 0n);
      yield* vk.u.store64(gva(SCRATCH + 0x1010n), 0n);
      yield* vk.u.store64(gva(SCRATCH + 0x1018n), 20_000n);
      yield* vk.ok(SYS.setitimer, 0, SCRATCH + 0x1000n, 0);
      yield* vk.setFrame(guestFrame({ rip: CODE, rsp: 0xdead_0000n }));
      answer = yield* vk.run(id);
      frame = yield* vk.frame();
      handled = yield* vk.u.load64(count);
    });
    assertEquals([statuses, answer, handled, frame!.trapno, frame!.rsp], [[0], 0, 1n, 0n, 0xdead_0000n]);
    assert(frame!.rax > 1000n, `${frame!.rax} rounds`);
  });

  it("a signal that waits comes before the guest's first instruction; one that is blocked or ignored does not come at all", () => {
    const seen: bigint[] = [];
    runVkernel(function* (vk) {
      const id = yield* vk.space();
      yield* vk.code(id, CODE, (a) => a.db(0x48, 0xff, 0xc0).db(...SYSCALL));
      const count = yield* vk.handler(SIGUSR1), pid = yield* vk.sys(SYS.getpid);
      const set = SCRATCH + 0x1000n;
      yield* vk.u.storeBytes(gva(set), new Uint8Array(16));
      yield* vk.u.store64(gva(set), 1n << BigInt(SIGUSR1 - 1));
      yield* vk.ok(SYS.sigprocmask, 1, set, 0);
      yield* vk.ok(SYS.kill, pid, SIGUSR1);
      let frame = yield* vk.go(id, { rip: CODE });
      seen.push(frame.trapno, frame.rax, yield* vk.u.load64(count));
      // Unblocked by the call itself the handler comes at its return; so the mask goes and the signal comes in one.
      yield* vk.ok(SYS.sigprocmask, 2, set, 0);
      seen.push(yield* vk.u.load64(count));
      frame = yield* vk.go(id, { rip: CODE });
      seen.push(frame.trapno, frame.rax);
    });
    assertEquals(seen, [256n, 1n, 0n, 1n, 256n, 1n]);
  });

  it("SSE registers are the thread's: into the guest, out of it, and through a signal", () => {
    const seen: bigint[] = [];
    runVkernel(function* (vk) {
      const id = yield* vk.space();
      // movq xmm0, rax; syscall; movq rbx, xmm0; syscall
      const load = [0x66, 0x48, 0x0f, 0x6e, 0xc0, ...SYSCALL],
        store = [0x66, 0x48, 0x0f, 0x7e, 0xc3, ...SYSCALL];
      yield* vk.code(id, CODE, (a) => a.db(...load, ...store));
      yield* vk.go(id, { rip: CODE, rax: 0x1234_5678_9abcn });
      seen.push((yield* vk.go(id, { rip: CODE + 7n })).rbx);
      yield* vk.handler(SIGUSR1);
      yield* vk.ok(SYS.kill, yield* vk.sys(SYS.getpid), SIGUSR1);
      seen.push((yield* vk.go(id, { rip: CODE + 7n })).rbx);
    });
    assertEquals(seen, [0x1234_5678_9abcn, 0x1234_5678_9abcn]);
  });

  it("selectors and system flags are the host's, whatever the frame says", () => {
    let frame: Trapframe | undefined;
    runVkernel(function* (vk) {
      const id = yield* vk.space();
      yield* vk.map(id, DATA, yield* vk.page());
      // pushfq; pop rax; mov ebx, cs; mov edx, ss; syscall
      yield* vk.code(id, CODE, (a) => a.db(0x9c, 0x58, 0x8c, 0xcb, 0x8c, 0xd2).db(...SYSCALL));
      frame = yield* vk.go(id, {
        ...{ rip: CODE, rsp: DATA + 0x800n, cs: 8n, ss: 0x10n, xflags: 0n, trapno: 99n, rflags: 0x1b_3000n },
      });
    });
    assertEquals([frame!.cs, frame!.ss, frame!.trapno], [0x2bn, 0x23n, 256n]);
    // IF on, IOPL 0, no VM, no VIF, no VIP.
    assertEquals(frame!.rflags & 0x1a_3202n, 0x202n);
  });

  it("frames that lie are refused, or do their vkernel alone harm", () => {
    const got: Record<string, number> = {};
    const { statuses, stop } = runVkernel(function* (vk) {
      const id = yield* vk.space(), kernel = 0xffff_ffff_8000_0000n;
      yield* vk.code(id, CODE, (a) => a.db(...SYSCALL));
      const good = guestFrame({ rip: CODE });
      for (const rip of [1n << 47n, kernel, (1n << 64n) - 1n]) {
        yield* vk.setFrame(guestFrame({ rip }));
        got[`rip ${rip.toString(16)}`] = yield* vk.run(id);
      }
      for (const bases of [[kernel, 0n], [0n, kernel], [1n << 47n, 0n], [0n, 1n << 62n]] as const) {
        yield* vk.setFrame(good, SCRATCH, bases);
        got[`bases ${bases[0].toString(16)} ${bases[1].toString(16)}`] = yield* vk.run(id);
      }
      yield* vk.setFrame(good);
      for (const at of [0n, kernel, 0x7fff_ffff_ff80n, 1n << 60n, (1n << 64n) - 8n]) {
        got[`frame at ${at.toString(16)}`] = yield* vk.sys(SYS.ctl, id, RUN, at, SCRATCH + 0x100n);
        got[`bases at ${at.toString(16)}`] = yield* vk.sys(SYS.ctl, id, RUN, SCRATCH, at);
      }
      // Its memory may have been read; it cannot be written: the guest runs, and the answer says that its registers are lost.
      yield* vk.ok(SYS.mprotect, SCRATCH, 4096, 1);
      got["frame that is read only"] = yield* vk.run(id);
      yield* vk.ok(SYS.mprotect, SCRATCH, 4096, 3);
      got["good"] = yield* vk.run(id);
    });
    for (const [name, answer] of Object.entries(got)) {
      const wanted = name === "good" ? 0 : /^(rip|bases [0-9a-f]+ )/.test(name) ? -EINVAL : -EFAULT;
      assertEquals(answer, wanted, name);
    }
    assertEquals([stop.reason, statuses], ["poweroff", [0]]);
  });

  it("a guest's write to a fresh page takes the five steps of software mode, event for event", () => {
    let kernel: Kernel | undefined;
    const trace: string[] = [];
    let slots: bigint[] = [];
    runVkernel(function* (vk) {
      const id = yield* vk.space();
      yield* vk.code(id, CODE, (a) => a.db(...WRITE).db(...SYSCALL));
      // The code page is there, as if the guest had run before.
      yield* vk.setFrame(guestFrame({ rip: CODE + 3n }));
      yield* vk.run(id);
      const from = kernel!.ktr.count;
      yield* vk.setFrame(guestFrame({ rip: CODE, rbx: DATA, rax: 0x77n }));
      yield* vk.run(id);
      const frame = yield* vk.frame();
      const pa = yield* vk.page();
      yield* vk.map(id, frame.addr, pa, VRWU | A | 0x400n);
      yield* vk.run(id);
      const { ktr } = kernel!;
      for (let at = from; at < ktr.count; at++) {
        const i = at & 255;
        const what = ktr.what[i]!;
        if (/^(vmspace_ctl|vkernel_trap|pfault|vpte_walk|vpte_fail)$/.test(what)) {
          trace.push(what === "vmspace_ctl" ? what : `${what} ${ktr.a[i]}`);
        }
      }
      slots = [yield* vk.u.load64(vk.at(pa))];
      for (let level = 0; level < 4; level++) {
        slots.push((yield* vk.u.load64(yield* vk.entry(id, DATA, level))) & (A | M));
      }
    }, {
      prepare(_machine, k) {
        kernel = k;
      },
    });
    const page = Number(DATA >> 12n);
    assertEquals(trace.filter((line) => !/^pfault (1974|2097|3355|5368)/.test(line)), [
      "vmspace_ctl",
      // 1, 2: the host's fault finds nothing in the table, and the vkernel has it.
      `pfault ${page}`,
      `vpte_fail ${page}`,
      `vkernel_trap ${PAGE_FAULT}`,
      // 3 is the vkernel's own. 4: again, and the walk succeeds.
      "vmspace_ctl",
      `pfault ${page}`,
      `vpte_walk ${page}`,
      // 5: mapped; the guest goes on to its system call.
      `vkernel_trap ${T_FAST_SYSCALL}`,
    ]);
    assertEquals(slots, [0x77n, A | M, A | M, A | M, A | M]);
  });
});
