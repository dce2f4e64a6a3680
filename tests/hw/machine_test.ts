import { assert, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { TICKS_PER_SECOND } from "../../hw/clock.ts";
import { describe, it } from "@std/testing/bdd";
import { loadMultiboot } from "../../hw/boot/multiboot.ts";
import { MemoryDisk } from "../../hw/dev/virtio_blk.ts";
import { ENGINES, Machine, type MachineOptions } from "../../hw/machine.ts";
import { RAM_BASE, S } from "../../hw/state.ts";
import { ECHO, flatImage, HELLO, hex, INTERRUPTS, SMP, TIMER, TRIPLE_FAULT } from "./guest_programs.ts";

const MEMORY = 2 << 20;

function boot(image: Uint8Array, options: MachineOptions = {}) {
  let output = "";
  const machine = new Machine({
    memory: MEMORY,
    serial: { output: (bytes) => output += new TextDecoder().decode(bytes) },
    ...options,
  });
  loadMultiboot(machine, image);
  return { machine, output: () => output };
}

for (const engine of ENGINES) {
  describe(`a machine on the ${engine} engine`, () => {
    it("prints on the serial line and leaves by the debug exit", () => {
      const { machine, output } = boot(HELLO, { engine });
      assertEquals(machine.run({ steps: 1000 }), { reason: "exit", code: 0x21 });
      assertEquals([output(), machine.instructions, machine.isFinal], ["Hi", 7, true]);
      assertEquals(machine.run(), { reason: "exit", code: 0x21 });
    });
    it("stops at a bound and goes on", () => {
      const { machine, output } = boot(HELLO, { engine });
      assertEquals(machine.run({ steps: 3 }), { reason: "steps" });
      assertEquals([output(), machine.instructions, machine.now], ["H", 3, 3]);
      assertEquals(machine.run({ untilTick: 5 }), { reason: "until" });
      assertEquals([output(), machine.now], ["Hi", 5]);
      machine.interrupt();
      assertEquals(machine.run(), { reason: "interrupted" });
      assertEquals(machine.run().reason, "exit");
    });
    it("wakes a halted processor at exactly the timer's tick", () => {
      const { machine } = boot(TIMER, { engine });
      assertEquals(machine.run({ steps: 1000 }), { reason: "exit", code: 11 });
      // The count starts with the 20th instruction; the fifth interrupt comes 5000 ticks later, and delivery and the
      // handler's instructions up to RDTSC follow.
      const tsc = machine.bus.read(0x3004, 4);
      assert(tsc > 5000 && tsc < 5050, `${tsc}`);
    });
    it("starts processors by INIT and start-up IPIs, and keeps LOCKed operations whole", () => {
      const { machine } = boot(SMP, { engine, cpus: 4, seed: 5 });
      assertEquals(machine.run({ steps: 200_000 }), { reason: "exit", code: (3000 << 1) | 1 });
    });
    it("reports a triple fault", () => {
      const { machine } = boot(TRIPLE_FAULT, { engine });
      assertEquals(machine.run({ steps: 1000 }), { reason: "shutdown", cpu: 0 });
    });
    it("takes timer and serial interrupts through the 8259, and waits for input", () => {
      const { machine, output } = boot(INTERRUPTS, { engine });
      assertEquals(machine.run({ steps: 10_000 }).reason, "idle");
      assertEquals(machine.bus.read(0x3000, 4), 10);
      // Ten periods of 1193 clocks of 1.193182 MHz, and a few instructions.
      const periods = 10 * 1193 / 1_193_182 * TICKS_PER_SECOND;
      assert(machine.now > periods && machine.now < periods + 1500, `${machine.now}`);
      machine.serialInput(new TextEncoder().encode("hello"));
      assertEquals(machine.run({ steps: 10_000 }).reason, "idle");
      assertEquals(output(), "hello");
    });
    it("is idle when halted for good", () => {
      const { machine } = boot(flatImage(hex("fa f4 ebfd")), { engine });
      assertEquals(machine.run({ steps: 1000 }).reason, "idle");
    });
  });
}

describe("determinism", () => {
  const run = (options: MachineOptions) => {
    const { machine } = boot(SMP, { cpus: 4, ...options });
    machine.run({ steps: 200_000 });
    return { hash: machine.hash(), instructions: machine.instructions, time: machine.now };
  };
  it("gives the same hash for the same seed on every engine", () => {
    for (const seed of [1, 2, 99]) {
      const first = run({ seed, engine: "interpreter" });
      assertEquals(run({ seed, engine: "interpreter" }), first);
      assertEquals(run({ seed, engine: "reference" }), first);
    }
    assertNotEquals(run({ seed: 1 }).hash, run({ seed: 2 }).hash);
  });
  it("does not depend on how a run is cut into pieces", () => {
    const whole = run({ seed: 3 });
    const { machine } = boot(SMP, { cpus: 4, seed: 3 });
    while (machine.run({ steps: 777 }).reason === "steps");
    assertEquals(machine.hash(), whole.hash);
  });
  it("repeats inputs from the log at their ticks", () => {
    const first = boot(ECHO);
    first.machine.run({ steps: 1000 });
    first.machine.serialInput(new TextEncoder().encode("ab"));
    first.machine.run({ steps: 1234 });
    first.machine.serialInput(new TextEncoder().encode("cq"));
    assertEquals(first.machine.run({ steps: 10_000 }), { reason: "exit", code: 1 });
    const second = boot(ECHO, { replay: first.machine.inputLog });
    assertEquals(second.machine.run({ steps: 20_000 }), { reason: "exit", code: 1 });
    assertEquals([second.output(), second.machine.hash()], ["abcq", first.machine.hash()]);
  });
  it("sees any difference in memory, registers, and time", () => {
    const { machine } = boot(HELLO);
    const hashes = new Set([machine.hash()]);
    machine.memory.u8[RAM_BASE + 0x12_3456] = 1;
    hashes.add(machine.hash());
    machine.cpus[0]!.setGpr(9, 1n);
    hashes.add(machine.hash());
    machine.cpus[0]!.set32(S.MXCSR, 0x1f00);
    hashes.add(machine.hash());
    machine.run({ steps: 1 });
    hashes.add(machine.hash());
    assertEquals(hashes.size, 5);
  });
});

describe("snapshots", () => {
  it("take a machine back, with the same future", () => {
    for (const engine of ENGINES) {
      const { machine } = boot(SMP, { cpus: 4, seed: 8, engine });
      machine.run({ steps: 3000 });
      const snapshot = machine.snapshot(), before = machine.hash();
      const stop = machine.run({ steps: 200_000 }), hash = machine.hash();
      assertEquals(stop.reason, "exit");
      machine.restore(snapshot);
      assertEquals(machine.hash(), before);
      assertEquals([machine.run({ steps: 200_000 }), machine.hash()], [stop, hash]);
    }
  });
  it("can be put into another machine of the same build", () => {
    const a = boot(TIMER).machine;
    a.run({ steps: 30 });
    const snapshot = a.snapshot();
    const b = boot(HELLO).machine;
    b.restore(snapshot);
    assertEquals(b.hash(), a.hash());
    assertEquals([b.run({ steps: 1000 }), b.hash()], [a.run({ steps: 1000 }), a.hash()]);
  });
});

describe("tracing", () => {
  it("tells of ports, device memory, and what happens to processors", () => {
    const { machine } = boot(SMP, { cpus: 4, seed: 5 });
    const seen: string[] = [];
    machine.trace.on(["mmio", "port", "machine"], (event) => {
      if (event.kind === "machine") seen.push(`${event.what} ${event.cpu}`);
      else if (event.kind === "port") seen.push(`out ${event.port.toString(16)} ${event.value}`);
      else seen.push(`write ${event.physical.toString(16)} ${event.value.toString(16)}`);
    });
    machine.run({ steps: 200_000 });
    assertEquals(seen.slice(0, 3), ["write fee000f0 1ff", "write fee00300 c4500", "write fee00300 c4608"]);
    assertEquals(seen.slice(3, -2).toSorted(), ["init 1", "init 2", "init 3", "sipi 1", "sipi 2", "sipi 3"]);
    assertEquals(seen.slice(-2), ["out f4 3000", "debug exit 0"]);
  });
});

describe("building a machine", () => {
  it("refuses impossible options", () => {
    assertThrows(() => new Machine({ memory: 12345 }), RangeError, "64 KiB");
    assertThrows(() => new Machine({ cpus: 17 }), RangeError, "1 to 16");
    assertThrows(() => new Machine({ cpuModel: "z80" }), RangeError, "skylake");
    assertThrows(
      () => new Machine({ memory: MEMORY, stuckBits: [{ address: MEMORY, bit: 0, value: 1 }] }),
      RangeError,
    );
  });
  it("puts a disk behind its registers, and tables in ROM", () => {
    const machine = new Machine({ memory: MEMORY, disk: new MemoryDisk(new Uint8Array(1024)) });
    assertEquals(machine.bus.read(0xfeb0_0000, 4), 0x7472_6976);
    machine.run({ steps: 0 });
    machine.bus.write(0xf_0000, 4, 0);
    assertEquals(machine.bus.read(0xf_0000, 4), 0x2044_5352, "RSD ");
    assertEquals(machine.bus.read(0xffff_fff0, 1), 0xba, "the reset vector");
  });
  it("lets a processor at the reset vector reset the machine", () => {
    const machine = new Machine({ memory: MEMORY });
    assertEquals(machine.run({ steps: 100 }), { reason: "reset" });
  });
  it("powers off and resets when the guest says so", () => {
    // mov dx, 604H; mov ax, 3400H; out dx, ax
    const off = boot(flatImage(hex("66ba0406 66b80034 66ef f4")));
    assertEquals(off.machine.run({ steps: 10 }), { reason: "poweroff" });
    // mov al, FEH; out 64H, al
    const reset = boot(flatImage(hex("b0fe e664 f4")));
    assertEquals(reset.machine.run({ steps: 10 }), { reason: "reset" });
  });
  it("makes RAM bits stick", () => {
    // mov byte [200000H − 10H], 0; mov al, [1FFFF0H]; out F4H, al
    const program = flatImage(hex("c605f0ff1f0000 a0f0ff1f00 e6f4"));
    for (const engine of ENGINES) {
      const { machine } = boot(program, { engine, stuckBits: [{ address: 0x1f_fff0, bit: 3, value: 1 }] });
      assertEquals(machine.run({ steps: 10 }), { reason: "exit", code: 17 });
      assertEquals(machine.stuckBits!.hits, 1);
    }
  });
});
