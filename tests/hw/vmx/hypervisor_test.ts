/** A hypervisor in C that knows nothing of us: multiboot, VMXON, EPT, VPID, a 64-bit guest with page tables of its own (user/bare). */
import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { loadImage } from "../../../hw/boot/image.ts";
import { Machine, type MachineOptions } from "../../../hw/machine.ts";

const image = Deno.readFileSync(new URL("../../../user/bin/hypervisor", import.meta.url));

function run(options: MachineOptions): { stop: unknown; output: string; hash: string } {
  let output = "";
  const machine = new Machine({
    memory: 32 << 20,
    serial: { output: (bytes) => output += new TextDecoder().decode(bytes) },
    ...options,
  });
  loadImage(machine, image);
  const stop = machine.run({ steps: 5_000_000 });
  return { stop, output, hash: machine.hash() };
}

describe("a bare-metal hypervisor", () => {
  it("runs its guest to the end, on every engine, TLB and model with EPT", () => {
    const expected = [
      "| guest: hello from 64-bit code",
      "| guest: done",
      "the guest has halted",
      "EPT violations 8",
      "timer exits: some 1",
    ];
    const hashes = new Set<string>();
    for (const engine of ["interpreter", "reference"] as const) {
      const { stop, output, hash } = run({ engine });
      assertEquals(stop, { reason: "exit", code: 85 });
      assertEquals(output.trim().split("\n").slice(1), expected);
      hashes.add(hash);
    }
    assertEquals(hashes.size, 1, "both engines end in the same state");
    for (const cpuModel of ["nehalem", "haswell", "broadwell", "icelake"]) {
      assertEquals(run({ cpuModel }).stop, { reason: "exit", code: 85 }, cpuModel);
    }
    assertEquals(run({ tlb: "sticky" }).stop, { reason: "exit", code: 85 }, "sticky");
    assertEquals(run({ tlb: "geometry" }).stop, { reason: "exit", code: 85 }, "geometry");
  });
  it("says what is missing where there is no EPT, or no VMX", () => {
    assertEquals(run({ cpuModel: "penryn" }).output.includes("a control is not offered"), true);
  });
});
