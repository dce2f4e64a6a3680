/**
 * An unmodified distribution kernel on the machine. Needs one in /boot (Debian: linux-image-cloud-amd64), or its path in
 * EXUVIA_LINUX; skipped where there is none. Figures and commands: docs/running-linux.md.
 *
 * @module
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { loadImage } from "../../hw/boot/image.ts";
import { Machine, type MachineOptions, type MachineStop } from "../../hw/machine.ts";
import { CR4 } from "../../hw/sys/mode.ts";
import { S } from "../../hw/state.ts";
import { findKernel, messageInitrd } from "./linux_guest.ts";

const kernel = findKernel();
const HELLO = "Hello from user space\n";
/** Without the kernel's own tests of its cryptography, which take more than half of a boot. */
const COMMAND_LINE = "console=ttyS0 earlyprintk=serial,ttyS0,115200 cryptomgr.notests panic=-1";

/** A machine with a kernel, and what comes out of its serial port. */
class LinuxMachine {
  output = "";
  readonly machine: Machine;

  constructor(options: MachineOptions = {}) {
    const decoder = new TextDecoder();
    this.machine = new Machine({
      memory: 256 * 1024 * 1024,
      ...options,
      serial: { output: (bytes) => this.output += decoder.decode(bytes) },
    });
    loadImage(this.machine, kernel!, { commandLine: COMMAND_LINE, initrd: messageInitrd(HELLO) });
  }

  /** Runs until the output has `text`, the machine stops, or `most` instructions are done. */
  runUntil(text: string, most: number): MachineStop {
    for (;;) {
      const stop = this.machine.run({ steps: 10_000_000 });
      if (stop.reason !== "steps" || this.output.includes(text)) return stop;
      if (this.machine.instructions >= most) return stop;
    }
  }
}

describe("a Linux kernel", { ignore: kernel === undefined }, () => {
  it("boots on two processors, runs a program in user space, and powers off", () => {
    const linux = new LinuxMachine({ cpus: 2 });
    const stop = linux.runUntil("Kernel panic", 1_500_000_000);
    const lines = [
      "Linux version ",
      "ACPI: RSDP 0x00000000000F0000 000024 (v02 EXUVIA)",
      "smp: Brought up 1 node, 2 CPUs",
      "ttyS0 at I/O 0x3f8 (irq = 4",
      "Run /init as init process",
      "Hello from user space",
      "reboot: Power down",
    ];
    let from = 0;
    for (const line of lines) {
      assertStringIncludes(linux.output.slice(from), line);
      from = linux.output.indexOf(line, from);
    }
    assert(!/BUG:|WARNING: CPU|Firmware Bug|Oops/.test(linux.output), linux.output);
    assertEquals(stop, { reason: "poweroff" });
  });

  it("uses 57-bit linear addresses on a model that has them", () => {
    const linux = new LinuxMachine({ cpuModel: "icelake" });
    linux.runUntil("Linux version", 400_000_000);
    assertStringIncludes(linux.output, "Linux version");
    assertEquals(linux.machine.cpus[0]!.get32(S.CR4) & CR4.LA57, CR4.LA57);
  });

  it("begins with the same steps on both engines", () => {
    const hashes = (["interpreter", "reference"] as const).map((engine) => {
      const { machine } = new LinuxMachine({ engine, memory: 128 * 1024 * 1024 });
      machine.run({ steps: 200_000 });
      return machine.hash();
    });
    assertEquals(hashes[0], hashes[1]);
  });
});
