/**
 * Repeated string instructions many iterations at a time: a run may end at any instruction all the same.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { enterLongMode, identityTables } from "../../../hw/boot/entry_state.ts";
import { type EngineKind, Machine } from "../../../hw/machine.ts";
import { hex } from "../guest_programs.ts";

const CODE = 0x10_0000, TABLES = 0x7_0000;

/** A machine in long mode at: 40 NOPs, mov ecx, 60; mov edi, 180000H; rep stosq, 40 times inc eax, jmp $. */
function machine(engine: EngineKind): Machine {
  const m = new Machine({ engine, memory: 2 << 20 });
  const code = `${"90".repeat(40)} b93c000000 bf00001800 f348ab ${"ffc0".repeat(40)} ebfe`;
  m.bus.writeRam(CODE, hex(code));
  identityTables(m.bus, TABLES);
  enterLongMode(m.cpus[0]!, BigInt(CODE), TABLES, 0x8_0000);
  return m;
}

Deno.test("a bound of instructions at or behind the end of a repetition is kept to the instruction", () => {
  for (let steps = 96; steps <= 146; steps++) {
    const [interpreter, reference] = (["interpreter", "reference"] as const).map((engine) => {
      const m = machine(engine);
      // The store's translation is in the fast TLB from the first iteration on, the code is decoded.
      m.run({ steps });
      return [m.instructions, m.cpus[0]!.rip, m.cpus[0]!.gpr(0), m.cpus[0]!.gpr(1), m.hash()];
    });
    assertEquals(interpreter, reference, `after ${steps} instructions`);
    assertEquals(interpreter![0], steps);
  }
});
