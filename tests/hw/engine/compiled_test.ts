import { assert, assertEquals } from "@std/assert";
import { compareEngines, comparePrograms } from "../../../lab/agree/agree.ts";
import { GUEST_BYTES, loadRandomGuest } from "../../../lab/agree/random_guest.ts";
import { type EngineKind, Machine, type MachineOptions } from "../../../hw/machine.ts";
import { RAM_BASE } from "../../../hw/state.ts";
import { explainRegion } from "../../../hw/engine/compiled/explain.ts";
import { hex, SMP, TIMER } from "../guest_programs.ts";
import { loadImage } from "../../../hw/boot/image.ts";

const ALL = { engine: "compiled", threshold: 1 } as const;
const WARM = { engine: "auto", threshold: 2 } as const;

Deno.test("compiled code and the reference agree on random guests in every mode, wherever they are stopped", () => {
  for (let seed = 1; seed <= 4; seed++) {
    for (const mode of [0, 1, 2] as const) assertEquals(compareEngines(seed, mode, {}, ALL), undefined);
  }
});

Deno.test("compiled code and the reference agree on random programs: changing code, faults, several processors", () => {
  for (const seed of [3, 5, 9]) {
    assertEquals(comparePrograms(seed, ALL, undefined, { steps: 12_000 }), undefined);
    assertEquals(comparePrograms(seed, WARM, undefined, { steps: 12_000 }), undefined);
  }
});

Deno.test("compiled code and the reference agree under the geometry and sticky TLBs, and with the sanitizer", () => {
  const options: MachineOptions[] = [{ tlb: "geometry" }, { tlb: "sticky" }, { sanitizer: true }];
  for (const one of options) {
    assertEquals(compareEngines(2, 2, one, ALL), undefined);
    assertEquals(comparePrograms(7, ALL, undefined, { steps: 6_000, options: one }), undefined);
  }
});

/** 64-bit code at 8000H of a random guest that is otherwise the same on all engines. */
function machineWith(engine: EngineKind, code: Uint8Array, at = 0x8000): Machine {
  const machine = new Machine({ memory: GUEST_BYTES, engine });
  loadRandomGuest(machine, 3, 2);
  machine.memory.u8.set(code, RAM_BASE + at);
  machine.cpus[0]!.rip = BigInt(at);
  return machine;
}

/** Runs the code for so many steps on the compiled engine and on the reference; both must end in the same state. */
function agree(code: Uint8Array, steps: number, at = 0x8000): Machine {
  const compiled = machineWith("compiled", code, at), reference = machineWith("reference", code, at);
  compiled.run({ steps });
  reference.run({ steps });
  assertEquals(compiled.instructions, reference.instructions);
  assertEquals(compiled.hash(), reference.hash(), `after ${steps} steps`);
  return compiled;
}

/**
 * xor eax, eax; mov ecx, 7; L: add rax, rcx; M: adc rdx, rax; ror rdx, 3; shl ebx, 2; inc esi; sbb edi, esi; mov [9000H], rdx;
 * dec ecx; jnz L; mov ecx, 7; test dl, 1; jz M; jmp L
 */
const MIX = hex(
  "31c0 b907000000 4801c8 4811c2 48c1ca03 c1e302 ffc6 19f7 4889142500900000 ffc9 75e4 b907000000 f6c201 74dd ebd8",
);

Deno.test("a slice ends at exactly the instruction that it should, with registers and flags as they are there", () => {
  for (let steps = 300; steps < 340; steps++) agree(MIX, steps);
  assert(agree(MIX, 5000).regions!.counts.compiled > 0);
});

Deno.test("a loop that changes the immediate of its own instruction sees every value", () => {
  // xor eax, eax; mov ecx, 200; L: mov [rip+1], cl (the imm8 of the next); add al, imm8; dec ecx; jnz L; jmp $
  const code = hex("31c0 b9c8000000 880d01000000 0400 ffc9 75f4 ebfe");
  const machine = agree(code, 1500);
  assertEquals(Number(machine.cpus[0]!.gpr(0) & 0xffn), (200 * 201 / 2) & 0xff);
});

Deno.test("code that keeps changing is not compiled without end", () => {
  // The same, for ever: mov ecx, 200 anew each time.
  const code = hex("31c0 b9c8000000 880d01000000 0400 ffc9 75f4 ebed");
  const machine = machineWith("compiled", code);
  machine.run({ steps: 200_000 });
  assert(machine.regions!.counts.compiled < 200, `${machine.regions!.counts.compiled} regions`);
});

Deno.test("stores beside compiled code leave it alone", () => {
  // mov ecx, 100000; L: mov [8800H], ecx; dec ecx; jnz L; jmp $
  const machine = agree(hex("b9a0860100 890c2500880000 ffc9 75f5 ebfe"), 50_000);
  assertEquals(machine.regions!.counts.changed, 0);
  assert(machine.regions!.counts.compiled <= 2);
});

Deno.test("a device's or debugger's store into compiled code takes effect at once", () => {
  const results = (["compiled", "reference"] as const).map((engine) => {
    // L: inc eax; jmp L
    const machine = machineWith(engine, hex("ffc0 ebfc"));
    machine.run({ steps: 1000 });
    // L: dec eax; jmp L
    machine.bus.writeRam(0x8000, hex("ffc8"));
    machine.run({ steps: 501 });
    return machine.hash();
  });
  assertEquals(results[0], results[1]);
});

Deno.test("REP strings in compiled code stop inside a page's worth when the slice ends", () => {
  // L: mov ecx, 3000; mov esi, 9000H; mov edi, C001H; rep movsb; mov ecx, 100; mov edi, E000H; repne scasb; jmp L
  const code = hex("b9b80b0000 be00900000 bf01c00000 f3a4 b964000000 bf00e00000 f2ae ebdf");
  for (const steps of [100, 2999, 3003, 3004, 3005, 3050, 7001]) agree(code, steps);
});

Deno.test("calls, returns and jumps through a table find their way inside a region", () => {
  // L: call F; inc r8; lea rax, [rip+T]; and ecx, 1; movzx ecx, byte [rax+rcx]; add rax, rcx; jmp rax
  // T: 2, 7; A: inc edx; inc ecx; jmp L; B: dec ebx; inc ecx; jmp L; F: add ecx, 3; ret
  const code = hex(
    "e81f000000 49ffc0 488d050d000000 83e101 0fb60c08 4801c8 ffe0 0208 ffc2 ffc1 ebdb ffcb ffc1 ebd5 83c103 c3",
  );
  agree(code, 3000);
});

Deno.test("timer interrupts and start-up of other processors come at the same instruction", () => {
  for (const image of [TIMER, SMP]) {
    const run = (engine: EngineKind) => {
      const machine = new Machine({ memory: 4 << 20, cpus: 4, engine, seed: 5 });
      loadImage(machine, image);
      const stop = machine.run({ steps: 200_000 });
      return JSON.stringify([stop, machine.instructions, machine.hash()]);
    };
    assertEquals(run("compiled"), run("interpreter"));
  }
});

Deno.test("a snapshot put back finds no compiled code of another time", () => {
  const machine = machineWith("compiled", MIX);
  machine.run({ steps: 1000 });
  const snapshot = machine.snapshot();
  machine.run({ steps: 1000 });
  const hash = machine.hash();
  machine.memory.u8.set(hex("ebfe"), RAM_BASE + 0x8000);
  machine.restore(snapshot);
  machine.run({ steps: 1000 });
  assertEquals(machine.hash(), hash);
});

Deno.test("a region told to people names its entry, its loop and its ways out", () => {
  // L: inc eax; jnz L; syscall
  const machine = agree(hex("ffc0 75fc 0f05"), 100);
  const text = [...machine.regions!.all()].map((region) => explainRegion(region).join("\n")).join("\n");
  assert(/^8000: entry loop$/m.test(text), text);
  assert(/INC 32/.test(text), text);
  assert(/-> to 8000/.test(text), text);
  assert(/exit: jump, \+4/.test(text), text);
  assert(/left to the interpreter, syscall: SYSCALL/.test(text), text);
});
