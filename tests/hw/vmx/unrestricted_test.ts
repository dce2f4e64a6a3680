/** Guests that are not 64-bit code: unrestricted guests in real mode, on their way to long mode; virtual-8086 and 32-bit guests. */
import type { EngineKind } from "../../../hw/machine.ts";
import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { S } from "../../../hw/state.ts";
import { PROC2 } from "../../../hw/vmx/contract.ts";
import { ENTRY, EXIT } from "../../../hw/vmx/controls.ts";
import { AT, onBothEngines } from "../sys/system_fixture.ts";
import { everything, VM, VmxFixture } from "./vmx_fixture.ts";

/** A machine whose guest has the first 2 MiB through EPT, one to one. */
function withEpt(engine: EngineKind): VmxFixture {
  const m = new VmxFixture(everything, engine).start();
  m.view.setUint32(VM.EPT, (VM.EPT + 0x1000) | 7, true);
  m.view.setUint32(VM.EPT + 0x1000, (VM.EPT + 0x2000) | 7, true);
  m.view.setUint32(VM.EPT + 0x2000, 0xb7, true);
  return m.secondary(PROC2.EPT | PROC2.UNRESTRICTED_GUEST).set("EPT_POINTER", VM.EPT | 0x1e);
}

function realMode(m: VmxFixture): VmxFixture {
  m.clear("ENTRY_CONTROLS", ENTRY.IA32E_GUEST).set("GUEST_CR0", 0x20).set("GUEST_CR4", 0x2000).set(
    "GUEST_CR3",
    0,
  );
  m.or("ENTRY_CONTROLS", ENTRY.LOAD_EFER).or("EXIT_CONTROLS", EXIT.SAVE_EFER | EXIT.LOAD_EFER).set(
    "GUEST_EFER",
    0,
  );
  for (const name of ["CS", "SS", "DS", "ES", "FS", "GS"] as const) {
    m.set(`GUEST_${name}_SELECTOR`, name === "CS" ? 0x7000 : 0).set(
      `GUEST_${name}_BASE`,
      name === "CS" ? 0x7_0000 : 0,
    );
    m.set(`GUEST_${name}_LIMIT`, 0xffff).set(`GUEST_${name}_ACCESS_RIGHTS`, name === "CS" ? 0x9b : 0x93);
  }
  m.set("GUEST_IDTR_BASE", 0).set("GUEST_IDTR_LIMIT", 0x3ff);
  return m.set("GUEST_RIP", 0).set("GUEST_RSP", 0x7f00);
}

describe("an unrestricted guest", () => {
  it("runs real-mode code, and its interrupts go through the vector table", () => {
    onBothEngines((engine) => {
      const m = realMode(withEpt(engine));
      // Vector 21h: 7000:0100
      m.view.setUint32(0x21 * 4, 0x7000_0100, true);
      m.place(VM.GUEST + 0x100, "b83412 0f01c1");
      m.guest("cd21").exited(18);
      assertEquals([m.cpu.gpr(0) & 0xffffn, m.get("GUEST_RIP")], [0x1234n, 0x103n]);
      assertEquals(m.get("GUEST_CS_SELECTOR"), 0x7000n);
    });
  });
  it("may enter protected mode and long mode by itself; the exit saves where it is", () => {
    onBothEngines((engine) => {
      const m = realMode(withEpt(engine));
      m.place(VM.GUEST + 0x200, "0f01c1");
      // cr4 |= PAE; cr3 = AT.PML4; EFER.LME; cr0 |= PG | PE; jmp far 8:70200h
      const code = [
        "66b820200000 0f22e0",
        `66b800400000 0f22d8`,
        "66b9800000c0 66b800010000 6631d2 0f30",
        "0f20c0 660d01000080 0f22c0",
        "66ea00020700 0800",
      ].join(" ");
      m.or("PROCESSOR_BASED_CONTROLS", 1 << 28).set("MSR_BITMAPS", VM.MSR);
      m.set("GUEST_GDTR_BASE", AT.GDT);
      m.guest(code).exited(18);
      assertEquals(m.get("GUEST_RIP"), BigInt(VM.GUEST + 0x200));
      assertEquals([m.get("GUEST_EFER"), m.get("ENTRY_CONTROLS") & 0x200n], [0x500n, 0x200n]);
      assertEquals(m.get("GUEST_CS_ACCESS_RIGHTS") & 0x2000n, 0x2000n);
      // And on again.
      m.set("GUEST_RIP", VM.GUEST + 0x200).resume().exited(18);
    });
  });
  it("without the control keeps PE and PG: #GP(0)", () => {
    const m = new VmxFixture().start().set("EXCEPTION_BITMAP", 1 << 13);
    m.guest("0f20c0 25fffeffff 83e0fe 0f22c0").exited(0);
    assertEquals(m.get("EXIT_INTERRUPTION_INFORMATION"), 0x8000_0b0dn);
  });
});

describe("a guest in virtual-8086 mode", () => {
  it("runs, and VMCALL exits from there", () => {
    onBothEngines((engine) => {
      const m = new VmxFixture(everything, engine).start();
      m.clear("ENTRY_CONTROLS", ENTRY.IA32E_GUEST).set("GUEST_CR4", 0x2010).set("GUEST_CR3", AT.DATA);
      for (let i = 0; i < 1024; i++) m.view.setUint32(AT.DATA + i * 4, 0, true);
      m.view.setUint32(AT.DATA, 0x87, true);
      m.set("GUEST_RFLAGS", 0x2_0002).set("GUEST_RIP", 0).set("GUEST_RSP", 0x1000);
      for (const name of ["CS", "SS", "DS", "ES", "FS", "GS"] as const) {
        m.set(`GUEST_${name}_SELECTOR`, 0x7000).set(`GUEST_${name}_BASE`, 0x7_0000).set(
          `GUEST_${name}_LIMIT`,
          0xffff,
        );
        m.set(`GUEST_${name}_ACCESS_RIGHTS`, 0xf3);
      }
      m.guest("b87856 0f01c1").exited(18);
      assertEquals([m.cpu.gpr(0) & 0xffffn, m.get("GUEST_SS_ACCESS_RIGHTS")], [0x5678n, 0xf3n]);
      assertEquals(m.cpu.get32(S.CPL), 0);
    });
  });
});
