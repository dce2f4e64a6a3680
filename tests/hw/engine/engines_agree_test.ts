import { assertEquals, assertNotEquals } from "@std/assert";
import { compareEngines, comparePrograms } from "../../../lab/agree/agree.ts";
import { GUEST_BYTES, loadRandomGuest } from "../../../lab/agree/random_guest.ts";
import { Machine } from "../../../hw/machine.ts";
import { RAM_BASE } from "../../../hw/state.ts";

/** Seeds that once told the engines apart: a store into an undefined instruction, a page-table store with a stale translation, INTO falling through, and doing so at the end of a page. */
const PAST_FAILURES: readonly (readonly [number, 0 | 1 | 2])[] = [[740, 0], [322, 1], [20, 2], [6, 0], [
  6,
  1,
], [2031, 0]];

Deno.test("interpreter and reference agree on random guests in 16-, 32- and 64-bit mode, wherever they are stopped", () => {
  for (let seed = 1; seed <= 4; seed++) {
    for (const mode of [0, 1, 2] as const) assertEquals(compareEngines(seed, mode), undefined);
  }
});

Deno.test("interpreter and reference agree on guests that once told them apart", () => {
  for (const [seed, mode] of PAST_FAILURES) assertEquals(compareEngines(seed, mode), undefined);
});

Deno.test("interpreter and reference agree under the geometry and the sticky TLB", () => {
  for (const tlb of ["geometry", "sticky"] as const) {
    for (let seed = 1; seed <= 2; seed++) assertEquals(compareEngines(seed, 2, { tlb }), undefined);
  }
});

Deno.test("interpreter and reference agree on random programs, with several processors too", () => {
  for (const seed of [3, 5, 9, 20]) {
    assertEquals(comparePrograms(seed, { engine: "interpreter" }, undefined, { steps: 12_000 }), undefined);
  }
});

Deno.test("a run cut into pieces of any size ends as the same run in one piece", () => {
  const run = (pieces: readonly number[]) => {
    const machine = new Machine({ memory: GUEST_BYTES });
    loadRandomGuest(machine, 11, 2);
    for (const steps of pieces) machine.run({ steps });
    return machine.hash();
  };
  const whole = run([1000]);
  assertEquals(run([1, 2, 3, 31, 32, 33, 64, 100, 300, 434]), whole);
  assertEquals(run(Array.from({ length: 100 }, () => 10)), whole);
  assertNotEquals(run([999]), whole);
});

/** 64-bit code at 8000H of a random guest replaced by `bytes`, run for `steps` on both engines. */
function runCode(bytes: readonly number[], steps: number, at = 0x8000): string[] {
  return (["interpreter", "reference"] as const).map((engine) => {
    const machine = new Machine({ memory: GUEST_BYTES, engine });
    loadRandomGuest(machine, 3, 2);
    machine.memory.u8.set(bytes, RAM_BASE + at);
    machine.cpus[0]!.rip = BigInt(at);
    machine.run({ steps });
    return `${machine.cpus[0]!.gpr(0)} ${machine.hash()}`;
  });
}

Deno.test("a read-modify-write leaves the reads' entry of the fast TLB to the page that has it, on every engine", () => {
  // Two pages of equal index; the first one's entry for reads must still be there when its table entry is gone.
  const [a, b] = runCode(
    [
      ...[0x01, 0x04, 0x25, 0x00, 0xd0, 0x21, 0x00], // add [21d000h], eax
      ...[0x8b, 0x04, 0x25, 0x00, 0xd0, 0x01, 0x00], // mov eax, [1d000h]
      ...[0x01, 0x04, 0x25, 0x00, 0xd0, 0x21, 0x00], // add [21d000h], eax
      ...[0xc7, 0x04, 0x25, 0xe8, 0x60, 0x00, 0x00, 0, 0, 0, 0], // mov dword [60e8h], 0: the table entry of 1d000h
      ...[0x8b, 0x1c, 0x25, 0x00, 0xd0, 0x01, 0x00], // mov ebx, [1d000h]
      ...[0xeb, 0xfe],
    ],
    20,
  );
  assertEquals(a, b);
});

Deno.test("a store into the next instruction of the same line takes effect at once", () => {
  // mov byte [rip+1], 55H; mov al, 11H; jmp $
  const [a, b] = runCode([0xc6, 0x05, 0x01, 0, 0, 0, 0x55, 0xb0, 0x11, 0xeb, 0xfe], 20);
  assertEquals(a, b);
  assertEquals(Number(BigInt(a!.split(" ")[0]!) & 0xffn), 0x55);
});

Deno.test("a loop that changes the immediate of its own instruction sees every value", () => {
  // xor eax, eax; mov ecx, 50; L: mov [rip+1], cl (the imm8 of the next); add al, imm8; dec ecx; jnz L; jmp $
  const code = [
    0x31,
    0xc0,
    0xb9,
    50,
    0,
    0,
    0,
    0x88,
    0x0d,
    1,
    0,
    0,
    0,
    0x04,
    0,
    0xff,
    0xc9,
    0x75,
    0xf4,
    0xeb,
    0xfe,
  ];
  const [a, b] = runCode(code, 400);
  assertEquals(a, b);
  assertEquals(Number(BigInt(a!.split(" ")[0]!)), (50 * 51 / 2) & 0xff);
});

Deno.test("an instruction across a page border runs, and sees a store to either of its pages", () => {
  // At 8FFBH: xor ecx, ecx; L: mov eax, imm32 (crosses at 9000H); inc ecx; mov [9000H], cl; cmp ecx, 9; jb L; jmp $
  const code = [
    0x31,
    0xc9,
    0xb8,
    0x11,
    0x22,
    0x33,
    0x44,
    0xff,
    0xc1,
    0x88,
    0x0c,
    0x25,
    0x00,
    0x90,
    0,
    0,
    0x83,
    0xf9,
    9,
    0x72,
  ];
  const at = 0x8ffb;
  const [a, b] = runCode([...code, 0x100 - (code.length - 1), 0xeb, 0xfe], 100, at);
  assertEquals(a, b);
  // The byte at 9000H is bits 23:16 of the immediate: the last one loaded is 8.
  assertEquals(Number(BigInt(a!.split(" ")[0]!)).toString(16), "44082211");
});

Deno.test("a stopped line has its flags, also those that its next instruction overwrites", () => {
  // Adds and subtracts in a row: flags of all but the last are dead in the line, but not to whoever stops in between.
  const code = [
    0x48,
    0x01,
    0xd8,
    0x48,
    0x29,
    0xc8,
    0x48,
    0x31,
    0xd0,
    0x48,
    0x39,
    0xf8,
    0x48,
    0x01,
    0xf0,
    0xeb,
    0xef,
  ];
  for (let steps = 1; steps < 40; steps++) {
    const [a, b] = runCode(code, steps);
    assertEquals(a, b, `after ${steps} steps`);
  }
});

Deno.test("a compiled region that a repeated string instruction has left little of the slice for ends with it", () => {
  // L: mov ecx, 9; mov edi, 1c000h; xor eax, eax; rep stosq; 40 NOPs; jmp L
  const head = [0xb9, 9, 0, 0, 0, 0xbf, 0, 0xc0, 1, 0, 0x31, 0xc0, 0xf3, 0x48, 0xab];
  const code = [...head, ...Array<number>(40).fill(0x90)];
  code.push(0xeb, -(code.length + 2) & 0xff);
  for (let steps = 6030; steps < 6083; steps += 4) {
    const machine = new Machine({ memory: GUEST_BYTES, engine: "compiled", compileThreshold: 1 });
    loadRandomGuest(machine, 3, 2);
    machine.memory.u8.set(code, RAM_BASE + 0x8000);
    machine.cpus[0]!.rip = 0x8000n;
    machine.run({ steps });
    assertEquals(machine.instructions, steps);
  }
});

Deno.test("compiled, interpreter and reference agree on random programs, also in VMX non-root operation", () => {
  for (const seed of [3, 5, 20, 53]) {
    const found = comparePrograms(seed, { engine: "compiled", threshold: 1 }, undefined, { steps: 8000 });
    assertEquals(found, undefined);
  }
});
