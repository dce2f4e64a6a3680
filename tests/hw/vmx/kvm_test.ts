/**
 * Linux's own hypervisor, KVM, on the machine: as third-party as software can be. Needs a kernel (`tests/hw/linux_guest.ts`) and, in the
 * directory that EXUVIA_KVM_MODULES names, its modules irqbypass.ko, kvm.ko and kvm-intel.ko, uncompressed; skipped without them.
 *
 * @module
 */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { loadImage } from "../../../hw/boot/image.ts";
import { Machine } from "../../../hw/machine.ts";
import { cpio, findKernel } from "../linux_guest.ts";

const MODULES = ["irqbypass.ko", "kvm.ko", "kvm-intel.ko"] as const;
const granted = (["env", "read"] as const).every((name) =>
  Deno.permissions.querySync({ name }).state === "granted"
);
const directory = granted ? Deno.env.get("EXUVIA_KVM_MODULES") : undefined;
const kernel = directory === undefined ? undefined : findKernel();

describe("KVM on the machine", { ignore: kernel === undefined }, () => {
  // With unrestricted guest, with EPT alone (virtual-8086 mode and CR4.VME), and with neither (shadow paging).
  for (const cpuModel of ["skylake", "nehalem", "penryn"]) {
    it(`runs a guest on ${cpuModel}`, () => {
      let output = "";
      const machine = new Machine({
        memory: 128 << 20,
        cpuModel,
        serial: { output: (bytes) => output += new TextDecoder().decode(bytes) },
      });
      const file = (path: string, from: string | URL) => ({
        path,
        mode: 0o100755,
        bytes: Deno.readFileSync(from),
      });
      const initrd = cpio([
        { path: "dev", mode: 0o40755 },
        { path: "dev/console", mode: 0o20600, device: [5, 1] },
        file("init", new URL("../../../user/bin/kvm_init", import.meta.url)),
        ...MODULES.map((name) => file(name, `${directory}/${name}`)),
      ]);
      loadImage(machine, kernel!, { commandLine: "console=ttyS0 quiet cryptomgr.notests panic=-1", initrd });
      const stop = machine.run({ steps: 3_000_000_000 });
      assertStringIncludes(output, "kvm: ok");
      assertEquals(stop.reason, "poweroff");
    });
  }
});
