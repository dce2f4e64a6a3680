/**
 * What is measured: the operations of user/'s `vkbench`, how often each, and on what.
 *
 * Room: `lab/vkernel/`; data only, imports nothing.
 *
 * @module
 */

/** One kind of operation. */
export interface Workload {
  /** Its name in tables. */
  readonly name: string;
  /** Its name in vkbench, where that is another. */
  readonly program?: string;
  /** What one operation is. */
  readonly about: string;
  /** Operations that a figure is the mean of; the program runs with this many and with twice as many. */
  readonly count: number;
  /** The same in a hurry. */
  readonly quick: number;
  /** The same on more than one processor, where the others are busy all the time and the machine carries all that out. */
  readonly countSmp?: number;
  /** What vkbench gets as ARG, by the number of processors and of operations. */
  readonly argument?: (cpus: number, count: number) => number;
  /** Measured on one processor only: more would only be idle. */
  readonly single?: boolean;
  /** A guest's memory is not used up once beforehand. */
  readonly cold?: boolean;
  /** Needs Debian's busybox in /bin. */
  readonly busybox?: boolean;
}

/** Twice as many pages as the shorter run touches: both runs prepare the same. */
const twice = (_: number, count: number): number => 2 * count;

/** The workloads, in the order of the table. */
export const WORKLOADS: readonly Workload[] = [
  { name: "syscall", about: "null system call (getppid)", count: 400, quick: 100 },
  { name: "zfod", about: "zero-fill fault, one page", count: 150, quick: 50, argument: twice },
  {
    name: "fresh",
    program: "zfod",
    about: "the same in memory that a guest has not used before; on the host no different from zfod",
    count: 150,
    quick: 50,
    argument: twice,
    cold: true,
  },
  { name: "cow", about: "copy-on-write fault, in the child", count: 150, quick: 50, argument: twice },
  { name: "forkexec", about: "fork, execve, exit, wait4", count: 16, quick: 4 },
  { name: "pingpong", about: "a byte to another process and one back, by pipes", count: 100, quick: 25 },
  {
    name: "switch",
    about: "sched_yield to another process, and its sched_yield back",
    count: 100,
    quick: 25,
    single: true,
  },
  {
    name: "mprotect",
    about:
      "a page loses and gets back its right to be written, and is written; a thread runs on each other processor",
    count: 40,
    quick: 10,
    countSmp: 12,
    argument: (cpus) => cpus - 1,
  },
  {
    name: "chase",
    about: "one step of a pointer chase over 8 MiB, eight pointers in a page",
    count: 8192,
    quick: 4096,
    argument: () => 8,
    single: true,
  },
  {
    name: "build",
    about: "one source of a small make: five busybox programs and a pipeline",
    count: 3,
    quick: 1,
    single: true,
    busybox: true,
  },
];

/** A workload by its name. */
export function workloadOf(name: string): Workload {
  const found = WORKLOADS.find((row) => row.name === name);
  if (found === undefined) {
    throw new RangeError(
      `There is no workload "${name}" (there are ${WORKLOADS.map((w) => w.name).join(", ")})`,
    );
  }
  return found;
}

/** What vkbench calls it. */
export function programOf(workload: Workload): string {
  return workload.program ?? workload.name;
}

/** How often the operation is carried out in the shorter run. */
export function countOf(workload: Workload, cpus: number, quick: boolean): number {
  const count = quick ? workload.quick : workload.count;
  return cpus > 1 && workload.countSmp !== undefined ? Math.min(count, workload.countSmp) : count;
}

/** The command of one run; `argument` instead of the workload's own. */
export function commandOf(
  workload: Workload,
  cpus: number,
  count: number,
  times: 1 | 2,
  argument: number | undefined = workload.argument?.(cpus, count),
): readonly string[] {
  return [
    "/bin/vkbench",
    programOf(workload),
    String(count * times),
    ...(argument === undefined ? [] : [String(argument)]),
  ];
}
