import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { runVkernel } from "./vkernel_fixture.ts";
import type { Trapframe } from "../../../kernel/platform/pc64/frame.ts";

describe("thin", () => {
  it("runs", () => {
    let f: Trapframe | undefined;
    const r = runVkernel(function* (vk) {
      const id = yield* vk.space();
      yield* vk.code(id, 0x40_0000n, (a) => a.movImmediate32("rax", 77).db(0x0f, 0x05));
      f = yield* vk.go(id, { rip: 0x40_0000n, rbx: 5n });
      yield* vk.ok(487, id);
    });
    console.log(r.console, r.stop, f, r.kernel.vkernel);
    assertEquals(r.statuses, [0]);
  });
});
