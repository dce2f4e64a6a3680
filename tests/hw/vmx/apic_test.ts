/** APIC virtualization: TPR shadow, the APIC-access page, x2APIC MSRs, virtual interrupts, posted interrupts. */
import type { EngineKind } from "../../../hw/machine.ts";
import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { PIN, PROC, PROC2 } from "../../../hw/vmx/contract.ts";
import { EXIT } from "../../../hw/vmx/controls.ts";
import { onBothEngines } from "../sys/system_fixture.ts";
import { everything, isGuest, VM, VmxFixture } from "./vmx_fixture.ts";

const CALL = "0f01c1";
const V = VM.VIRTUAL_APIC;

function start(engine: EngineKind = "interpreter"): VmxFixture {
  const m = new VmxFixture(everything, engine).start();
  return m.or("PROCESSOR_BASED_CONTROLS", PROC.TPR_SHADOW | PROC.MSR_BITMAPS).set("VIRTUAL_APIC_ADDRESS", V)
    .set("MSR_BITMAPS", VM.MSR);
}
function accesses(m: VmxFixture, more = 0): VmxFixture {
  return m.secondary(PROC2.VIRTUALIZE_APIC_ACCESSES | more).set("APIC_ACCESS_ADDRESS", VM.APIC_ACCESS);
}
function interrupts(m: VmxFixture): VmxFixture {
  return m.or("PIN_BASED_CONTROLS", PIN.EXTERNAL_INTERRUPT).secondary(PROC2.VIRTUAL_INTERRUPTS);
}
const at = (offset: number) => {
  const n = VM.APIC_ACCESS + offset;
  return [0, 8, 16, 24].map((s) => ((n >>> s) & 0xff).toString(16).padStart(2, "0")).join("");
};
/** mov eax, [page + offset]; mov [page + offset], eax; mov dword [page + offset], value */
const read = (offset: number) => `8b0425${at(offset)}`;
const write = (offset: number) => `890425${at(offset)}`;
const eax = (value: number) =>
  "b8" + [0, 8, 16, 24].map((s) => ((value >>> s) & 0xff).toString(16).padStart(2, "0")).join("");
const reg = (m: VmxFixture, offset: number) => m.view.getUint32(V + offset, true);
function handler(m: VmxFixture, vector: number, code: string): VmxFixture {
  m.gate(vector, 8, 0x9000 + vector * 32, 0x8e);
  return m.place(0x9000 + vector * 32, code);
}

describe("the TPR shadow", () => {
  it("is CR8 of the guest; a value below the threshold exits behind the instruction", () => {
    onBothEngines((engine) => {
      const m = start(engine);
      m.view.setUint32(V + 0x80, 0x50, true);
      m.set("TPR_THRESHOLD", 4);
      // mov rbx, cr8; mov eax, 6; mov cr8, rax; mov eax, 3; mov cr8, rax; nop
      m.guest(`440f20c3 ${eax(6)} 440f22c0 ${eax(3)} 440f22c0 90`).exited(43);
      assertEquals([m.cpu.gpr(3), reg(m, 0x80)], [5n, 0x30]);
      assertEquals(m.get("GUEST_RIP"), BigInt(VM.GUEST + 22));
    });
  });
  it("below the threshold at entry exits at once with virtualized accesses", () => {
    const m = accesses(start()).set("TPR_THRESHOLD", 2);
    m.guest("90").exited(43);
    assertEquals(m.get("GUEST_RIP"), BigInt(VM.GUEST));
  });
});

describe("the APIC-access page", () => {
  it("gives and takes VTPR, and exits for everything else", () => {
    onBothEngines((engine) => {
      const m = accesses(start(engine));
      m.view.setUint32(V + 0x80, 0x70, true);
      m.guest(`${read(0x80)} 89c3 ${eax(0xffffff20)} ${write(0x80)} ${read(0x300)}`).exited(44, 0x300);
      assertEquals([m.cpu.gpr(3), reg(m, 0x80)], [0x70n, 0x20]);
      const write1 = accesses(start(engine));
      write1.guest(write(0x310)).exited(44, 0x1310);
      const fetch = accesses(start(engine));
      fetch.guest(`b800700400 ffe0`).exited(44, 0x2000);
    });
  });
  it("exits for wide, misaligned and page-crossing accesses", () => {
    accesses(start()).guest(`488b0425${at(0x80)}`).exited(44, 0x80);
    accesses(start()).guest(read(0x84)).exited(44, 0x84);
    accesses(start()).guest(read(0x7e)).exited(44, 0x7e);
  });
  it("without a TPR shadow exits for every access", () => {
    const m = new VmxFixture().start();
    accesses(m).guest(read(0x80)).exited(44, 0x80);
  });
  it("with APIC-register virtualization gives registers; writes exit behind the instruction", () => {
    onBothEngines((engine) => {
      const m = accesses(start(engine), PROC2.APIC_REGISTERS);
      m.view.setUint32(V + 0x20, 0x0500_0000, true);
      m.guest(`${read(0x20)} 89c3 ${eax(0x1ff)} ${write(0xf0)} 90`).exited(56, 0xf0);
      assertEquals([m.cpu.gpr(3), reg(m, 0xf0)], [0x0500_0000n, 0x1ff]);
      assertEquals(m.get("GUEST_RIP"), BigInt(VM.GUEST + 7 + 2 + 5 + 7));
      accesses(start(engine), PROC2.APIC_REGISTERS).guest(read(0x40)).exited(44, 0x40);
    });
  });
  it("read-modify-write of VTPR works", () => {
    onBothEngines((engine) => {
      const m = accesses(start(engine));
      m.view.setUint32(V + 0x80, 0x10, true);
      // or dword [page + 80h], 20h; vmcall
      m.guest(`830c25${at(0x80)}20 ${CALL}`).exited(18);
      assertEquals(reg(m, 0x80), 0x30);
    });
  });
});

describe("x2APIC mode", () => {
  it("virtualizes the TPR; with APIC-register virtualization all reads", () => {
    const m = start().secondary(PROC2.X2APIC);
    m.guest(`b908080000 31d2 ${eax(0x40)} 0f30 31c0 0f32 ${CALL}`).exited(18);
    assertEquals([m.cpu.gpr(0), reg(m, 0x80)], [0x40n, 0x40]);
    const all = start().secondary(PROC2.X2APIC | PROC2.APIC_REGISTERS);
    all.view.setUint32(V + 0x20, 0x77, true);
    all.guest(`b902080000 0f32 ${CALL}`).exited(18);
    assertEquals(all.cpu.gpr(0), 0x77n);
  });
  it("a TPR of more than 8 bits is #GP(0)", () => {
    const m = start().secondary(PROC2.X2APIC).set("EXCEPTION_BITMAP", 1 << 13);
    m.guest(`b908080000 31d2 ${eax(0x140)} 0f30`).exited(0);
  });
});

describe("virtual-interrupt delivery", () => {
  it("delivers RVI when IF lets it, and moves it into service", () => {
    onBothEngines((engine) => {
      const m = handler(interrupts(start(engine)), 0x61, CALL);
      m.view.setUint32(V + 0x200 + 0x30, 2, true);
      m.view.setUint32(V + 0x200 + 0x20, 1, true);
      m.set("GUEST_INTERRUPT_STATUS", 0x61).guest("90 fb 90 90").exited(18);
      assertEquals(m.get("GUEST_RIP"), BigInt(0x9000 + 0x61 * 32));
      assertEquals(m.get("GUEST_INTERRUPT_STATUS"), 0x6140n);
      assertEquals([reg(m, 0x130), reg(m, 0x230), reg(m, 0xa0)], [2, 0, 0x60]);
      assertEquals(m.view.getBigUint64(VM.GUEST_STACK - 40, true), BigInt(VM.GUEST + 3));
    });
  });
  it("holds an interrupt whose class is not above the PPR; a lower TPR lets it in", () => {
    const m = handler(interrupts(start()), 0x61, CALL).set("GUEST_RFLAGS", 0x202).set(
      "GUEST_INTERRUPT_STATUS",
      0x61,
    );
    m.view.setUint32(V + 0x80, 0x60, true);
    m.view.setUint32(V + 0x230, 2, true);
    // mov eax, 5; mov cr8, rax
    m.guest(`90 90 ${eax(5)} 440f22c0 90`).exited(18);
    assertEquals(m.view.getBigUint64(VM.GUEST_STACK - 40, true), BigInt(VM.GUEST + 11));
  });
  it("EOI ends service; the EOI-exit bitmap makes it an exit behind the instruction", () => {
    onBothEngines((engine) => {
      const make = () => {
        const m = accesses(interrupts(start(engine))).set("GUEST_INTERRUPT_STATUS", 0x6100);
        m.view.setUint32(V + 0x130, 2, true);
        return m;
      };
      const m = make();
      m.guest(`${write(0xb0)} ${CALL}`).exited(18);
      assertEquals([m.get("GUEST_INTERRUPT_STATUS"), reg(m, 0x130)], [0n, 0]);
      const exits = make().set("EOI_EXIT_BITMAP_1", 1n << 33n);
      exits.guest(`${write(0xb0)} ${CALL}`).exited(45, 0x61);
      assertEquals(exits.get("GUEST_RIP"), BigInt(VM.GUEST + 7));
    });
  });
  it("a self-IPI becomes a virtual interrupt", () => {
    const m = handler(accesses(interrupts(start())), 0x62, CALL).set("GUEST_RFLAGS", 0x202);
    m.guest(`${eax(0x4_0062)} ${write(0x300)} 90`).exited(18);
    assertEquals(m.get("GUEST_INTERRUPT_STATUS"), 0x6200n);
    accesses(interrupts(start())).guest(`${eax(0x62)} ${write(0x300)} 90`).exited(56, 0x300);
  });
  it("wakes a halted guest", () => {
    const m = handler(interrupts(start()), 0x61, CALL).set("GUEST_RFLAGS", 0x202).set("GUEST_ACTIVITY", 1);
    m.view.setUint32(V + 0x230, 2, true);
    m.set("GUEST_INTERRUPT_STATUS", 0x61).guest("90").exited(18);
  });
});

describe("posted interrupts", () => {
  const notify = (m: VmxFixture, vector: number) => {
    m.cpu.apic.writeRegister(0xf0, 0x1ff);
    m.cpu.apic.receive({ vector, delivery: 0, level: false, logical: false, destination: 0, wide: false });
  };
  const posted = (engine: EngineKind) =>
    interrupts(start(engine)).or("PIN_BASED_CONTROLS", PIN.POSTED_INTERRUPTS).or(
      "EXIT_CONTROLS",
      EXIT.ACKNOWLEDGE_INTERRUPT,
    )
      .set("POSTED_INTERRUPT_VECTOR", 0xf2).set("POSTED_INTERRUPT_DESCRIPTOR", VM.POSTED);
  it("the notification vector delivers what is in the descriptor, without an exit", () => {
    onBothEngines((engine) => {
      const m = handler(posted(engine), 0x91, CALL).set("GUEST_RFLAGS", 0x202);
      m.view.setUint32(VM.POSTED + 16, 1 << 17, true);
      m.view.setUint32(VM.POSTED + 32, 1, true);
      m.place(VM.GUEST, "ebfe");
      m.enter().step(4);
      notify(m, 0xf2);
      m.step(20).exited(18);
      assertEquals(m.get("GUEST_RIP"), BigInt(0x9000 + 0x91 * 32));
      assertEquals([m.view.getUint32(VM.POSTED + 16, true), m.view.getUint32(VM.POSTED + 32, true)], [0, 0]);
      assertEquals(m.cpu.apic.pendingVector(), -1);
    });
  });
  it("another vector exits", () => {
    const m = posted("interpreter");
    m.place(VM.GUEST, "ebfe");
    m.enter().step(4);
    assertEquals(isGuest(m.cpu), true);
    notify(m, 0xf1);
    m.step(20).exited(1);
    assertEquals(m.get("EXIT_INTERRUPTION_INFORMATION"), 0x8000_00f1n);
  });
});
