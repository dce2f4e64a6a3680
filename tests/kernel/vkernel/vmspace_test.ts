import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { gva } from "../../../hw/address.ts";
import type { Exec, GateCpu } from "../../../hw/gates.ts";
import type { Kernel } from "../../../kernel/kernel.ts";
import { VM_MAX_USER_ADDRESS } from "../../../kernel/platform/pc64/vmparam.ts";
import { kernelLeaks, type KernelUse, kernelUse } from "../../../lab/kernel_use.ts";
import { call, runGates, scratch, text } from "../proc/gate_program.ts";
import type { BootOptions } from "../kernel_fixture.ts";
import {
  ANON,
  FIXED,
  guestFrame,
  MADV_INVAL,
  MADV_SETMAP,
  PRIVATE,
  PROT_RWX,
  RUN,
  runVkernel,
  RW,
  SCRATCH,
  SHARED,
  SYS,
  V,
  type Vkernel,
  VPAGETABLE,
  VRWU,
} from "./vkernel_fixture.ts";

const CODE = 0x40_0000n, DATA = 0x50_0000n, PAGE = 4096n;
const ENOENT = 2, EBADF = 9, ENOMEM = 12, EFAULT = 14, EBUSY = 16, EEXIST = 17, EINVAL = 22, EOPNOTSUPP = 45;
const RFMEM = 1 << 5;
const SIGKILL = 9, SIGALRM = 14, SIGUSR1 = 30;
const SYSCALL = [0x0f, 0x05], HANG = [0xeb, 0xfe];
/** `lock inc qword [rbx]; jmp` back. */
const INCREMENT = [0xf0, 0x48, 0xff, 0x03, 0xeb, 0xfa];

describe("vmspace system calls", () => {
  it("are off unless vm.vkernel_enable, which root may set", () => {
    const off: number[] = [], on: number[] = [];
    const all = function* (u: GateCpu, into: number[]): Exec<void> {
      for (let number: number = SYS.create; number <= SYS.vmpwrite; number++) {
        into.push(yield* call(u, number, 7, number === SYS.ctl ? RUN : 0, 0, 0, 0, 0, 0));
      }
      const mapped = yield* call(u, SYS.mmap, 0, 4096, 3, PRIVATE | ANON | VPAGETABLE, -1, 0, 0);
      into.push(mapped > 0 ? 1 : mapped);
    };
    runGates({
      *calls(u) {
        yield* all(u, off);
        const name = yield* text(u, scratch(u, 64), "vm.vkernel_enable"), mib = scratch(u, 128);
        yield* u.store64(scratch(u, 112), 32n);
        // Name to number: 0.3.
        yield* u.store64(scratch(u, 96), 3n << 32n);
        yield* call(u, SYS.sysctl, scratch(u, 96), 2, mib, scratch(u, 112), name, 17);
        yield* u.store64(scratch(u, 80), 1n);
        const length = (yield* u.load64(scratch(u, 112))) / 4n;
        on.push(yield* call(u, SYS.sysctl, mib, length, 0, 0, scratch(u, 80), 4));
        yield* all(u, on);
        return 0;
      },
    });
    assertEquals(off, Array(9).fill(-EOPNOTSUPP));
    // Set; create works, destroy of it works, and then no space has that number.
    assertEquals(on, [0, 0, 0, -ENOENT, -ENOENT, -ENOENT, -ENOENT, -ENOENT, -ENOENT, 1]);
  });

  it("give the errors that the manual names: EINVAL without a space, EEXIST, ENOENT, EBUSY", () => {
    const seen: Record<string, number> = {};
    const { statuses } = runVkernel(function* (vk) {
      seen.destroyFirst = yield* vk.sys(SYS.destroy, 1);
      seen.ctlFirst = yield* vk.sys(SYS.ctl, 1, RUN, SCRATCH, SCRATCH);
      seen.mmapFirst = yield* vk.sys(SYS.vmmap, 1, 0, 4096, 3, PRIVATE | ANON, -1, 0);
      seen.create = yield* vk.sys(SYS.create, 1, 0, 0);
      seen.createAgain = yield* vk.sys(SYS.create, 1, 0, 0);
      seen.createAny = yield* vk.sys(SYS.create, (1n << 64n) - 1n, 77, 0xdead_beefn);
      seen.destroyOther = yield* vk.sys(SYS.destroy, 2);
      seen.ctlOther = yield* vk.sys(SYS.ctl, 2, RUN, SCRATCH, SCRATCH);
      seen.ctlCommand = yield* vk.sys(SYS.ctl, 1, 2, SCRATCH, SCRATCH);
      seen.pread = yield* vk.sys(SYS.vmpread, 1, SCRATCH, 8, 0, 0);
      seen.pwriteOther = yield* vk.sys(SYS.vmpwrite, 2, SCRATCH, 8, 0, 0);
      const id = yield* vk.space();
      yield* vk.code(id, CODE, (a) => a.db(...HANG));
      const count = yield* vk.handler(SIGUSR1);
      let ended = false;
      const tid = yield* vk.thread(function* (me) {
        yield* me.setFrame(guestFrame({ rip: CODE }), SCRATCH + 0x800n);
        seen.run = yield* me.run(id, SCRATCH + 0x800n);
        ended = true;
      });
      for (let i = 0; i < 3; i++) yield* vk.sys(SYS.umtxSleep, SCRATCH + 0x3ff0n, 0, 10_000);
      seen.destroyBusy = yield* vk.sys(SYS.destroy, id);
      // An address space of its own for a process whose threads are in several: refused.
      seen.rfork = yield* vk.sys(SYS.rfork, RFMEM);
      yield* vk.ok(SYS.lwpKill, yield* vk.sys(SYS.getpid), tid, SIGUSR1);
      yield* vk.until(() => ended);
      seen.handled = Number(yield* vk.u.load64(count));
      seen.destroyIdle = yield* vk.sys(SYS.destroy, id);
    });
    assertEquals(statuses, [0]);
    assertEquals(seen, {
      ...{
        destroyFirst: -EINVAL,
        ctlFirst: -EINVAL,
        mmapFirst: -EINVAL,
        create: 0,
        createAgain: -EEXIST,
        createAny: 0,
      },
      ...{
        destroyOther: -ENOENT,
        ctlOther: -ENOENT,
        ctlCommand: -EOPNOTSUPP,
        pread: -EINVAL,
        pwriteOther: -ENOENT,
      },
      ...{ run: 0, destroyBusy: -EBUSY, rfork: -EINVAL, handled: 1, destroyIdle: 0 },
    });
  });

  it("wild arguments are answered, whatever they are, and the host goes on", () => {
    const seen: number[] = [];
    const wild = [
      0n,
      1n,
      0xfffn,
      SCRATCH,
      VM_MAX_USER_ADDRESS,
      1n << 47n,
      0xffff_c000_0000_0000n,
      (1n << 63n) - 1n,
    ];
    const { statuses, stop } = runVkernel(function* (vk) {
      const id = yield* vk.space();
      for (const a of wild) {
        for (const b of wild) {
          for (const number of [SYS.vmunmap, SYS.vmcontrol, SYS.vmmap, SYS.mcontrol]) {
            const args = number === SYS.vmunmap
              ? [id, a, b]
              : number === SYS.vmcontrol
              ? [id, a, b, MADV_SETMAP + Number(a & 1n) * 3, b]
              : number === SYS.vmmap
              ? [
                id,
                a,
                b,
                Number(b & 15n),
                SHARED | FIXED | Number(a & 0xf000n) | (b & 1n ? VPAGETABLE : 0),
                vk.fd,
                b,
              ]
              : [a | 1n << 50n, b, MADV_INVAL, a];
            seen.push(yield* vk.sys(number, ...args));
          }
          seen.push(yield* vk.sys(SYS.ctl, id, RUN, a, b), yield* vk.sys(SYS.ctl, a, Number(b & 3n), a, b));
        }
      }
      yield* vk.ok(SYS.destroy, id);
    }, { steps: 30_000_000 });
    assertEquals([stop.reason, statuses], ["poweroff", [0]]);
    const known = new Set([ENOENT, EBADF, ENOMEM, EFAULT, EINVAL, EOPNOTSUPP]);
    for (const answer of seen) assert(answer >= 0 || known.has(-answer), `${answer}`);
  });

  it("mmap, munmap and mcontrol work on the space and not on the process", () => {
    const seen: (bigint | number)[] = [];
    const { statuses } = runVkernel(function* (vk) {
      const id = 77n;
      yield* vk.ok(SYS.create, id, 0, 0);
      // Ordinary memory: no tables.
      seen.push(yield* vk.sys(SYS.vmmap, id, CODE, PAGE, PROT_RWX, PRIVATE | FIXED, vk.fd, 0));
      seen.push(yield* vk.sys(SYS.vmmap, id, DATA, 4n * PAGE, 3, PRIVATE | ANON | FIXED, -1, 0));
      const code = yield* vk.page();
      // mov rax, [rbx]; inc qword [rbx]; syscall
      yield* vk.u.storeBytes(vk.at(code), Uint8Array.of(0x48, 0x8b, 0x03, 0x48, 0xff, 0x03, ...SYSCALL));
      for (let i = 0n; i < 3n; i++) {
        const { trapno, rax } = yield* vk.go(id, { rip: CODE, rbx: DATA });
        seen.push(trapno, rax);
      }
      seen.push(yield* vk.sys(SYS.write, 1, DATA, 8));
      seen.push(
        yield* vk.sys(SYS.vmunmap, id, DATA, PAGE),
        (yield* vk.go(id, { rip: CODE, rbx: DATA })).trapno,
      );
      seen.push((yield* vk.go(id, { rip: CODE, rbx: DATA + PAGE })).trapno);
      seen.push(yield* vk.sys(SYS.vmcontrol, id, DATA + PAGE, PAGE, MADV_INVAL, 0));
      seen.push((yield* vk.go(id, { rip: CODE, rbx: DATA + PAGE })).rax);
      seen.push(yield* vk.sys(SYS.vmcontrol, id, DATA + PAGE, PAGE, MADV_SETMAP, V | RW));
      seen.push(yield* vk.sys(SYS.destroy, id));
    });
    assertEquals(statuses, [0]);
    assertEquals(seen, [
      ...[Number(CODE), Number(DATA), 256n, 0n, 256n, 1n, 256n, 2n, -EFAULT],
      ...[0, 14n, 256n, 0, 1n, -EINVAL, 0],
    ]);
  });

  it("two spaces are two worlds, and a destroyed one leaves nothing to the next of its name", () => {
    const seen: bigint[] = [];
    runVkernel(function* (vk) {
      const spaces = [yield* vk.space(), yield* vk.space()];
      for (const id of spaces) {
        yield* vk.code(id, CODE, (a) => a.db(0x48, 0xff, 0x03, 0x48, 0x8b, 0x03, ...SYSCALL));
        yield* vk.map(id, DATA, yield* vk.page());
      }
      for (const turn of [0, 1, 0, 0, 1]) {
        seen.push((yield* vk.go(spaces[turn]!, { rip: CODE, rbx: DATA })).rax);
      }
      yield* vk.ok(SYS.destroy, spaces[0]!);
      yield* vk.ok(SYS.create, spaces[0]!, 0, 0);
      const frame = yield* vk.go(spaces[0]!, { rip: CODE, rbx: DATA });
      seen.push(frame.trapno, frame.addr);
    });
    assertEquals(seen, [1n, 1n, 2n, 3n, 2n, 14n, CODE]);
  });

  /** Ways in which a vkernel ends while a thread of it is in a guest: what it does, and its status. */
  const ends: Readonly<
    Record<string, { readonly how: (vk: Vkernel) => Exec<unknown>; readonly status: number }>
  > = {
    "kill -9": {
      *how(vk) {
        yield* vk.sys(SYS.kill, yield* vk.sys(SYS.getpid), SIGKILL);
      },
      status: 128 + SIGKILL,
    },
    "exit": { *how() {}, status: 5 },
    "a fault": {
      *how(vk) {
        yield* vk.u.store64(gva(8n), 0n);
      },
      status: 128 + 11,
    },
    "exec": {
      *how(vk) {
        const path = yield* text(vk.u, gva(SCRATCH + 0x1000n), "/bin/after");
        yield* vk.u.store64(gva(SCRATCH + 0x1100n), path);
        yield* vk.u.store64(gva(SCRATCH + 0x1108n), 0n);
        yield* vk.sys(SYS.execve, path, SCRATCH + 0x1100n, 0);
      },
      status: 9,
    },
    "a timer's signal": {
      *how(vk) {
        yield* vk.u.store64(gva(SCRATCH + 0x1018n), 20_000n);
        yield* vk.sys(SYS.setitimer, 0, SCRATCH + 0x1000n, 0);
        yield* vk.until(() => false);
      },
      status: 128 + SIGALRM,
    },
  };
  for (const [name, { how, status }] of Object.entries(ends)) {
    for (const cpus of [1, 3]) {
      it(`${name} frees everything while two threads are in a guest, on ${cpus} processors`, () => {
        const uses: KernelUse[] = [];
        const { statuses, stop } = runVkernel(
          function* (vk) {
            const id = yield* vk.space();
            yield* vk.space();
            yield* vk.code(id, CODE, (a) => a.db(...INCREMENT));
            yield* vk.map(id, DATA, yield* vk.page());
            for (const slot of [0x800n, 0xa00n]) {
              yield* vk.thread(function* (me) {
                yield* me.setFrame(guestFrame({ rip: CODE, rbx: DATA }), SCRATCH + slot);
                yield* me.run(id, SCRATCH + slot);
              });
            }
            const word = vk.at((yield* vk.u.load64(yield* vk.entry(id, DATA))) & ~0xfffn);
            while ((yield* vk.u.load64(word)) < 100n) {
              yield* vk.sys(SYS.umtxSleep, SCRATCH + 0x3ff0n, 0, 1000);
            }
            yield* how(vk);
            return 5;
          },
          {
            cpus,
            tlb: "sticky",
            kernel: {
              commands: [["/bin/after"], ["/bin/vk"], ["/bin/after"]],
              onCommandEnd: (k: Kernel) => uses.push(kernelUse(k)),
              faultReports: false,
            },
          },
          {
            *after() {
              return 9;
            },
          },
        );
        assertEquals([stop.reason, statuses], ["poweroff", [9, status, 9]]);
        assertEquals(kernelLeaks(uses[0]!, uses[1]!), []);
      });
    }
  }

  /** Guests count in a page that their vkernel takes away and gives back under them. */
  const races: readonly BootOptions[] = [{ cpus: 2 }, { cpus: 4 }, { cpus: 3, seed: 5, quantum: [1, 40] }];
  for (const options of races) {
    it(`threads in one space while another INVALs: ${JSON.stringify(options)}`, () => {
      const stale: string[] = [], wrong: string[] = [];
      let traps = 0;
      const { statuses, stop } = runVkernel(function* (vk) {
        const id = yield* vk.space(), pages = [yield* vk.page(), yield* vk.page()];
        yield* vk.code(id, CODE, (a) => a.db(...INCREMENT));
        const slot = yield* vk.map(id, DATA, pages[0]!);
        yield* vk.handler(SIGUSR1);
        let over = false, running = 0;
        const tids: number[] = [];
        for (let n = 0; n < 2; n++) {
          const at = SCRATCH + 0x800n + BigInt(n) * 0x200n;
          tids.push(
            yield* vk.thread(function* (me) {
              yield* me.setFrame(guestFrame({ rip: CODE, rbx: DATA }), at);
              running++;
              while (!over) {
                const answer = yield* me.run(id, at);
                const frame = yield* me.frame(at);
                if (answer !== 0 || (frame.trapno !== 0n && (frame.trapno !== 14n || frame.addr !== DATA))) {
                  wrong.push(`${answer}: trap ${frame.trapno} at 0x${frame.addr.toString(16)}`);
                  break;
                }
                traps++;
              }
              running--;
            }),
          );
        }
        for (let turn = 0; turn < 12; turn++) {
          const page = vk.at(pages[turn & 1]!), other = vk.at(pages[1 - (turn & 1)]!);
          const before = yield* vk.u.load64(page);
          // Somebody counts in it.
          for (let i = 0; i < 20_000 && (yield* vk.u.load64(page)) === before; i++) yield;
          yield* vk.u.store64(slot, 0n);
          yield* vk.ok(SYS.vmcontrol, id, DATA, PAGE, MADV_INVAL, 0);
          // It is the vkernel's alone now.
          yield* vk.u.store64(page, 0xffff_0000n);
          yield* vk.u.store64(other, 0n);
          const seen = traps;
          for (let i = 0; i < 20_000 && traps === seen; i++) yield;
          const word = yield* vk.u.load64(page);
          if (word !== 0xffff_0000n) {
            wrong.push(`turn ${turn}: a guest stored to a page that it has no more: ${word}`);
          }
          yield* vk.u.store64(slot, pages[1 - (turn & 1)]! | VRWU);
        }
        over = true;
        const pid = yield* vk.sys(SYS.getpid);
        while (running > 0) {
          for (const tid of tids) yield* vk.sys(SYS.lwpKill, pid, tid, SIGUSR1);
          yield* vk.sys(SYS.umtxSleep, SCRATCH + 0x3ff0n, 0, 1000);
        }
        yield* vk.ok(SYS.destroy, id);
      }, {
        ...options,
        tlb: "sticky",
        sanitizer: true,
        prepare(machine) {
          machine.sanitizer?.on((use) => stale.push(`${use.access} of 0x${use.linear.toString(16)}`));
        },
      });
      assertEquals({ stale, wrong }, { stale: [], wrong: [] });
      assertEquals([stop.reason, statuses], ["poweroff", [0]]);
      assert(traps > 10, `${traps} traps`);
    });
  }
});
