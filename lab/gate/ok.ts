/**
 * The gate: everything that a reviewer would otherwise have to say.
 *
 * Room: `lab/gate/`; imports the checks of this folder.
 *
 *     deno task ok              all steps
 *     deno task ok fmt lint     only these
 *
 * @module
 */
import { checkLayering } from "./layering.ts";
import { TEST_PERMISSIONS } from "./permissions.ts";
import { ROOT } from "./source_files.ts";
import { checkTidy } from "./tidy.ts";

/** One step: gives what is wrong, nothing if all is well. Tools print by themselves and give one line. */
type Step = () => Promise<readonly string[]>;

const steps: Readonly<Record<string, Step>> = {
  fmt: () => deno("fmt", "--check", "--quiet"),
  lint: () => deno("lint", "--quiet"),
  check: () => deno("check", "--quiet", "."),
  doc: () => deno("doc", "--lint", "--quiet", "mod.ts"),
  layering: checkLayering,
  tidy: checkTidy,
  examples: async () => [
    ...await deno("test", "--doc", "--quiet", "--allow-read", "README.md"),
    // Deno adds an import of its own to examples of a module, which our compiler options refuse as unused.
    ...await deno("test", "--doc", "--quiet", "--no-check", "mod.ts"),
  ],
  test: () => deno("test", "--quiet", "--parallel", ...TEST_PERMISSIONS),
};

async function deno(...args: string[]): Promise<string[]> {
  const { code } = await new Deno.Command(Deno.execPath(), {
    args,
    cwd: ROOT,
    stdout: "inherit",
    stderr: "inherit",
  }).spawn().status;
  return code === 0 ? [] : [`deno ${args.join(" ")} ended with status ${code}`];
}

async function main(wanted: readonly string[]): Promise<number> {
  const unknown = wanted.find((name) => !Object.hasOwn(steps, name));
  if (unknown !== undefined) {
    console.error(`No step is named "${unknown}"; there are ${Object.keys(steps).join(", ")}`);
    return 2;
  }
  const failed: string[] = [];
  for (const [name, step] of Object.entries(steps)) {
    if (wanted.length > 0 && !wanted.includes(name)) continue;
    const start = performance.now();
    const wrong = await step();
    for (const line of wrong) console.error(line);
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    console.log(`${wrong.length === 0 ? "ok    " : "FAILED"}  ${name} (${seconds} s)`);
    if (wrong.length > 0) failed.push(name);
  }
  console.log(failed.length === 0 ? "The gate is open" : `The gate is closed: ${failed.join(", ")}`);
  return failed.length === 0 ? 0 : 1;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
