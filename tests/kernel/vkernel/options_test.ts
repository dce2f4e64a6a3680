import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { parseVkernelArgs, type VkernelArgs } from "../../../kernel/platform/vkernel64/options.ts";
import { mayRead } from "../kernel_fixture.ts";
import { runGuests } from "./guest_fixture.ts";

/** Arguments that must be right. */
function parsed(line: string): VkernelArgs {
  const args = parseVkernelArgs(line === "" ? [] : line.split(" "));
  if (typeof args === "string") throw new Error(args);
  return args;
}

describe("the vkernel's command line", () => {
  it("has sizes in bytes or with a unit, down to whole large pages", () => {
    assertEquals(parsed("-m 64M").memory, 64 << 20);
    assertEquals(parsed("-m 33554432").memory, 32 << 20);
    assertEquals(parsed("-m 33m").memory, 32 << 20);
    assertEquals(parsed("-m 1G -s 0").memory, 1 << 30);
    assertEquals(parsed("-s 12K").swap, 12 << 10);
  });

  it("has as much swap as RAM, one processor and software page tables unless told", () => {
    const { mode, memory, ncpus, swap, command, roots } = parsed("");
    assertEquals([mode, memory, ncpus, swap, command, roots], ["vpte", 32 << 20, 1, 32 << 20, undefined, []]);
  });

  it("says nothing by itself when it runs a command", () => {
    assertEquals([parsed("").verbose, parsed("-c ps").verbose, parsed("-v -c ps").verbose], [
      true,
      false,
      true,
    ]);
  });

  it("is refused with a sentence where it is wrong", () => {
    for (
      const line of ["-x", "-m", "-m 1K", "-m 3G", "-m 12Q", "-n 0", "-n 9", "-n x", "-d kvm", "-s 2G", "ps"]
    ) {
      const args = parseVkernelArgs(line.split(" "));
      assert(typeof args === "string" && args.includes(line.split(" ")[0]!), `${line}: ${args}`);
    }
  });
});

describe("a vkernel that cannot start", { ignore: !mayRead }, () => {
  it("says why, and is a program that failed", () => {
    const lines = [
      "true",
      "vkernel -r /etc/motd -m 8M",
      "vkernel -r /nothing -m 8M",
      "vkernel -q",
      "sysctl vm.vkernel_enable=0",
      "vkernel -m 8M -c true",
    ];
    const { console, statuses } = runGuests({ lines, cpus: 1 });
    assertEquals(statuses, [0, 1, 1, 64, 0, 1], console);
    assertStringIncludes(console, "/etc/motd is neither a cpio (newc) nor a tar archive");
    assertStringIncludes(console, "/nothing: ENOENT");
    assertStringIncludes(console, "-q: there is no such option");
    assertStringIncludes(console, "is the sysctl vm.vkernel_enable 1?");
  });
});
