/**
 * The rows of the bench: the programs of `bench/src/bench.c`, what a round of each is, and what is reported of it.
 *
 * Room: `bench/`; imports nothing.
 *
 * @module
 */

/** One program of the image. */
export interface Program {
  readonly name: string;
  /** For people: what it does. */
  readonly about: string;
  /** What its figure is in, as a plural: "instructions", or the event that it repeats. */
  readonly event: string;
  /** Events in a round; undefined: instructions, counted on our machine. */
  readonly perRound?: number;
  /** What the figure counts in; default a million. */
  readonly scale?: { readonly name: string; readonly factor: number };
  /** Rounds that the slowest engine does in a second or two; with them the check values are compared. */
  readonly checkRounds: number;
  /** Set when only our machine can run it. */
  readonly ownOnly?: true;
  /** Engines on which even no rounds take too long. */
  readonly not?: readonly string[];
}

const MEGABYTES = { name: "MB", factor: 1e6 };

/** All programs, in the order of the table. */
export const PROGRAMS: readonly Program[] = [
  { name: "alu", about: "integer arithmetic in registers", event: "instructions", checkRounds: 4 },
  {
    name: "collatz",
    about: "short loops with an unforeseeable branch",
    event: "instructions",
    checkRounds: 1,
  },
  { name: "sieve", about: "byte stores in 100 KB", event: "instructions", checkRounds: 1 },
  { name: "sha", about: "SHA-256 in C", event: "instructions", checkRounds: 8 },
  { name: "fib", about: "recursive calls", event: "instructions", checkRounds: 2 },
  { name: "interp", about: "a byte code interpreter (jump table)", event: "instructions", checkRounds: 4 },
  { name: "copy", about: "8-byte loads and stores, 64 KiB", event: "instructions", checkRounds: 8 },
  {
    name: "repmovs",
    about: "REP MOVSB of 64 KiB",
    event: "bytes moved",
    perRound: 65536,
    scale: MEGABYTES,
    checkRounds: 4,
  },
  { name: "chase1m", about: "dependent loads over 1 MiB", event: "loads", perRound: 10_000, checkRounds: 8 },
  {
    name: "chase64m",
    about: "dependent loads over 64 MiB",
    event: "loads",
    perRound: 10_000,
    checkRounds: 8,
    not: ["reference"],
  },
  {
    name: "pagefault",
    about: "fault, map in the handler, IRET, unmap, INVLPG",
    event: "page faults",
    perRound: 100,
    checkRounds: 100,
  },
  { name: "int80", about: "INT 80H and IRET", event: "round trips", perRound: 100, checkRounds: 200 },
  {
    name: "syscall",
    about: "SYSCALL and SYSRET from ring 3",
    event: "round trips",
    perRound: 100,
    checkRounds: 400,
  },
  {
    name: "cr3",
    about: "MOV CR3, then four loads from other pages",
    event: "CR3 switches",
    perRound: 200,
    checkRounds: 100,
  },
  {
    name: "smc",
    about: "a store into an instruction, then a call of it",
    event: "stores into own code",
    perRound: 100,
    checkRounds: 100,
  },
  {
    name: "gates",
    about: "GATE and RESUME of a body that returns at once",
    event: "gate entries",
    perRound: 100,
    checkRounds: 100,
    ownOnly: true,
  },
];

/** Unit of a program's figure, as "M loads/s". */
export function unitOf(program: Program): string {
  if (program.perRound === undefined) return "MIPS";
  if (program.scale !== undefined) return `${program.scale.name}/s`;
  return `M ${program.event}/s`;
}
