import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { loadImage } from "../../hw/boot/image.ts";
import { type EngineKind, ENGINES, Machine, type MachineOptions } from "../../hw/machine.ts";
import { Random } from "../../hw/random.ts";
import { RAM_BASE } from "../../hw/state.ts";
import { flatImage, hex } from "./guest_programs.ts";

const MEMORY = 2 << 20;
const STEPS = 6000;

/** Runs 32-bit code (flat, paging off, no IDT) on an engine; what ended it, and the machine. */
function run(engine: EngineKind, code: string, options: MachineOptions) {
  const machine = new Machine({ memory: MEMORY, engine, ...options });
  loadImage(machine, flatImage(hex(code)));
  const stop = machine.run({ steps: STEPS });
  return { machine, stop };
}

/** The same on all engines; they must end alike. */
function everywhere(code: string, options: MachineOptions = {}) {
  const results = ENGINES.map((engine) => run(engine, code, options));
  for (const { machine, stop } of results) {
    assertEquals(stop, results[0]!.stop);
    assertEquals(machine.hash(), results[0]!.machine.hash());
  }
  return results[0]!;
}

/** `out F4H, al`: exit status 2·AL + 1. */
const EXIT = "e6f4";

describe("what a guest does wrong has an architectural outcome, the same on all engines:", () => {
  it("a jump into the void reads FFH, which is no instruction: a triple fault without an IDT", () => {
    // mov eax, C0000000H; jmp eax
    assertEquals(everywhere("b8000000c0 ffe0").stop, { reason: "shutdown", cpu: 0 });
  });
  it("a jump into a device's registers", () => {
    assertEquals(everywhere("b80000e0fe ffe0").stop, { reason: "shutdown", cpu: 0 });
  });
  it("running off the end of RAM", () => {
    // Fills the last page with NOPs, and goes on into what is not there.
    const nops = "bf00f01f00 b900100000 b090 fc f3aa b8f0ff1f00 ffe0";
    assertEquals(everywhere(nops).stop.reason, "shutdown");
  });
  it("loading a GDT that is nowhere, then a segment from it", () => {
    // mov dword [5000H], FFFFH; mov dword [5002H], C0000000H; lgdt [5000H]; mov ax, 10H; mov ds, ax
    const code = "c70500500000ffff0000 c70502500000000000c0 0f011500500000 66b81000 8ed8";
    assertEquals(everywhere(code).stop, { reason: "shutdown", cpu: 0 });
  });
  it("loading a selector beyond the GDT's limit", () => {
    assertEquals(everywhere("66b8f8ff 8ed8").stop.reason, "shutdown");
  });
  it("an exception without an IDT is a triple fault", () => {
    for (const code of ["0f0b", "cc", "cd80", "31c9 f7f1", "0f011d00500000 cc"]) {
      assertEquals(everywhere(code).stop, { reason: "shutdown", cpu: 0 }, code);
    }
  });
  it("spinning with interrupts off ends with the bound on steps, exactly", () => {
    const { machine, stop } = everywhere("fa ebfe");
    assertEquals([stop.reason, machine.instructions], ["steps", STEPS]);
  });
  it("halting with interrupts off is idle for good", () => {
    assertEquals(everywhere("fa f4").stop.reason, "idle");
  });
  it("a write to ROM vanishes", () => {
    // mov al, [F0000H]; mov dl, al; not byte [F0000H]; mov al, [F0000H]; sub al, dl; exit with the difference
    assertEquals(everywhere(`a000000f00 88c2 f61500000f00 a000000f00 28d0 ${EXIT}`).stop, {
      reason: "exit",
      code: 1,
    });
  });
  it("unmapped physical addresses read as ones, and writes to them vanish", () => {
    // mov dword [C0000000H], 12345678H; mov eax, [C0000000H]; inc eax; setnz al
    const code = `c705000000c078563412 a1000000c0 40 0f95c0 ${EXIT}`;
    assertEquals(everywhere(code).stop, { reason: "exit", code: 1 });
  });
  it("string operations over what is not there", () => {
    // rep stosd to C0000000H, rep movsd from there, repe scasd
    const code =
      "bf000000c0 b900010000 fc f3ab be000000c0 bf00001800 b900010000 f3a5 bf000000c0 b900010000 f3af" + EXIT;
    assertEquals(everywhere(code).stop.reason, "exit");
  });
  it("tables in unmapped memory, or nowhere at all", () => {
    // mov eax, C0000000H; mov cr3, eax; mov eax, cr0; or eax, 80000000H; mov cr0, eax
    assertEquals(everywhere("b8000000c0 0f22d8 0f20c0 0d00000080 0f22c0 f4").stop.reason, "shutdown");
  });
  it("all ports can be read and written at any size", () => {
    // mov edx, FFFFH; l: in al, dx; in ax, dx; in eax, dx; cmp dx, F4H; je s; mov al, 0; (ports of the machine's switches are left out)
    const reads = "ba00010000 ec 66ed ed 42 81fa00000100 75f4 f4";
    for (const engine of ENGINES) {
      const machine = new Machine({ memory: MEMORY, engine });
      loadImage(machine, flatImage(hex(reads)));
      assert(["steps", "idle"].includes(machine.run({ steps: 100_000 }).reason));
    }
  });
  it("more processors than it knows of stay parked", () => {
    assertEquals(everywhere("fa f4", { cpus: 16 }).stop.reason, "idle");
  });
});

describe("random bytes as a guest", () => {
  for (const engine of ENGINES) {
    it(`never throw out of the machine (${engine})`, () => {
      const random = new Random(engine.length);
      const machine = new Machine({ memory: MEMORY, engine, cpus: 2 });
      loadImage(machine, flatImage(new Uint8Array(64)));
      const start = machine.snapshot();
      const bytes = new Uint8Array(4096);
      for (let round = 0; round < 60; round++) {
        machine.restore(start);
        for (let i = 0; i < bytes.length; i++) bytes[i] = random.next();
        machine.memory.u8.set(bytes, RAM_BASE + 0x10_0000);
        machine.run({ steps: 500 });
        machine.hash();
      }
    });
  }
});
