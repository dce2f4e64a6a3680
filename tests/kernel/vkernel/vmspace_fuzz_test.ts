/** A vkernel that calls the host with whatever comes to mind: the host answers, goes on, and has everything back when it has ended. */
import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { gva } from "../../../hw/address.ts";
import type { Exec } from "../../../hw/gates.ts";
import { Random } from "../../../hw/random.ts";
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
const CALLS = 250;
/** Pages that the vkernel's memory has tables, code and data in. */
const FRAMES = 16n;

/** Everything random that a vkernel does, until it has made its calls. */
function* fuzz(vk: Vkernel, random: Random, slot: bigint): Exec<void> {
  const below = (n: number) => random.next() % n;
  const pick = <T>(from: readonly T[]): T => from[below(from.length)]!;
  const id = () => pick([0n, 4096n, 8192n, 77n, (1n << 64n) - 1n]);
  const address = () =>
    pick([
      ...[0n, 4096n, BigInt(below(64)) << 12n, BigInt(below(1 << 20)) << 12n, VM_MAX_USER_ADDRESS - 4096n],
      ...[
        VM_MAX_USER_ADDRESS,
        1n << 47n,
        0xffff_c000_0000_0000n,
        SCRATCH,
        0x80_0000_0000n,
        BigInt(random.next()),
      ],
    ]);
  const length = () =>
    pick([0n, 1n, 4096n, 8192n, 1n << 21n, 1n << 39n, VM_MAX_USER_ADDRESS, (1n << 64n) - 1n]);
  /** An entry, mostly a sensible one. */
  const entry = () => {
    const frame = below(8) === 0 ? BigInt(random.next()) << 12n : BigInt(below(Number(FRAMES))) << 12n;
    const bits = (below(8) ? V : 0n) | (below(4) ? RW : 0n) | (below(8) ? U : 0n);
    return frame | bits | (below(8) ? 0n : PS) | (below(8) ? 0n : NX);
  };
  const flags = () =>
    pick([SHARED, PRIVATE]) | (below(4) ? FIXED : 0) | (below(3) ? VPAGETABLE : 0) | (below(4) ? 0 : ANON);
  for (let i = 0; i < CALLS; i++) {
    switch (below(12)) {
      case 0:
        yield* vk.sys(SYS.create, id(), random.next(), random.next());
        break;
      case 1:
        yield* vk.sys(SYS.destroy, id());
        break;
      case 2:
      case 3: {
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
      case 4:
        yield* vk.sys(SYS.vmunmap, id(), address(), length());
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
      case 7:
      case 8:
        // Its tables and its guests' code are the same few pages.
        yield* vk.u.store64(vk.at((BigInt(below(Number(FRAMES))) << 12n) + BigInt(below(4)) * 8n), entry());
        break;
      case 9:
        yield* vk.sys(SYS.mcontrol, 0x200_0000_0000n, length(), pick([MADV_INVAL, below(12)]), entry());
        break;
      default: {
        const words: Record<string, bigint> = {
          rip: address(),
          rsp: address(),
          rbx: address(),
          rflags: BigInt(random.next()),
        };
        yield* vk.setFrame(guestFrame(words), SCRATCH + slot, [below(4) ? 0n : address(), 0n]);
        const at = below(8) ? SCRATCH + slot : address();
        yield* vk.sys(
          SYS.ctl,
          id(),
          below(16) ? RUN : below(4),
          at,
          below(8) ? SCRATCH + slot + 0x100n : address(),
        );
      }
    }
  }
}

describe("a vkernel that calls the host at random", () => {
  for (const [cpus, seed] of [[1, 1], [2, 2], [3, 3]] as const) {
    it(`does no harm, with ${cpus} threads on ${cpus} processors, seed ${seed}`, () => {
      const uses: KernelUse[] = [], stale: string[] = [];
      const { statuses, stop, kernel } = runVkernel(
        function* (vk) {
          yield* vk.handler(SIGALRM);
          yield* vk.handler(SIGUSR1);
          for (let i = 0n; i < FRAMES; i++) yield* vk.page();
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
                yield* fuzz(me, new Random(seed * 100 + n), BigInt(n) * 0x200n);
                running--;
              }),
            );
          }
          yield* fuzz(vk, new Random(seed), 0n);
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
          prepare(machine) {
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
      assert(kernel.vkernel.traps > 5, `${kernel.vkernel.traps} traps`);
    });
  }
});
