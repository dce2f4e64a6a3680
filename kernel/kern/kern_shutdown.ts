/**
 * What is said when the kernel stops for a reason of its own (`sys/kern/kern_shutdown.c`).
 *
 * Room: `kernel/kern/`; imports the context.
 *
 * @module
 */
import { KernelPanic } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";

/** Events that a panic shows. */
const EVENTS_SHOWN = 16;
/** Frames that a panic shows. */
const FRAMES_SHOWN = 24;

/** The text of a panic: the cause in a sentence, the kernel's frames, the last events, the command that reproduces it. */
export function panicText(cx: Cx, error: unknown): string {
  const { k } = cx;
  const cause = error instanceof Error ? error.message : String(error);
  const kind = error instanceof KernelPanic ? "" : " (an exception that the kernel does not expect)";
  const thread = k.platform.mycpu(cx.cpu)?.gdCurthread;
  const lines = [
    "",
    `panic: ${cause}${kind}`,
    `cpuid = ${k.platform.mycpu(cx.cpu)?.gdCpuid ?? "?"}, thread "${thread?.tdComm ?? "boot"}"` +
    (thread?.tdProc === undefined ? "" : `, process ${thread.tdProc.pPid} (${thread.tdProc.pComm})`),
    "Trace beginning at frame 0:",
    ...framesOf(error),
    "Last events:",
    ...k.ktr.lines(EVENTS_SHOWN).map((line) => `  ${line}`),
  ];
  if (k.options.reproduce !== undefined) lines.push(`Reproduce: ${k.options.reproduce}`);
  return lines.join("\n") + "\n";
}

/** The kernel's functions on the stack of the exception, innermost first: names and places, without the host's paths. */
function framesOf(error: unknown): string[] {
  const stack = error instanceof Error ? error.stack ?? "" : "";
  return stack.split("\n").flatMap((line) => {
    const match = /^\s*at (?:(.+?) \()?.*?\/(kernel\/[^:]+:\d+)/.exec(line);
    return match === null ? [] : [`  ${frameName(match[1])}() at ${match[2]}`];
  }).slice(0, FRAMES_SHOWN);
}

/** A function's name without the host's decorations: "Thread.initMain [as tdFn]" is initMain. */
function frameName(name: string | undefined): string {
  return name?.replace(/ \[as .*\]$/, "").replace(/\.next$/, "").replace(/^.*\./, "") ?? "?";
}
