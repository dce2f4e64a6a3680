/** The bench's programs mean the same on every engine; its image matches its sources; its figures are what it says. */
import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { isUpToDate } from "../bench/build.ts";
import { median } from "../bench/measure.ts";
import { PROGRAMS, unitOf } from "../bench/programs.ts";
import { checkValue, runOnEngine } from "../bench/runner.ts";

const granted = (name: "read" | "run") => Deno.permissions.querySync({ name }).state === "granted";
if (!granted("read")) console.log("tests/bench_test.ts: needs --allow-read; most of it is ignored");

/** Too many instructions for the reference engine, even in one round. */
const LONG = new Set(["sieve", "chase64m"]);
const OPTIONS = { memory: 96 << 20, hashed: true } as const;

describe("the bench image", { ignore: !granted("read") }, () => {
  it("matches its sources", async () => {
    assert(await isUpToDate(), "run: deno run -A bench/build.ts");
  });

  for (const { name } of PROGRAMS.filter((program) => !LONG.has(program.name))) {
    it(`${name} ends the same on both engines`, async () => {
      const result = async (engine: "interpreter" | "reference", seed: number) => {
        const { check, hash, instructions } = await runOnEngine(engine, name, 1, { ...OPTIONS, seed });
        return { check, hash, instructions };
      };
      for (const seed of [1, 77]) {
        assertEquals(await result("interpreter", seed), await result("reference", seed));
      }
    });
  }

  it("a program's work grows with its rounds by the same amount each", async () => {
    const count = async (rounds: number) =>
      (await runOnEngine("interpreter", "sha", rounds, OPTIONS)).instructions!;
    const [one, three, seven] = [await count(1), await count(3), await count(7)];
    assertEquals(seven - three, 2 * (three - one));
  });

  it("an unknown program is an error, not a figure", async () => {
    await assertRejects(() => runOnEngine("interpreter", "nonsense", 1, OPTIONS), Error, "no check value");
  });
});

describe("the bench", () => {
  it("takes the check value from what a program printed, and nothing else for one", () => {
    assertEquals(checkValue("SeaBIOS\r\ncheck 0123456789abcdef\r\n", "x"), "0123456789abcdef");
    assertThrows(
      () => checkValue("check 0123", "x on y"),
      Error,
      'x on y gave no check value; it printed "check 0123"',
    );
  });

  it("takes medians", () => {
    assertEquals(median([9, 1, 5]), 5);
    assertEquals(median([4, 1, 2, 100]), 3);
  });

  it("names its units", () => {
    const unit = (name: string) => unitOf(PROGRAMS.find((program) => program.name === name)!);
    assertEquals([unit("alu"), unit("repmovs"), unit("int80")], ["MIPS", "MB/s", "M round trips/s"]);
  });

  it("a mistyped row is a usage error that names the right one", { ignore: !granted("run") }, async () => {
    const { code, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "-A",
        "--quiet",
        new URL("../bench/bench.ts", import.meta.url).pathname,
        "--only",
        "colatz",
      ],
      env: { NO_COLOR: "1" },
    }).output();
    assertEquals(code, 2);
    assertMatch(new TextDecoder().decode(stderr), /did you mean "collatz"/);
  });
});
