/** Events of a guest: injection, exceptions and their exits, IDT-vectoring, NMIs, windows, MTF, the preemption timer, activity states. */
import type { EngineKind } from "../../../hw/machine.ts";
import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { S } from "../../../hw/state.ts";
import { PIN, PROC } from "../../../hw/vmx/contract.ts";
import { EXIT } from "../../../hw/vmx/controls.ts";
import { machineCheckAtEntry } from "../../../hw/vmx/entry.ts";
import { AT, onBothEngines } from "../sys/system_fixture.ts";
import { everything, isGuest, VM, VmxFixture } from "./vmx_fixture.ts";

const VALID = 0x8000_0000;
/** VMCALL: how guest code says that it has come that far. */
const CALL = "0f01c1";
const SP = VM.GUEST_STACK;

function start(engine: EngineKind = "interpreter"): VmxFixture {
  return new VmxFixture(everything, engine).start();
}
/** Replaces the handler of `vector` by code. */
function handler(m: VmxFixture, vector: number, code: string): VmxFixture {
  m.gate(vector, 8, 0x9000 + vector * 32, 0x8e);
  return m.place(0x9000 + vector * 32, code);
}
function inject(m: VmxFixture, type: number, vector: number, length = 0, code?: number): VmxFixture {
  m.set("ENTRY_INTERRUPTION_INFORMATION", VALID + (type << 8) + vector + (code === undefined ? 0 : 0x800));
  return m.set("ENTRY_INSTRUCTION_LENGTH", length).set("ENTRY_EXCEPTION_ERROR_CODE", code ?? 0);
}
/** Quadword at a guest address. */
function quad(m: VmxFixture, at: number): bigint {
  return m.view.getBigUint64(at, true);
}
const interruption = (m: VmxFixture) => m.get("EXIT_INTERRUPTION_INFORMATION");
const vectoring = (m: VmxFixture) => m.get("IDT_VECTORING_INFORMATION");

describe("event injection", () => {
  it("delivers each type through the guest's IDT with the frame that the manual says", () => {
    onBothEngines((engine) => {
      const cases = [
        { type: 0, vector: 0x40, length: 0, rip: 0 },
        { type: 2, vector: 2, length: 0, rip: 0 },
        { type: 3, vector: 6, length: 0, rip: 0 },
        { type: 3, vector: 13, length: 0, rip: 0, code: 0x123 },
        { type: 4, vector: 0x41, length: 2, rip: 2 },
        { type: 5, vector: 1, length: 1, rip: 1 },
        { type: 6, vector: 3, length: 1, rip: 1 },
      ];
      for (const c of cases) {
        const m = handler(start(engine), c.vector, CALL).set("GUEST_RFLAGS", 0x202);
        inject(m, c.type, c.vector, c.length, c.code).guest("90").exited(18);
        assertEquals(m.get("GUEST_RIP"), BigInt(0x9000 + c.vector * 32), `type ${c.type}`);
        const frame = c.code === undefined ? SP - 40 : SP - 48;
        assertEquals(m.get("GUEST_RSP"), BigInt(frame));
        const rip = quad(m, c.code === undefined ? frame : frame + 8);
        assertEquals(rip, BigInt(VM.GUEST + c.rip), `type ${c.type}: RIP`);
        if (c.code !== undefined) assertEquals(quad(m, frame), BigInt(c.code));
        assertEquals(m.get("ENTRY_INTERRUPTION_INFORMATION") & BigInt(VALID), 0n, "the valid bit is cleared");
      }
    });
  });
  it("is never intercepted itself, what its delivery raises is: IDT-vectoring tells the injected event", () => {
    const m = start().set("EXCEPTION_BITMAP", 0xffff_ffff).set("GUEST_IDTR_LIMIT", 0x3f);
    inject(m, 3, 14, 0, 7).guest("90").exited(0);
    assertEquals(interruption(m), 0x8000_0b0dn);
    assertEquals(m.get("EXIT_INTERRUPTION_ERROR_CODE"), BigInt(14 * 8 + 2 + 1));
    assertEquals([vectoring(m), m.get("IDT_VECTORING_ERROR_CODE")], [0x8000_0b0en, 7n]);
    assertEquals(m.get("GUEST_RIP"), BigInt(VM.GUEST));
  });
  it("of a software interrupt that fails tells the length, and RIP of the interrupt", () => {
    const m = start().set("EXCEPTION_BITMAP", 1 << 13).set("GUEST_IDTR_LIMIT", 0x3f);
    inject(m, 4, 0x80, 2).guest("90").exited(0);
    assertEquals([vectoring(m), m.get("EXIT_INSTRUCTION_LENGTH")], [0x8000_0480n, 2n]);
    assertEquals(m.get("GUEST_RIP"), BigInt(VM.GUEST));
    assertEquals(m.get("EXIT_INTERRUPTION_ERROR_CODE"), BigInt(0x80 * 8 + 2));
  });
  it("does not write CR2 or DR6", () => {
    const m = handler(handler(start(), 14, CALL), 1, CALL);
    m.cpu.set64(S.CR2, 0x1234n);
    inject(m, 3, 14, 0, 2).guest("90").exited(18);
    assertEquals(m.cpu.get64(S.CR2), 0x1234n);
    const dr6 = m.cpu.get64(S.DR + 48);
    m.cpu.set32(S.ACTIVITY, 0);
    inject(m, 3, 1).resume().exited(18);
    assertEquals(m.cpu.get64(S.DR + 48), dr6);
  });
  it("of an NMI blocks NMIs; of type 7 pends an MTF exit before the first instruction", () => {
    const m = handler(start(), 2, CALL);
    inject(m, 2, 2).guest("90").exited(18);
    assertEquals(m.get("GUEST_INTERRUPTIBILITY"), 8n);
    const mtf = start();
    inject(mtf, 7, 0).guest("90").exited(37);
    assertEquals(mtf.get("GUEST_RIP"), BigInt(VM.GUEST));
  });
  it("leaves the HLT state", () => {
    const m = handler(start(), 0x30, CALL).set("GUEST_ACTIVITY", 1).set("GUEST_RFLAGS", 0x202);
    inject(m, 0, 0x30).guest("90").exited(18);
    assertEquals(m.get("GUEST_ACTIVITY"), 0n);
  });
});

describe("exceptions of a guest", () => {
  it("are its own without a bit in the bitmap", () => {
    onBothEngines((engine) => {
      const m = handler(start(engine), 6, CALL);
      m.guest("0f0b").exited(18);
      assertEquals(quad(m, SP - 40), BigInt(VM.GUEST));
    });
  });
  it("exit with vector, type, error code; RF is saved set", () => {
    onBothEngines((engine) => {
      const m = start(engine).set("EXCEPTION_BITMAP", (1 << 6) | (1 << 13));
      m.guest("90 0f0b").exited(0, 0);
      assertEquals(interruption(m), 0x8000_0306n);
      assertEquals(m.get("GUEST_RIP"), BigInt(VM.GUEST + 1));
      assertEquals(m.get("GUEST_RFLAGS") & 0x1_0000n, 0x1_0000n);
      assertEquals(m.get("EXIT_INSTRUCTION_LENGTH"), 0n);
    });
  });
  it("INT3, INTO's kin and INT1 exit as software exceptions with a length; INT n never", () => {
    const m = start().set("EXCEPTION_BITMAP", 0xffff_ffff);
    m.guest("cc").exited(0);
    assertEquals([interruption(m), m.get("EXIT_INSTRUCTION_LENGTH")], [0x8000_0603n, 1n]);
    const one = start().set("EXCEPTION_BITMAP", 0xffff_ffff);
    one.guest("f1").exited(0);
    assertEquals([interruption(one), one.get("EXIT_INSTRUCTION_LENGTH")], [0x8000_0501n, 1n]);
    handler(start(), 3, CALL).set("EXCEPTION_BITMAP", 0xffff_ffff).guest("cd03").exited(18);
  });
  it("#PF: the linear address is the qualification, CR2 stays; mask and match decide", () => {
    onBothEngines((engine) => {
      // mov al, [10000000h]: not mapped
      const code = "8a042500000010";
      const m = start(engine).set("EXCEPTION_BITMAP", 1 << 14);
      m.cpu.set64(S.CR2, 0x77n);
      m.guest(code).exited(0, 0x1000_0000);
      assertEquals([interruption(m), m.get("EXIT_INTERRUPTION_ERROR_CODE")], [0x8000_0b0en, 0n]);
      assertEquals(m.cpu.get64(S.CR2), 0x77n);
      const matched = handler(start(engine), 14, CALL).set("PAGE_FAULT_ERROR_CODE_MASK", 1);
      matched.set("PAGE_FAULT_ERROR_CODE_MATCH", 1).set("EXCEPTION_BITMAP", 1 << 14).guest(code).exited(18);
      assertEquals(matched.cpu.get64(S.CR2), 0x1000_0000n);
      const inverted = start(engine).set("PAGE_FAULT_ERROR_CODE_MASK", 1).set(
        "PAGE_FAULT_ERROR_CODE_MATCH",
        1,
      );
      inverted.set("EXCEPTION_BITMAP", 0).guest(code).exited(0);
    });
  });
  it("#DB by single-step: BS in the qualification, DR6 stays", () => {
    onBothEngines((engine) => {
      const m = start(engine).set("EXCEPTION_BITMAP", 2).set("GUEST_RFLAGS", 0x102);
      const dr6 = m.cpu.get64(S.DR + 48);
      m.guest("90 90").exited(0, 0x4000);
      assertEquals(interruption(m), 0x8000_0301n);
      assertEquals([m.get("GUEST_RIP"), m.cpu.get64(S.DR + 48)], [BigInt(VM.GUEST + 1), dr6]);
    });
  });
  it("#DB that is delivered writes DR6", () => {
    const m = handler(start(), 1, CALL).set("GUEST_RFLAGS", 0x102);
    m.guest("90 90").exited(18);
    assertEquals(m.cpu.get64(S.DR + 48) & 0x4000n, 0x4000n);
  });
});

describe("double and triple faults", () => {
  // The stack is not canonical: #PF's delivery raises #SS, so #DF; its delivery too: triple fault.
  const broken = (m: VmxFixture) => m.set("GUEST_RSP", 1n << 60n);
  const code = "8a042500000010";
  it("the second exception is looked up first", () => {
    const m = broken(start()).set("EXCEPTION_BITMAP", 1 << 12);
    m.guest(code).exited(0);
    assertEquals([interruption(m), vectoring(m)], [0x8000_0b0cn, 0x8000_0b0en]);
  });
  it("#DF exits without IDT-vectoring information", () => {
    const m = broken(start()).set("EXCEPTION_BITMAP", 1 << 8);
    m.guest(code).exited(0);
    assertEquals([interruption(m), vectoring(m)], [0x8000_0b08n, 0n]);
  });
  it("a triple fault is exit 2", () => {
    onBothEngines((engine) => {
      const m = broken(start(engine));
      m.guest("90" + code).exited(2);
      assertEquals([interruption(m), vectoring(m)], [0n, 0n]);
      assertEquals(m.get("GUEST_RIP"), BigInt(VM.GUEST + 1));
    });
  });
});

describe("NMIs", () => {
  it("exit with NMI exiting; the host's NMIs are blocked", () => {
    const m = start().or("PIN_BASED_CONTROLS", PIN.NMI);
    m.place(VM.GUEST, "90 ebfd");
    m.enter().step(5);
    m.cpu.apic.raiseNmi();
    m.step(5).exited(0);
    assertEquals([interruption(m), m.cpu.get32(S.BLOCKING)], [0x8000_0202n, 8]);
  });
  it("go to the guest without it; its IRET unblocks them", () => {
    const m = handler(start(), 2, "48cf");
    m.place(VM.GUEST, "90 ebfd");
    m.enter().step(5);
    m.cpu.apic.raiseNmi();
    m.step(1);
    assertEquals(m.cpu.get32(S.BLOCKING), 8);
    m.step(1);
    assertEquals([m.cpu.get32(S.BLOCKING), isGuest(m.cpu)], [0, true]);
  });
  it("NMI-window exiting exits at once, also in HLT, but not while virtual NMIs are blocked", () => {
    const window = (m: VmxFixture) =>
      m.or("PIN_BASED_CONTROLS", PIN.NMI | PIN.VIRTUAL_NMIS).or("PROCESSOR_BASED_CONTROLS", PROC.NMI_WINDOW);
    window(start()).guest("90").exited(8);
    const halted = window(start()).set("GUEST_ACTIVITY", 1);
    halted.guest("90").exited(8);
    assertEquals(halted.get("GUEST_ACTIVITY"), 1n);
    const blocked = window(start()).set("GUEST_INTERRUPTIBILITY", 8);
    // The handler's IRET ends the blocking: push ss, rsp, rflags, cs, rip; iretq
    blocked.guest("90 6a10 4889e0 50 9c 6a08 6813000700 48cf 90 90").exited(8);
    assertEquals(blocked.get("GUEST_INTERRUPTIBILITY"), 0n);
  });
  it("an IRET that faults after it unblocked NMIs says so in bit 12", () => {
    const m = start().set("EXCEPTION_BITMAP", 1 << 13).set("GUEST_INTERRUPTIBILITY", 8);
    // iretq with a null CS
    m.guest("6a10 54 9c 6a00 6a00 48cf").exited(0);
    assertEquals(interruption(m), 0x8000_1b0dn);
    assertEquals(m.get("GUEST_INTERRUPTIBILITY"), 0n);
  });
});

describe("interrupts", () => {
  const pendingVector = (m: VmxFixture, vector: number) => {
    m.cpu.apic.writeRegister(0xf0, 0x1ff);
    m.cpu.apic.receive({ vector, delivery: 0, level: false, logical: false, destination: 0, wide: false });
  };
  it("exit whatever IF is, acknowledged or not", () => {
    const m = start().or("PIN_BASED_CONTROLS", PIN.EXTERNAL_INTERRUPT).or(
      "EXIT_CONTROLS",
      EXIT.ACKNOWLEDGE_INTERRUPT,
    );
    m.place(VM.GUEST, "ebfe");
    m.enter().step(3);
    pendingVector(m, 0x55);
    m.step(3).exited(1);
    assertEquals(interruption(m), 0x8000_0055n);
    assertEquals(m.cpu.apic.pendingVector(), -1);
    const kept = start().or("PIN_BASED_CONTROLS", PIN.EXTERNAL_INTERRUPT);
    pendingVector(kept, 0x55);
    kept.guest("ebfe").exited(1);
    assertEquals([interruption(kept), kept.cpu.apic.pendingVector()], [0n, 0x55]);
  });
  it("end the HLT state with an exit that saves it", () => {
    const m = start().or("PIN_BASED_CONTROLS", PIN.EXTERNAL_INTERRUPT);
    m.guest("f4 90");
    assertEquals([isGuest(m.cpu), m.cpu.get32(S.ACTIVITY)], [true, 1]);
    pendingVector(m, 0x55);
    m.step(3).exited(1);
    assertEquals([m.get("GUEST_ACTIVITY"), m.get("GUEST_RIP")], [1n, BigInt(VM.GUEST + 1)]);
  });
  it("interrupt-window exiting waits for IF and the end of STI's shadow", () => {
    onBothEngines((engine) => {
      const m = start(engine).or("PROCESSOR_BASED_CONTROLS", PROC.INTERRUPT_WINDOW);
      m.guest("90 90 fb 90 90").exited(7);
      assertEquals(m.get("GUEST_RIP"), BigInt(VM.GUEST + 4));
      const open = start(engine).or("PROCESSOR_BASED_CONTROLS", PROC.INTERRUPT_WINDOW).set(
        "GUEST_RFLAGS",
        0x202,
      );
      open.guest("90").exited(7);
      assertEquals(open.get("GUEST_RIP"), BigInt(VM.GUEST));
    });
  });
});

describe("the monitor trap flag", () => {
  const mtf = (m: VmxFixture) => m.or("PROCESSOR_BASED_CONTROLS", PROC.MONITOR_TRAP_FLAG);
  it("exits after one instruction", () => {
    onBothEngines((engine) => {
      const m = mtf(start(engine));
      m.guest("90 90 90").exited(37);
      assertEquals(m.get("GUEST_RIP"), BigInt(VM.GUEST + 1));
      m.resume().exited(37);
      assertEquals(m.get("GUEST_RIP"), BigInt(VM.GUEST + 2));
    });
  });
  it("exits after one iteration of a repeated string instruction", () => {
    const m = mtf(start());
    m.cpu.setGpr(1, 5n);
    m.cpu.setGpr(7, BigInt(AT.DATA));
    m.guest("f3aa").exited(37);
    assertEquals([m.get("GUEST_RIP"), m.cpu.gpr(1)], [BigInt(VM.GUEST), 4n]);
  });
  it("exits before the first instruction of a handler, of a fault or of an injected event", () => {
    const fault = mtf(handler(start(), 6, "90"));
    fault.guest("0f0b").exited(37);
    assertEquals(fault.get("GUEST_RIP"), BigInt(0x9000 + 6 * 32));
    const injected = mtf(handler(start(), 0x21, "90")).set("GUEST_RFLAGS", 0x202);
    inject(injected, 0, 0x21).guest("90").exited(37);
    assertEquals(injected.get("GUEST_RIP"), BigInt(0x9000 + 0x21 * 32));
  });
  it("does not exit where the instruction itself does", () => void mtf(start()).guest("0fa2").exited(10));
  it("comes before a single-step trap, which is saved as pending", () => {
    onBothEngines((engine) => {
      const m = mtf(start(engine)).set("GUEST_RFLAGS", 0x102);
      m.guest("90 90").exited(37);
      assertEquals(m.get("GUEST_PENDING_DEBUG") & 0x4000n, 0x4000n);
    });
  });
});

describe("pending debug exceptions", () => {
  it("are delivered after entry, before the first instruction", () => {
    const m = start().set("EXCEPTION_BITMAP", 2).set("GUEST_PENDING_DEBUG", 0x4000);
    m.guest("90").exited(0, 0x4000);
    assertEquals(m.get("GUEST_RIP"), BigInt(VM.GUEST));
    const breakpoint = start().set("EXCEPTION_BITMAP", 2).set("GUEST_PENDING_DEBUG", 0x1001);
    breakpoint.guest("90").exited(0, 1);
  });
  it("wait for the end of MOV SS's shadow, and are lost when an event is injected", () => {
    const m = start().set("EXCEPTION_BITMAP", 2).set("GUEST_PENDING_DEBUG", 0x1001).set(
      "GUEST_INTERRUPTIBILITY",
      2,
    );
    m.guest("90 90").exited(0, 1);
    assertEquals(m.get("GUEST_RIP"), BigInt(VM.GUEST + 1));
    const lost = handler(start(), 6, CALL).set("EXCEPTION_BITMAP", 2).set("GUEST_PENDING_DEBUG", 0x4000);
    inject(lost, 3, 6).guest("90").exited(18);
  });
  it("are saved when an exit comes in MOV SS's shadow", () => {
    const m = start().set("GUEST_PENDING_DEBUG", 0x1001).set("GUEST_INTERRUPTIBILITY", 2);
    m.guest("0fa2").exited(10);
    assertEquals([m.get("GUEST_PENDING_DEBUG"), m.get("GUEST_INTERRUPTIBILITY")], [0x1001n, 2n]);
  });
});

describe("the preemption timer", () => {
  const timer = (m: VmxFixture, value: number) =>
    m.or("PIN_BASED_CONTROLS", PIN.PREEMPTION_TIMER).set("PREEMPTION_TIMER_VALUE", value);
  it("of 0 exits before the first instruction", () => {
    const m = timer(start(), 0);
    m.guest("90").exited(52);
    assertEquals(m.get("GUEST_RIP"), BigInt(VM.GUEST));
  });
  it("exits when its ticks are over, at the same instruction on both engines, also in HLT; and is saved", () => {
    const rips: bigint[] = [];
    onBothEngines((engine) => {
      const m = timer(start(engine), 10);
      m.place(VM.GUEST, "90 90 90 ebfb");
      m.enter();
      m.machine.run({ untilTick: 10_000 });
      m.exited(52);
      rips.push(m.get("GUEST_RIP"));
      const halted = timer(start(engine), 10);
      halted.place(VM.GUEST, "f4");
      halted.enter();
      halted.machine.run({ untilTick: 10_000 });
      halted.exited(52);
      const saved = timer(start(engine), 1000).or("EXIT_CONTROLS", EXIT.SAVE_PREEMPTION_TIMER);
      saved.guest("90 0fa2").exited(10);
      assert(saved.get("PREEMPTION_TIMER_VALUE") >= 998n && saved.get("PREEMPTION_TIMER_VALUE") <= 1000n);
    });
    assertEquals(rips[0], rips[1]);
  });
});

describe("activity states", () => {
  it("INIT exits with reason 3 and resets nothing; in root operation it is blocked", () => {
    const m = start();
    m.place(VM.GUEST, "ebfe");
    m.enter().step(3);
    m.cpu.apic.receive({ vector: 0, delivery: 5, level: true, logical: false, destination: 0, wide: false });
    m.step(2).exited(3);
    assertEquals(m.cpu.apic.initPending, false);
    m.cpu.apic.receive({ vector: 0, delivery: 5, level: true, logical: false, destination: 0, wide: false });
    m.cpu.set32(S.ACTIVITY, 0);
    m.run("90 90", 2);
    assertEquals([m.cpu.apic.initPending, m.cpu.get32(S.VMX_MODE)], [true, 1]);
  });
  it("a start-up IPI in wait-for-SIPI exits with its vector", () => {
    const m = start().set("GUEST_ACTIVITY", 3);
    m.place(VM.GUEST, "90");
    m.enter();
    m.cpu.apic.receive({
      vector: 0x9a,
      delivery: 6,
      level: false,
      logical: false,
      destination: 0,
      wide: false,
    });
    m.step(2).exited(4, 0x9a);
    assertEquals(m.get("GUEST_ACTIVITY"), 3n);
  });
  it("a guest in shutdown wakes for an NMI", () => {
    const m = start().set("GUEST_ACTIVITY", 2).or("PIN_BASED_CONTROLS", PIN.NMI);
    m.place(VM.GUEST, "90");
    m.enter();
    m.machine.run({ steps: 100 });
    assert(isGuest(m.cpu));
    m.cpu.apic.raiseNmi();
    m.step(2).exited(0);
    assertEquals(m.get("GUEST_ACTIVITY"), 2n);
  });
});

describe("a task switch", () => {
  it("exits with the TSS selector and how it came about", () => {
    const m = start();
    m.clear("ENTRY_CONTROLS", 0x200).set("GUEST_CR4", 0x2000).set("GUEST_CR0", 0x8001_0031).set(
      "GUEST_CR3",
      AT.DATA,
    );
    m.set("GUEST_CS_ACCESS_RIGHTS", 0xc09b).set("GUEST_TR_ACCESS_RIGHTS", 0x8b);
    for (let i = 0; i < 1024; i++) m.view.setUint32(AT.DATA + i * 4, 0, true);
    m.view.setUint32(AT.DATA, 0x83, true);
    m.set("GUEST_CR4", 0x2010);
    m.descriptor(0x50, AT.TSS2, 0x67, 0x89, 0);
    // jmp far 50h:0
    m.guest("ea 00000000 5000").exited(9, 0x8000_0050);
    assertEquals(m.get("EXIT_INSTRUCTION_LENGTH"), 7n);
    assertEquals(m.get("GUEST_RIP"), BigInt(VM.GUEST));
  });
});

describe("entry failures", () => {
  it("34: the MSR-load area, with the entry's number; the host's state is loaded, nothing else written", () => {
    const m = start().set("ENTRY_MSR_LOAD_COUNT", 3).set("ENTRY_MSR_LOAD_ADDRESS", VM.AREA);
    m.view.setUint32(VM.AREA, 0x174, true);
    m.view.setUint32(VM.AREA + 8, 0x55, true);
    m.view.setUint32(VM.AREA + 16, 0xc000_0100, true);
    inject(m, 3, 6);
    m.enter().exited(0x8000_0022, 2);
    assertEquals(m.get("ENTRY_INTERRUPTION_INFORMATION"), 0x8000_0306n);
    assertEquals(m.cpu.rip, BigInt(VM.EXIT));
    assertEquals(m.cpu.get32(S.SYSENTER_CS), 0);
  });
  it("34 too for reserved bits, unknown MSRs, x2APIC registers and values that WRMSR refuses", () => {
    for (
      const [index, reserved, high] of [[0x174, 1, 0], [0x1234, 0, 0], [0x808, 0, 0], [
        0x175,
        0,
        0x1000_0000,
      ]] as const
    ) {
      const m = start().set("ENTRY_MSR_LOAD_COUNT", 1).set("ENTRY_MSR_LOAD_ADDRESS", VM.AREA);
      m.view.setUint32(VM.AREA, index, true);
      m.view.setUint32(VM.AREA + 4, reserved, true);
      m.view.setUint32(VM.AREA + 12, high, true);
      m.enter().exited(0x8000_0022, 1);
    }
  });
  it("41: a machine check", () => {
    const m = start();
    machineCheckAtEntry(m.cpu);
    m.enter().exited(0x8000_0029, 0);
  });
});

describe("MSR areas", () => {
  it("VM exit stores, then loads", () => {
    const m = start().set("EXIT_MSR_STORE_COUNT", 1).set("EXIT_MSR_STORE_ADDRESS", VM.AREA);
    m.set("EXIT_MSR_LOAD_COUNT", 1).set("EXIT_MSR_LOAD_ADDRESS", VM.AREA + 64).set("ENTRY_MSR_LOAD_COUNT", 1);
    m.set("ENTRY_MSR_LOAD_ADDRESS", VM.AREA + 128);
    for (const [at, value] of [[0, 0], [64, 0x1111], [128, 0x2222]] as const) {
      m.view.setUint32(VM.AREA + at, 0xc000_0102, true);
      m.view.setUint32(VM.AREA + at + 8, value, true);
    }
    m.guest("0fa2").exited(10);
    assertEquals([m.view.getUint32(VM.AREA + 8, true), m.cpu.get32(S.KERNEL_GS_BASE)], [0x2222, 0x1111]);
  });
  it("VMX abort: the indicator in the region, the processor stands still", () => {
    const store = start().set("EXIT_MSR_STORE_COUNT", 1).set("EXIT_MSR_STORE_ADDRESS", VM.AREA);
    store.view.setUint32(VM.AREA, 0x1234, true);
    store.guest("0fa2");
    assertEquals([store.view.getUint32(VM.VMCS + 4, true), store.cpu.get32(S.ACTIVITY)], [1, 2]);
    assertEquals(store.machine.run({ steps: 10 }).reason, "shutdown");
    const load = start().set("EXIT_MSR_LOAD_COUNT", 1).set("EXIT_MSR_LOAD_ADDRESS", VM.AREA);
    load.view.setUint32(VM.AREA, 0xc000_0101, true);
    load.guest("0fa2");
    assertEquals(load.view.getUint32(VM.VMCS + 4, true), 4);
  });
});

describe("controls that save and load", () => {
  it("debug controls, PAT and EFER", () => {
    const m = start().or(
      "EXIT_CONTROLS",
      EXIT.SAVE_DEBUG | EXIT.SAVE_PAT | EXIT.LOAD_PAT | EXIT.SAVE_EFER | EXIT.LOAD_EFER,
    );
    m.or("ENTRY_CONTROLS", 4 | (1 << 14) | (1 << 15)).set("GUEST_DR7", 0x455).set("GUEST_DEBUGCTL", 2).set(
      "GUEST_PAT",
      0x0606n,
    );
    m.set("HOST_PAT", 0x0606_0606n).or("GUEST_EFER", 1);
    // mov rax, dr7; vmcall
    m.guest("0f21f8" + CALL).exited(18);
    assertEquals([m.cpu.gpr(0), m.get("GUEST_DR7"), m.get("GUEST_DEBUGCTL"), m.get("GUEST_PAT")], [
      0x455n,
      0x455n,
      2n,
      0x0606n,
    ]);
    assertEquals([m.cpu.get64(S.PAT), m.cpu.get64(S.DR + 56), m.cpu.get64(S.DEBUGCTL)], [
      0x0606_0606n,
      0x400n,
      0n,
    ]);
  });
});

describe("snapshots", () => {
  it("of a machine with a guest go on as the machine did", () => {
    const m = start().or("PIN_BASED_CONTROLS", PIN.PREEMPTION_TIMER).set("PREEMPTION_TIMER_VALUE", 40);
    m.place(VM.GUEST, "48ffc0 ebfb");
    m.enter().machine.run({ steps: 500 });
    assert(isGuest(m.cpu));
    const snapshot = m.machine.snapshot();
    m.machine.run({ untilTick: 20_000 });
    const hash = m.machine.hash();
    m.exited(52);
    m.machine.restore(snapshot);
    assert(isGuest(m.cpu));
    m.machine.run({ untilTick: 20_000 });
    assertEquals(m.machine.hash(), hash);
  });
});
