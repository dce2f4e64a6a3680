/** XSAVES and XRSTORS, which custom models may offer: for the host, and for a guest with their control. */
import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { cpuModels, customModel } from "../../../hw/cpuid.ts";
import { S } from "../../../hw/state.ts";
import { PROC2 } from "../../../hw/vmx/contract.ts";
import { AT, onBothEngines } from "../sys/system_fixture.ts";
import { VM, VmxFixture } from "./vmx_fixture.ts";

const model = customModel(cpuModels["icelake"]!, { name: "xsaves", add: ["xsaves", "vmx-xsaves"] });

describe("XSAVES and XRSTORS", () => {
  it("of a guest need their control, then save and restore in the compacted format", () => {
    onBothEngines((engine) => {
      const m = new VmxFixture(model, engine).start();
      m.or("GUEST_CR4", 0x4_0200).secondary(PROC2.XSAVES).set("XSS_EXITING_BITMAP", -1);
      m.cpu.set64(S.XCR0, 3n);
      m.cpu.set64(S.XMM, 0x1122n);
      for (let i = 0; i < 576; i++) m.view.setUint8(AT.DATA + i, 0);
      // mov eax, 3; xor edx, edx; xsaves [30000h]; pxor xmm0, xmm0; xrstors [30000h]; vmcall
      m.guest("b803000000 31d2 0fc72c2500000300 660fefc0 0fc71c2500000300 0f01c1").exited(18);
      assertEquals(m.cpu.get64(S.XMM), 0x1122n);
      assertEquals(m.view.getBigUint64(AT.DATA + 520, true), (1n << 63n) | 3n);
      const without = new VmxFixture(model, engine).start().or("GUEST_CR4", 0x4_0200).set(
        "EXCEPTION_BITMAP",
        1 << 6,
      );
      without.guest("0fc72c2500000300").exited(0);
      assertEquals(without.get("GUEST_RIP"), BigInt(VM.GUEST));
    });
  });
  it("XRSTORS of the standard format is #GP(0)", () => {
    const m = new VmxFixture(model).start();
    m.cpu.set32(S.CR4, m.cpu.get32(S.CR4) | 0x4_0200);
    for (let i = 0; i < 576; i++) m.view.setUint8(AT.DATA + i, 0);
    m.cpu.setGpr(0, 3n);
    assertEquals(m.run("0fc71c2500000300", 2).caught, 13);
  });
});
