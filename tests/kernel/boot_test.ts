import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { gva } from "../../hw/address.ts";
import type { Exec, GateCpu } from "../../hw/gates.ts";
import { ENGINES, Machine } from "../../hw/machine.ts";
import { R } from "../../hw/state.ts";
import { bootKernel } from "../../kernel/boot.ts";
import type { Cx } from "../../kernel/context.ts";
import type { Pc64 } from "../../kernel/platform/pc64/pc64.ts";
import { SIGBUS, SIGFPE, SIGSEGV } from "../../kernel/proc/signal.ts";
import { vmUse } from "../../kernel/vm/leak.ts";
import { boot, builtProgram, mayRead } from "./kernel_fixture.ts";
import { exitCall, resumeOnly, userProgram } from "./user_program.ts";

const exit3 = userProgram((a) => exitCall(a.movImmediate32("rdi", 3)));
const cpuCounts = [1, 2, 4];

describe("the kernel", { ignore: !mayRead }, () => {
  for (const engine of ENGINES) {
    it(`runs a C program in ring 3 on the ${engine} engine`, () => {
      const { console, statuses, stop } = boot([builtProgram("hello")], { engine });
      assertEquals(console, "Hello from ring 3\n");
      assertEquals(statuses, [0]);
      assertEquals(stop.reason, "poweroff");
    });
  }

  it("has the same final hash on every engine, and twice with the same seed", () => {
    for (const seed of [1, 2, 99]) {
      for (const cpus of [1, 3]) {
        const hashes = [...ENGINES, ENGINES[0]].map((engine) => {
          const programs = [builtProgram("sse"), builtProgram("null"), builtProgram("syscalls")];
          return boot(programs, { engine, seed, cpus }).machine.hash();
        });
        assertEquals(new Set(hashes).size, 1, `seed ${seed}, ${cpus} processors`);
      }
    }
  });

  it("hands over arguments and environment", () => {
    const program = builtProgram("args", { argv: ["args", "5", "b c"] });
    const { console, kernel } = boot([program], { kernel: { envp: ["X=", "Y=1 2"] } });
    const lines = console.split("\n");
    assertEquals(lines.slice(0, 4), [
      "pid 2, 3 arguments",
      '  argv[0] = "/bin/args"',
      '  argv[1] = "5"',
      '  argv[2] = "b c"',
    ]);
    assertMatch(console, /envp\[0\] = "PATH=(.*\n)*.*envp\[[0-9]\] = "X="\n.*"Y=1 2"/);
    assertEquals(kernel.exitStatus, 5);
  });

  it("answers wrong system calls with error numbers", () => {
    const { console, kernel } = boot([builtProgram("syscalls")]);
    assertStringIncludes(console, "\nright\n");
    assertEquals(kernel.exitStatus, 0);
  });

  it("gives each program clean floating-point registers", () => {
    const dirty = userProgram((a) => {
      a.db(0xd9, 0xe8, 0xd9, 0xe8); // fld1 twice
      a.db(0x68).dd(0x027f).db(0xd9, 0x2c, 0x24); // push; fldcw [rsp]: double precision
      exitCall(a.movImmediate32("rdi", 0));
    });
    const { console, statuses } = boot([{ name: "dirty", file: dirty }, builtProgram("sse")]);
    assertStringIncludes(console, "right");
    assertEquals(statuses, [0, 0]);
  });

  for (
    const { name, signal = SIGSEGV, says } of [
      {
        name: "null",
        says: /page fault.*\n {2}access {5}read of 0x0{16} in user mode.*\n(.*\n)*.*PDE is not present/,
      },
      {
        name: "rotext",
        says: /page fault.*\n {2}access {5}write of 0x0000000000401[0-9a-f]{3}.*present, write, user/,
      },
      { name: "divzero", signal: SIGFPE, says: /divide error \(#DE\)/ },
      {
        name: "void",
        says: /fetch of 0x00000000dead0000 (.*\n)*.*nothing can be fetched at 0x00000000dead0000/,
      },
      {
        name: "overflow",
        says: /write of 0x00007fffff7f[0-9a-f]{4} in user mode(.*\n)*.*PTE is not present/,
      },
      { name: "privileged", signal: SIGBUS, says: /general protection \(#GP\)/ },
      { name: "stackexec", says: /fetch of 0x00007f[0-9a-f]{10}(.*\n)*.*execute disabled/ },
    ]
  ) {
    it(`reports what "${name}" did and goes on with the next program`, () => {
      const { console, statuses, faults } = boot([builtProgram(name), builtProgram("hello")]);
      assertMatch(console, says);
      assertMatch(console, /rip {4}[0-9a-f]{16}/);
      assertStringIncludes(console, "Hello from ring 3");
      assertEquals(statuses, [128 + signal, 0]);
      assertEquals(faults.length, 1);
    });
  }

  it("shows disassembly when it is given a disassembler, which may come late", () => {
    let asked = 0;
    const disassembler = () => asked++ === 0 ? undefined : () => ["the instruction"];
    const { console } = boot([builtProgram("null")], { kernel: { disassembler } });
    assertStringIncludes(console, "  code       the instruction\n");
  });

  for (const cpus of cpuCounts) {
    it(`starts ${cpus} processors`, () => {
      const { kernel, console } = boot([builtProgram("hello")], { cpus, kernel: { verbose: true } });
      assertEquals(kernel.lwkt.gds.map(({ gdCpuid }) => gdCpuid), Array.from({ length: cpus }, (_, i) => i));
      if (cpus > 1) assertStringIncludes(console, `SMP: ${cpus} CPUs`);
    });
  }

  it("forgets no invalidation: the worst legal TLB shows the sanitizer nothing", () => {
    const names = ["hello", "null", "sse", "overflow", "syscalls"];
    for (const cpus of cpuCounts) {
      const { machine, statuses } = boot(names.map((name) => builtProgram(name)), {
        tlb: "sticky",
        sanitizer: true,
        cpus,
      });
      assertEquals(statuses.length, names.length);
      assertEquals(machine.sanitizer?.count, 0);
    }
  });

  it("gives everything back: after forty programs as much is free as after one", () => {
    const free = (count: number) => {
      const programs = Array.from({ length: count }, () => ({ name: "exit3", file: exit3 }));
      const { kernel, statuses } = boot([...programs, builtProgram("null")]);
      assertEquals(statuses.length, count + 1);
      return vmUse(kernel);
    };
    assertEquals(free(40), free(1));
  });
});

describe("the kernel and bad programs", () => {
  it("says why a file is no program, and goes on", () => {
    const junk = new TextEncoder().encode("echo no\n");
    const { console, statuses } = boot([{ name: "junk", file: junk }, { name: "exit3", file: exit3 }], {
      kernel: { verbose: true },
    });
    assertMatch(console, /exec: cannot run "\/bin\/junk": .*/);
    assertEquals(statuses, [126, 3]);
  });

  it("survives every cut and every flipped byte of a program's header", () => {
    const files: Uint8Array[] = [];
    for (let length = 0; length < 128; length += 5) files.push(exit3.slice(0, length));
    for (let at = 0; at < 120; at++) {
      for (const value of [0x00, 0xff, 0x80]) {
        const file = exit3.slice();
        file[at] = value;
        files.push(file);
      }
    }
    const programs = files.map((file, i) => ({ name: `file${i}`, file }));
    const { statuses, stop } = boot(programs, { memory: 64 << 20, kernel: { faultReports: false } });
    assertEquals(stop.reason, "poweroff");
    assertEquals(statuses.length, files.length);
  });

  it("a program larger than the address space is refused, one larger than memory may start", () => {
    const sized = (bytes: bigint) => {
      const file = exit3.slice();
      new DataView(file.buffer).setBigUint64(104, bytes, true); // p_memsz
      return file;
    };
    const { statuses } = boot([
      { name: "endless", file: sized(1n << 62n) },
      { name: "large", file: sized(40n << 20n) },
    ]);
    assertEquals(statuses, [126, 3]);
  });
});

describe("ring 3 against the kernel's gates", () => {
  /** Runs a program that attacks, then a good one; both must end as they should. */
  function attack(build: Parameters<typeof userProgram>[0]) {
    const { kernel, stop, faults } = boot([{ name: "attack", file: userProgram(build) }, {
      name: "exit3",
      file: exit3,
    }]);
    assertEquals(stop.reason, "poweroff");
    assertEquals(kernel.exitStatus, 3);
    assertEquals(faults.length, 1);
    return faults[0]!.name;
  }

  it("RESUME with a guessed id is #GP", () => {
    assertEquals(
      attack((a) => resumeOnly(a.movImmediate("r15", 0xdead_beef_0000_0001n))),
      "general protection (#GP)",
    );
  });

  it("entering any of the kernel's gates is #GP", () => {
    for (let n = 0; n < 6; n++) {
      assertEquals(attack((a) => a.gate(n)), "general protection (#GP)", `gate ${n}`);
    }
  });

  it("entering a gate that is not there is #UD", () => {
    assertEquals(attack((a) => a.gate(0x7fff_0000)), "invalid opcode (#UD)");
  });

  it("the id that another program left behind is #GP, though its pages are used again", () => {
    let id = 0n, steps = 0;
    // Gate 6 leaves a continuation that is not done; gate 7 tells its id.
    const leave = userProgram((a) => exitCall(a.gate(6).db(0x90)));
    const steal = userProgram((a) => exitCall(resumeOnly(a.gate(7).move("r15", "rax"))));
    const { statuses } = boot(
      [{ name: "leave", file: leave }, { name: "steal", file: steal }, { name: "exit3", file: exit3 }],
      {
        prepare: (machine) => {
          function* left(cpu: GateCpu) {
            steps++;
            id = cpu.gpr(R.R15);
            cpu.cpu.rip += 1n; // over the NOP: the program goes on elsewhere
            yield;
            steps++;
          }
          function* tell(): Generator<undefined, bigint, void> {
            return id;
          }
          machine.gates!.register({ name: "leave", cpl: 3, body: left });
          machine.gates!.register({ name: "tell", cpl: 3, body: tell });
        },
      },
    );
    assertEquals(statuses.slice(1), [128 + SIGBUS, 3]);
    assert(id !== 0n);
    assertEquals(steps, 1);
  });
});

describe("the kernel against itself", () => {
  /** Runs a body in a kernel thread. */
  function inKernel(body: (cx: Cx) => Exec<void>) {
    return boot([], { kernel: { body } });
  }

  const stores: Record<string, (cx: Cx) => bigint> = {
    "its own code": (cx) => (cx.k.platform as Pc64).locore.doreti,
    "the page below its stack": (cx) => cx.td.tdKstack - 8n,
    "an address that nothing is at": () => 0xffff_fff0_0000_0000n,
  };
  for (const [what, where] of Object.entries(stores)) {
    it(`a store to ${what} is a panic with a report, and no exception of the host`, () => {
      const { stop, console } = inKernel((cx) => cx.cpu.store64(gva(where(cx)), 0n));
      assert(stop.reason === "panic");
      assertMatch(String(stop.error), /KernelPanic: page fault \(#PF\) in the kernel/);
      assertMatch(console, /access {5}write of 0x[0-9a-f]{16} in kernel mode/);
    });
  }

  it("its data may not be executed", () => {
    function* jumpTo(cpu: GateCpu, target: bigint): Exec<void> {
      cpu.cpu.rip = target;
      yield;
    }
    const { console } = inKernel((cx) => jumpTo(cx.cpu, (cx.k.platform as Pc64).locore.apGlobaldata));
    assertMatch(console, /access {5}fetch of 0x[0-9a-f]{16} in kernel mode/);
  });

  it("a bug stops the machine: the console has the sentence, the frames, the last events, the way to repeat it", () => {
    const { stop, console } = boot([], {
      kernel: {
        reproduce: "deno task boot --seed 1",
        *body() {
          throw new TypeError("undefined is not a page");
        },
      },
    });
    assert(stop.reason === "panic");
    assertEquals(String(stop.error), "TypeError: undefined is not a page");
    assertMatch(console, /panic: undefined is not a page/);
    assertMatch(console, /Trace beginning at frame 0:\n(.*\n)*.*initMain\(\) at kernel\/kern\/init_main.ts/);
    assertMatch(console, /Last events:/);
    assertMatch(console, /Reproduce: deno task boot --seed 1/);
  });
});

Deno.test("a kernel needs a machine with gates", () => {
  const machine = new Machine({ memory: 8 << 20 });
  let message = "";
  try {
    bootKernel(machine, { archives: [] });
  } catch (error) {
    message = String(error);
  }
  assertStringIncludes(message, "the machine has no gates");
});
