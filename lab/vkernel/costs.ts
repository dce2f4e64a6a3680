/**
 * What things cost on real processors: published figures, each with where it is from, by generation.
 *
 * Room: `lab/vkernel/`; data only, imports nothing.
 *
 * The machine counts events, and has no opinion of how long they take. This table has one, taken from other people's measurements; most of
 * the figures are those of the project's notes on paging costs (`paging-costs.md`, named "notes" here, with the section). None is
 * ours, and none was measured on the simulated machine. An estimate made with them is good for comparing kinds of vkernel, where the same
 * price stands on both sides; as a time it is right within a factor of two at best.
 *
 * @module
 */

/**
 * How much a figure can be trusted: `read` stood in the source when this was written; `memory` is from memory of the source, and ± a third;
 * `derived` is arithmetic on other figures; `assumed` is a stand-in where nothing was found.
 */
export type Trust = "read" | "memory" | "derived" | "assumed";

/** A price. */
export interface Cost {
  /** Cycles of the processor's clock. */
  readonly cycles: number;
  readonly trust: Trust;
  /** Where it is from. */
  readonly source: string;
}

/** What has a price, and what is meant. */
export const COST_NAMES = {
  instruction: "an instruction of the program, or of a kernel's entry code",
  syscallTransition: "SYSCALL and SYSRET, with saving and loading the registers",
  syscallBody: "what a kernel does for the least system call, besides",
  faultTransition: "delivery of an exception, and IRET",
  faultBody: "what a kernel does for a page fault that gets a zeroed page",
  interruptBody: "what a kernel does for an interrupt or an IPI that has little to say",
  vmTransition: "VM exit and VM entry, with nothing done in between",
  exitBody: "what a hypervisor does for an exit, besides: VMREADs, the choice of what to do, VMWRITEs",
  reference: "a paging-structure entry that a walk reads, ordinary or EPT",
  invlpg: "INVLPG",
  cr3Load: "MOV to CR3; the walks that it brings are counted by themselves",
  invept: "INVEPT or INVVPID",
  flush: "another flush of a whole context",
  ipi:
    "sending a message to one processor; the interrupt there is counted as such, and waiting for it is not work",
  contextSwitch: "saving and loading a thread's state in the kernel",
  vpteWalk: "a walk of a VPTE table by software, with its page look-ups",
  guestWalk: "a walk of a guest's page tables by the host's software, for a copy",
} as const;

/** Name of a price. */
export type CostName = keyof typeof COST_NAMES;

/** A generation of processors. */
export interface Generation {
  readonly name: string;
  readonly about: string;
  readonly year: number;
  /** Cycles a nanosecond. */
  readonly gigahertz: number;
  /** The CPU models of the machine that these prices fit. */
  readonly models: readonly string[];
  readonly costs: Readonly<Record<CostName, Cost>>;
}

const cost = (cycles: number, trust: Trust, source: string): Cost => ({ cycles, trust, source });

const AGESEN = "Agesen et al., USENIX ATC 2012 (notes, section 9)";
const WALK =
  "notes, sections 7b, 9 and 10: a warm native walk takes 20 to 35 cycles for 1.5 references on average, a nested one 40 to 100 for 4.4";
const DRAGONFLY_SYSCALL =
  "DragonFly commit 9e24b495ea, January 2018: a system call takes about 100 ns, of which";

/** Prices that nobody has published by generation; in cycles of any of them. */
const COMMON = {
  instruction: cost(1, "assumed", "one a cycle: what is counted is short, and mostly straight"),
  reference: cost(16, "derived", WALK),
  exitBody: cost(
    550,
    "derived",
    "notes, section 9: a CPUID exit handled in KVM takes 1000 to 1300 cycles on Haswell to Skylake, less the bare transition",
  ),
  vpteWalk: cost(
    400,
    "assumed",
    "four look-ups of a page in an object and four atomic operations; a tenth of what a fault costs each",
  ),
  guestWalk: cost(
    200,
    "assumed",
    "up to four look-ups of a page in an object and four loads that depend on each other",
  ),
  contextSwitch: cost(
    400,
    "assumed",
    "the registers of a thread and the scheduler's queues; the load of CR3 is counted by itself",
  ),
  interruptBody: cost(300, "assumed", "end of interrupt and one look at a queue"),
} as const;

/** What a page fault costs, from the least that was measured on a newer processor. */
const FAULT_MEASURED =
  "1842 cycles, the least of 100 faults on new memory (11th-generation Core, Linux 6.6; ddumbying.vercel.app, 2025), less the transition";

const SKYLAKE = {
  ...COMMON,
  syscallTransition: cost(
    90,
    "memory",
    `${DRAGONFLY_SYSCALL} the way in and out is the smaller part`,
  ),
  syscallBody: cost(260, "derived", `${DRAGONFLY_SYSCALL} 350 cycles at 3.5 GHz are this and the transition`),
  faultTransition: cost(
    750,
    "memory",
    "L. Torvalds, 2014, on Haswell: exception about 420 cycles, IRET about 330",
  ),
  faultBody: cost(1100, "derived", FAULT_MEASURED),
  vmTransition: cost(
    550,
    "memory",
    "notes, section 9: 400 to 700 for VMRESUME and exit alone on later parts without mitigations",
  ),
  invlpg: cost(
    200,
    "memory",
    "Linux, arch/x86/mm/tlb.c: a single flush is about 100 ns with its surroundings; the instruction is taken for half",
  ),
  cr3Load: cost(200, "memory", "an ordinary figure for parts without PCID"),
  invept: cost(1300, "assumed", "as a flush of everything by INVPCID"),
  flush: cost(
    1300,
    "read",
    "A. Lutomirski, linux-mm, 8 January 2016: INVPCID of everything takes 376 ns on a Skylake",
  ),
  ipi: cost(
    700,
    "read",
    "200 ns for each receiver beside 1 µs of waiting, which is not counted (unseel.com/cs/tlb-shootdown)",
  ),
} as const satisfies Record<CostName, Cost>;

/** The generations, the oldest first. */
export const GENERATIONS: readonly Generation[] = [
  {
    name: "penryn",
    about: "Core 2 of 2008: VMX without EPT",
    year: 2008,
    gigahertz: 2.66,
    models: ["penryn"],
    costs: {
      ...SKYLAKE,
      syscallTransition: cost(
        240,
        "memory",
        "Adams and Agesen, ASPLOS 2006 (notes, section 8): 242 cycles for a system call on a Pentium 4 672",
      ),
      faultTransition: cost(
        1000,
        "memory",
        "Adams and Agesen, ASPLOS 2006 (notes, section 8): 1093 cycles for a page fault on a Pentium 4 672",
      ),
      vmTransition: cost(1266, "memory", AGESEN),
      exitBody: cost(
        700,
        "derived",
        "as later parts, and ten accesses to the VMCS at some 50 cycles (notes, section 8: 52 and 44 on a Core 2)",
      ),
    },
  },
  {
    name: "nehalem",
    about: "first Core i7: EPT without accessed and dirty flags, the hardware of the 2013 mail",
    year: 2009,
    gigahertz: 2.93,
    models: ["nehalem"],
    costs: { ...SKYLAKE, vmTransition: cost(1009, "memory", AGESEN) },
  },
  {
    name: "haswell",
    about: "EPT with accessed and dirty flags",
    year: 2013,
    gigahertz: 3.4,
    models: ["haswell", "haswell-noad", "broadwell"],
    costs: SKYLAKE,
  },
  {
    name: "skylake",
    about: "as sold, without mitigations",
    year: 2015,
    gigahertz: 3.5,
    models: ["skylake", "icelake"],
    costs: SKYLAKE,
  },
  {
    name: "skylake-2018",
    about: "the same with the mitigations of 2018: Meltdown isolation, retpolines, L1D flush",
    year: 2018,
    gigahertz: 3.5,
    models: ["skylake"],
    costs: {
      ...SKYLAKE,
      syscallTransition: cost(
        965,
        "derived",
        "DragonFly commit 9e24b495ea, January 2018: about 350 ns with isolation, less the body",
      ),
      faultTransition: cost(
        1625,
        "derived",
        "the same 250 ns more as for a system call: CR3 is loaded on both ways",
      ),
      vmTransition: cost(
        1450,
        "derived",
        "notes, section 9: 1500 to 2500 for a CPUID exit with the mitigations of 2018, less the handling",
      ),
    },
  },
];

/** A generation by its name. */
export function generationOf(name: string): Generation {
  const found = GENERATIONS.find((generation) => generation.name === name);
  if (found === undefined) {
    throw new RangeError(
      `There are no prices for "${name}" (there are ${GENERATIONS.map((g) => g.name).join(", ")})`,
    );
  }
  return found;
}

/** The generations whose prices fit a CPU model. */
export function generationsFor(model: string): readonly Generation[] {
  return GENERATIONS.filter((generation) => generation.models.includes(model));
}
