import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import {
  choice,
  describeOptions,
  flag,
  integer,
  nearest,
  parseArguments,
  parseInteger,
  parseMemory,
  shellQuote,
  text,
  texts,
  UsageError,
} from "../../lab/cli/args.ts";
import { TICKS_PER_SECOND } from "../../hw/clock.ts";
import { machineSpecs } from "../../lab/cli/machine_options.ts";

const specs = {
  engine: choice(["interpreter", "reference"], "engine"),
  cpus: integer("N", "processors", 1, 16),
  module: texts("FILE", "module"),
  append: text("LINE", "command line"),
  quiet: flag("less"),
} as const;

const parse = (...args: string[]) => parseArguments(specs, args);
const refusal = (...args: string[]) => assertThrows(() => parse(...args), UsageError).message;

describe("parseArguments()", () => {
  it("takes values behind a space or an equals sign, flags, and what is no option", () => {
    const { options, positional, rest } = parse(
      "image",
      "--cpus",
      "4",
      "--engine=reference",
      "--quiet",
      "--append",
      "--not-an-option",
      "--module=a=b",
      "--module",
      "c",
      "--",
      "--cpus",
    );
    assertEquals(options, {
      cpus: 4,
      engine: "reference",
      quiet: true,
      append: "--not-an-option",
      module: ["a=b", "c"],
    });
    assertEquals(positional, ["image"]);
    assertEquals(rest, ["--cpus"]);
  });

  it("names the nearest option for one that is unknown", () => {
    assertEquals(refusal("--engin", "x"), 'Unknown option "--engin": did you mean "--engine"?');
    assertEquals(refusal("--moduel=x"), 'Unknown option "--moduel": did you mean "--module"?');
    assertEquals(refusal("--Cpus=1"), 'Unknown option "--Cpus": did you mean "--cpus"?');
    assertEquals(refusal("-cpus"), 'Unknown option "-cpus": did you mean "--cpus"?');
    assertEquals(refusal("--zzzzzzzz"), 'Unknown option "--zzzzzzzz"');
    assertEquals(refusal("--toString"), 'Unknown option "--toString"');
  });

  it("names the nearest word for a value that is none of the choices", () => {
    assertEquals(
      refusal("--engine", "referense"),
      'Option "--engine": "referense" is none of interpreter, reference: did you mean "reference"?',
    );
  });

  it("refuses values that are missing, too many, out of range or given twice", () => {
    assertEquals(refusal("--cpus"), 'Option "--cpus" needs a value: N');
    assertEquals(refusal("--quiet=yes"), 'Option "--quiet" takes no value');
    assertEquals(refusal("--cpus", "17"), 'Option "--cpus": 17 is not between 1 and 16');
    assertEquals(refusal("--cpus", "two"), 'Option "--cpus": "two" is not a whole number');
    assertEquals(refusal("--cpus", "1", "--cpus", "2"), 'Option "--cpus" is given twice');
  });
});

describe("values", () => {
  it("whole numbers", () => {
    const rows: [string, number | undefined][] = [
      ["0", 0],
      ["0x10", 16],
      ["1_000", 1000],
      ["200M", 200_000_000],
      ["1.5k", 1500],
      ["2G", 2_000_000_000],
      ["1.5", undefined],
      ["-1", undefined],
      ["", undefined],
      ["1e9", undefined],
      ["99999999999999999999", undefined],
    ];
    for (const [given, wanted] of rows) assertEquals(parseInteger(given), wanted, given);
  });

  it("sizes of memory", () => {
    assertEquals([parseMemory("32"), parseMemory("32M"), parseMemory("64KiB"), parseMemory("3g")], [
      32 << 20,
      32 << 20,
      65536,
      3 * 2 ** 30,
    ]);
    assertThrows(() => parseMemory("32X"), UsageError, "not a size");
  });

  it("of the machine: model, trace, until, stuck bits", () => {
    const one = (...args: string[]) => parseArguments(machineSpecs, args).options;
    assertEquals(one("--until", "2.5ms").until, { kind: "tick", tick: 0.0025 * TICKS_PER_SECOND });
    assertEquals(one("--until", "login:").until, { kind: "text", text: "login:" });
    assertEquals(one("--trace", "walk,fault").trace, ["walk", "fault"]);
    assertEquals(one("--stuck-bit", "0x1000:3:1")["stuck-bit"], [{ address: 0x1000, bit: 3, value: 1 }]);
    const why = (...args: string[]) => assertThrows(() => one(...args), UsageError).message;
    assertStringIncludes(why("--trace", "walks"), 'did you mean "walk"?');
    assertStringIncludes(why("--cpu-model", "haswel"), 'did you mean "haswell"?');
    assertStringIncludes(why("--stuck-bit", "1:9:1"), "bits 0 to 7");
    assertStringIncludes(why("--stuck-bit", "1:1:2"), "0 or 1");
    assertStringIncludes(why("--stuck-bit", "1:1"), "ADDR:BIT:VALUE");
  });
});

Deno.test("nearest() counts a swap of neighbours as one slip, and gives up on strangers", () => {
  assertEquals(nearest("memroy", ["memory", "module"]), "memory");
  assertEquals(nearest("banana", ["memory", "module"]), undefined);
});

Deno.test("shellQuote() gives words that a shell reads back", () => {
  assertEquals(shellQuote(["a", "b c", "it's", "x=1", ""]), `a 'b c' 'it'\\''s' x=1 ''`);
});

Deno.test("describeOptions() has a line for every option", () => {
  const help = describeOptions(machineSpecs);
  for (const name of Object.keys(machineSpecs)) assertStringIncludes(help, `--${name}`);
});
