/**
 * `deno task run IMAGE`: starts a multiboot, Linux or ELF64 image with its serial port on the terminal.
 *
 * Room: `lab/cli/`; the top of it.
 *
 * @module
 */
import { loadImage } from "../../hw/boot/image.ts";
import { Machine } from "../../hw/machine.ts";
import { describeOptions, parseArguments, text, texts, UsageError } from "./args.ts";
import { useHugePages } from "../huge_pages.ts";
import { answeredAtOnce, orUsageError, runFrontEnd, runMain } from "./frontend.ts";
import { machineOptions, machineSpecs } from "./machine_options.ts";
import { readNamedFile } from "./read_file.ts";

const specs = {
  append: text("CMDLINE", "the image's command line"),
  module: texts("FILE", "a multiboot module, its arguments behind a space; may be given several times"),
  initrd: text("FILE", "a Linux initial RAM disk"),
  ...machineSpecs,
} as const;

const USAGE = `usage: deno task run IMAGE [options]

Runs a multiboot image, a Linux bzImage or an ELF64 executable. The serial port is the terminal (Ctrl-A X quits on a
TTY, Ctrl-C otherwise). The exit status is the guest's (debug-exit port F4H), 0 after power-off.

${describeOptions(specs)}`;

async function main(args: readonly string[]): Promise<number> {
  const { options, positional, rest } = parseArguments(specs, args);
  if (answeredAtOnce(options, USAGE)) return 0;
  const [path, ...extra] = positional;
  if (path === undefined) throw new UsageError("No image is given");
  if (extra.length > 0 || rest.length > 0) {
    throw new UsageError(`One image is enough: what is "${[...extra, ...rest][0]}"?`);
  }
  const image = await readNamedFile("image", path);
  const modules = await Promise.all((options.module ?? []).map(async (line) => {
    const file = line.split(" ")[0]!;
    return { bytes: await readNamedFile("module", file), commandLine: line };
  }));
  const initrd = options.initrd === undefined ? undefined : await readNamedFile("initrd", options.initrd);
  return await runFrontEnd({
    task: "run",
    args,
    values: options,
    load: (tap) =>
      Promise.resolve(orUsageError(() => {
        const machine = new Machine({
          ...machineOptions(options),
          serial: { output: (bytes) => tap.take(bytes) },
        });
        useHugePages(machine.memory);
        loadImage(machine, image, {
          ...(options.append === undefined ? {} : { commandLine: options.append }),
          modules,
          ...(initrd === undefined ? {} : { initrd }),
        });
        return machine;
      })),
  });
}

if (import.meta.main) {
  await runMain(`(deno task run --help shows all options)`, () => main(Deno.args));
}
