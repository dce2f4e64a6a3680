/** "Why did it fail?" is answered in the manual's terms, and asking changes nothing. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { VmxEvent } from "../../../hw/trace.ts";
import {
  describeBrokenRule,
  explainEntry,
  explainExit,
  explainFailure,
  FaultChain,
} from "../../../hw/vmx/explain.ts";
import { VmxFixture } from "./vmx_fixture.ts";

describe("explaining a VM entry", () => {
  it("names the rule, its section, the fields with their values and what would satisfy it", () => {
    const m = new VmxFixture().start().set("GUEST_CS_ACCESS_RIGHTS", 0xa09a).set("CR3_TARGET_COUNT", 9);
    const [first, second] = explainEntry(m.cpu);
    assertEquals([first?.rule, first?.outcome, second?.rule], [
      "cr3TargetCount",
      "VMfailValid(7)",
      "guestCSType",
    ]);
    assertEquals(
      describeBrokenRule(second!),
      [
        "exit reason 33, qualification 0: guestCSType",
        '    SDM vol. 3C, "Checks on Guest Segment Registers"',
        "    GUEST_CS_ACCESS_RIGHTS (4816H) = 0000A09AH",
        "    GUEST_RFLAGS (6820H) = 0000000000000002H",
        "    wanted: accessed code (9, 11, 13, 15), or 3 for an unrestricted guest",
      ].join("\n"),
    );
    m.enter();
    assertStringIncludes(explainFailure(m.cpu), "VMfailValid(7): VM entry with invalid control fields");
    m.set("CR3_TARGET_COUNT", 0).enter().exited(0x8000_0021);
    assertStringIncludes(explainExit(m.cpu), "VM-entry failure 33");
    assertStringIncludes(explainExit(m.cpu), "guestCSType");
  });
  it("finds nothing wrong with a valid VMCS, and changes nothing", () => {
    const m = new VmxFixture().start();
    const before = m.machine.hash();
    assertEquals(explainEntry(m.cpu), []);
    explainFailure(m.cpu);
    explainExit(m.cpu);
    assertEquals(m.machine.hash(), before);
  });
  it("the tracer tells the rule when it happens", () => {
    const m = new VmxFixture().start().set("HOST_TR_SELECTOR", 0);
    const events: VmxEvent[] = [];
    m.machine.trace.on(["vmx"], (e) => events.push(e));
    m.enter();
    assertEquals(events.map((e) => [e.what, e.number, e.rule]), [["refused", 8, "hostTrNull"], [
      "fail",
      8,
      undefined,
    ]]);
  });
});

describe("explaining an exit and a triple fault", () => {
  it("with interruption and IDT-vectoring information", () => {
    const m = new VmxFixture().start().set("EXCEPTION_BITMAP", 1 << 12).set("GUEST_RSP", 1n << 60n);
    m.guest("8a042500000010").exited(0);
    const text = explainExit(m.cpu);
    assertStringIncludes(text, "exception 12, error code");
    assertStringIncludes(text, "while delivering exception 14");
  });
  it("a triple fault by the exceptions that led to it", () => {
    const m = new VmxFixture().start().set("GUEST_RSP", 1n << 60n);
    const chain = new FaultChain(m.machine.trace);
    m.guest("8a042500000010").exited(2);
    assertEquals(chain.of(0).map((e) => e.vector), [14, 8]);
    assert(chain.describe(0).includes("its delivery raised #8"));
  });
});
