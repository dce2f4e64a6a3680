/**
 * The two clocks of the bench: that on the wall, and the processor time of who runs (Linux), which does not count what else the host does.
 *
 * Room: `bench/`; imports nothing.
 *
 * @module
 */

/** Names of the clocks. */
export const CLOCKS = ["wall", "cpu"] as const;
/** Name of a clock. */
export type ClockName = (typeof CLOCKS)[number];

/** Nanoseconds that the main thread has run, and two more numbers. */
const SCHEDSTAT = "/proc/self/schedstat";

/** Seconds on a clock, from some beginning, for this process' main thread. */
export function seconds(clock: ClockName): number {
  if (clock === "wall") return performance.now() / 1000;
  return Number(Deno.readTextFileSync(SCHEDSTAT).split(" ")[0]) / 1e9;
}

/** Whether this host has the clock. */
export function hasClock(clock: ClockName): boolean {
  try {
    return seconds(clock) > 0;
  } catch {
    return false;
  }
}

/** Clock ticks of /proc/PID/stat in a second. */
const TICKS = 100;

/** A clock of a process from its start, in seconds: on the wall from now on, or its processor time with its threads'. */
export function processSeconds(clock: ClockName, pid: number): () => number {
  if (clock === "wall") {
    const start = seconds("wall");
    return () => seconds("wall") - start;
  }
  return () => {
    const fields = Deno.readTextFileSync(`/proc/${pid}/stat`).split(") ").at(-1)!.split(" ");
    return (Number(fields[11]) + Number(fields[12])) / TICKS;
  };
}

/** Runs a command, its output thrown away, to its end or until `limitMs` are over; gives its seconds on a clock. */
export async function timeCommand(
  clock: ClockName,
  command: string,
  args: readonly string[],
  env: Record<string, string>,
  limitMs: number,
): Promise<number> {
  const common = { env, stdin: "null", stderr: "null", signal: AbortSignal.timeout(limitMs) } as const;
  if (clock === "wall") {
    const start = performance.now();
    await new Deno.Command(command, { ...common, args: [...args], stdout: "null" }).output();
    return (performance.now() - start) / 1000;
  }
  // `times` prints user and system time, of the shell and of its children, as "0m1.234s".
  const { stdout } = await new Deno.Command("sh", {
    ...common,
    args: ["-c", '"$@" >/dev/null; times', "sh", command, ...args],
    stdout: "piped",
  }).output();
  const times = [...new TextDecoder().decode(stdout).matchAll(/(\d+)m([\d.]+)s/g)];
  return times.slice(2).reduce((sum, [, minutes, rest]) => sum + Number(minutes) * 60 + Number(rest), 0);
}
