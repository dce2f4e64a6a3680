/**
 * Line coverage of the machine and the kernel by the unit tests.
 *
 * Room: `lab/gate/`; imports nothing of the machine.
 *
 *     deno task coverage
 *
 * @module
 */
import { TEST_PERMISSIONS } from "./permissions.ts";
import { roomOf, ROOT } from "./source_files.ts";

/** Lines of one file. */
interface FileCoverage {
  readonly path: string;
  readonly found: number;
  readonly hit: number;
}

/** Reads the line counts out of an LCOV report. */
export function parseLcov(report: string, root: string): FileCoverage[] {
  return report.split("end_of_record").flatMap((record) => {
    const path = /^SF:(.*)$/m.exec(record)?.[1];
    if (path === undefined || !path.startsWith(root)) return [];
    const number = (name: string) => Number(new RegExp(`^${name}:(\\d+)$`, "m").exec(record)?.[1] ?? 0);
    return [{ path: path.slice(root.length), found: number("LF"), hit: number("LH") }];
  });
}

function percent(files: readonly FileCoverage[]): string {
  const found = files.reduce((sum, file) => sum + file.found, 0);
  const hit = files.reduce((sum, file) => sum + file.hit, 0);
  return found === 0 ? "-" : `${((100 * hit) / found).toFixed(1)} % of ${found} lines`;
}

async function main(): Promise<number> {
  const folder = await Deno.makeTempDir();
  try {
    const run = async (args: string[], stdout: "inherit" | "piped") => {
      const child = new Deno.Command(Deno.execPath(), { args, cwd: ROOT, stdout, stderr: "inherit" });
      return await child.output();
    };
    const tests = await run(["test", "--quiet", `--coverage=${folder}`, ...TEST_PERMISSIONS], "inherit");
    const report = await run(["coverage", "--quiet", "--lcov", folder], "piped");
    const files = parseLcov(new TextDecoder().decode(report.stdout), ROOT.pathname);
    const worst = files.filter(({ path }) => ["hw", "kernel"].includes(roomOf(path)))
      .sort((a, b) => a.hit / a.found - b.hit / b.found);
    for (const file of worst) console.log(`${percent([file]).padEnd(26)}${file.path}`);
    for (const room of ["hw", "kernel"]) {
      console.log(`${room}/: ${percent(files.filter(({ path }) => roomOf(path) === room))}`);
    }
    return tests.code;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

if (import.meta.main) Deno.exit(await main());
