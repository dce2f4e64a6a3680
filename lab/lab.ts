/**
 * `deno task lab NAME`: experiments, each a table of figures and what explains them.
 *
 * Room: `lab/`; imports the experiments.
 *
 * @module
 */
import { didYouMean, UsageError } from "./cli/args.ts";
import { runMain } from "./cli/frontend.ts";
import { vkernelExperiment } from "./vkernel/experiment.ts";

/** The experiments. */
const EXPERIMENTS: Readonly<
  Record<string, { readonly about: string; readonly run: (args: readonly string[]) => Promise<number> }>
> = {
  vkernel: {
    about:
      "the same operations on the host kernel and in the three kinds of vkernel (docs/vkernel-measurement.md)",
    run: vkernelExperiment,
  },
};

function main(args: readonly string[]): Promise<number> {
  const [name, ...others] = args;
  if (name === undefined || name === "--help" || name === "-h") {
    const lines = Object.entries(EXPERIMENTS).map(([name, { about }]) => `  ${name.padEnd(10)}${about}`);
    console.log(`usage: deno task lab NAME [options]\n\n${lines.join("\n")}`);
    return Promise.resolve(name === undefined ? 2 : 0);
  }
  const experiment = Object.hasOwn(EXPERIMENTS, name) ? EXPERIMENTS[name] : undefined;
  if (experiment === undefined) {
    throw new UsageError(`There is no experiment "${name}"${didYouMean(name, Object.keys(EXPERIMENTS), "")}`);
  }
  return experiment.run(others);
}

if (import.meta.main) await runMain("(deno task lab --help shows all)", () => main(Deno.args));
