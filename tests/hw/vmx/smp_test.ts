/** Several processors: a VMCS moves by VMCLEAR; INIT and start-up IPIs of one reach a guest on another. */
import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { S } from "../../../hw/state.ts";
import * as vmcs from "../../../hw/vmcs.ts";
import { F } from "../../../hw/vmx/fields.ts";
import { PLACES, vmxBench } from "../../../lab/vmx/bench_machine.ts";

const VMLAUNCH = [0x0f, 0x01, 0xc2, 0xf4], VMRESUME = [0x0f, 0x01, 0xc3, 0xf4];

/** Two processors in VMX root operation; the second has the state of the first and no current VMCS. */
function pair() {
  const bench = vmxBench("interpreter", { cpus: 2 });
  const [first, second] = bench.machine.cpus;
  const { u8 } = bench.machine.memory;
  u8.copyWithin(second!.base, first!.base, first!.base + S.STEP);
  second!.set64Halves(S.VMX_POINTER, -1, -1);
  second!.access.tlb.reset();
  second!.set32(S.TLBCTX, second!.get32(S.TLBBANK));
  return { ...bench, first: first!, second: second! };
}

describe("two processors", () => {
  it("a VMCS that one has run goes on on the other after VMCLEAR", () => {
    const { machine, view, first, second } = pair();
    // inc eax; vmcall; inc eax; vmcall
    [0xff, 0xc0, 0x0f, 0x01, 0xc1, 0xff, 0xc0, 0x0f, 0x01, 0xc1].forEach((byte, i) =>
      view.setUint8(PLACES.GUEST_CODE + i, byte)
    );
    VMLAUNCH.forEach((byte, i) => view.setUint8(0xa000 + i, byte));
    VMRESUME.forEach((byte, i) => view.setUint8(0xa010 + i, byte));
    first.rip = 0xa000n;
    machine.processors[0]!.run(20);
    assertEquals(vmcs.get32(first, F.EXIT_REASON), 18);
    vmcs.set64(first, F.GUEST_RIP, BigInt(PLACES.GUEST_CODE + 5));
    // VMCLEAR on the one, VMPTRLD and VMLAUNCH on the other.
    vmcs.setWordAt(first, vmcs.VMCS.LAUNCH, 0);
    first.set64Halves(S.VMX_POINTER, -1, -1);
    second.set64(S.VMX_POINTER, BigInt(PLACES.VMCS));
    second.setGpr(0, first.gpr(0));
    second.rip = 0xa000n;
    machine.processors[1]!.run(20);
    assertEquals([vmcs.get32(second, F.EXIT_REASON), second.gpr(0)], [18, first.gpr(0) + 1n]);
  });

  it("INIT from the other processor ends a guest with exit 3", () => {
    const { machine, view, first, second } = pair();
    [0xeb, 0xfe].forEach((byte, i) => view.setUint8(PLACES.GUEST_CODE + i, byte));
    VMLAUNCH.forEach((byte, i) => view.setUint8(0xa000 + i, byte));
    first.rip = 0xa000n;
    machine.processors[0]!.run(20);
    assertEquals(first.get32(S.VMX_MODE), 2);
    second.apic.writeRegister(0xf0, 0x1ff);
    second.apic.writeRegister(0x310, first.apic.apicId << 24);
    second.apic.writeRegister(0x300, 0x4500);
    machine.processors[0]!.run(20);
    assertEquals([first.get32(S.VMX_MODE), vmcs.get32(first, F.EXIT_REASON)], [1, 3]);
  });
});
