/** A vkernel that calls the host with whatever comes to mind: the host answers, goes on, and has everything back when it has ended. */
import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { gva } from "../../../hw/address.ts";
import type { Exec } from "../../../hw/gates.ts";
import { RAM_BASE } from "../../../hw/state.ts";
import { Random } from "../../../hw/random.ts";
import { checkInvariantsWith } from "../../../kernel/pmap/invariants.ts";
import { VM_MAX_USER_ADDRESS } from "../../../kernel/platform/pc64/vmparam.ts";
import { kernelLeaks, type KernelUse, kernelUse } from "../../../lab/kernel_use.ts";
import {
  ANON,
  FIXED,
  guestFrame,
  MADV_INVAL,
  MADV_SETMAP,
  NX,
  PRIVATE,
  PS,
  RUN,
  runVkernel,
  RW,
  SCRATCH,
  SHARED,
  SYS,
  U,
  V,
  type Vkernel,
  VPAGETABLE,
} from "./vkernel_fixture.ts";

const SIGALRM = 14, SIGUSR1 = 30;
const STACK = 0x400;
const CALLS = 400;
/** Pages of the vkernel's memory that are tables, code and data at once: entries in their first words, code behind. */
const FRAMES = 16n;
/** `mov [rbx], rax; mov rdx, [rcx]; inc qword [rbx]; syscall`, and again. */
const GUEST = [0x48, 0x89, 0x03, 0x48, 0x8b, 0x11, 0x48, 0xff, 0x03, 0x0f, 0x05, 0xeb, 0xf3];
const GUEST_OFFSET = 64n;
/** A window of the vkernel's own, through tables. */
const WINDOW = 0x80_0000_0000n, WINDOW_BYTES = 1n << 39n;

/** Everything random that a vkernel does, until it has made its calls. */
function* fuzz(vk: Vkernel, random: Random, slot: bigint, check: () => void): Exec<void> {
  const below = (n: number) => random.next() % n;
  const pick = <T>(from: readonly T[]): T => from[below(from.length)]!;
  const id = () => below(8) ? pick([0n, 4096n]) : pick([77n, (1n << 64n) - 1n]);
  /** An address that the first four entries of each table are about. */
  const near = () => [39n, 30n, 21n, 12n].reduce((sum, shift) => sum | BigInt(below(4)) << shift, 0n);
  const wild = () =>
    pick([
      ...[0n, VM_MAX_USER_ADDRESS - 4096n, VM_MAX_USER_ADDRESS, 1n << 47n, 0xffff_c000_0000_0000n],
      ...[SCRATCH, WINDOW, BigInt(random.next())],
    ]);
  const address = () => below(4) ? near() : wild();
  const length = () =>
    pick([0n, 1n, 4096n, 8192n, 1n << 21n, 1n << 39n, VM_MAX_USER_ADDRESS, (1n << 64n) - 1n]);
  /** An entry, mostly a sensible one. */
  const entry = () => {
    const frame = below(16) ? BigInt(below(Number(FRAMES))) << 12n : BigInt(random.next()) << 12n;
    const bits = (below(16) ? V : 0n) | (below(4) ? RW : 0n) | (below(8) ? U : 0n);
    return frame | bits | (below(16) ? 0n : PS) | (below(16) ? 0n : NX);
  };
  const flags = () =>
    pick([SHARED, PRIVATE]) | (below(4) ? FIXED : 0) | (below(3) ? VPAGETABLE : 0) | (below(3) ? 0 : ANON) |
    (below(6) ? 0 : STACK);
  for (let i = 0; i < CALLS; i++) {
    if (i % 40 === 0) check();
    switch (below(18)) {
      case 0:
        yield* vk.sys(SYS.create, id(), random.next(), random.next());
        break;
      case 1:
        if (below(3) === 0) yield* vk.sys(SYS.destroy, id());
        break;
      case 2: {
        const how = flags();
        yield* vk.sys(
          SYS.vmmap,
          id(),
          address(),
          length(),
          below(8),
          how,
          how & ANON ? -1 : vk.fd,
          address(),
        );
        break;
      }
      case 3: {
        // As it should be.
        const space = id(), how = pick([SHARED, PRIVATE]) | FIXED | VPAGETABLE;
        yield* vk.sys(SYS.vmmap, space, 0, VM_MAX_USER_ADDRESS, 7, how, vk.fd, 0);
        yield* vk.sys(SYS.vmcontrol, space, 0, VM_MAX_USER_ADDRESS, MADV_SETMAP, entry());
        break;
      }
      case 4:
        if (below(4) === 0) yield* vk.sys(SYS.vmunmap, id(), address(), length());
        break;
      case 5:
        yield* vk.sys(
          SYS.vmcontrol,
          id(),
          address(),
          length(),
          pick([MADV_SETMAP, MADV_INVAL, below(20)]),
          entry(),
        );
        break;
      case 6:
        yield* vk.sys(SYS.vmcontrol, id(), near(), 4096, MADV_INVAL, 0);
        break;
      case 7:
        yield* vk.sys(
          SYS.mmap,
          WINDOW,
          WINDOW_BYTES,
          7,
          pick([SHARED, PRIVATE]) | FIXED | VPAGETABLE,
          vk.fd,
          0,
          WINDOW,
        );
        yield* vk.sys(SYS.mcontrol, WINDOW, WINDOW_BYTES, MADV_SETMAP, entry());
        break;
      case 8:
        yield* vk.sys(
          SYS.mcontrol,
          WINDOW | near(),
          length(),
          pick([MADV_INVAL, MADV_INVAL, below(20)]),
          entry(),
        );
        break;
      case 9:
        // The host reads a path there, or writes a set of signals.
        if (below(2)) yield* vk.sys(SYS.open, WINDOW | near(), 0, 0);
        else yield* vk.sys(SYS.sigprocmask, 1, 0, WINDOW | near());
        break;
      case 10:
      case 11:
      case 12:
        yield* vk.u.store64(vk.at((BigInt(below(Number(FRAMES))) << 12n) + BigInt(below(4)) * 8n), entry());
        break;
      default: {
        const rip = below(8) ? near() + GUEST_OFFSET : address();
        const rbx = address() + 512n, rcx = address() + 520n, rsp = address();
        yield* vk.setFrame(
          guestFrame({ rip, rsp, rbx, rcx, rflags: BigInt(random.next()) }),
          SCRATCH + slot,
          [below(4) ? 0n : address(), 0n],
        );
        const at = below(12) ? SCRATCH + slot : address(),
          bases = below(12) ? SCRATCH + slot + 0x100n : address();
        yield* vk.sys(SYS.ctl, id(), below(16) ? RUN : below(4), at, bases);
      }
    }
  }
}

describe("a vkernel that calls the host at random", () => {
  for (const [cpus, seed] of [[1, 1], [2, 2], [3, 3]] as const) {
    it(`does no harm, with ${cpus} threads on ${cpus} processors, seed ${seed}`, () => {
      const uses: KernelUse[] = [], stale: string[] = [];
      let check = () => {};
      const { statuses, stop, kernel } = runVkernel(
        function* (vk) {
          yield* vk.handler(SIGALRM);
          yield* vk.handler(SIGUSR1);
          for (let i = 0n; i < FRAMES; i++) {
            const page = yield* vk.page();
            yield* vk.u.storeBytes(vk.at(page + GUEST_OFFSET), Uint8Array.from(GUEST));
            // So that walks arrive somewhere from the beginning.
            for (let n = 0n; n < 4n; n++) {
              yield* vk.u.store64(vk.at(page + n * 8n), ((i * 5n + n * 3n) % FRAMES) << 12n | V | RW | U);
            }
          }
          // Endless guests are interrupted.
          yield* vk.u.store64(gva(SCRATCH + 0x1008n), 20_000n);
          yield* vk.u.store64(gva(SCRATCH + 0x1018n), 20_000n);
          yield* vk.ok(SYS.setitimer, 0, SCRATCH + 0x1000n, 0);
          let running = 0;
          const tids: number[] = [];
          for (let n = 1; n < cpus; n++) {
            running++;
            tids.push(
              yield* vk.thread(function* (me) {
                yield* fuzz(me, new Random(seed * 100 + n), BigInt(n) * 0x200n, check);
                running--;
              }),
            );
          }
          yield* fuzz(vk, new Random(seed), 0n, check);
          const pid = yield* vk.sys(SYS.getpid);
          while (running > 0) {
            for (const tid of tids) yield* vk.sys(SYS.lwpKill, pid, tid, SIGUSR1);
            yield* vk.sys(SYS.umtxSleep, SCRATCH + 0x3ff0n, 0, 10_000);
          }
          return 6;
        },
        {
          cpus,
          seed,
          tlb: "sticky",
          sanitizer: true,
          steps: 60_000_000,
          prepare(machine, kernel) {
            const read64 = (pa: number) => machine.memory.u64[(RAM_BASE + pa) / 8]!;
            check = () => assertEquals(checkInvariantsWith(kernel, read64), []);
            machine.sanitizer?.on((use) => stale.push(`${use.access} of 0x${use.linear.toString(16)}`));
          },
          kernel: {
            commands: [["/bin/after"], ["/bin/vk"], ["/bin/after"]],
            onCommandEnd: (k) => uses.push(kernelUse(k)),
            faultReports: false,
          },
        },
        {
          *after() {
            return 9;
          },
        },
      );
      assertEquals([stop.reason, statuses, stale], ["poweroff", [9, 6, 9], []]);
      assertEquals(kernelLeaks(uses[0]!, uses[1]!), []);
      const { runs, vpteWalks, vpteFailures, vpteSets, trapsByNumber } = kernel.vkernel;
      assert(
        runs > 30 && vpteWalks > 30 && vpteSets > 10 && vpteFailures > 3,
        `${runs} ${vpteWalks} ${vpteSets} ${vpteFailures}`,
      );
      assert(trapsByNumber.has(14), [...trapsByNumber.keys()].join());
    });
  }
});
