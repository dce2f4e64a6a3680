import { assert, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { gva } from "../../hw/address.ts";
import { loadImage } from "../../hw/boot/image.ts";
import { GateIds } from "../../hw/gate_ids.ts";
import { CONTINUATIONS_MAX, type GateBody, type GateCpu } from "../../hw/gates.ts";
import { type EngineKind, ENGINES, Machine, type MachineStop } from "../../hw/machine.ts";
import { R, S } from "../../hw/state.ts";
import { Assembler } from "../../kernel/platform/pc64/assembler.ts";
import { CODE_VA, elf64, gateOnly, resumeOnly } from "../kernel/user_program.ts";

interface Ran {
  readonly machine: Machine;
  readonly stop: MachineStop;
  /** Exceptions that were delivered, as "vector:error code". */
  readonly exceptions: string[];
}

/** Runs code in ring 0 of long mode with gates of these bodies, without an IDT: the first exception ends in a triple fault. */
function run(
  engine: EngineKind,
  bodies: readonly GateBody[],
  build: (a: Assembler) => void,
  options: {
    cpl?: number;
    gates?: boolean;
    steps?: number;
    prepare?: (machine: Machine, a: Assembler) => void;
  } = {},
): Ran {
  const machine = new Machine({ memory: 8 << 20, engine, gates: options.gates ?? true });
  bodies.forEach((body, i) => machine.gates?.register({ name: `gate${i}`, cpl: options.cpl ?? 0, body }));
  const a = new Assembler(CODE_VA, BigInt(CODE_VA));
  build(a);
  loadImage(machine, elf64(a.hlt().finish()));
  options.prepare?.(machine, a);
  const exceptions: string[] = [];
  machine.trace.on(["exception"], ({ vector, errorCode }) => exceptions.push(`${vector}:${errorCode}`));
  const stop = machine.run({ steps: options.steps ?? 100_000 });
  return { machine, stop, exceptions };
}

function* nothing(): Generator<undefined, void, void> {}

/** An address that the loader's tables do not map. */
const UNMAPPED = gva(0x1_0000_0000n);
const GP_THEN_TRIPLE = ["13:0", "8:0"];
/** #UD is not contributory: its delivery faults first, with #GP of the missing gate. */
const UD_THEN_TRIPLE = ["6:-1", "13:51", "8:0"];

for (const engine of ENGINES) {
  describe(`gates on the ${engine} engine`, () => {
    it("a body runs from GATE to its end, then execution goes on behind RESUME with R15 as it was", () => {
      const seen: bigint[] = [];
      function* body(cpu: GateCpu) {
        seen.push(cpu.gpr(R.RDI));
        yield;
        seen.push(cpu.gpr(R.R15));
        return 42;
      }
      const { machine, exceptions } = run(engine, [body], (a) => {
        a.movImmediate("rdi", 7n).movImmediate("r15", 0x1234n).gate(0).move("rbx", "rax");
      });
      const cpu = machine.cpus[0]!;
      assertEquals(exceptions, []);
      assertEquals(seen[0], 7n);
      assertNotEquals(seen[1], 0x1234n);
      assertEquals([cpu.gpr(R.RBX), cpu.gpr(R.R15)], [42n, 0x1234n]);
      assertEquals(machine.gates?.live, 0);
    });

    it("each step is one instruction", () => {
      function* body() {
        yield;
        yield;
      }
      const without = run(engine, [body], (a) => a.cli()).machine.instructions;
      const { machine } = run(engine, [body], (a) => a.cli().gate(0));
      assertEquals(machine.instructions - without, 4); // GATE, three steps
    });

    it("memory goes through translation, at any alignment and across pages", () => {
      let read: unknown;
      function* body(cpu: GateCpu) {
        yield* cpu.store64(gva(0x200ffd), 0x1122_3344_5566_7788n);
        const bytes = yield* cpu.loadBytes(gva(0x200ffd), 8);
        read = [
          yield* cpu.load8(gva(0x200ffd)),
          yield* cpu.load16(gva(0x200ffe)),
          yield* cpu.load32(gva(0x200fff)),
          yield* cpu.load64(gva(0x200ffd)),
          [...bytes],
        ];
      }
      run(engine, [body], (a) => a.gate(0));
      assertEquals(read, [
        0x88,
        0x6677,
        0x3344_5566,
        0x1122_3344_5566_7788n,
        [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11],
      ]);
    });

    it("an operation that faults raises the exception at RESUME and is tried again after IRET", () => {
      const order: string[] = [];
      function* body(cpu: GateCpu) {
        order.push("before");
        const value = yield* cpu.load32(UNMAPPED);
        order.push(`read ${value.toString(16)}`);
      }
      function* handler(cpu: GateCpu) {
        const rip = yield* cpu.load64(gva(cpu.gpr(R.RSP) + 8n));
        order.push(`fault at RESUME: ${rip === BigInt(CODE_VA + 7)}`);
        // Slot 4 of the PDPT: one page of 1 GiB at physical 0, where the value stands.
        const root = cpu.cpu.get64(S.CR3);
        const pdpt = (yield* cpu.load64(gva(root))) & ~0xfffn;
        yield* cpu.store64(gva(pdpt + 4n * 8n), 0x83n);
      }
      const { exceptions, stop } = run(
        engine,
        [body, handler],
        (a) => a.gate(0).cli().hlt().label("handler").gate(1).adjustStack(8).iretq(),
        {
          prepare: (machine, a) => {
            const entry = a.virtual("handler"), idt = 0x30_0000;
            const gate = (entry & 0xffffn) | (0x10n << 16n) | (0x8en << 40n) | ((entry >> 16n) << 48n);
            machine.bus.writeRam(idt + 14 * 16, new Uint8Array(new BigUint64Array([gate, 0n]).buffer));
            machine.cpus[0]!.set64(S.IDTR, BigInt(idt));
            machine.cpus[0]!.set32(S.IDTR + 8, 0xfff);
            machine.bus.write(0, 4, 0xcafe_f00d);
          },
        },
      );
      assertEquals(order, ["before", "fault at RESUME: true", "read cafef00d"]);
      assertEquals(exceptions, ["14:0"]);
      assertEquals(stop.reason, "idle");
    });

    it("a guessed id is #GP(0)", () => {
      const { exceptions, stop } = run(engine, [nothing], (a) => {
        resumeOnly(a.movImmediate("r15", 0x0123_4567_89ab_cdefn));
      });
      assertEquals(exceptions, GP_THEN_TRIPLE);
      assertEquals(stop.reason, "shutdown");
    });

    it("an id that differs in one bit is #GP(0)", () => {
      function* body() {
        for (let i = 0; i < 5; i++) yield;
      }
      for (const bit of [0, 31, 32, 52, 53, 63]) {
        const { exceptions } = run(engine, [body], (a) => {
          gateOnly(a, 0).db(0x49, 0x0f, 0xba, 0xff, bit); // btc r15, bit
          resumeOnly(a);
        });
        assertEquals(exceptions, GP_THEN_TRIPLE, `bit ${bit}`);
      }
    });

    it("a stale id is #GP(0)", () => {
      const { exceptions } = run(engine, [nothing], (a) => {
        gateOnly(a, 0).move("rbx", "r15");
        resumeOnly(a).move("r15", "rbx");
        resumeOnly(a);
      });
      assertEquals(exceptions, GP_THEN_TRIPLE);
    });

    it("an id of another address space is #GP(0), and good again where it came from", () => {
      let steps = 0;
      let away = 0n;
      function* body(cpu: GateCpu) {
        steps++;
        cpu.cpu.rip = away; // as a switch to another thread would
        yield;
        steps++;
      }
      const other = 0x40_0000;
      const load = (back: boolean) =>
        run(
          engine,
          [body],
          (a) => {
            gateOnly(a, 0).db(0x0f, 0x20, 0xdb); // mov rbx, cr3
            resumeOnly(a).hlt().label("away").movImmediate("rax", BigInt(other)).movToControl(3);
            if (back) a.move("rax", "rbx").movToControl(3);
            resumeOnly(a);
          },
          {
            prepare: (machine, a) => {
              away = a.virtual("away");
              const root = Number(machine.cpus[0]!.get64(S.CR3));
              machine.bus.writeRam(other, machine.bus.readRam(root, 4096));
            },
          },
        ).exceptions;
      assertEquals(load(false), GP_THEN_TRIPLE);
      assertEquals(steps, 1);
      assertEquals(load(true), []);
      assertEquals(steps, 3);
    });

    it("a gate for another privilege level is #GP(0)", () => {
      const { exceptions } = run(engine, [nothing], (a) => a.gate(0), { cpl: 3 });
      assertEquals(exceptions, GP_THEN_TRIPLE);
    });

    it("a gate that is not there is #UD, and so is every gate on a machine without", () => {
      assertEquals(run(engine, [nothing], (a) => a.gate(1)).exceptions, UD_THEN_TRIPLE);
      assertEquals(run(engine, [], (a) => a.gate(0), { gates: false }).exceptions, UD_THEN_TRIPLE);
      assertEquals(run(engine, [], (a) => resumeOnly(a), { gates: false }).exceptions, UD_THEN_TRIPLE);
    });

    it("UD0 with any other operand is #UD", () => {
      for (const operand of [[0xc0], [0x00], [0x45, 0x00], [0x04, 0x25, 0, 0, 0, 0]]) {
        const { exceptions } = run(engine, [nothing], (a) => a.db(0x0f, 0xff, ...operand));
        assertEquals(exceptions, UD_THEN_TRIPLE, operand.join(" "));
      }
    });

    it("GATE without RESUME in a loop runs into a bound, not into the host's memory", () => {
      const { machine, exceptions } = run(engine, [nothing], (a) => {
        gateOnly(a.label("again"), 0).jump("again");
      }, { steps: 4 * CONTINUATIONS_MAX });
      assertEquals(exceptions, GP_THEN_TRIPLE);
      assertEquals(machine.gates?.live, CONTINUATIONS_MAX);
    });

    it("what a body throws stops the machine and nothing else", () => {
      function* body(): Generator<undefined, void, void> {
        throw new RangeError("a bug in the kernel");
      }
      const { machine, stop } = run(engine, [body], (a) => a.gate(0));
      assert(stop.reason === "panic");
      assertEquals([stop.gate, String(stop.error)], ["gate0", "RangeError: a bug in the kernel"]);
      assertEquals(machine.run().reason, "panic");
    });
  });
}

describe("ids of continuations", () => {
  it("repeat with the key and differ without", () => {
    const draw = (key: number[]) => {
      const ids = new GateIds(key);
      return Array.from({ length: 20 }, () => {
        ids.draw();
        return `${ids.high}:${ids.low}`;
      });
    };
    assertEquals(draw([1, 2, 3]), draw([1, 2, 3]));
    assertNotEquals(draw([1, 2, 3]), draw([1, 2, 4]));
    assertEquals(new Set(draw([1])).size, 20);
  });

  it("are the ChaCha stream of the key", () => {
    // ChaCha8 with an all-zero key and nonce, first words of the first block.
    const ids = new GateIds([]);
    ids.draw();
    assertEquals([ids.low, ids.high], [0x2fef003e, 0xd6405f89]);
  });
});

Deno.test("a privilege level that does not exist is refused at once", () => {
  const machine = new Machine({ memory: 1 << 20, gates: true });
  assertThrows(
    () => machine.gates!.register({ name: "x", cpl: 4, body: nothing }),
    RangeError,
    "its privilege level is 4",
  );
});
