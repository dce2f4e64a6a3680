/**
 * `deno task boot`: starts the machine, the TypeScript kernel on it, and user/'s programs on that.
 *
 * Room: `lab/cli/`; the top of it.
 *
 * @module
 */
import { Machine } from "../../hw/machine.ts";
import { bootKernel } from "../../kernel/boot.ts";
import { HISTORICAL_BUGS } from "../../kernel/bugs.ts";
import type { Disassembler, Kernel } from "../../kernel/kernel.ts";
import { guestKind, vkernelLine } from "../guest/kinds.ts";
import {
  describeOptions,
  didYouMean,
  flag,
  integer,
  type OptionSpec,
  parseArguments,
  parseMemory,
  shellQuote,
  texts,
  UsageError,
} from "./args.ts";
import { useHugePages } from "../huge_pages.ts";
import { answeredAtOnce, orUsageError, runFrontEnd, runMain } from "./frontend.ts";
import { machineOptions, machineSpecs } from "./machine_options.ts";
import { rootArchives } from "./root_archive.ts";

const bug: OptionSpec<string> & { many: true } = {
  value: "NAME",
  help: 'bring a historical bug of DragonFly back; "list" shows them; may be given several times',
  many: true,
  parse: (name) => {
    const names = HISTORICAL_BUGS.map((row) => row.name);
    if (name !== "list" && !names.includes(name)) {
      throw new UsageError(`no bug "${name}"; there are ${names.join(", ")}${didYouMean(name, names, "")}`);
    }
    return name;
  },
};

const specs = {
  exec: texts("COMMAND", "run a shell command instead of a shell on the console; may be given several times"),
  env: texts("NAME=VALUE", "an environment string for the first program"),
  root: texts("DIR|ARCHIVE", "lay the files of a directory or a cpio archive over the root file system"),
  guest: guestKind,
  "guest-memory": { value: "SIZE", help: "RAM of the vkernel (default 64M)", parse: parseMemory },
  "guest-cpus": integer("N", "processors of the vkernel, 1 to 8 (default 1)", 1, 8),
  quiet: flag("no kernel messages on the console"),
  "no-fault-reports": flag("do not show a report of each fault that ends a program"),
  bug,
  ...machineSpecs,
} as const;

const USAGE = `usage: deno task boot [options] [-- ARGUMENTS]

Boots the TypeScript kernel: a shell on the console, or the commands given with --exec. Arguments behind "--" go to the
last command. The exit status is that of the shell or of the last command; 1 after a panic. With --guest all of this happens
in a vkernel: a second kernel, a process of the first.

${describeOptions(specs)}`;

/** Bytes of a vkernel's RAM. */
const GUEST_MEMORY = 64 << 20;
/** End of file on a terminal. */
const CTRL_D = 4;

/** The table of historical bugs. */
function describeBugs(): string {
  return HISTORICAL_BUGS.map(({ name, commit, date, sentence }) =>
    `${name.padEnd(28)} ${commit === "" ? "-".padEnd(10) : commit} ${date.padEnd(8)}  ${sentence}`
  ).join("\n");
}

/** Whether a thread sleeps in a terminal's read. */
function readsTerminal(td: { readonly tdWchan: object | undefined; readonly tdWmesg: string }): boolean {
  return td.tdWchan !== undefined && td.tdWmesg === "ttyin";
}

async function main(args: readonly string[]): Promise<number> {
  const { options, positional, rest } = parseArguments(specs, args);
  if (answeredAtOnce(options, USAGE)) return 0;
  if (options.bug?.includes("list")) {
    console.log(describeBugs());
    return 0;
  }
  if (positional[0] !== undefined) {
    throw new UsageError(
      `What is "${positional[0]}"? Commands are given as --exec ${shellQuote([positional[0]])}`,
    );
  }
  const envp = options.env ?? [];
  const bad = envp.find((text) => !/^[^=]+=/.test(text));
  if (bad !== undefined) throw new UsageError(`Option "--env": "${bad}" is not NAME=VALUE`);
  const exec = [...options.exec ?? []];
  if (rest.length > 0) {
    if (exec.length === 0) throw new UsageError('Arguments behind "--" need a command: --exec COMMAND');
    exec.push(`${exec.pop()} ${shellQuote(rest)}`);
  }
  const given = options.guest ?? options["guest-memory"] ?? options["guest-cpus"];
  if (given !== undefined && options.guest === undefined) {
    throw new UsageError("--guest-memory and --guest-cpus need --guest KIND");
  }
  const commands = options.guest === undefined ? exec : [vkernelLine({
    kind: options.guest,
    memory: options["guest-memory"] ?? GUEST_MEMORY,
    cpus: options["guest-cpus"] ?? 1,
    verbose: !options.quiet,
    ...(exec.length === 0 ? {} : { command: exec.join("\n") }),
  })];
  const archives = await rootArchives(options.root ?? []);

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
    endOfInput: [CTRL_D],
    readsInput: () => kernel !== undefined && [...kernel.lwkt.allThreads].some(readsTerminal),
    load: (tap) => {
      const output = (bytes: Uint8Array) => tap.take(bytes);
      return Promise.resolve(orUsageError(() => {
        machine = new Machine({ ...machineOptions(options), gates: true, serial: { output } });
        useHugePages(machine.memory);
        kernel = bootKernel(machine, {
          archives,
          exec: commands,
          envp,
          verbose: !options.quiet,
          faultReports: !options["no-fault-reports"],
          bugs: options.bug ?? [],
          disassembler: findDisassembler,
          reproduce: `deno task boot ${shellQuote(args)} --seed ${machine.seed}`,
        });
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
