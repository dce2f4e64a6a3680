/** The shell: sh_cases.txt case by case, a session on the console with job control, and its exit status. */
import { assertEquals, assertMatch } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { mayRead, run, type UserRun } from "./user_fixture.ts";

interface Case {
  readonly name: string;
  readonly script: string;
  readonly expected: string;
}

function readCases(): Case[] {
  const text = Deno.readTextFileSync(new URL("sh_cases.txt", import.meta.url));
  return text.split(/^==== /m).slice(1).map((part) => {
    const [, name, script, expected] = /^(.*)\n([\s\S]*?\n)----\n([\s\S]*)$/.exec(part)!;
    return { name: name!, script: script!, expected: expected! };
  });
}

describe("sh", { ignore: !mayRead }, () => {
  const cases = mayRead ? readCases() : [];
  /** All in one boot: each script's output stands behind a line of its own. */
  const runAll = () =>
    run(
      [`i=0; while [ $i -lt ${cases.length} ]; do echo "@@@@"; sh /t/$i.sh 2>/dev/null; i=$((i+1)); done`],
      { files: Object.fromEntries(cases.map(({ script }, i) => [`t/${i}.sh`, script])), cpus: 2 },
    );
  let all: UserRun | undefined;
  for (const [i, { name, expected }] of cases.entries()) {
    it(name, () => {
      all ??= runAll();
      assertEquals(all.console.split("@@@@\n")[i + 1], expected);
    });
  }

  it("ends, and leaves nothing behind", () => {
    all ??= runAll();
    assertEquals(all.statuses, [0]);
    assertEquals(all.leaks, []);
  });
});

describe("a session on the console", { ignore: !mayRead }, () => {
  it("prompts, echoes, runs what is typed, and ends the machine's run with the shell's status", () => {
    const { console, statuses, stop } = run([], { typed: [[1, "echo $((6*7))\n"], [2, "exit 9\n"]] });
    assertEquals(stop, "poweroff");
    assertEquals(statuses, [9]);
    assertMatch(console, /# echo \$\(\(6\*7\)\)\n42\n# exit 9\n/);
  });

  it("stops, lists, continues and kills jobs", () => {
    const { console } = run([], {
      typed: [
        [1, "sleep 1000\n"],
        [2, "\x1a"],
        [3, "jobs\n"],
        [4, "bg\n"],
        [5, "kill %1\n"],
        [6, "\n"],
        [7, "sleep 1000\n"],
        [8, "\x03"],
        [9, "echo status $?\n"],
        [10, "cat\n"],
        [11, "line\n"],
        [12, "\x04"],
        [13, "exit\n"],
      ],
    });
    assertMatch(console, /\^Z\n\[1\] Stopped +sleep 1000\n/);
    assertMatch(console, /# bg\n\[1\] sleep 1000\n/);
    assertMatch(console, /\[1\] Terminated +sleep 1000\n/);
    assertMatch(console, /\^C\n# echo status \$\?\nstatus 130\n/);
    assertMatch(console, /# cat\nline\nline\n/);
  });

  it("gives the terminal to the foreground only: a background reader stops", () => {
    const { console } = run([], {
      typed: [[1, "cat &\n"], [2, "jobs\n"], [3, "fg\n"], [4, "hello\n"], [5, "\x04"], [6, "exit 3\n"]],
    });
    assertMatch(console, /\[1\] Stopped +cat\n/);
    assertMatch(console, /# fg\ncat\nhello\nhello\n/);
  });

  it("top shows pages until a key is hit, and the terminal is as before", () => {
    const { console, statuses } = run([], {
      typed: [[1, "top\n"], [6, "q"], [7, "echo back\n"], [8, "exit 0\n"]],
    });
    assertEquals(console.match(/processes: /g)?.length, 3);
    assertMatch(console, /# echo back\nback\n# exit 0\n/);
    assertEquals(statuses, [0]);
  });

  it("a syntax error or an interrupt is only that line's end", () => {
    const { console, statuses } = run([], {
      typed: [[1, "echo )\n"], [2, "for i in 1\n"], [3, "\x03"], [4, "echo again $?\n"], [5, "exit 0\n"]],
    });
    assertMatch(console, /syntax error: \) unexpected\n/);
    assertMatch(console, /# for i in 1\n> \^C\n# echo again \$\?\nagain 130\n/);
    assertEquals(statuses, [0]);
  });
});
