import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { gva } from "../../hw/address.ts";
import type { Exec, GateCpu } from "../../hw/gates.ts";
import { ENGINES, Machine } from "../../hw/machine.ts";
import { R } from "../../hw/state.ts";
import { bootKernel } from "../../kernel/boot.ts";
import type { Kernel } from "../../kernel/kernel.ts";
import { type Sysent, sysent } from "../../kernel/kern/init_sysent.ts";
import { KSTACK_BYTES } from "../../kernel/platform/pc64/vmparam.ts";
import { boot, builtProgram, mayRead } from "./kernel_fixture.ts";
import { CODE_VA, exitCall, resumeOnly, userProgram } from "./user_program.ts";

const exit3 = userProgram((a) => exitCall(a.movImmediate32("rdi", 3)));
const cpuCounts = [1, 2, 4];

describe("the kernel", { ignore: !mayRead }, () => {
  for (const engine of ENGINES) {
    it(`runs a C program in ring 3 on the ${engine} engine`, () => {
      const { console, kernel, stop } = boot([builtProgram("hello")], { engine });
      assertEquals(console, "Hello from ring 3\n");
      assertEquals(kernel.ends, [{ kind: "exit", status: 0 }]);
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
    const program = builtProgram("args", { argv: ["args", "5", "b c"], envp: ["HOME=/", "X="] });
    const { console, kernel } = boot([program]);
    assertEquals(console.split("\n"), [
      "pid 1, 3 arguments",
      '  argv[0] = "args"',
      '  argv[1] = "5"',
      '  argv[2] = "b c"',
      '  envp[0] = "HOME=/"',
      '  envp[1] = "X="',
      "",
    ]);
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
    const { console, kernel } = boot([{ name: "dirty", file: dirty }, builtProgram("sse")]);
    assertStringIncludes(console, "right");
    assertEquals(kernel.ends, [{ kind: "exit", status: 0 }, { kind: "exit", status: 0 }]);
  });

  for (
    const { name, says } of [
      {
        name: "null",
        says: /page fault.*\n {2}access {5}read of 0x0{16} in user mode.*\n(.*\n)*.*PDE is not present/,
      },
      {
        name: "rotext",
        says: /page fault.*\n {2}access {5}write of 0x0000000000401[0-9a-f]{3}.*present, write, user/,
      },
      { name: "divzero", says: /divide error \(#DE\)/ },
      {
        name: "void",
        says: /fetch of 0x00000000dead0000 (.*\n)*.*nothing can be fetched at 0x00000000dead0000/,
      },
      {
        name: "overflow",
        says: /write of 0x00007ffffffb[0-9a-f]{4} in user mode(.*\n)*.*PTE is not present/,
      },
      { name: "privileged", says: /general protection \(#GP\)/ },
      { name: "stackexec", says: /fetch of 0x00007f[0-9a-f]{10}(.*\n)*.*execute disabled/ },
    ]
  ) {
    it(`reports what "${name}" did and goes on with the next program`, () => {
      const { console, kernel } = boot([builtProgram(name), builtProgram("hello")]);
      assertMatch(console, says);
      assertMatch(console, /rip {4}[0-9a-f]{16}/);
      assertStringIncludes(console, "Hello from ring 3");
      assertEquals(kernel.ends.map(({ kind }) => kind), ["fault", "exit"]);
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
      assertEquals(kernel.cpus.map(({ id }) => id), Array.from({ length: cpus }, (_, i) => i));
      if (cpus > 1) assertStringIncludes(console, `smp: ${cpus} processors`);
    });
  }

  it("forgets no invalidation: the worst legal TLB shows the sanitizer nothing", () => {
    const names = ["hello", "null", "sse", "overflow", "syscalls"];
    for (const cpus of cpuCounts) {
      const { machine, kernel } = boot(names.map((name) => builtProgram(name)), {
        tlb: "sticky",
        sanitizer: true,
        cpus,
      });
      assertEquals(kernel.ends.length, names.length);
      assertEquals(machine.sanitizer?.count, 0);
    }
  });

  it("gives every page back: many programs fit where one does", () => {
    let free: number | undefined;
    const programs = Array.from({ length: 40 }, () => ({ name: "exit3", file: exit3 }));
    const { kernel } = boot([...programs, builtProgram("null"), ...programs], {
      prepare: (_machine, k) => {
        const ends = k.ends;
        const push = ends.push.bind(ends);
        ends.push = (...items) => {
          free ??= k.pages.free;
          assertEquals(k.pages.free, free);
          return push(...items);
        };
      },
    });
    assertEquals(kernel.ends.length, 81);
  });
});

describe("the kernel and bad programs", () => {
  it("says why a file is no program, and goes on", () => {
    const junk = new TextEncoder().encode("#!/bin/sh\necho no\n");
    const { console, kernel } = boot([{ name: "junk", file: junk }, { name: "exit3", file: exit3 }]);
    assertMatch(console, /exec: cannot run "junk": .*/);
    assertEquals(kernel.ends.map(({ kind }) => kind), ["not started", "exit"]);
    assertEquals(kernel.exitStatus, 3);
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
    const { kernel, stop } = boot(programs, { memory: 64 << 20 });
    assertEquals(stop.reason, "poweroff");
    assertEquals(kernel.ends.length, files.length);
  });

  it("says so when a program does not fit in memory", () => {
    const file = exit3.slice();
    new DataView(file.buffer).setBigUint64(104, 40n << 20n, true); // p_memsz
    const { console, kernel } = boot([{ name: "large", file }, { name: "exit3", file: exit3 }]);
    assertStringIncludes(console, 'cannot run "large": there is not enough memory for it');
    assertEquals(kernel.exitStatus, 3);
  });
});

describe("ring 3 against the kernel's gates", () => {
  /** Runs a program that attacks, then a good one; both must end as they should. */
  function attack(build: Parameters<typeof userProgram>[0]) {
    const { kernel, stop } = boot([{ name: "attack", file: userProgram(build) }, {
      name: "exit3",
      file: exit3,
    }]);
    assertEquals(stop.reason, "poweroff");
    assertEquals(kernel.exitStatus, 3);
    const end = kernel.ends[0];
    assert(end?.kind === "fault");
    return end.report.name;
  }

  it("RESUME with a guessed id is #GP", () => {
    assertEquals(
      attack((a) => resumeOnly(a.movImmediate("r15", 0xdead_beef_0000_0001n))),
      "general protection (#GP)",
    );
  });

  it("entering any of the kernel's gates is #GP", () => {
    for (let n = 0; n < 5; n++) {
      assertEquals(attack((a) => a.gate(n)), "general protection (#GP)", `gate ${n}`);
    }
  });

  it("entering a gate that is not there is #UD", () => {
    assertEquals(attack((a) => a.gate(0x7fff_0000)), "invalid opcode (#UD)");
  });

  it("the id that another program left behind is #GP, though its pages are used again", () => {
    let id = 0n, steps = 0;
    // Gate 5 leaves a continuation that is not done; gate 6 tells its id.
    const leave = userProgram((a) => exitCall(a.gate(5).db(0x90)));
    const steal = userProgram((a) => exitCall(resumeOnly(a.gate(6).move("r15", "rax"))));
    const { kernel } = boot(
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
    assertEquals(kernel.ends.map(({ kind }) => kind), ["exit", "fault", "exit"]);
    assert(id !== 0n);
    assertEquals(steps, 1);
  });
});

describe("the kernel against itself", () => {
  /** Runs a program whose system call 999 does this in the kernel. */
  function inKernel(body: (k: Kernel, cpu: GateCpu) => Exec<void>) {
    const calls = sysent as Map<number, Sysent>;
    calls.set(999, function* (k, cpu) {
      yield* body(k, cpu);
      return { value: 0n };
    });
    try {
      const file = userProgram((a) => {
        a.movImmediate32("rax", 999).db(0x0f, 0x05);
        exitCall(a.movImmediate32("rdi", 3));
      });
      return boot([{ name: "caller", file }]);
    } finally {
      calls.delete(999);
    }
  }

  const stores: Record<string, (k: Kernel) => bigint> = {
    "its own code": (k) => k.locore.doreti,
    "the page below its stack": (k) => k.cpus[0]!.stackTop - BigInt(KSTACK_BYTES) - 8n,
    "an address that nothing is at": () => 0xffff_fff0_0000_0000n,
  };
  for (const [what, where] of Object.entries(stores)) {
    it(`a store to ${what} is a panic with a report, and no exception of the host`, () => {
      const { stop, console } = inKernel((k, cpu) => cpu.store64(gva(where(k)), 0n));
      assert(stop.reason === "panic");
      assertMatch(String(stop.error), /KernelPanic: page fault \(#PF\) in the kernel/);
      assertMatch(console, /access {5}write of 0x[0-9a-f]{16} in kernel mode/);
    });
  }

  it("its data may not be executed, and a user page not with SMEP", () => {
    function* jumpTo(cpu: GateCpu, target: bigint): Exec<void> {
      cpu.cpu.rip = target;
      yield;
    }
    for (const target of [(k: Kernel) => k.locore.apGlobaldata, () => BigInt(CODE_VA)]) {
      const { console } = inKernel((k, cpu) => jumpTo(cpu, target(k)));
      assertMatch(console, /access {5}fetch of 0x[0-9a-f]{16} in kernel mode/);
    }
  });

  it("a bug in a system call stops the machine and names the gate", () => {
    const { stop } = inKernel(() => {
      throw new TypeError("undefined is not a page");
    });
    assert(stop.reason === "panic");
    assertEquals([stop.gate, String(stop.error)], ["syscall2", "TypeError: undefined is not a page"]);
  });
});

Deno.test("a kernel needs a machine with gates", () => {
  const machine = new Machine({ memory: 8 << 20 });
  let message = "";
  try {
    bootKernel(machine, { programs: [] });
  } catch (error) {
    message = String(error);
  }
  assertStringIncludes(message, "the machine has no gates");
});
