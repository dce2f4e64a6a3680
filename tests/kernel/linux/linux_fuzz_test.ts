import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { GateCpu } from "../../../hw/gates.ts";
import { linuxSyscalls } from "../../../kernel/linux/linux_sysvec.ts";
import { linux, runLinux, scratch, text } from "./linux_gate.ts";

/** Calls that end the program at once or stop it for good, or that a TypeScript program cannot make (a continuation belongs to one address space). */
const LEFT_OUT: ReadonlySet<number> = new Set([15, 34, 36, 37, 38, 56, 57, 58, 59, 60, 130, 161, 231]);
const NUMBERS = linuxSyscalls.map(([number]) => number).filter((number) => !LEFT_OUT.has(number));
const PATHS = ["/", "/a", "/a/b", "/bin/test", "/dev/zero", "/proc/self/exe", "", "none", "/dev/null", ".."];

/** Random numbers that are the same each time. */
function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor(state / 2 ** 32 * below);
  };
}

function* argument(u: GateCpu, next: (below: number) => number) {
  switch (next(8)) {
    case 0:
      return scratch(u, next(0x2000));
    case 1:
      return yield* text(u, scratch(u, 0x2800), PATHS[next(PATHS.length)]!);
    case 2:
      return [0n, -1n, 0x7fff_ffff_f000n, 0x8000_0000_0000n, 0xffff_ffff_8000_0000n, 1n << 63n][next(6)]!;
    case 3:
      return BigInt(next(64) * 4096);
    case 4:
      return 1n << BigInt(next(33));
    default:
      return BigInt(next(12));
  }
}

describe("Random calls of a Linux program", () => {
  let calls = 0;
  for (let seed = 1; seed <= 20; seed++) {
    it(`leave the kernel up: seed ${seed}`, () => {
      const next = generator(seed);
      const { stop } = runLinux(function* (u) {
        // An alarm in half a second ends what waits without end.
        const alarm = new Uint8Array(BigInt64Array.of(0n, 0n, 0n, 500_000n).buffer);
        yield* u.storeBytes(scratch(u), alarm);
        yield* linux(u, 38, 0, scratch(u), 0);
        for (let n = 0; n < 200; n++) {
          const number = next(16) === 0 ? next(1000) : NUMBERS[next(NUMBERS.length)]!;
          if (LEFT_OUT.has(number)) continue;
          const args = [];
          for (let i = 0; i < 6; i++) args.push(yield* argument(u, next));
          // Nobody but itself.
          if (number === 62 || number === 200 || number === 234) args[0] = 2n;
          calls++;
          yield* linux(u, number, ...args);
        }
        return 0;
      }, { cpus: 1 + seed % 2, steps: 20_000_000 });
      assertEquals(["poweroff", "idle", "steps"].includes(stop.reason), true, stop.reason);
    });
  }

  it("are not a few", () => {
    assertEquals(calls > 1000, true, `${calls}`);
  });
});
