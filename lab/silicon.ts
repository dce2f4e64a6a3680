/**
 * `deno task silicon`: compares every engine with this host's own processor on random instruction sequences.
 *
 * Room: `lab/`; the top of `lab/silicon/`. Several processes share the work: what a sequence is depends on the seed and its
 * number alone, not on how many there are.
 *
 * @module
 */
import { ENGINES } from "../hw/machine.ts";
import { choice, describeOptions, flag, integer, parseArguments, text, UsageError } from "./cli/args.ts";
import { disassemble } from "./disassembler.ts";
import { type Difference, Fuzzer } from "./silicon/fuzz.ts";
import { hostIsSupported } from "./silicon/native.ts";

const specs = {
  count: integer("N", "sequences to compare (default 1M)", 1, 1e9),
  seed: integer("N", "which sequences (default 1)", 0, 2 ** 32 - 1),
  first: integer("N", "number of the first one (default 0)", 0, 1e9),
  engine: choice([...ENGINES, "all"], "what to compare with the host (default all)"),
  only: text("MNEMONIC,…", "make sequences of these instructions alone"),
  most: integer("N", "differences to show before giving up (default 1)", 1, 1000),
  jobs: integer("N", "processes (default: one for each processor)", 1, 64),
  help: flag("show this"),
} as const;

const USAGE = `usage: deno task silicon [options]

Runs random instruction sequences on this host's own processor and on the engines, and compares registers, flags, memory,
x87 and SSE state and faults. Needs x86-64 Linux; elsewhere it says so and has nothing to do.

${describeOptions(specs)}`;

/** Sequences compared unless the command line says otherwise. */
const DEFAULT_COUNT = 1_000_000;

interface Plan {
  readonly count: number;
  readonly seed: number;
  readonly first: number;
  readonly engine: (typeof ENGINES)[number] | "all";
  readonly only: readonly string[];
  readonly most: number;
}

/** Prints a difference as one can go on from it. */
function show({ seed, number, engine, code, address, lines }: Difference): void {
  console.log(
    `\nseed ${seed}, sequence ${number}, ${engine}: the ${engine} engine and this processor differ`,
  );
  for (const line of disassemble(code, BigInt(address), Infinity)) console.log(`  ${line}`);
  for (const line of lines) console.log(`  ${line}`);
  console.log(`  again: deno task silicon --seed ${seed} --first ${number} --count 1 --engine ${engine}`);
}

/** @throws {UsageError} when no instruction has a name asked for. */
function makeFuzzer(plan: Plan): Fuzzer {
  const { seed, first, count, only } = plan;
  try {
    return new Fuzzer({ seed, first, count, engines: plan.engine === "all" ? ENGINES : [plan.engine], only });
  } catch (error) {
    if (error instanceof RangeError) throw new UsageError(error.message);
    throw error;
  }
}

/** Compares in this process; the number of differences. */
function compare(plan: Plan): number {
  const fuzzer = makeFuzzer(plan);
  try {
    const found = fuzzer.run(plan.most);
    for (const difference of found) show(difference);
    return found.length;
  } finally {
    fuzzer.close();
  }
}

/** Shares the work out; true if no process found anything. */
async function share(plan: Plan, jobs: number): Promise<boolean> {
  const each = Math.ceil(plan.count / jobs);
  const runs = Array.from({ length: jobs }, (_, i) => {
    const count = Math.min(each, plan.count - i * each);
    const args = ["run", "-A", "--quiet", import.meta.filename!, "--jobs", "1", "--count", String(count)];
    args.push("--first", String(plan.first + i * each), "--seed", String(plan.seed), "--engine", plan.engine);
    args.push("--most", String(plan.most));
    if (plan.only.length > 0) args.push("--only", plan.only.join(","));
    return new Deno.Command(Deno.execPath(), { args, stdout: "inherit", stderr: "inherit" }).spawn().status;
  });
  return (await Promise.all(runs)).every((status) => status.success);
}

async function main(args: readonly string[]): Promise<number> {
  const { options, positional, rest } = parseArguments(specs, args);
  if (options.help) {
    console.log(USAGE);
    return 0;
  }
  if (positional.length + rest.length > 0) {
    throw new UsageError(`What is "${[...positional, ...rest][0]}"? There are only options`);
  }
  if (!hostIsSupported()) {
    console.log("This host is not an x86-64 Linux: there is nothing to compare with");
    return 0;
  }
  const plan: Plan = {
    count: options.count ?? DEFAULT_COUNT,
    seed: options.seed ?? 1,
    first: options.first ?? 0,
    engine: options.engine ?? "all",
    only: options.only?.toUpperCase().split(",").filter((name) => name !== "") ?? [],
    most: options.most ?? 1,
  };
  const jobs = Math.min(options.jobs ?? navigator.hardwareConcurrency, Math.ceil(plan.count / 1000));
  if (jobs === 1) {
    const found = compare(plan);
    if (options.jobs === undefined) report(plan, found === 0);
    return found === 0 ? 0 : 1;
  }
  const isEqual = await share(plan, jobs);
  report(plan, isEqual);
  return isEqual ? 0 : 1;
}

function report(plan: Plan, isEqual: boolean): void {
  const engines = plan.engine === "all" ? ENGINES.join(", ") : plan.engine;
  if (isEqual) console.log(`${plan.count} sequences (seed ${plan.seed}), ${engines}: no differences`);
}

if (import.meta.main) {
  try {
    Deno.exitCode = await main(Deno.args);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    console.error(`${error.message}\n(deno task silicon --help shows all options)`);
    Deno.exitCode = 2;
  }
}
