/**
 * `deno task boot`: starts the machine, the TypeScript kernel on it, and programs from user/ on that.
 *
 * Room: `lab/cli/`; the top of it.
 *
 * @module
 */
import { Machine } from "../../hw/machine.ts";
import { bootKernel } from "../../kernel/boot.ts";
import type { Disassembler, Kernel, Program } from "../../kernel/kernel.ts";
import { describeOptions, didYouMean, flag, parseArguments, texts, UsageError } from "./args.ts";
import { answeredAtOnce, orUsageError, runFrontEnd, runMain } from "./frontend.ts";
import { machineOptions, machineSpecs } from "./machine_options.ts";
import { readNamedFile } from "./read_file.ts";

const specs = {
  exec: texts(
    "PROGRAM",
    "a program of user/ or an ELF64 file, with its arguments; may be given several times (default hello)",
  ),
  env: texts("NAME=VALUE", "an environment string for the programs"),
  quiet: flag("no kernel messages"),
  ...machineSpecs,
} as const;

const USER_BIN = new URL("../../user/bin/", import.meta.url);

const USAGE = `usage: deno task boot [options] [-- ARGUMENTS]

Boots the TypeScript kernel and runs programs in ring 3. Arguments behind "--" go to the last program.
The exit status is that of the last program, 139 if it ended by a fault.

${describeOptions(specs)}`;

async function programNames(): Promise<string[]> {
  const names: string[] = [];
  for await (const entry of Deno.readDir(USER_BIN)) if (!entry.name.includes(".")) names.push(entry.name);
  return names.sort();
}

/** Finds a program: by its name in user/, or as a file where there is a slash in it. */
async function findProgram(line: string, envp: readonly string[]): Promise<Program> {
  const argv = line.split(/\s+/).filter((word) => word !== "");
  const name = argv[0];
  if (name === undefined) throw new UsageError("An empty program cannot be run");
  const names = await programNames();
  if (!name.includes("/") && !names.includes(name)) {
    throw new UsageError(
      `No program "${name}" in user/${didYouMean(name, names, "")} (there are ${names.join(", ")})`,
    );
  }
  const path = name.includes("/") ? name : new URL(name, USER_BIN);
  return { name, argv, envp, file: await readNamedFile("program", path) };
}

async function main(args: readonly string[]): Promise<number> {
  const { options, positional, rest } = parseArguments(specs, args);
  if (answeredAtOnce(options, USAGE)) return 0;
  if (positional[0] !== undefined) {
    throw new UsageError(`What is "${positional[0]}"? Programs are given as --exec ${positional[0]}`);
  }
  const envp = options.env ?? [];
  const bad = envp.find((text) => !/^[^=]+=/.test(text));
  if (bad !== undefined) throw new UsageError(`Option "--env": "${bad}" is not NAME=VALUE`);
  const programs = await Promise.all((options.exec ?? ["hello"]).map((line) => findProgram(line, envp)));
  const last = programs.pop()!;
  programs.push({ ...last, argv: [...last.argv ?? [last.name], ...rest] });

  let machine: Machine | undefined;
  let kernel: Kernel | undefined;
  let disassembler: Disassembler | undefined;
  /** Not there yet: the machine stops before its next instruction, and goes on when it is. */
  const findDisassembler = () => {
    if (disassembler === undefined) machine?.interrupt();
    return disassembler;
  };
  return await runFrontEnd({
    task: "boot",
    args,
    values: options,
    load: (tap) => {
      const output = (bytes: Uint8Array) => tap.take(bytes);
      return Promise.resolve(orUsageError(() => {
        machine = new Machine({ ...machineOptions(options), gates: true, serial: { output } });
        kernel = bootKernel(machine, { programs, verbose: !options.quiet, disassembler: findDisassembler });
        return machine;
      }));
    },
    onInterrupted: async () => {
      try {
        disassembler ??= (await import("../disassembler.ts")).disassemble;
      } catch {
        // iced-x86 is neither cached nor to be had: the report shows bytes.
      }
    },
    status: (end) =>
      (end.reason === "idle" || end.reason === "poweroff") && kernel?.halted ? kernel.exitStatus : undefined,
  });
}

if (import.meta.main) {
  await runMain(`(deno task boot --help shows all options)`, () => main(Deno.args));
}
