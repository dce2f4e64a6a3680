import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { Machine } from "../../../hw/machine.ts";
import { bootKernel } from "../../../kernel/boot.ts";
import { rootArchives } from "../../../lab/cli/root_archive.ts";

const mayRead = (await Deno.permissions.query({ name: "read" })).state === "granted";

/** Types at a shell: each text once what goes before it has been shown. Gives all that was shown, and the exit status. */
async function typeAtShell(script: readonly (readonly [shown: string, typed: string])[]) {
  const bytes: number[] = [];
  const machine = new Machine({
    memory: 32 << 20,
    gates: true,
    serial: { output: (piece) => bytes.push(...piece) },
  });
  const kernel = bootKernel(machine, { archives: await rootArchives([]), verbose: false });
  const shown = () => new TextDecoder().decode(Uint8Array.from(bytes)).replaceAll("\r\n", "\n");
  let seen = 0, next = 0;
  for (let i = 0; i < 400; i++) {
    const stop = machine.run({ steps: 300_000 });
    if (stop.reason !== "steps") {
      assertEquals(stop.reason, "poweroff", shown());
      break;
    }
    const step = script[next];
    if (step !== undefined && shown().indexOf(step[0], seen) >= 0) {
      seen = shown().length;
      machine.serialInput(new TextEncoder().encode(step[1]));
      next++;
    }
  }
  return { shown: shown(), status: kernel.exitStatus };
}

describe("job control on the console", { ignore: !mayRead }, () => {
  it("stops a program by ^Z, goes on with it in the foreground, and ends it by ^C", async () => {
    const { shown, status } = await typeAtShell([
      ["# ", "cat\r"],
      ["cat", "abc\r"],
      ["abc\nabc", "\x1a"],
      ["# ", "fg\r"],
      ["cat", "more\r"],
      ["more\nmore", "\x03"],
      ["# ", "exit 9\r"],
    ]);
    assert(/\^Z\n\[1\] Stopped +cat\n# fg\ncat\nmore\nmore\n\^C\n# exit 9/.test(shown), shown);
    assertEquals(status, 9);
  });

  it("stops a background program that reads the terminal", async () => {
    const { shown } = await typeAtShell([
      ["# ", "cat &\r"],
      ["# ", "sleep 1; jobs\r"],
      ["cat", "kill %1; exit\r"],
    ]);
    assert(/\[1\] Stopped +cat/.test(shown), shown);
  });
});
