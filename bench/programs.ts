/**
 * The rows of the bench: the programs of `bench/src/bench.c`, what a round of each is, what is reported of it, and how it should compare.
 *
 * Room: `bench/`; imports nothing.
 *
 * @module
 */

/** A row that another is compared with, and how many times as fast it must be (issue 6, "Speed"). */
export interface Target {
  /** Whose figure: a peer's, or that of the engine itself. */
  readonly runner: "qemu" | "v86" | "self";
  /** Of which row; default: of the same. */
  readonly row?: string;
  /** Least ratio. */
  readonly ratio: number;
}

/** The images: of 64-bit code, and of 32-bit code from the same sources. */
export const IMAGE_NAMES = ["bench", "bench32"] as const;
/** Name of an image. */
export type ImageName = (typeof IMAGE_NAMES)[number];

/** One program of an image. */
export interface Program {
  /** Name of the row. */
  readonly name: string;
  /** Name in the image; default: the row's. */
  readonly word?: string;
  /** Default: bench. */
  readonly image?: ImageName;
  /** Set when the machine runs it in VMX non-root operation from the start, with EPT. */
  readonly asGuest?: true;
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
  /** Engines on which even no rounds take too long, and peers that can't run it or need not. */
  readonly not?: readonly string[];
  readonly target?: Target;
}

const MEGABYTES = { name: "MB", factor: 1e6 };

/** Least ratio to QEMU, by program. */
const TO_QEMU: Readonly<Record<string, number>> = {
  alu: 1.5,
  collatz: 1.5,
  sieve: 1.5,
  sha: 1.5,
  fib: 1.5,
  interp: 1.5,
  copy: 1.5,
  repmovs: 1,
  chase64m: 4,
  pagefault: 4,
  int80: 1,
  syscall: 1,
  cr3: 4,
  smc: 4,
};
/** Least ratio to v86, of every program that it can run. */
const TO_V86 = 3;
/** Least ratio of the speed in VMX non-root operation to that outside. */
const AS_GUEST = 0.8;
/** Programs that are also run as VMX guests. */
const GUESTS: readonly string[] = ["alu", "collatz", "sieve", "sha", "fib", "interp", "copy", "chase1m"];

const WIDE: readonly Program[] = [
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

/** All programs, in the order of the table: of the 64-bit image, the same as VMX guests, and those of the 32-bit image. */
export const PROGRAMS: readonly Program[] = [
  ...WIDE.map((program): Program => {
    const ratio = TO_QEMU[program.name];
    return {
      ...program,
      not: [...program.not ?? [], "v86"],
      ...(ratio === undefined ? {} : { target: { runner: "qemu", ratio } }),
    };
  }),
  ...WIDE.filter(({ name }) => GUESTS.includes(name)).map((program): Program => ({
    ...program,
    name: `${program.name}-vmx`,
    word: program.name,
    asGuest: true,
    ownOnly: true,
    not: ["reference"],
    target: { runner: "self", row: program.name, ratio: AS_GUEST },
  })),
  ...WIDE.filter(({ name, ownOnly }) => name !== "syscall" && !ownOnly).map((program): Program => ({
    ...program,
    name: `${program.name}-32`,
    word: program.name,
    image: "bench32",
    not: [...program.not ?? [], "qemu", "bochs"],
    target: { runner: "v86", ratio: TO_V86 },
  })),
];

/** Unit of a program's figure, as "M loads/s". */
export function unitOf(program: Program): string {
  if (program.perRound === undefined) return "MIPS";
  if (program.scale !== undefined) return `${program.scale.name}/s`;
  return `M ${program.event}/s`;
}
