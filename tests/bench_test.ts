/** The bench's programs mean the same on every engine; its image matches its sources; its figures are what it says. */
import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { isUpToDate } from "../bench/build.ts";
import { merged, type Report, type RowFigures, toKept, verdicts } from "../bench/figures.ts";
import { median } from "../bench/measure.ts";
import { PROGRAMS, type Target, unitOf } from "../bench/programs.ts";
import { checkValue, runOnEngine } from "../bench/runner.ts";

const granted = (name: "read" | "run") => Deno.permissions.querySync({ name }).state === "granted";
if (!granted("read")) console.log("tests/bench_test.ts: needs --allow-read; most of it is ignored");

/** Too many instructions for the reference engine, even in one round. */
const LONG = /^(sieve|chase64m)/;
const OPTIONS = { memory: 96 << 20, hashed: true } as const;

describe("the bench images", { ignore: !granted("read") }, () => {
  it("match their sources", async () => {
    assert(await isUpToDate(), "run: deno run -A bench/build.ts");
  });

  for (const { name, word } of PROGRAMS.filter((program) => !LONG.test(program.name))) {
    it(`${name} ends the same on both engines`, async () => {
      const result = async (engine: "interpreter" | "reference", seed: number) => {
        const { check, hash, instructions } = await runOnEngine(engine, name, 1, { ...OPTIONS, seed });
        return { check, hash, instructions };
      };
      for (const seed of word === undefined ? [1, 77] : [1]) {
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

describe("kept figures", () => {
  const row = (name: string, perSecond: Record<string, number>) => ({ name, unit: "MIPS", perSecond });
  const report = (...rows: RowFigures[]): Report => ({
    about: "a host",
    runners: [],
    runs: 1,
    clock: "wall",
    rows,
    disagreements: [],
  });

  it("are compared relative to a peer where one ran both times, so that a slower host marks nothing", () => {
    const kept = report(row("alu", { auto: 100, qemu: 50 }));
    assertEquals(toKept(row("alu", { auto: 50, qemu: 25 }), "auto", ["qemu"], kept), 1);
    assertEquals(toKept(row("alu", { auto: 80, qemu: 50 }), "auto", ["qemu"], kept), 0.8);
    assertEquals(toKept(row("alu", { auto: 80 }), "auto", ["qemu"], kept), 0.8);
    assertEquals(toKept(row("sha", { auto: 80 }), "auto", ["qemu"], kept), undefined);
  });
  it("stay for rows and runners that were left out, in the order of the table", () => {
    const kept = report(row("b", { auto: 1, qemu: 2 }), row("c", { auto: 3 }));
    const next = merged(report(row("c", { auto: 4 }), row("b", { auto: 5 })), kept, ["a", "b", "c"]);
    assertEquals(next.rows.map(({ name, perSecond }) => [name, perSecond]), [
      ["b", { auto: 5, qemu: 2 }],
      ["c", { auto: 4 }],
    ]);
  });
  it("say which targets are met: of a peer, of another row, of the engine itself", () => {
    const rows = [
      row("alu", { auto: 30, qemu: 10 }),
      row("alu-vmx", { auto: 20 }),
      row("vmexit", { auto: 9 }),
    ];
    const targets = new Map<string, Target>([
      ["alu", { runner: "qemu", ratio: 3 }],
      ["alu-vmx", { runner: "self", row: "alu", ratio: 0.8 }],
      ["vmexit", { runner: "qemu", row: "alu", ratio: 1 }],
      ["sha", { runner: "qemu", ratio: 1 }],
    ]);
    assertEquals(verdicts(rows, targets, "auto").map(({ row, to, isMet }) => [row, to, isMet]), [
      ["alu", "qemu", true],
      ["alu-vmx", "itself alu", false],
      ["vmexit", "qemu alu", false],
    ]);
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
