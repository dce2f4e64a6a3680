import { assertEquals } from "@std/assert";

const granted = (["run", "read"] as const).every((name) =>
  Deno.permissions.querySync({ name }).state === "granted"
);
if (!granted) console.log("tests/repo/readme_test.ts: needs --allow-run and --allow-read; ignored");
const ROOT = new URL("../../", import.meta.url);

/** The console sessions of a page: a command, and the lines that it prints. */
function sessions(markdown: string): { command: string; lines: string[] }[] {
  return [...markdown.matchAll(/```console\n\$ ([^\n]*)\n([\s\S]*?)```/g)].map(([, command, output]) => ({
    command: command!,
    lines: output!.trimEnd().split("\n"),
  }));
}

/** Numbers change with every change of the kernel; what is said about them does not. */
function shape(line: string): string {
  return line.replace(/0x[0-9a-f]+|\b[0-9a-f]{16}\b/g, "<address>").replace(/\d[\d,.]*/g, "<number>");
}

/** Whether printed lines are what the page says, where a line of three dots stands for any lines. */
function assertShown(shown: readonly string[], printed: readonly string[]): void {
  let at = 0;
  shown.forEach((line, i) => {
    if (line === "...") {
      const next = shown[i + 1];
      if (next === undefined) return;
      while (at < printed.length && !begins(printed[at]!, next)) at++;
      return;
    }
    const wanted = shape(line);
    const found = shape(printed[at] ?? "(nothing more)");
    assertEquals(wanted.endsWith("...") ? found.slice(0, wanted.length - 3) + "..." : found, wanted);
    at++;
  });
}

function begins(printed: string, shown: string): boolean {
  return shape(printed).startsWith(shape(shown).replace(/\.\.\.$/, ""));
}

const page = granted ? await Deno.readTextFile(new URL("README.md", ROOT)) : "";

for (const { command, lines } of sessions(page)) {
  Deno.test(`README: ${command}`, async () => {
    const words = [...command.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain!);
    const [deno, ...args] = words;
    assertEquals(deno, "deno");
    const { stdout } = await new Deno.Command(Deno.execPath(), {
      args,
      cwd: ROOT,
      stdin: "null",
      stdout: "piped",
      stderr: "null",
    }).output();
    const printed = new TextDecoder().decode(stdout).replaceAll("\r\n", "\n").trimEnd().split("\n");
    assertShown(lines, printed);
  });
}

Deno.test({
  name: "README: every option that it names exists, and every task",
  ignore: !granted,
  fn: async () => {
    const { machineSpecs } = await import("../../lab/cli/machine_options.ts");
    const known = new Set([
      ...Object.keys(machineSpecs),
      ...[
        "exec",
        "env",
        "quiet",
        "root",
        "bug",
        "guest",
        "guest-memory",
        "guest-cpus",
        "no-fault-reports",
        "append",
        "module",
        "initrd",
      ],
      ...["count", "explain"], // of silicon; of traces
    ]);
    const named = [...page.matchAll(/--([a-z][a-z-]*)/g)].map(([, name]) => name!);
    assertEquals(named.filter((name) => !known.has(name)), []);
    const { tasks } = JSON.parse(await Deno.readTextFile(new URL("deno.json", ROOT)));
    const wanted = [...page.matchAll(/deno task ([a-z]+)/g)].map(([, name]) => name!);
    assertEquals(wanted.filter((name) => !Object.hasOwn(tasks, name)), []);
  },
});
