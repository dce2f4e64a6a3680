/**
 * What `boot` and `run` have in common once the machine is loaded: first line, trace, run, statistics, last line, exit status.
 *
 * Room: `lab/cli/`; imports the machine.
 *
 * @module
 */
import { BootError } from "../../hw/boot/boot_error.ts";
import type { Machine } from "../../hw/machine.ts";
import type { TraceEvent } from "../../hw/trace.ts";
import { UsageError } from "./args.ts";
import { drive, type DriveEnd, SerialTap } from "./drive.ts";
import { describeModels, type MachineValues } from "./machine_options.ts";
import { explainEvent } from "./explain_event.ts";
import { collectStats, exitCode, renderStats, reproduction, summary } from "./report.ts";
import { Terminal } from "./terminal.ts";

/** A front end's part of a run. */
export interface FrontEnd {
  /** Task name and words of the command line, for the first line. */
  readonly task: string;
  readonly args: readonly string[];
  readonly values: MachineValues;
  /** Builds and loads the machine; serial output goes to the tap. */
  readonly load: (tap: SerialTap) => Promise<Machine>;
  /** Exit status after an end that is not the guest's exit; default by the kind of end. */
  readonly status?: (end: DriveEnd) => number | undefined;
  /** See {@link drive}. */
  readonly endOfInput?: readonly number[];
  /** See {@link drive}. */
  readonly readsInput?: () => boolean;
  /** See {@link drive}. */
  readonly onInterrupted?: () => Promise<void>;
}

/** Runs a front end's main function: usage errors end with status 2, others with 1. */
export async function runMain(help: string, main: () => Promise<number>): Promise<never> {
  try {
    Deno.exit(await main());
  } catch (error) {
    if (error instanceof UsageError) {
      console.error(`${error.message}\n${help}`);
      Deno.exit(2);
    }
    console.error(error instanceof Error ? `exuvia: ${error.stack ?? error.message}` : String(error));
    Deno.exit(1);
  }
}

/** Options that print and end: true if one was there. */
export function answeredAtOnce(values: MachineValues, help: string): boolean {
  if (values.help) {
    console.log(help);
    return true;
  }
  if (values["cpu-model"] === "list") {
    console.log(describeModels());
    return true;
  }
  return false;
}

/** What the machine's builder and its loaders refuse is the command line's mistake. */
export function orUsageError<T>(build: () => T): T {
  try {
    return build();
  } catch (error) {
    if (error instanceof BootError || error instanceof RangeError) throw new UsageError(error.message);
    throw error;
  }
}

/** Loads, runs, reports. Gives the exit status. */
export async function runFrontEnd(front: FrontEnd): Promise<number> {
  const { values } = front;
  const terminal = new Terminal();
  const tap = new SerialTap(
    (bytes) => terminal.write(bytes),
    values.until?.kind === "text" ? values.until.text : undefined,
  );
  const machine = await front.load(tap);
  const endTrace = startTrace(machine, values);
  machine.sanitizer?.on((use) => terminal.note(describeStale(use)));
  console.log(reproduction(front.task, front.args, machine.seed));

  const start = performance.now();
  await terminal.open();
  let end: DriveEnd;
  try {
    end = await drive(machine, terminal, tap, {
      until: values.until,
      steps: values.steps,
      ...(front.endOfInput === undefined ? {} : { endOfInput: front.endOfInput }),
      ...(front.readsInput === undefined ? {} : { readsInput: front.readsInput }),
      ...(front.onInterrupted === undefined ? {} : { onInterrupted: front.onInterrupted }),
    });
  } finally {
    terminal.close();
    endTrace();
  }
  const milliseconds = performance.now() - start;
  const code = front.status?.(end) ?? exitCode(end);
  if (tap.last !== 10) console.log();
  const last = summary(machine, end, milliseconds);
  switch (values.stats ?? "none") {
    case "json":
      console.error(last);
      console.log(JSON.stringify(collectStats(machine, end, code)));
      break;
    case "table":
      console.log(renderStats(collectStats(machine, end, code)));
      console.log(last);
      break;
    case "none":
      console.log(last);
  }
  return code;
}

function describeStale(
  use: { readonly linear: bigint; readonly access: string; readonly rip: bigint; readonly cpu: number },
): string {
  return `sanitizer: cpu${use.cpu} used a stale translation: ${use.access} of 0x${use.linear.toString(16)} ` +
    `at RIP 0x${use.rip.toString(16)}`;
}

/** Writes trace events as lines of JSON. Returns what ends that. */
function startTrace(machine: Machine, values: MachineValues): () => void {
  const kinds = values.trace;
  if (kinds === undefined) {
    if (values["trace-out"] !== undefined) throw new UsageError(`Option "--trace-out" needs "--trace KINDS"`);
    if (values.explain) throw new UsageError(`Option "--explain" needs "--trace KINDS"`);
    return () => {};
  }
  const path = values["trace-out"];
  let file: Deno.FsFile | undefined;
  try {
    file = path === undefined
      ? undefined
      : Deno.openSync(path, { write: true, create: true, truncate: true });
  } catch (error) {
    throw new UsageError(`Cannot write "${path}": ${error instanceof Error ? error.message : error}`);
  }
  const encoder = new TextEncoder();
  let lines: string[] = [];
  const flush = () => {
    const bytes = encoder.encode(lines.join(""));
    lines = [];
    const to = file ?? Deno.stderr;
    for (let done = 0; done < bytes.length;) done += to.writeSync(bytes.subarray(done));
  };
  const off = machine.trace.on(kinds, (event: TraceEvent) => {
    const explained = values.explain ? explainEvent(machine, event) : undefined;
    const told = explained === undefined ? event : { ...event, explain: explained };
    lines.push(JSON.stringify(told, printable) + "\n");
    if (lines.length >= 1000) flush();
  });
  return () => {
    off();
    flush();
    file?.close();
  };
}

/** BigInts as hexadecimal text. */
function printable(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? `0x${value.toString(16)}` : value;
}
