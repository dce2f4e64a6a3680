import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { Exec, GateCpu } from "../../../hw/gates.ts";
import { call, runGates } from "../proc/gate_program.ts";

const SYS_BREAK = 17, SYS_MMAP = 197, SYS_MLOCKALL = 324;
const MCL_FUTURE = 2, PROT_RW = 3, MAP_ANON = 0x1000, MAP_PRIVATE = 2;
const ENOMEM = 12;

describe("mlockall(MCL_FUTURE)", () => {
  it("does not let a program wire more than mlock would", () => {
    const got: number[] = [];
    function* program(u: GateCpu): Exec<number> {
      const mmap = (bytes: number) => call(u, SYS_MMAP, 0, bytes, PROT_RW, MAP_ANON | MAP_PRIVATE, -1, 0, 0);
      assertEquals(yield* call(u, SYS_MLOCKALL, MCL_FUTURE), 0);
      got.push(yield* mmap(2 ** 40));
      let mapped = 0;
      for (; (yield* mmap(1 << 20)) > 0; mapped++);
      got.push(yield* mmap(1 << 20), mapped);
      got.push(yield* call(u, SYS_BREAK, 0x80_0000 + (1 << 24)));
      return 0;
    }
    const { kernel, console, statuses } = runGates({ program }, { memory: 32 << 20 });
    assertEquals(statuses, [0], console);
    const [huge, last, mapped] = got;
    assertEquals([huge, last, got[3]], [-ENOMEM, -ENOMEM, -ENOMEM]);
    assert(mapped! >= 4 && mapped! <= 11, `${mapped} MiB of 32 were wired`);
    assertEquals(kernel.vmmeter.vOomkills, 0);
  });
});
