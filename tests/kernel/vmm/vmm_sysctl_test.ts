import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { Cx } from "../../../kernel/context.ts";
import type { SysctlValue } from "../../../kernel/proc/sysctl_types.ts";
import { vmmSysctls } from "../../../kernel/vmm/vmm_sysctl.ts";
import { vmxCapabilityOf, vmxEnable } from "../../../kernel/vmm/vmx_init.ts";
import { inVmxOperation } from "../../../kernel/vmm/vmx_instr.ts";
import { runInKernel } from "../in_kernel.ts";

const row = (name: string) => vmmSysctls.find((one) => one.name === `hw.vmm.${name}`)!;
const get = (cx: Cx, name: string) => row(name).get(cx, []);
const set = (cx: Cx, name: string, value: SysctlValue) => row(name).set!(cx, value, []);

describe("hw.vmm", () => {
  it("tells what the processor can", () => {
    for (
      const [cpuModel, type, ad] of [
        ["penryn", "none", "dragonfly"],
        ["nehalem", "VMX", "dragonfly"],
        ["haswell", "VMX", "hardware"],
      ] as const
    ) {
      runInKernel({ cpuModel }, function* (cx) {
        yield;
        assertEquals([get(cx, "type"), get(cx, "ad"), get(cx, "enable")], [type, ad, type === "VMX" ? 1 : 0]);
        assertEquals(get(cx, "vmx.region_size"), type === "VMX" ? 4096 : undefined);
        assertEquals(set(cx, "enable", 1), type === "VMX" ? 0 : 19);
      });
    }
  });

  it("chooses a design and accessed and dirty bits, and refuses what is neither", () => {
    runInKernel({}, function* (cx) {
      yield;
      assertEquals(get(cx, "design"), "merged");
      assertEquals([set(cx, "design", "twin"), get(cx, "design")], [0, "twin"]);
      assertEquals([set(cx, "design", "both"), set(cx, "design", 1), get(cx, "design")], [22, 22, "twin"]);
      assertEquals([set(cx, "ad", "freebsd"), get(cx, "ad"), set(cx, "ad", "")], [0, "freebsd", 22]);
    });
  });

  it("VMX operation begins when it is needed and ends when it is switched off, on every processor", () => {
    runInKernel({ cpus: 3 }, function* (cx) {
      const on = () => cx.k.vmm.pcpu.map((pcpu) => pcpu.on);
      assertEquals([on(), inVmxOperation(cx)], [[], false]);
      for (let i = 0; i < 2; i++) {
        yield* vmxEnable(cx, vmxCapabilityOf(cx)!);
        assertEquals([on(), inVmxOperation(cx)], [[true, true, true], true]);
        yield* vmxEnable(cx, vmxCapabilityOf(cx)!);
        assertEquals(set(cx, "enable", 0), 0);
        assert(!inVmxOperation(cx));
        // As the end of the system call does.
        yield* cx.k.platform.flushIpis(cx);
        for (let n = 0; n < 100_000 && on().includes(true); n++) yield;
        assertEquals(on(), [false, false, false]);
        assertEquals(set(cx, "enable", 1), 0);
      }
      // Enabled again at once, while others have not yet heard of the end.
      yield* vmxEnable(cx, vmxCapabilityOf(cx)!);
      set(cx, "enable", 0);
      yield* vmxEnable(cx, vmxCapabilityOf(cx)!);
      assertEquals(on(), [true, true, true]);
    });
  });
});
