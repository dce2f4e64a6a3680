/** Nothing that a guest does harms anybody but itself: its kernel, its siblings, the host. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { panic } from "../../../kernel/kern/panic.ts";
import { GUEST_KINDS } from "../../../lab/guest/kinds.ts";
import { mayRead } from "../kernel_fixture.ts";
import { runGuests, vkernelLine } from "./guest_fixture.ts";

describe("isolation of guests", { ignore: !mayRead }, () => {
  for (const kind of GUEST_KINDS) {
    it(`${kind}: escape ends in its own signals and errors; siblings and kernels go on`, () => {
      const both = "forkcow 1 2 4 & escape 2; e=$?; wait; echo still here; exit $e";
      const { statuses, console, wrong, stop } = runGuests({
        lines: [vkernelLine(kind, "true", 2), vkernelLine(kind, both, 2)],
      });
      assertMatch(console, /escape: ok/);
      assertMatch(console, /forkcow: ok/);
      assertMatch(console, /still here/);
      assertEquals([statuses, wrong, stop.reason], [[0, 0], [], "poweroff"]);
    });

    it(`${kind}: a panic ends this vkernel alone, with status 1 and its text`, () => {
      const line = vkernelLine(kind, "");
      const { statuses, console, wrong } = runGuests({
        lines: [`${line}; echo status $?; ${line}; echo status $?`, `${line}; echo status $?`],
        guest: () => ({
          *body(cx) {
            // What a kernel throws, and what TypeScript throws for it.
            if (cx.k.memoryBytes > 0) panic(cx, "as it was told");
            yield;
          },
        }),
      });
      assertEquals(console.match(/panic: as it was told/g)?.length, 3, console);
      assertEquals(console.match(/status 1\n/g)?.length, 3, console);
      assertEquals([statuses, wrong], [[0, 0], []]);
    });

    it(`${kind}: kill -9 while guests run on two processors frees everything`, () => {
      const load = "while :; do forkcow 1 2 4; done";
      const line = (seconds: string) =>
        `${vkernelLine(kind, load, 2)} & p=$!; sleep ${seconds}; kill -9 $p; wait $p; echo status $?`;
      const { statuses, console, wrong, stop } = runGuests({
        lines: [line("0.02"), line("0.015"), "forkcow 1 2 4"],
      });
      assertEquals(console.match(/status 137\n/g)?.length, 2, console);
      assertEquals([statuses, wrong, stop.reason], [[0, 0, 0], [], "poweroff"]);
    });
  }

  it("a program of the host does not escape either", () => {
    const { statuses, wrong } = runGuests({ lines: ["escape 0", "escape 3 2"] });
    assertEquals([statuses, wrong], [[0, 0], []]);
  });

  it("gates and continuations of a vkernel that runs are nobody else's", () => {
    // The vkernel's gates exist while escape tries all numbers.
    const { console, wrong, stop } = runGuests({
      lines: [
        vkernelLine("vpte", "true", 2),
        `${
          vkernelLine("vpte", "while :; do forkcow 1 2 4; done", 2)
        } & p=$!; sleep 0.01; escape 0; kill -9 $p; wait $p`,
      ],
    });
    assertMatch(console, /escape: ok/);
    assert(stop.reason === "poweroff", stop.reason);
    assertEquals(wrong, []);
  });
});
