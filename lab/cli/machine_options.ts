/**
 * The options that `boot` and `run` share: what machine to build, what to trace, when to stop.
 *
 * Room: `lab/cli/`; imports the machine's builder.
 *
 * @module
 */
import type { StuckBit } from "../../hw/dev/stuck_bits.ts";
import { cpuModels, defaultModel } from "../../hw/cpuid.ts";
import { ENGINES, type MachineOptions } from "../../hw/machine.ts";
import { vmxCapability } from "../../hw/vmx/capability.ts";
import { TRACE, type TraceKind } from "../../hw/trace.ts";
import { TICKS_PER_SECOND } from "../../hw/clock.ts";
import {
  choice,
  didYouMean,
  flag,
  integer,
  type OptionSpec,
  type OptionValues,
  parseInteger,
  parseMemory,
  text,
  UsageError,
} from "./args.ts";
import { FileDisk } from "./file_disk.ts";

/** When to stop, beside the guest's own end. */
export type Until = { readonly kind: "tick"; readonly tick: number } | {
  readonly kind: "text";
  readonly text: string;
};

const memory: OptionSpec<number> = {
  value: "SIZE",
  help: "RAM, such as 32M or 3G (a bare number counts MiB; default 256M, at most 3G)",
  parse: parseMemory,
};

const cpuModel: OptionSpec<string> = {
  value: "NAME",
  help: `processor model (default ${defaultModel.name}); "list" shows them`,
  parse: (name) => {
    const names = Object.keys(cpuModels);
    if (name !== "list" && !names.includes(name)) {
      throw new UsageError(`no model "${name}"; there are ${names.join(", ")}${didYouMean(name, names, "")}`);
    }
    return name;
  },
};

const traceKinds = Object.keys(TRACE) as TraceKind[];
const trace: OptionSpec<readonly TraceKind[]> = {
  value: "KINDS",
  help: `events to write, separated by commas, or all: ${traceKinds.join(" ")}`,
  parse: (list) => {
    if (list === "all") return traceKinds;
    return list.split(",").map((word) => {
      const found = traceKinds.find((kind) => kind === word);
      if (found === undefined) {
        throw new UsageError(
          `no kind "${word}"; there are ${traceKinds.join(", ")}${didYouMean(word, traceKinds, "")}`,
        );
      }
      return found;
    });
  },
};

const until: OptionSpec<Until> = {
  value: "TIME|TEXT",
  help: "stop at a time of the machine (500us, 2.5s) or when the serial output has this text",
  parse: (given) => {
    const match = /^([0-9]+(?:\.[0-9]+)?)(ns|us|ms|s)$/.exec(given);
    if (match === null) {
      if (given === "") throw new UsageError("an empty text would stop at once");
      if (/^[0-9.]+$/.test(given)) throw new UsageError(`"${given}" has no unit: did you mean "${given}s"?`);
      return { kind: "text", text: given };
    }
    const unit = { ns: 1e-9, us: 1e-6, ms: 1e-3, s: 1 }[match[2]!]!;
    return { kind: "tick", tick: Math.round(Number(match[1]) * unit * TICKS_PER_SECOND) };
  },
};

const stuckBit: OptionSpec<StuckBit> & { many: true } = {
  value: "ADDR:BIT:VALUE",
  help: "a bit of RAM that always reads as VALUE (0 or 1); may be given several times",
  many: true,
  parse: (given) => {
    const parts = given.split(":");
    const [address, bit, value] = parts.map(parseInteger);
    if (parts.length !== 3 || address === undefined || bit === undefined || value === undefined) {
      throw new UsageError(`"${given}" is not ADDR:BIT:VALUE, such as 0x123456:3:1`);
    }
    if (bit > 7) throw new UsageError(`a byte has bits 0 to 7, not ${bit}`);
    if (value !== 0 && value !== 1) throw new UsageError(`a bit is 0 or 1, not ${value}`);
    return { address, bit, value };
  },
};

/** The shared options. */
export const machineSpecs = {
  cpus: integer("N", "number of processors, 1 to 16 (default 1)", 1, 16),
  memory,
  "cpu-model": cpuModel,
  tlb: choice(
    ["fast", "geometry", "sticky"],
    "TLB: large and quick, sized as the model's, or keeping all it may",
  ),
  engine: choice(ENGINES, "how instructions are carried out"),
  seed: integer("N", "seed of all chance (default 1)", 0, 2 ** 32 - 1),
  disk: text("FILE", "image of a virtio block device; writes go to the file"),
  sanitizer: flag("report every use of a translation that the page tables no longer grant"),
  "stuck-bit": stuckBit,
  trace,
  "trace-out": text("FILE", "write trace events to FILE, one JSON object a line (default: standard error)"),
  explain: flag(
    "with --trace: say why, for page faults, EPT violations, and what VMX refuses (fault, ept, vmx)",
  ),
  stats: choice(["table", "json", "none"], "counters at the end (default none)"),
  until,
  steps: integer("N", "stop after N instructions (such as 200M)", 0, Number.MAX_SAFE_INTEGER),
  help: flag("show this help"),
} as const;

/** Values of the shared options. */
export type MachineValues = OptionValues<typeof machineSpecs>;

/**
 * What the options mean for the machine's builder.
 *
 * @throws {UsageError} when the disk cannot be opened.
 */
export function machineOptions(values: MachineValues): MachineOptions {
  const { cpus, memory, tlb, engine, seed, sanitizer, disk } = values;
  const model = values["cpu-model"], stuckBits = values["stuck-bit"];
  return {
    ...(cpus === undefined ? {} : { cpus }),
    ...(memory === undefined ? {} : { memory }),
    ...(model === undefined ? {} : { cpuModel: model }),
    ...(tlb === undefined ? {} : { tlb }),
    ...(engine === undefined ? {} : { engine }),
    ...(seed === undefined ? {} : { seed }),
    ...(sanitizer === undefined ? {} : { sanitizer }),
    ...(stuckBits === undefined ? {} : { stuckBits }),
    ...(disk === undefined ? {} : { disk: FileDisk.open(disk) }),
  };
}

/** Lines of at most so many characters, all but the first indented. */
function wrapped(words: readonly string[], indent: number, width = 110): string {
  const lines: string[] = [""];
  for (const word of words) {
    const last = lines.length - 1;
    if (lines[last]!.length + word.length + 1 > width - indent) lines.push(word);
    else lines[last] += (lines[last] === "" ? "" : " ") + word;
  }
  return lines.join("\n" + " ".repeat(indent));
}

/** What the table of models says of VMX, in columns: whether a feature is there. */
const VMX_COLUMNS: readonly (readonly [title: string, feature: string])[] = [
  ["EPT", "vmx-ept"],
  ["A/D", "vmx-ept-ad"],
  ["VPID", "vmx-vpid"],
  ["unrestricted", "vmx-unrestricted-guest"],
  ["VMFUNC", "vmx-vmfunc"],
  ["shadow", "vmx-shadow-vmcs"],
  ["PML", "vmx-pml"],
  ["#VE", "vmx-ept-violation-ve"],
  ["MBEC", "vmx-mode-based-execute"],
  ["APICv", "vmx-vintr-delivery"],
  ["TSC-scaling", "vmx-tsc-scaling"],
  ["5-level", "vmx-page-walk-5"],
];

/** The lines that `--cpu-model list` prints: a table of VMX, then each model with its features and where they are known from. */
export function describeModels(): string {
  const models = Object.entries(cpuModels);
  const table = [
    "model       " + VMX_COLUMNS.map(([title]) => title).join("  "),
    ...models.map(([name, model]) =>
      name.padEnd(12) +
      VMX_COLUMNS.map(([title, feature]) => (model.features.has(feature) ? "yes" : "-").padEnd(title.length))
        .join("  ")
        .trimEnd()
    ),
  ];
  const details = models.map(([name, model]) => {
    const vmx = [...vmxCapability(model).features].map((feature) => feature.slice(4)).sort();
    const others = [...model.features].filter((feature) => !feature.startsWith("vmx-")).sort();
    return [
      `${name}${model === defaultModel ? " (default)" : ""}`,
      `  CPUID     ${wrapped(others, 12)}`,
      `  VMX       ${wrapped(vmx, 12)}`,
      `  revision  ${
        model.vmx.revision.toString(16).toUpperCase()
      }H; preemption timer at TSC bit ${model.vmx.timerRate}`,
      `  source    ${model.vmx.source}`,
    ].join("\n");
  });
  return [table.join("\n"), ...details].join("\n\n");
}
