import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { gva } from "../../../hw/address.ts";
import { cpuModels } from "../../../hw/cpuid.ts";
import { kernelLeaks, type KernelUse, kernelUse } from "../../../lab/kernel_use.ts";
import type { Exec } from "../../../hw/gates.ts";
import type { Kernel } from "../../../kernel/kernel.ts";
import { indexInParent, parentPindex, pmapPtePindex } from "../../../kernel/pmap/pmap.ts";
import { PMAP_HVM } from "../../../kernel/pmap/pmap_bits.ts";
import type { Booted } from "../kernel_fixture.ts";
import { type Guest, GUEST_CODE, GUEST_DATA, RAM, runVmm, SYS, SYS_VMM_GUEST_CTL } from "./vmm_fixture.ts";

const ended = (booted: Booted): readonly unknown[] => [booted.stop, booted.statuses];
const OK: readonly unknown[] = [{ reason: "poweroff" }, [0]];

/** What the events of the kernel's ring say, without the numbers that do not matter. */
function events(booted: Booted, names: readonly string[]): string[] {
  return booted.kernel.ktr.lines(256).map((line) => line.replace(/^cpu\d+ \S+: /, ""))
    .filter((line) => names.some((name) => line.startsWith(name)));
}

describe("vmm_guest_ctl", () => {
  it("goes on in non-root operation, where a system call is still one of the host", () => {
    const booted = runVmm(function* (guest) {
      const before = yield* guest.ok(SYS.getpid);
      if ((yield* guest.enter()) !== 0) return 1;
      return before === (yield* guest.ok(SYS.getpid)) ? 0 : 2;
    });
    assertEquals(ended(booted), OK);
    const { counters } = booted.kernel.vmm;
    assertEquals([counters.syscalls, counters.exceptions[6]], [2, 2], "getpid and exit, by #UD");
  });

  it("works or says ENODEV, as the CPU model has EPT or not", () => {
    for (const [name, model] of Object.entries(cpuModels)) {
      const booted = runVmm(function* (guest) {
        const errno = yield* guest.enter();
        if (errno !== 0) return errno;
        const { root } = yield* guest.program((a) => a.movImmediate32("rax", 99).db(0x0f, 0x05));
        return (yield* guest.run(root, {})).rax === 99n ? 0 : 1;
      }, { cpuModel: model });
      assertEquals(ended(booted), [{ reason: "poweroff" }, [name === "penryn" ? 19 : 0]], name);
    }
  });

  it("answers wrong arguments with errors, and nothing has changed", () => {
    const booted = runVmm(function* (guest) {
      const refused: number[] = [];
      refused.push((yield* guest.sys(SYS_VMM_GUEST_CTL, 77, RAM)).errno);
      refused.push((yield* guest.sys(SYS_VMM_GUEST_CTL, 1, 0x6666_0000_0000n)).errno);
      for (const cr3 of [1n, 1n << 39n, 0xffff_ffff_ffff_f000n]) refused.push(yield* guest.enter({ cr3 }));
      for (const newStack of [5n, 0x1000n, 1n << 40n]) refused.push(yield* guest.enter({ newStack }));
      refused.push((yield* guest.sys(535, 0, 0)).errno);
      assertEquals(refused, [22, 14, 22, 22, 22, 22, 22, 22, 22]);
      if ((yield* guest.enter()) !== 0) return 1;
      return (yield* guest.enter()) === 16 ? 0 : 2; // EBUSY
    });
    assertEquals(ended(booted), OK);
  });

  it("is off unless vm.vkernel_enable is on", () => {
    const booted = runVmm(function* (guest) {
      guest.u.rebindNext = false;
      return yield* guest.enter();
    }, { prepare: (_, kernel) => (kernel.vmMap.vkernelEnable = true) });
    assertEquals(ended(booted), OK);
    let errno = 0;
    const off = runVmm(function* (guest) {
      yield* guest.ok(SYS.getpid);
      booted2!.vmMap.vkernelEnable = false;
      errno = yield* guest.enter();
      return 0;
    }, { prepare: (_, kernel) => void (booted2 = kernel) });
    assertEquals([ended(off), errno], [OK, 45]);
  });

  it("starts with an empty EPT: the first instruction faults in the guest's tables and then its page", () => {
    const booted = runVmm(function* (guest) {
      return yield* guest.enter();
    });
    assertEquals(ended(booted), OK);
    // After the call returns at 40_0042h: PML4, PDPT, PD (2-MiB page), code; then the stack's PDPT, PD and page.
    const faults = events(booted, ["ept fault"]).map((line) => BigInt(line.split(" ")[2]!));
    const page = (n: number) => RAM + BigInt(n * 4096);
    assertEquals(faults.slice(0, 3).map((gpa) => gpa & ~0xfffn), [page(0), page(1), page(2)]);
    assertEquals(faults[3]! & ~0xfffn, 0x40_0000n);
    assertEquals(faults.slice(4, 6).map((gpa) => gpa & ~0xfffn), [page(4), page(5)]);
  });

  it("a fork is refused; an exec leaves VMM mode for good", () => {
    const booted = runVmm(
      function* (guest) {
        if ((yield* guest.enter()) !== 0) return 1;
        if ((yield* guest.sys(SYS.fork)).errno !== 45) return 2;
        const path = gva(RAM + 0x12_0000n);
        yield* guest.u.storeBytes(path, new TextEncoder().encode("/bin/other\0"));
        yield* guest.u.zeroBytes(gva(RAM + 0x13_0000n), 16);
        return (yield* guest.sys(SYS.execve, path, RAM + 0x13_0000n, RAM + 0x13_0000n)).errno;
      },
      { kernel: { commands: [["/bin/guest"]] } },
      {
        *other() {
          return yield* zero();
        },
      },
    );
    assertEquals(ended(booted), OK);
  });
});

let booted2: Booted["kernel"] | undefined;
function* zero(): Exec<number> {
  return 0;
}

describe("guests of a vkernel on the VMM", () => {
  it("their system calls and exceptions come back as frames, and never end the vkernel", () => {
    const booted = runVmm(function* (guest) {
      if ((yield* guest.enter()) !== 0) return 1;
      const frames: string[] = [];
      const run = function* (build: Parameters<typeof guest.program>[0]) {
        const { root } = yield* guest.program(build);
        const { trapno, err, addr, rip } = yield* guest.run(root, {});
        frames.push(
          [trapno, err, trapno === 14n ? addr : 0n, rip - GUEST_CODE].map((n) => n.toString(16)).join(" "),
        );
      };
      yield* run((a) => a.movImmediate32("rax", 5).db(0x0f, 0x05)); // syscall
      yield* run((a) => a.movImmediate("rax", ~0n & 0xffff_ffff_ffff_ffffn).db(0x0f, 0x05)); // no hypercall from here
      yield* run((a) => a.db(0x31, 0xc9, 0xf7, 0xf1)); // xor ecx, ecx; div ecx
      yield* run((a) => a.db(0x0f, 0x0b)); // ud2
      yield* run((a) => a.db(0xcc)); // int3
      yield* run((a) => a.db(0xcd, 0x80)); // int 80h: #GP
      yield* run((a) => a.hlt()); // #GP
      yield* run((a) => a.db(0xe4, 0x60)); // in al, 60h: #GP
      yield* run((a) => a.db(0x0f, 0x01, 0xc1)); // vmcall: #UD
      yield* run((a) => a.db(0x0f, 0x20, 0xd8)); // mov rax, cr3: #GP
      yield* run((a) => a.movImmediate32("rcx", 0x1b).rdmsr()); // #GP
      yield* run((a) => a.movImmediate("rbx", 0x7777_0000_0000n).store("rbx", 0, "rax")); // #PF
      yield* run((a) => a.movImmediate("rbx", 0x8000_0000_0000n).load("rax", "rbx", 0)); // #GP
      yield* run((a) => a.db(0x9c, 0x58)); // push to RSP 0: #PF at -8
      yield* run((a) => a.db(0x8e, 0xd8)); // mov ds, eax (0): loads the null selector; then falls on int3s
      yield* run((a) => a.movImmediate32("rax", 0x10).db(0x8e, 0xd8)); // mov ds, 10h: #GP(10h)
      assertEquals(frames, [
        "100 2 0 7",
        "100 2 0 c",
        "12 0 0 2",
        "6 0 0 0",
        "3 0 0 1",
        "d 402 0 0",
        "d 0 0 0",
        "d 0 0 0",
        "6 0 0 0",
        "d 0 0 0",
        "d 0 0 5",
        "e 6 777700000000 a",
        "d 0 0 a",
        "e 6 fffffffffffffff8 0",
        "e 6 0 2",
        "d 10 0 5",
      ]);
      return 0;
    });
    assertEquals(ended(booted), OK);
  });

  it("a guest reaches nothing but what its tables give: not the vkernel, not the host", () => {
    const booted = runVmm(function* (guest) {
      if ((yield* guest.enter()) !== 0) return 1;
      for (
        const address of [RAM, 0x40_0000n, 0x7fff_ffff_e000n, 0xffff_c000_0000_0000n, 0xffff_ffff_8010_0000n]
      ) {
        const { root } = yield* guest.program((a) => a.movImmediate("rbx", address).load("rax", "rbx", 0));
        const frame = yield* guest.run(root, {});
        if (frame.trapno !== 14n || frame.addr !== address) return 2;
      }
      return 0;
    });
    assertEquals(ended(booted), OK);
  });

  it("a guest that runs out of the lower half of addresses faults, and does not make VM entry fail", () => {
    const LAST = 0x7fff_ffff_f000n;
    for (
      const [bytes, trapno, rip] of [
        [[0x0f, 0x05], 0x100n, 0x8000_0000_0000n], // syscall
        [[0xcc], 3n, 0x8000_0000_0000n], // int3
        [[0x0f, 0xa2], 13n, 0x8000_0000_0000n], // cpuid: carried out, and then there is no next instruction
      ] as const
    ) {
      const booted = runVmm(function* (guest) {
        if ((yield* guest.enter()) !== 0) return 1;
        const root = yield* guest.page(), code = yield* guest.page();
        yield* guest.u.storeBytes(gva(code + 4096n - BigInt(bytes.length)), Uint8Array.from(bytes));
        yield* guest.map(root, LAST, code);
        const frame = yield* guest.run(root, { rip: LAST + 4096n - BigInt(bytes.length) });
        if (frame.trapno !== trapno || frame.rip !== rip) return 2;
        return (yield* guest.sys(SYS.ctl, root, 1, RAM + 0x11_0000n, RAM + 0x11_0100n)).errno === 22 ? 0 : 3;
      });
      assertEquals(ended(booted), OK);
    }
  });

  it("an address that the vkernel does not have is the vkernel's SIGBUS, told in the log", () => {
    const booted = runVmm(function* (guest) {
      if ((yield* guest.enter()) !== 0) return 1;
      const { root } = yield* guest.program((a) =>
        a.movImmediate("rbx", GUEST_DATA + 0x1000n).load("rax", "rbx", 0)
      );
      yield* guest.map(root, GUEST_DATA + 0x1000n, 0x33_3333_3000n);
      yield* guest.run(root, {});
      return 0;
    });
    assertEquals(ended(booted), [{ reason: "poweroff" }, [128 + 10]]);
    const log = booted.kernel.messages.text;
    assert(
      /EPT violation at guest-physical 0x3333333000, linear 0x601000: EPT PDPTE is not present/.test(log),
      log,
    );
    assert(/vmm: +EPT PML4E\[0\] at 0x/.test(log), log);
  });

  it("a damaged EPT entry is an EPT misconfiguration, told in the log; the host goes on", () => {
    let kernel: Kernel | undefined;
    const booted = runVmm(function* (guest) {
      const { u } = guest;
      if ((yield* guest.enter()) !== 0) return 1;
      const page = yield* guest.page();
      const [pmap] = [...kernel!.pmap.pmapList].filter(({ pmFlags }) => (pmFlags & PMAP_HVM) !== 0);
      const table = pmap!.pmPvroot.find(parentPindex(pmapPtePindex(page)))!.pvM!.physAddr;
      const at = table + indexInParent(pmapPtePindex(page)) * 8;
      // Memory type 2 does not exist.
      u.cpu.bus.write(at, 4, (u.cpu.bus.read(at, 4) & ~0x38) | (2 << 3));
      // Whatever the processor still knows of the page goes at the next entry.
      pmap!.pmInvgen++;
      yield* guest.ok(SYS.getpid);
      yield* u.load64(gva(page));
      return 0;
    }, { prepare: (_, k) => void (kernel = k) });
    assertEquals(ended(booted), [{ reason: "poweroff" }, [128 + 10]]);
    const log = booted.kernel.messages.text;
    assert(/EPT misconfiguration at guest-physical .*: EPT PTE: memory type 2 is reserved/.test(log), log);
  });

  it("their page faults: the trace of section 23", () => {
    const booted = runVmm(function* (guest) {
      const { u } = guest;
      if ((yield* guest.enter()) !== 0) return 1;
      const { root } = yield* guest.program((a) =>
        a.movImmediate("rbx", GUEST_DATA + 0x1000n).movImmediate32("rcx", 0x42).store("rbx", 0, "rcx").db(
          0x0f,
          0x05,
        )
      );
      // The level above is there already, so that the table page is not a fresh one.
      const slot = yield* guest.entry(root, GUEST_DATA + 0x1000n);
      yield* u.zeroBytes(gva(RAM + 0x11_0000n), 0x200);
      booted0!.ktr.count = 0;
      const fault = yield* guest.run(root, {});
      if (fault.trapno !== 14n || fault.err !== 6n || fault.addr !== GUEST_DATA + 0x1000n) return 2;
      const pa = yield* guest.page();
      yield* u.store64(slot, pa | 7n);
      if ((yield* guest.again(root)).trapno !== 0x100n) return 3;
      // 4: the hardware has set A and M in the guest's own entry.
      return ((yield* u.load64(slot)) & 0x60n) === 0x60n ? 0 : 4;
    }, { prepare: (_, kernel) => void (booted0 = kernel) });
    assertEquals(ended(booted), OK);
    const trace = events(booted, ["vmexit", "vmentry", "vkernel_trap", "vmspace_ctl", "ept fault"])
      .map((line) =>
        line.split(" ").slice(0, line.startsWith("vmexit") || line.startsWith("ept") ? 2 : 1).join(" ")
      );
    assertEquals(trace.slice(0, 18), [
      "vmexit 0", // the vkernel's SYSCALL: vmspace_ctl
      "vmspace_ctl",
      "vmentry",
      "vmexit 0", // 1  the guest's #PF
      "vkernel_trap",
      "vmentry",
      "vmexit 48", // 2  the vkernel zeroes a fresh page of its memory
      "ept fault",
      "vmentry",
      "vmexit 0",
      "vmspace_ctl", // 3
      "vmentry",
      "vmexit 0", // 4  nothing between but the guest's own system call
      "vkernel_trap",
      "vmentry",
      "vmexit 0", // exit
    ]);
  });

  it("a signal brings the vkernel back first, with trap number 0", () => {
    const booted = runVmm(function* (guest) {
      const { u } = guest;
      if ((yield* guest.enter()) !== 0) return 1;
      const at = gva(RAM + 0x12_0000n);
      yield* u.zeroBytes(at, 0x100);
      const handler = gva(RAM + 0x14_0000n);
      yield* u.store8(handler, 0xc3); // ret
      yield* u.store64(at, handler);
      yield* guest.ok(SYS.sigaction, 14, at, 0);
      yield* u.store64(gva(at + 0x58n), 20_000n);
      yield* guest.ok(SYS.setitimer, 0, at + 0x40n, 0);
      const { root } = yield* guest.program((a) => a.label("here").jump("here"));
      const frame = yield* guest.run(root, {});
      return frame.trapno === 0n && frame.rip === GUEST_CODE ? 0 : 2;
    });
    assertEquals(ended(booted), OK);
    assert(booted.kernel.vmm.counters.exits[1]! > 0, "external interrupts have exited");
    assert(booted.kernel.cpTime[0]![0] >= 1, "time in a guest is time in user mode");
  });

  it("the vkernel's own faults are signals", () => {
    for (const [address, status] of [[0x7777_0000_0000n, 139], [0x3f_ffff_f000n, 139]] as const) {
      const booted = runVmm(function* (guest) {
        if ((yield* guest.enter()) !== 0) return 1;
        yield* guest.u.load64(gva(address));
        return 0;
      });
      assertEquals(ended(booted), [{ reason: "poweroff" }, [status]]);
    }
  });
});

let booted0: Booted["kernel"] | undefined;

describe("user copies of a process in VMM mode", () => {
  it("go through its own tables, over page borders and copy on write; what is not there is EFAULT", () => {
    const booted = runVmm(function* (guest) {
      const { u } = guest;
      // Private memory with data from before: copy on write after the change of address spaces.
      const low = 0x2000_0000n;
      yield* guest.ok(SYS.mmap, low, 0x3000, 3, 0x1012, -1, 0, 0);
      yield* u.storeBytes(gva(low + 0xffan), new TextEncoder().encode("across the border"));
      const fd = yield* guest.ok(SYS.open, yield* path(guest, "/file"), 0x602, 0o600);
      if ((yield* guest.enter()) !== 0) return 1;
      if ((yield* guest.ok(SYS.write, fd, low + 0xffan, 17)) !== 17n) return 2;
      if ((yield* guest.ok(199, fd, 0, 0, 0)) !== 0n) return 3; // lseek
      if ((yield* guest.ok(3, fd, low + 0x1ffbn, 17)) !== 17n) return 4; // read: into a page that was never written
      const back = new TextDecoder().decode(yield* u.loadBytes(gva(low + 0x1ffbn), 17));
      if (back !== "across the border") return 5;
      // Mapped in the process but not in its tables, and the reverse.
      if ((yield* guest.sys(SYS.write, fd, 0x7700_0000_0000n, 8)).errno !== 14) return 6;
      yield* guest.map(RAM, 0x90_0000_0000n, 0x22_2222_2000n);
      if ((yield* guest.sys(SYS.write, fd, 0x90_0000_0000n, 8)).errno !== 14) return 7;
      if ((yield* guest.sys(SYS.write, fd, 0xffff_c000_0000_0000n, 8)).errno !== 14) return 8;
      // Linear and guest-physical differ: the same page under another address.
      yield* guest.map(RAM, 0x90_0000_0000n, RAM + 0x15_0000n);
      yield* u.storeBytes(gva(RAM + 0x15_0000n), new TextEncoder().encode("alias"));
      if ((yield* guest.ok(SYS.write, fd, 0x90_0000_0000n, 5)) !== 5n) return 9;
      return 0;
    });
    assertEquals(ended(booted), OK);
    assert(booted.kernel.vmm.counters.guestWalks > 0);
  });
});

function* path(guest: { u: import("../../../hw/gates.ts").GateCpu }, text: string) {
  const at = gva(RAM + 0x18_0000n);
  yield* guest.u.storeBytes(at, new TextEncoder().encode(text + "\0"));
  return at;
}

describe("the end of a process in VMM mode", () => {
  /** Ways to end. */
  const ends: Readonly<Record<string, (guest: Guest) => Exec<number>>> = {
    *exit() {
      return yield* zero();
    },
    *"a signal of its own"(guest) {
      return Number(yield* guest.u.load64(gva(0x7777_0000_0000n)));
    },
    *"kill -9 inside a guest's endless loop"(guest) {
      const { u } = guest;
      const at = gva(RAM + 0x12_0000n);
      yield* u.zeroBytes(at, 0x100);
      yield* u.store64(gva(at + 0x18n), 20_000n);
      yield* guest.ok(SYS.setitimer, 0, at, 0);
      const { root } = yield* guest.program((a) => a.label("here").jump("here"));
      yield* guest.run(root, {});
      return 0;
    },
    *exec(guest) {
      yield* guest.u.zeroBytes(gva(RAM + 0x13_0000n), 16);
      return (yield* guest.sys(
        SYS.execve,
        yield* path(guest, "/bin/other"),
        RAM + 0x13_0000n,
        RAM + 0x13_0000n,
      )).errno;
    },
  };
  for (const [name, end] of Object.entries(ends)) {
    it(`leaves nothing: ${name}`, () => {
      const uses: KernelUse[] = [];
      const booted = runVmm(
        function* (guest) {
          if ((yield* guest.enter()) !== 0) return 1;
          return yield* end(guest);
        },
        {
          kernel: {
            commands: [["/bin/guest"], ["/bin/guest"]],
            onCommandEnd: (k: Kernel) => uses.push(kernelUse(k)),
          },
        },
        {
          *other() {
            return yield* zero();
          },
        },
      );
      assertEquals(booted.stop, { reason: "poweroff" });
      assertEquals(kernelLeaks(uses[0]!, uses[1]!), []);
      const { vmm } = booted.kernel;
      assertEquals([vmm.procs.size, vmm.threads], [0, 0]);
    });
  }
});
