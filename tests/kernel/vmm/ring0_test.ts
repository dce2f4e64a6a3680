import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { gva, hpa } from "../../../hw/address.ts";
import type { Exec, GateCpu } from "../../../hw/gates.ts";
import { Machine, type MachineOptions } from "../../../hw/machine.ts";
import { bootKernel } from "../../../kernel/boot.ts";
import type { Cx } from "../../../kernel/context.ts";
import type { Kernel, KernelOptions } from "../../../kernel/kernel.ts";
import { panic } from "../../../kernel/kern/panic.ts";
import { lwktCpusyncSimple } from "../../../kernel/lwkt/cpusync.ts";
import { tsleep } from "../../../kernel/lwkt/sleep.ts";
import { lwktCreate, lwktSchedule } from "../../../kernel/lwkt/thread.ts";
import { host as hostCall } from "../../../kernel/platform/vkernel64/host.ts";
import { pmapKenter } from "../../../kernel/pmap/pmap_kenter.ts";
import { userSyscall } from "../../../kernel/proc/user_gate.ts";
import { kmemAllocNofault } from "../../../kernel/vm/vm_kern.ts";
import { EXIT_REASON } from "../../../kernel/vmm/vmx_defs.ts";
import { guestArchive } from "../../../lab/guest/archive.ts";
import { cpio } from "../../../kernel/vfs/cpio.ts";
import { machineLeaks, type MachineUse, machineUse } from "../../../lab/kernel_use.ts";
import { builtProgram, mayRead } from "../kernel_fixture.ts";

/** What came of a run of `vkernel -d ring0`. */
interface Ring0Run {
  readonly stop: string;
  /** Exit statuses of the vkernels. */
  readonly statuses: readonly number[];
  readonly console: string;
  readonly host: Kernel;
  readonly guest: Kernel;
  /** What the last vkernel left in use on the host. */
  readonly leaks: readonly string[];
  /** Uses of translations that had been revoked. */
  readonly stale: number;
}

/** The two kernels of a run, for what runs in the guest. */
interface Kernels {
  readonly host: Kernel;
  readonly guest: Kernel;
}

interface Ring0Options {
  /** Runs in a kernel thread of the guest. */
  readonly body?: (cx: Cx, kernels: Kernels) => Exec<void>;
  /** TypeScript programs that the guest runs, one after the other. */
  readonly programs?: Readonly<Record<string, (u: GateCpu, kernels: Kernels) => Exec<number>>>;
  readonly cpus?: number;
  readonly machine?: MachineOptions;
  /** How often it is started; the first time is not looked at for leaks. */
  readonly times?: number;
  /** Programs of user/bin with their arguments, which the guest runs, one after the other. */
  readonly built?: readonly (readonly [name: string, ...args: string[]])[];
  /** Further options of the guest. */
  readonly guest?: Partial<KernelOptions>;
  /** Sees the guest's kernel before its first step. */
  readonly prepareGuest?: (k: Kernel) => void;
  /** What vkernels in the guest run. */
  readonly nested?: readonly string[];
}

function runRing0(options: Ring0Options): Ring0Run {
  const bytes: number[] = [];
  const machine = new Machine({
    memory: 48 << 20,
    gates: true,
    ...options.machine,
    serial: { output: (piece) => bytes.push(...piece) },
  });
  let stale = 0;
  machine.sanitizer?.on(() => stale++);
  let guest: Kernel | undefined, before: MachineUse | undefined, leaks: string[] = [];
  const kernels: Kernels = {
    get host() {
      return host;
    },
    get guest() {
      return guest!;
    },
  };
  const { body, programs = {}, built = [] } = options;
  const names = Object.keys(programs);
  const inGuest: Partial<KernelOptions> = {
    verbose: false,
    ...(body === undefined ? {} : { body: (cx: Cx) => body(cx, kernels) }),
    ...(names.length === 0 ? {} : { commands: names.map((name) => [`/bin/${name}`]) }),
    ...(built.length === 0 ? {} : { commands: built.map(([name, ...args]) => [`/bin/${name}`, ...args]) }),
    ...options.guest,
  };
  const files = built.map(([name]) => ({
    path: `bin/${name}`,
    mode: 0o100755,
    data: builtProgram(name).file,
  }));
  const userGates = Object.fromEntries(
    Object.entries(programs).map(([name, program]) => [name, (u: GateCpu) => program(u, kernels)]),
  );
  const words = [
    "/usr/sbin/vkernel",
    "-d",
    "ring0",
    "-m",
    "16M",
    "-s",
    "1M",
    "-n",
    String(options.cpus ?? 1),
  ];
  const host: Kernel = bootKernel(machine, {
    archives: [guestArchive(names), ...(files.length === 0 ? [] : [cpio(files)])],
    commands: Array.from({ length: options.times ?? 1 }, () => words),
    verbose: false,
    faultReports: false,
    userGates,
    guest: {
      options: (kind) => kind === "ring0" ? inGuest : { verbose: false, commands: [options.nested ?? []] },
      onKernel(k, kind) {
        if (kind !== "ring0") return;
        guest = k;
        options.prepareGuest?.(k);
      },
    },
    onCommandEnd(k) {
      const use = machineUse(machine, k);
      if (before === undefined) before = use;
      else leaks = machineLeaks(before, use);
    },
  });
  host.vmMap.vkernelEnable = true;
  const stop = machine.run({ steps: 100_000_000 });
  const console = new TextDecoder().decode(Uint8Array.from(bytes)).replaceAll("\r\n", "\n");
  const { statuses } = host.procs;
  return { stop: stop.reason, statuses, console, host, guest: guest!, leaks, stale };
}

/** Exits of the host's VMM that a reason gave. */
const exits = (host: Kernel, reason: number): number => host.vmm.counters.exits[reason]!;
/** All exits but those that the host's own interrupts gave, and those for memory that the host had to bring in. */
function guestExits(host: Kernel): number {
  const { EXT_INTR, EPT_VIOLATION } = EXIT_REASON;
  return host.vmm.counters.exits.reduce((sum, n) => sum + n, 0) - exits(host, EXT_INTR) -
    exits(host, EPT_VIOLATION);
}
/** What the kernel logged last. */
const logged = (k: Kernel) => k.messages.text;

const SYS_GETPID = 20, SYS_KILL = 37, SYS_MUNMAP = 73, SYS_MMAP = 197, SYS_NANOSLEEP = 240;
const SIGKILL = 9;
const PROT_RW = 3, MAP_PRIVATE = 2, MAP_FIXED = 0x10, MAP_ANON = 0x1000;
const PAGE = 4096;

/** Maps a page of memory of a program, anywhere or at an address. */
function mapPage(u: GateCpu, at = 0n) {
  const flags = MAP_PRIVATE | MAP_ANON | (at === 0n ? 0 : MAP_FIXED);
  return userSyscall(u, SYS_MMAP, at, PAGE, PROT_RW, flags, -1, 0, 0);
}

function* busy(): Exec<void> {
  for (;;) yield;
}
function* status(n: number): Exec<number> {
  return n;
}

describe("vkernel -d ring0", () => {
  it("is a kernel in ring 0 of non-root operation; it ends with its status and leaves nothing", () => {
    const levels: number[] = [];
    const run = runRing0({
      times: 3,
      *body(cx) {
        levels.push(cx.cpu.cpu.cpl);
        cx.k.procs.exitStatus = 7;
      },
    });
    assertEquals([run.stop, run.statuses, run.console, run.leaks], ["poweroff", [7, 7, 7], "", []]);
    assertEquals(levels, [0, 0, 0]);
    assertEquals(run.guest.platform.name, "ring0");
    assertEquals([run.host.vmm.procs.size, run.host.vmm.threads], [0, 0]);
  });

  it("carries out system calls, page faults and changes of mappings of its programs without an exit", () => {
    const rounds = 200;
    let faults = 0, count = 0;
    const run = runRing0({
      programs: {
        *busy(u, { host, guest }) {
          const { value: at } = yield* mapPage(u);
          const exitsBefore = guestExits(host), faultsBefore = guest.vmmeter.vVmFaults;
          for (let i = 0; i < rounds; i++) {
            yield* userSyscall(u, SYS_GETPID);
            yield* userSyscall(u, SYS_MUNMAP, at, PAGE);
            yield* mapPage(u, at);
            yield* u.store8(gva(at), i);
          }
          count = guestExits(host) - exitsBefore;
          faults = guest.vmmeter.vVmFaults - faultsBefore;
          return 0;
        },
      },
    });
    assertEquals(run.statuses, [0]);
    assert(faults >= rounds, `${faults} page faults`);
    // What is left are ticks of the clock: an injection, and the question which signal it was.
    assert(count < rounds / 10, `${count} exits in ${rounds} rounds`);
    assertEquals(exits(run.host, EXIT_REASON.EXCEPTION), 1, "the SYSCALL that asked for ring 0");
  });

  it("gets its clock by injection, and sleeps in HLT", () => {
    const run = runRing0({
      programs: {
        *sleeper(u) {
          const at = u.gpr(4) - 64n;
          yield* u.store64(gva(at), 0n);
          yield* u.store64(gva(at + 8n), 100_000_000n);
          return (yield* userSyscall(u, SYS_NANOSLEEP, at, 0)).errno;
        },
      },
    });
    const { counters } = run.host.vmm;
    assertEquals(run.statuses, [0]);
    assert(counters.injections >= 10, `${counters.injections} injections`);
    assert(exits(run.host, EXIT_REASON.HLT) >= 10);
    // An answer to each injection, and little else.
    assert(run.guest.ticks >= 10);
  });

  for (const [vcpus, cpus] of [[2, 1], [3, 2], [4, 4]] as const) {
    it(`runs on ${vcpus} virtual processors over ${cpus}: each takes part in a rendezvous`, () => {
      const asked: number[] = [];
      const run = runRing0({
        cpus: vcpus,
        machine: { cpus, tlb: "sticky", sanitizer: true },
        *body(cx) {
          for (let i = 0; i < 3; i++) {
            yield* lwktCpusyncSimple(
              cx,
              cx.k.lwkt.smpActiveMask,
              (at) => asked.push(at.gd.gdCpuid),
              undefined,
            );
          }
        },
      });
      assertEquals([run.stop, run.statuses, run.console, run.stale], ["poweroff", [0], "", 0]);
      assertEquals(run.guest.ncpus, vcpus);
      const expected = Array.from({ length: vcpus * 3 }, (_, i) => Math.floor(i / 3));
      assertEquals(asked.toSorted((a, b) => a - b), expected);
    });
  }

  it("runs programs that fork, and threads whose memory changes, with no use of a revoked translation", {
    ignore: !mayRead,
  }, () => {
    const run = runRing0({
      cpus: 2,
      machine: { cpus: 2, tlb: "sticky", sanitizer: true },
      built: [["forkcow", "2", "2", "4"], ["thrhammer", "1", "2", "4"]],
    });
    assertEquals([run.stop, run.statuses, run.stale], ["poweroff", [0], 0]);
    assertEquals(run.guest.procs.statuses, [0, 0]);
  });

  it("panics alone", () => {
    const run = runRing0({
      times: 2,
      *body(cx) {
        yield* tsleep(cx, {}, 0, "wait", 2);
        panic(cx, "on purpose");
      },
    });
    assertEquals([run.stop, run.statuses, run.leaks], ["poweroff", [1, 1], []]);
    assertStringIncludes(run.console, "panic: on purpose");
  });

  it("is killed alone, all its processors at work", () => {
    const run = runRing0({
      times: 2,
      cpus: 3,
      machine: { cpus: 3 },
      *body(cx) {
        const pid = (yield* hostCall(cx.cpu, SYS_GETPID)).value;
        for (const gd of cx.k.lwkt.gds.slice(1)) {
          lwktSchedule(cx, yield* lwktCreate(cx, busy, { name: "busy", gd }));
        }
        for (let i = 0; i < 5000; i++) yield;
        yield* hostCall(cx.cpu, SYS_KILL, pid, SIGKILL);
      },
    });
    assertEquals([run.stop, run.statuses, run.console, run.leaks], ["poweroff", [137, 137], "", []]);
  });

  it("ends alone when it uses physical memory that it does not have, and the log explains it", () => {
    const run = runRing0({
      times: 2,
      *body(cx) {
        const va = (yield* kmemAllocNofault(cx, cx.k.kernelMap, PAGE))!;
        yield* pmapKenter(cx, va, hpa(0x30_0000_0000));
        yield* cx.cpu.load64(va);
      },
    });
    assertEquals([run.stop, run.statuses, run.leaks], ["poweroff", [134, 134], []]);
    assertStringIncludes(logged(run.host), "EPT violation at guest-physical 0x3000000000");
  });

  it("has vkernels itself, on software page tables; VMX it has none", () => {
    const run = runRing0({
      guest: {
        commands: [
          ["/usr/sbin/vkernel", "-m", "8M", "-s", "1M"],
          ["/usr/sbin/vkernel", "-d", "vmm", "-m", "8M", "-s", "1M"],
        ],
      },
      prepareGuest(k) {
        k.vmMap.vkernelEnable = true;
      },
      nested: ["/bin/answer"],
      programs: {
        *answer() {
          return yield* status(42);
        },
      },
    });
    assertEquals([run.stop, run.guest.procs.statuses], ["poweroff", [42, 1]]);
    assertStringIncludes(run.console, "vmm_guest_ctl (no VMX with EPT on this processor?): ENODEV");
  });

  it("says so where the processor has no EPT", () => {
    const run = runRing0({ machine: { cpuModel: "penryn" } });
    assertEquals(run.statuses, [1]);
    assertStringIncludes(run.console, "ENODEV");
  });
});
