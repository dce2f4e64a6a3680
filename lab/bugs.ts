/**
 * `deno task bugs`: brings each historical bug back and hunts it; then hunts with the bug off, where nothing may be found.
 *
 * Room: `lab/`; imports lab/bugs/.
 *
 * @module
 */
import { HUNTS, runHunt } from "./bugs/hunts.ts";
import { describeOptions, flag, integer, parseArguments, text } from "./cli/args.ts";
import { runMain } from "./cli/frontend.ts";

const specs = {
  bug: text("NAME", "only this one (deno task boot --bug list shows all)"),
  seed: integer("S", "first seed (default 1)", 0, 2 ** 32 - 1),
  seeds: integer("N", "seeds to try at most; default: as many as the hunt promises", 1, 1e9),
  clean: integer("N", "seeds with the bug off (default 10 times as many as were needed)", 0, 1e9),
  help: flag("show this help"),
} as const;

async function main(args: readonly string[]): Promise<number> {
  const { options } = parseArguments(specs, args);
  if (options.help) {
    console.log(`usage: deno task bugs [options]\n\n${describeOptions(specs)}`);
    return 0;
  }
  const first = options.seed ?? 1;
  const hunts = HUNTS.filter(({ bug }) => options.bug === undefined || options.bug === bug);
  if (hunts.length === 0) {
    console.log(
      `there is no hunt for "${options.bug}"; there are: ${HUNTS.map(({ bug }) => bug).join(", ")}`,
    );
    return 2;
  }
  let missed = 0;
  for (const hunt of hunts) {
    const limit = options.seeds ?? hunt.seeds;
    let seeds = 0, found: string | undefined;
    while (seeds < limit && found === undefined) found = runHunt(hunt, first + seeds++, true);
    console.log(
      `${hunt.bug}: ${found === undefined ? `not found in ${seeds} seeds` : `seed ${seeds}: ${found}`}`,
    );
    if (found === undefined) missed++;
    const clean = options.clean ?? 10 * seeds;
    for (let seed = first; seed < first + clean; seed++) {
      const wrong = runHunt(hunt, seed, false);
      if (wrong === undefined) continue;
      console.log(`${hunt.bug}: with the bug off, seed ${seed}: ${wrong}`);
      missed++;
      break;
    }
    await Promise.resolve();
  }
  return missed === 0 ? 0 : 1;
}

if (import.meta.main) await runMain("(deno task bugs --help shows all options)", () => main(Deno.args));
