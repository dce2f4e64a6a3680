import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { onBothEngines } from "../sys/system_fixture.ts";
import { everything, VM, VmxFixture } from "./vmx_fixture.ts";

describe("VM exit", () => {
  it("comes with CPUID, which the guest did not execute", () => {
    onBothEngines((engine) => {
      const m = new VmxFixture(everything, engine).start();
      m.guest("90 0fa2").exited(10, 0);
      assertEquals(m.get("GUEST_RIP"), BigInt(VM.GUEST + 1));
      assertEquals(m.get("EXIT_INSTRUCTION_LENGTH"), 2n);
      assertEquals(m.cpu.rip, BigInt(VM.EXIT + 1));
    });
  });
});
