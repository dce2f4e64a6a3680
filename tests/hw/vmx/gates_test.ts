/** Gates of a guest: ports and HLT are intercepted like the instructions, and the body goes on when the hypervisor has done them. */
import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { GateTable } from "../../../hw/gates.ts";
import { procedures } from "../../../hw/procedures.ts";
import { PROC } from "../../../hw/vmx/contract.ts";
import { VM, VmxFixture } from "./vmx_fixture.ts";

describe("a gate of a guest", () => {
  it("exits at ports and HLT, and goes on behind them", () => {
    const m = new VmxFixture().start().or("PROCESSOR_BASED_CONTROLS", PROC.HLT | PROC.UNCONDITIONAL_IO);
    const gates = new GateTable({
      key: [1, 2, 3, 4, 5, 6, 7, 8],
      procedures,
      onPanic: (_cpu, error) => {
        throw error;
      },
    });
    m.cpu.gates = gates;
    const seen: number[] = [];
    const number = gates.register({
      name: "guest",
      cpl: 0,
      *body(cpu) {
        yield* cpu.outb(0x70, 5);
        seen.push(yield* cpu.inb(0x71));
        yield* cpu.hlt();
        seen.push(-1);
      },
    });
    // gate n; resume; vmcall
    const n = number.toString(16).padStart(2, "0");
    m.guest(`0fff05${n}000000 0fff05ffffffff 0f01c1`).exited(30, 0x0070_0000);
    assertEquals([m.get("GUEST_RIP"), m.get("EXIT_INSTRUCTION_LENGTH")], [BigInt(VM.GUEST + 7), 0n]);
    m.resume().exited(30, 0x0071_0008);
    m.cpu.setGpr(0, 0x42n);
    m.resume().exited(12);
    m.resume().exited(18);
    assertEquals(seen, [0x42, -1]);
  });
});
