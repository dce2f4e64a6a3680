/** Every test program ends in the same state on every engine, for several seeds, and the same seed gives the same end twice. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { loadImage } from "../../hw/boot/image.ts";
import { type EngineKind, ENGINES, Machine, type MachineOptions } from "../../hw/machine.ts";
import { ECHO, HELLO, INTERRUPTS, SMP, TIMER, TRIPLE_FAULT } from "../hw/guest_programs.ts";
import { boot, builtProgram, mayRead } from "../kernel/kernel_fixture.ts";

const SEEDS = [1, 2, 0xdead_beef];

/** Those that take a moment; the shell, the exercisers and the like have tests of their own. */
const programs = [
  "args",
  "divzero",
  "hello",
  "null",
  "overflow",
  "privileged",
  "rotext",
  "sieve",
  "sse",
  "stackexec",
  "syscalls",
  "void",
];

describe(
  "every small program of user/ ends in the same state on every engine and twice:",
  { ignore: !mayRead },
  () => {
    for (const name of programs) {
      it(name, () => {
        for (const seed of name === "sieve" ? [1] : SEEDS) {
          const run = (engine: EngineKind) => {
            const { machine, console } = boot([builtProgram(name)], { seed, engine, cpus: 2 });
            return { hash: machine.hash(), instructions: machine.instructions, console };
          };
          const first = run("interpreter");
          assert(first.instructions > 100);
          assertEquals(run("interpreter"), first);
          assertEquals(run("reference"), first);
        }
      });
    }
  },
);

const IMAGES: Readonly<Record<string, readonly [image: Uint8Array, options: MachineOptions]>> = {
  hello: [HELLO, {}],
  timer: [TIMER, {}],
  "four processors": [SMP, { cpus: 4 }],
  echo: [ECHO, { replay: [{ at: 100, bytes: [0x61, 0x62] }, { at: 4000, bytes: [0x71] }] }],
  interrupts: [INTERRUPTS, { replay: [{ at: 5_000_000, bytes: [0x61] }] }],
  "triple fault": [TRIPLE_FAULT, {}],
};

describe("every bare-metal test image ends in the same state on every engine and twice:", () => {
  for (const [name, [image, options]] of Object.entries(IMAGES)) {
    it(name, () => {
      for (const seed of SEEDS) {
        const run = (engine: EngineKind) => {
          const machine = new Machine({ memory: 2 << 20, seed, engine, ...options });
          loadImage(machine, image);
          const stop = machine.run({ steps: 200_000, untilTick: 20_000_000 });
          return { stop, hash: machine.hash(), instructions: machine.instructions, now: machine.now };
        };
        const all = [...ENGINES, ...ENGINES].map(run);
        for (const one of all) assertEquals(one, all[0]);
      }
    });
  }
});

it("seeds differ where there is chance: the order of processors", () => {
  const hashes = SEEDS.map((seed) => {
    const machine = new Machine({ memory: 2 << 20, seed, cpus: 4 });
    loadImage(machine, SMP);
    machine.run({ steps: 200_000 });
    return machine.hash();
  });
  assertNotEquals(hashes[0], hashes[1]);
});
