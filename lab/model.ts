/**
 * `deno task model`: random operations of many processes against a tiny model of virtual memory.
 *
 * Room: `lab/`; imports lab/model/.
 *
 * @module
 */
import { HISTORICAL_BUGS } from "../kernel/bugs.ts";
import {
  choice,
  describeOptions,
  flag,
  integer,
  type OptionSpec,
  parseArguments,
  shellQuote,
  text,
  UsageError,
} from "./cli/args.ts";
import { runMain } from "./cli/frontend.ts";
import { parseMemory } from "./cli/args.ts";
import { guestKind } from "./guest/kinds.ts";
import { type ModelOptions, runModel, shrink } from "./model/run.ts";

const bug: OptionSpec<string> & { many: true } = {
  ...text("NAME", "bring a historical bug back (deno task boot --bug list)"),
  many: true,
  parse: (name) => {
    if (!HISTORICAL_BUGS.some((row) => row.name === name)) throw new UsageError(`no bug "${name}"`);
    return name;
  },
};

const specs = {
  count: integer("N", "operations in all (default 20000)", 1, 1e9),
  seed: integer("S", "seed of the first run (default 1)", 0, 2 ** 32 - 1),
  run: integer("N", "operations of one boot; then the next seed (default 2000)", 1, 1e9),
  cpus: integer("N", "processors; default: 1 to 4, by the seed", 1, 4),
  tlb: choice(["fast", "geometry", "sticky"], "default: sticky"),
  "no-sanitizer": flag("do not compare uses of translations with the tables"),
  memory: { value: "SIZE", help: "RAM (default 8M; of a vkernel 6M)", parse: parseMemory },
  "check-every": integer("N", "batches between two checks of the invariants (default 20)", 1, 1e9),
  guest: guestKind,
  "no-shrink": flag("do not look for a shorter failing run"),
  bug,
  help: flag("show this help"),
} as const;

/** Counters whose sums are shown: what the runs went through. */
const SHOWN = ["vVmFaults", "vCowFaults", "vZfod", "vSwappgsout", "vSwappgsin", "vIpi"];

async function main(args: readonly string[]): Promise<number> {
  const { options } = parseArguments(specs, args);
  if (options.help) {
    console.log(`usage: deno task model [options]\n\n${describeOptions(specs)}`);
    return 0;
  }
  const count = options.count ?? 20_000, perRun = options.run ?? 2000;
  const sums: Record<string, number> = {};
  let seed = options.seed ?? 1;
  for (let done = 0; done < count; seed++) {
    const run: ModelOptions = {
      seed,
      count: Math.min(perRun, count - done),
      cpus: options.cpus ?? 1 + seed % 4,
      tlb: options.tlb ?? "sticky",
      sanitizer: !options["no-sanitizer"],
      memory: options.memory ?? (options.guest === undefined ? 8 : 6) << 20,
      bugs: options.bug ?? [],
      checkEvery: options["check-every"] ?? 20,
      ...(options.guest === undefined ? {} : { guest: options.guest }),
    };
    const result = runModel(run);
    done += result.done;
    for (const name of SHOWN) sums[name] = (sums[name] ?? 0) + (result.counters[name] ?? 0);
    if (result.failure !== undefined) {
      console.log(`seed ${seed}, ${run.cpus} CPUs, after ${result.done} operations: ${result.failure}`);
      if (!options["no-shrink"]) {
        const shorter = shrink(run, result.script);
        const again = runModel({ ...run, script: shorter });
        console.log(`the same with ${shorter.flat().length} operations: ${again.failure}`);
        for (const batch of shorter) console.log(`  ${JSON.stringify(batch)}`);
      }
      console.log(
        `again: deno task model --seed ${seed} --cpus ${run.cpus} --count ${run.count} --run ${run.count}` +
          (run.guest === undefined ? "" : ` --guest ${run.guest}`) +
          (run.bugs.length > 0 ? ` ${shellQuote(run.bugs.flatMap((name) => ["--bug", name]))}` : ""),
      );
      return 1;
    }
    await Promise.resolve();
  }
  console.log(Object.entries(sums).map(([name, value]) => `${name.slice(1)} ${value}`).join(", "));
  console.log(`model: ${count} operations from seed ${options.seed ?? 1}, no difference`);
  return 0;
}

if (import.meta.main) await runMain("(deno task model --help shows all options)", () => main(Deno.args));
