import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { gva, hpa } from "../../hw/address.ts";
import { loadImage } from "../../hw/boot/image.ts";
import {
  CONTINUATIONS_MAX,
  type GateCpu,
  type GateOptions,
  SPACE_CONTINUATIONS_MAX,
} from "../../hw/gates.ts";
import { Machine } from "../../hw/machine.ts";
import { R, RAM_BASE, S } from "../../hw/state.ts";
import { Assembler } from "../../kernel/platform/pc64/assembler.ts";
import { CODE_VA, elf64, gateOnly } from "../kernel/user_program.ts";

/** Runs code in ring 0; gates are made with knowledge of the address space. */
function run(
  gates: (machine: Machine) => readonly Omit<GateOptions, "name">[],
  build: (a: Assembler) => void,
  steps = 100_000,
): { readonly machine: Machine; readonly exceptions: string[] } {
  const machine = new Machine({ memory: 8 << 20, gates: true });
  const a = new Assembler(CODE_VA, BigInt(CODE_VA));
  build(a);
  loadImage(machine, elf64(a.hlt().finish()));
  for (const [i, gate] of gates(machine).entries()) machine.gates!.register({ name: `gate${i}`, ...gate });
  const exceptions: string[] = [];
  machine.trace.on(["exception"], ({ vector, errorCode }) => exceptions.push(`${vector}:${errorCode}`));
  machine.run({ steps });
  return { machine, exceptions };
}

function* nothing(): Generator<undefined, void, void> {}
const rootOf = (machine: Machine) => machine.cpus[0]!.get64(S.CR3) & ~0xfffn;
const GP_THEN_TRIPLE = ["13:0", "8:0"];

describe("a gate's space", () => {
  it("is any address space of the host, unless the gate names one", () => {
    for (const [root, expected] of [[0n, []], [0x1000n, GP_THEN_TRIPLE]] as const) {
      const { exceptions } = run(
        (machine) => [{ cpl: 0, body: nothing, root: rootOf(machine) + root }],
        (a) => a.gate(0),
      );
      assertEquals(exceptions, expected);
    }
  });

  it("is never the host when the gate is a guest's", () => {
    const { exceptions } = run(() => [{ cpl: 0, body: nothing, ept: 0x20_0000 }], (a) => a.gate(0));
    assertEquals(exceptions, GP_THEN_TRIPLE);
  });

  it("ends, and with it the gates that it owns and their numbers' meaning", () => {
    const { machine } = run(
      (machine) => [
        { cpl: 0, body: nothing, owner: { root: rootOf(machine), ept: 0 } },
        { cpl: 0, body: nothing, owner: { root: 0x1000n, ept: 0 } },
        { cpl: 0, body: nothing },
      ],
      () => {},
    );
    const gates = machine.gates!;
    gates.dropAddressSpace(hpa(Number(rootOf(machine))));
    assertEquals(gates.registered, 2);
    assertEquals(gates.register({ name: "next", cpl: 0, body: nothing }), 0);
    gates.dropWorld(hpa(0x20_0000));
    assertEquals(gates.registered, 3);
  });

  it("is left by a continuation only when it said so", () => {
    // The second tables are a copy of the root alone: the same addresses, another CR3.
    const copy = 0x30_0000;
    function* body(cpu: GateCpu, announced: boolean) {
      const root = cpu.space.root;
      for (let i = 0; i < 512; i++) {
        yield* cpu.store64(gva(copy + i * 8), yield* cpu.load64(gva(root + BigInt(i * 8))));
      }
      cpu.rebindNext = announced;
      yield* cpu.instruction("writeCr", 3n, BigInt(copy));
      assertEquals(cpu.space, { root: BigInt(copy), ept: 0 });
      cpu.setGpr(R.RBX, 1n);
    }
    for (const announced of [true, false]) {
      const { machine, exceptions } = run(
        () => [{ cpl: 0, body: (cpu) => body(cpu, announced) }],
        (a) => a.movImmediate("rbx", 0n).gate(0),
      );
      assertEquals(exceptions, announced ? [] : GP_THEN_TRIPLE);
      assertEquals(machine.cpus[0]!.gpr(R.RBX), announced ? 1n : 0n);
    }
  });

  it("has room for so many continuations, whatever the host kernel needs besides", () => {
    // IRETQ to ring 3 on the loader's tables, made the user's; there GATE in a loop.
    const { machine } = run(
      () => [{ cpl: 3, body: nothing }],
      (a) => gateOnly(a.label("again"), 0).jump("again"),
      0,
    );
    const cpu = machine.cpus[0]!;
    const exceptions: string[] = [];
    machine.trace.on(["exception"], ({ vector }) => exceptions.push(String(vector)));
    cpu.set32(S.CPL, 3);
    for (const [at] of userEntries(machine)) machine.memory.u8[at]! |= 4;
    machine.run({ steps: 3 * SPACE_CONTINUATIONS_MAX });
    assertEquals(exceptions[0], "13");
    assertEquals(machine.gates!.live, SPACE_CONTINUATIONS_MAX);
    assert(SPACE_CONTINUATIONS_MAX < CONTINUATIONS_MAX);
  });
});

/** Places in memory of all present entries of the tables in force, three levels down. */
function* userEntries(machine: Machine): Generator<[number]> {
  const view = new DataView(machine.memory.buffer);
  const visit = function* (table: number, level: number): Generator<[number]> {
    for (let i = 0; i < 512; i++) {
      const at = RAM_BASE + table + i * 8, entry = Number(view.getBigUint64(at, true) & 0xffff_ffffn);
      if ((entry & 1) === 0) continue;
      yield [at];
      if (level > 1 && (entry & 0x80) === 0) yield* visit(entry & ~0xfff, level - 1);
    }
  };
  yield* visit(Number(rootOf(machine)), 4);
}
