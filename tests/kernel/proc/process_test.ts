import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { GateCpu } from "../../../hw/gates.ts";
import { boot, builtProgram, mayRead } from "../kernel_fixture.ts";
import { call, runGates, scratch, text } from "./gate_program.ts";

const SYS = {
  wait4: 7,
  getpid: 20,
  kill: 37,
  getppid: 39,
  execve: 59,
  setpgid: 82,
  getrlimit: 194,
  sysctl: 202,
  clockGettime: 232,
  nanosleep: 240,
  umtxSleep: 469,
  sigprocmask: 340,
  sigaction: 342,
  sigreturn: 344,
  setTls: 472,
} as const;
const ESRCH = 3, ECHILD = 10, EFAULT = 14, EBUSY = 16, EINVAL = 22, EAGAIN = 35, ENOSYS = 78;

describe("processes", () => {
  it("a TypeScript program is a process: it has numbers, a parent and an exit status", () => {
    const seen: number[] = [];
    const { statuses, stop } = runGates({
      *hello(u) {
        seen.push(yield* call(u, SYS.getpid), yield* call(u, SYS.getppid));
        return 42;
      },
    });
    assertEquals(stop.reason, "poweroff");
    assertEquals(seen, [2, 1]);
    assertEquals(statuses, [42]);
  });

  it("wild arguments give the errno that the manual names, and nothing else", () => {
    const wild = 0xdead_beef_0000n, kernel = 0xffff_ffff_8000_0000n;
    const answers: Record<string, number> = {};
    const { stop } = runGates({
      *wild(u: GateCpu) {
        answers.unknown = yield* call(u, 599);
        answers.huge = yield* call(u, 0x7fff_ffff);
        answers.wait = yield* call(u, SYS.wait4, -1, 0, 0, 0);
        answers.waitOptions = yield* call(u, SYS.wait4, -1, 0, 0x1000, 0);
        answers.exec = yield* call(u, SYS.execve, wild, 0, 0);
        answers.execKernel = yield* call(u, SYS.execve, kernel, kernel, kernel);
        answers.sleep = yield* call(u, SYS.nanosleep, kernel, 0);
        answers.clock = yield* call(u, SYS.clockGettime, 999, scratch(u));
        answers.clockAt = yield* call(u, SYS.clockGettime, 0, wild);
        answers.action = yield* call(u, SYS.sigaction, 1, wild, 0);
        answers.actionKill = yield* call(u, SYS.sigaction, 0, 0, 0);
        answers.mask = yield* call(u, SYS.sigprocmask, 77, scratch(u), 0);
        answers.sigreturn = yield* call(u, SYS.sigreturn, kernel);
        answers.sigreturnZeros = yield* call(u, SYS.sigreturn, scratch(u));
        answers.limit = yield* call(u, SYS.getrlimit, 4000, scratch(u));
        answers.sysctl = yield* call(u, SYS.sysctl, wild, 2, 0, 0, 0, 0);
        answers.sysctlLength = yield* call(u, SYS.sysctl, scratch(u), 4000, 0, 0, 0, 0);
        answers.kill = yield* call(u, SYS.kill, 12345, 9);
        answers.killSignal = yield* call(u, SYS.kill, 2, 1000);
        answers.group = yield* call(u, SYS.setpgid, 1, 0);
        answers.umtx = yield* call(u, SYS.umtxSleep, wild, 0, 0);
        yield* u.store64(scratch(u), kernel);
        answers.tls = yield* call(u, SYS.setTls, 0, scratch(u), 12);
        return 0;
      },
    });
    assertEquals(stop.reason, "poweroff");
    assertEquals(answers, {
      unknown: -ENOSYS,
      huge: -ENOSYS,
      wait: -ECHILD,
      waitOptions: -EINVAL,
      exec: -EFAULT,
      execKernel: -EFAULT,
      sleep: -EFAULT,
      clock: -EINVAL,
      clockAt: -EFAULT,
      action: -EFAULT,
      actionKill: -EINVAL,
      mask: -EINVAL,
      sigreturn: -EFAULT,
      sigreturnZeros: -EINVAL,
      limit: -EINVAL,
      sysctl: -EFAULT,
      sysctlLength: -EINVAL,
      kill: -ESRCH,
      killSignal: -EINVAL,
      group: -ESRCH,
      umtx: -EFAULT,
      tls: -EINVAL,
    });
  });

  it("execve puts another program in the process's place, with its arguments", () => {
    let pids: number[] = [], argument = "";
    const { statuses } = runGates({
      *first(u) {
        pids.push(yield* call(u, SYS.getpid));
        const at = scratch(u);
        const path = yield* text(u, at, "/bin/second"), word = yield* text(u, scratch(u, 64), "word");
        for (const [i, pointer] of [path, word, 0n].entries()) {
          yield* u.store64(scratch(u, 128 + i * 8), pointer);
        }
        return -(yield* call(u, SYS.execve, path, scratch(u, 128), 0));
      },
      *second(u) {
        // RDI points at argc.
        const stack = u.gpr(7);
        const argv1 = yield* u.load64((stack + 16n) as ReturnType<typeof scratch>);
        argument = new TextDecoder().decode(yield* u.loadBytes(argv1 as ReturnType<typeof scratch>, 4));
        pids = [...pids, yield* call(u, SYS.getpid)];
        return 17;
      },
    });
    assertEquals(statuses, [17]);
    assertEquals(pids, [2, 2]);
    assertEquals(argument, "word");
  });

  it("a script runs its interpreter with the script's path behind its words; an interpreter that is a script is ENOEXEC", () => {
    const seen: string[] = [];
    const file = (line: string) => new TextEncoder().encode(line);
    const { statuses } = boot([
      { name: "script", file: file("#! /bin/tool  -x\nrest\n"), argv: ["", "arg"] },
      { name: "loop", file: file("#!/bin/script\n") },
      { name: "tool", file: file("#!gate tool\n") },
    ], {
      kernel: {
        verbose: false,
        commands: [["/bin/script", "arg"], ["/bin/loop"], ["/bin/none"]],
        userGates: {
          *tool(u) {
            const stack = u.gpr(7) as ReturnType<typeof scratch>;
            const argc = Number(yield* u.load64(stack));
            for (let i = 0; i < argc; i++) {
              const at = yield* u.load64((stack + 8n + BigInt(i * 8)) as typeof stack);
              const bytes = yield* u.loadBytes(at as typeof stack, 16);
              seen.push(new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0))));
            }
            return 3;
          },
        },
      },
    });
    assertEquals(seen, ["/bin/tool", "-x", "/bin/script", "arg"]);
    assertEquals(statuses, [3, 126, 127]);
  });

  it("a blocked word of umtx_sleep: EBUSY when it is another, EAGAIN when the time is over", () => {
    const answers: number[] = [];
    runGates({
      *umtx(u) {
        yield* u.store32(scratch(u), 5);
        answers.push(yield* call(u, SYS.umtxSleep, scratch(u), 4, 0));
        answers.push(yield* call(u, SYS.umtxSleep, scratch(u), 5, 20_000));
        return 0;
      },
    });
    assertEquals(answers, [-EBUSY, -EAGAIN]);
  });

  it("a program that never enters the kernel by itself is interrupted and goes on", () => {
    const order: string[] = [];
    const { statuses, stop } = runGates({
      *spin(u) {
        order.push("spin");
        for (let i = 0; i < 300_000; i++) yield;
        order.push("spun");
        return yield* call(u, SYS.getpid);
      },
    }, { steps: 20_000_000 });
    assertEquals(stop.reason, "poweroff");
    assertEquals(statuses, [2]);
    assertEquals(order, ["spin", "spun"]);
  });
});

describe("a process that is gone leaves nothing", () => {
  it("no process, no address space, no thread but the kernel's", () => {
    const { kernel } = runGates({
      *one(u) {
        yield* u.store64(scratch(u), 1n);
        return 0;
      },
    });
    assertEquals([...kernel.procs.allproc.keys()], [0, 1]);
    assertEquals(kernel.procs.nprocs, 2);
    assertEquals(kernel.vmMap.vmspaceCount, 1);
    assertEquals(
      [...kernel.lwkt.allThreads].filter((td) => td.tdLwp !== undefined && td.tdLwp.lwpProc.pPid > 1),
      [],
    );
    assertEquals(kernel.umtx.idents.size, 0);
  });
});

describe("proctest, a C program, on the booted kernel", { ignore: !mayRead }, () => {
  for (const part of ["fork", "signals", "faults", "stop", "threads", "exec", "limits", "family", "slices"]) {
    for (const cpus of [1, 3]) {
      it(`${part} on ${cpus} CPU${cpus > 1 ? "s" : ""}`, () => {
        const program = builtProgram("proctest", { argv: ["proctest", part] });
        const { console, statuses, stop } = boot([program], {
          cpus,
          memory: 24 << 20,
          seed: 7,
          kernel: { faultReports: false },
          steps: 600_000_000,
        });
        assertEquals([stop.reason, statuses], ["poweroff", [0]], console);
      });
    }
  }
});
