/**
 * EPT as instructions of a guest and its hypervisor meet it: exits with all their fields, invalidation by INVEPT and INVVPID, event
 * delivery, #VE through the IDT, logging, EPTP switching, PDPTE loads, snapshots. What walks do is in the other tests of EPT.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { explainEpt } from "../../hw/explain_ept.ts";
import { describeWalk, explainWalk } from "../../hw/explain_walk.ts";
import type { EngineKind } from "../../hw/machine.ts";
import { S } from "../../hw/state.ts";
import { updateMode } from "../../hw/sys/mode.ts";
import * as vmcs from "../../hw/vmcs.ts";
import { PROC2, REASON } from "../../hw/vmx/contract.ts";
import { EVENT } from "../../hw/vmx/controls.ts";
import { F } from "../../hw/vmx/fields.ts";
import { AT, onBothEngines } from "./sys/system_fixture.ts";
import { everything, VM, VmxFixture } from "./vmx/vmx_fixture.ts";

const EPT_PAGES = VM.EPT + 0x3000;
const PAGE = 0x9_0000, OTHER = 0x9_1000;

/** A VMX fixture whose guest is under EPT: an identity map of the first 2 MiB by 4-KiB pages. */
class EptGuest extends VmxFixture {
  constructor(
    engine: EngineKind = "interpreter",
    more: { readonly ad?: boolean; readonly vpid?: number } = {},
  ) {
    super(everything, engine);
    this.start();
    this.entry(VM.EPT, VM.EPT + 0x1000 | 7);
    this.entry(VM.EPT + 0x1000, VM.EPT + 0x2000 | 7);
    this.entry(VM.EPT + 0x2000, EPT_PAGES | 7);
    for (let i = 0; i < 512; i++) this.map(i * 4096, i * 4096 | 0x37);
    this.secondary(PROC2.EPT);
    this.set("EPT_POINTER", VM.EPT | 0x1e | (more.ad ? 0x40 : 0));
    if (more.vpid !== undefined) this.secondary(PROC2.VPID).set("VPID", more.vpid);
  }
  entry(at: number, value: number): void {
    this.view.setBigUint64(at, BigInt(value), true);
  }
  /** EPT entry of a guest-physical page. */
  map(gpa: number, value: number, pages = EPT_PAGES): void {
    this.entry(pages + (gpa >>> 12) * 8, value);
  }
  word(at: number): number {
    return this.view.getUint32(at, true);
  }
  /** Executes instructions in root operation, where the last exit left the host. */
  host(hex: string, steps: number): void {
    this.cpu.set32(S.ACTIVITY, 0);
    const { rip } = this.cpu;
    this.run(hex, steps);
    this.cpu.rip = rip;
  }
  /** INVEPT of this type, for the EPT pointer of the VMCS. */
  invept(type: number): void {
    this.view.setBigUint64(AT.DATA + 0x100, this.get("EPT_POINTER"), true);
    this.view.setBigUint64(AT.DATA + 0x108, 0n, true);
    this.cpu.setGpr(1, BigInt(type));
    this.host("660f38800c2500010300", 1);
    assertEquals(this.status, "ok");
  }
  /** INVVPID of this type. */
  invvpid(type: number, vpid: number, linear = 0): void {
    this.view.setBigUint64(AT.DATA + 0x100, BigInt(vpid), true);
    this.view.setBigUint64(AT.DATA + 0x108, BigInt(linear), true);
    this.cpu.setGpr(1, BigInt(type));
    this.host("660f38810c2500010300", 1);
    assertEquals(this.status, "ok");
  }
}

/** mov eax, [PAGE]; vmcall; jmp to the first */
const READ = "8b042500000900 0f01c1 ebf4";
/** mov [PAGE], eax; vmcall; jmp to the first */
const WRITE = "89042500000900 0f01c1 ebf4";
const VMCALL = REASON.VMCALL;

describe("a guest under EPT", () => {
  it("exits on an EPT violation with all fields, and goes on when the hypervisor has mapped the page", () => {
    onBothEngines((engine) => {
      const m = new EptGuest(engine);
      m.map(PAGE, 0);
      m.view.setUint32(OTHER, 0x1234, true);
      m.guest(READ).exited(REASON.EPT_VIOLATION, 0x781);
      assertEquals(m.get("GUEST_PHYSICAL_ADDRESS"), BigInt(PAGE));
      assertEquals(m.get("GUEST_LINEAR_ADDRESS"), BigInt(PAGE));
      assertEquals(m.get("GUEST_RIP"), BigInt(VM.GUEST));
      assertEquals(m.get("IDT_VECTORING_INFORMATION"), 0n);
      assertEquals(m.get("GUEST_RFLAGS") & 0x1_0000n, 0x1_0000n, "RF");
      // Not present to present: no INVEPT is needed. The page is another one of the machine's.
      m.map(PAGE, OTHER | 0x37);
      m.resume().exited(VMCALL);
      assertEquals(m.cpu.gpr(0), 0x1234n);
    });
  });

  it("exits on fetches, on writes, and in the middle of a repeated string instruction, which then goes on", () => {
    onBothEngines((engine) => {
      const m = new EptGuest(engine);
      m.map(PAGE, PAGE | 0x33);
      m.guest("ff242578000700".padEnd(240, "90") + "0000090000000000").exited(REASON.EPT_VIOLATION);
      assertEquals([m.qualification & 0x3fn, m.get("GUEST_RIP")], [0x1cn, BigInt(PAGE)]);

      const w = new EptGuest(engine);
      w.map(OTHER, OTHER | 0x35);
      // mov edi, OTHER - 16; mov ecx, 32; mov al, 5; rep stosb; vmcall
      w.guest("bff00f0900 b920000000 b005 f3aa 0f01c1", 60).exited(REASON.EPT_VIOLATION);
      assertEquals([w.qualification & 0x3fn, w.cpu.gpr(1), w.cpu.gpr(7)], [0x2an, 16n, BigInt(OTHER)]);
      assertEquals(w.word(OTHER - 4), 0x0505_0505);
      w.map(OTHER, OTHER | 0x37);
      w.resume().exited(VMCALL);
      assertEquals([w.word(OTHER + 12), w.word(OTHER + 16)], [0x0505_0505, 0]);
    });
  });

  it("exits on a misconfiguration with reason 49", () => {
    const m = new EptGuest();
    m.map(PAGE, PAGE | 0x32);
    m.guest(READ).exited(REASON.EPT_MISCONFIGURATION, 0);
    assertEquals(m.get("GUEST_PHYSICAL_ADDRESS"), BigInt(PAGE));
  });

  it("has its own page faults, which leave CR2 alone when they exit", () => {
    onBothEngines((engine) => {
      const m = new EptGuest(engine);
      // mov eax, [40000000H], which the guest's tables do not map
      const hex = "8b042500000040";
      m.set("EXCEPTION_BITMAP", 1 << 14);
      m.cpu.set64(S.CR2, 0x99n);
      m.guest(hex).exited(REASON.EXCEPTION_OR_NMI, 0x4000_0000);
      assertEquals(m.cpu.get64(S.CR2), 0x99n);
      const d = new EptGuest(engine);
      d.guest(hex, 3);
      assertEquals([d.cpu.get32(S.VMX_MODE), d.cpu.get64(S.CR2)], [2, 0x4000_0000n]);
    });
  });

  it("tells the event whose delivery EPT refused", () => {
    onBothEngines((engine) => {
      const m = new EptGuest(engine);
      m.map(AT.IDT, 0);
      // ud2
      m.guest("0f0b").exited(REASON.EPT_VIOLATION);
      assertEquals(m.get("IDT_VECTORING_INFORMATION"), 0x8000_0306n);
      assertEquals(m.qualification & 0x180n, 0x180n);
      // int 21h: the length of the instruction is told
      const s = new EptGuest(engine);
      s.map(AT.IDT, 0);
      s.guest("cd21").exited(REASON.EPT_VIOLATION);
      assertEquals([s.get("IDT_VECTORING_INFORMATION"), s.get("EXIT_INSTRUCTION_LENGTH")], [
        0x8000_0421n,
        2n,
      ]);
    });
  });

  it("that is unrestricted and does not page uses EPT alone", () => {
    onBothEngines((engine) => {
      const m = new EptGuest(engine);
      m.secondary(PROC2.UNRESTRICTED_GUEST);
      m.clear("ENTRY_CONTROLS", 1 << 9);
      m.set("GUEST_CR0", m.get("GUEST_CR0") & ~0x8000_0000n);
      m.set("GUEST_EFER", m.get("GUEST_EFER") & ~0x500n).set("GUEST_CS_ACCESS_RIGHTS", 0xc09b);
      m.map(PAGE, OTHER | 0x37);
      m.view.setUint32(OTHER, 77, true);
      // mov eax, [PAGE]; vmcall
      m.guest("a100000900 0f01c1").exited(VMCALL);
      assertEquals(m.cpu.gpr(0) & 0xffff_ffffn, 77n);
    });
  });
});

describe("invalidation by instructions", () => {
  /** A guest that has read PAGE, which EPT then sends elsewhere without an INVEPT; the old page holds 1, the new one 2. */
  function stale(vpid: number | undefined): EptGuest {
    const m = new EptGuest("interpreter", vpid === undefined ? {} : { vpid });
    m.view.setUint32(PAGE, 1, true);
    m.view.setUint32(OTHER, 2, true);
    m.guest(READ).exited(VMCALL);
    m.map(PAGE, OTHER | 0x37);
    return m;
  }
  const again = (m: EptGuest): number => {
    m.set("GUEST_RIP", VM.GUEST);
    m.resume().exited(VMCALL);
    return Number(m.cpu.gpr(0));
  };

  it("with a VPID the fast TLB keeps the old translation across transitions until INVEPT", () => {
    const kept = stale(1);
    assertEquals(again(kept), 1);
    for (const type of [1, 2]) {
      const m = stale(1);
      m.invept(type);
      assertEquals(again(m), 2);
    }
  });

  it("INVVPID makes the guest's mappings go, of its VPID only", () => {
    const cases: readonly (readonly [type: number, vpid: number, linear: number, gone: boolean])[] = [
      [0, 1, PAGE, true],
      // The guest's page is one of 2 MiB: this is in the next one.
      [0, 1, 0x20_0000, false],
      [0, 2, PAGE, false],
      [1, 1, 0, true],
      [1, 2, 0, false],
      [2, 0, 0, true],
      [3, 1, 0, true],
      [3, 2, 0, false],
    ];
    for (const [type, vpid, linear, gone] of cases) {
      const m = stale(1);
      m.invvpid(type, vpid, linear);
      // The fast TLB keeps no guest-physical mappings: what is gone is walked anew.
      assertEquals(again(m), gone ? 2 : 1, `type ${type} VPID ${vpid}`);
    }
  });

  it("without VPIDs a transition is enough", () => {
    assertEquals(again(stale(undefined)), 2);
  });

  it("an EPT violation on a cached, narrower translation happens once", () => {
    const m = new EptGuest("interpreter", { vpid: 1 });
    m.map(PAGE, PAGE | 0x35);
    m.guest(READ).exited(VMCALL);
    m.map(PAGE, PAGE | 0x37);
    m.place(VM.GUEST, WRITE);
    m.cpu.setGpr(0, 5n);
    m.set("GUEST_RIP", VM.GUEST);
    m.resume().exited(VMCALL);
    assertEquals(m.word(PAGE), 5);
  });
});

describe("accessed and dirty flags, logging, exceptions, EPTP switching", () => {
  it("flags are set by the guest's accesses; the guest's own tables count as written", () => {
    onBothEngines((engine) => {
      const m = new EptGuest(engine, { ad: true });
      m.guest(WRITE).exited(VMCALL);
      const flags = (gpa: number) => (m.word(EPT_PAGES + (gpa >>> 12) * 8) >>> 8) & 3;
      assertEquals([flags(PAGE), flags(VM.GUEST), flags(AT.PML4), flags(OTHER)], [3, 1, 3, 0]);
    });
  });

  it("a full log exits before the write; with room the page is logged", () => {
    onBothEngines((engine) => {
      const m = new EptGuest(engine, { ad: true });
      m.secondary(PROC2.PML).set("PML_ADDRESS", VM.AREA).set("PML_INDEX", 511);
      m.guest(WRITE).exited(VMCALL);
      const logged = [511, 510, 509, 508].map((i) => m.word(VM.AREA + i * 8));
      assertEquals(logged.includes(PAGE) && logged.includes(AT.PML4), true);
      m.set("PML_INDEX", 0xffff).set("GUEST_RIP", VM.GUEST);
      m.map(PAGE, PAGE | 0x37);
      m.invept(2);
      m.cpu.setGpr(0, 9n);
      m.resume().exited(REASON.PML_FULL, 0);
      assert(m.word(PAGE) !== 9);
      m.set("PML_INDEX", 511);
      m.resume().exited(VMCALL);
      assertEquals(m.word(PAGE), 9);
    });
  });

  it("#VE goes through the guest's IDT, or to the hypervisor by the exception bitmap", () => {
    onBothEngines((engine) => {
      const make = () => {
        const m = new EptGuest(engine);
        m.secondary(PROC2.EPT_VIOLATION_VE).set("VE_INFORMATION_ADDRESS", VM.AREA);
        m.map(PAGE, 0);
        return m;
      };
      const m = make();
      m.guest(READ, 4);
      assertEquals([m.cpu.get32(S.VMX_MODE), m.cpu.rip], [2, BigInt(AT.HANDLERS + 20 + 1)]);
      assertEquals([m.word(VM.AREA), m.word(VM.AREA + 4) | 0, m.word(VM.AREA + 8)], [48, -1, 0x781]);
      assertEquals(m.word(VM.AREA + 24), PAGE);
      const i = make();
      i.set("EXCEPTION_BITMAP", 1 << 20);
      i.guest(READ).exited(REASON.EXCEPTION_OR_NMI);
      assertEquals(
        i.get("EXIT_INTERRUPTION_INFORMATION"),
        BigInt((20 | EVENT.HARDWARE_EXCEPTION << 8 | 1 << 31) >>> 0),
      );
    });
  });

  it("VMFUNC puts another EPT pointer in force, without an invalidation and without an exit", () => {
    onBothEngines((engine) => {
      const m = new EptGuest(engine, { vpid: 1 });
      // A second EPT that differs in PAGE.
      const second = VM.EPT + 0x8000;
      m.entry(second, second + 0x1000 | 7);
      m.entry(second + 0x1000, second + 0x2000 | 7);
      m.entry(second + 0x2000, second + 0x3000 | 7);
      for (let i = 0; i < 512; i++) m.map(i * 4096, i * 4096 | 0x37, second + 0x3000);
      m.map(PAGE, OTHER | 0x37, second + 0x3000);
      m.view.setUint32(PAGE, 1, true);
      m.view.setUint32(OTHER, 2, true);
      m.secondary(PROC2.VM_FUNCTIONS).set("VM_FUNCTION_CONTROLS", 1).set("EPTP_LIST_ADDRESS", VM.LIST);
      m.view.setBigUint64(VM.LIST, BigInt(VM.EPT | 0x1e), true);
      m.view.setBigUint64(VM.LIST + 8, BigInt(second | 0x1e), true);
      // mov ebx, [PAGE]; xor eax, eax; mov ecx, 1; vmfunc; mov edx, [PAGE]; xor ecx, ecx; vmfunc; mov esi, [PAGE]; vmcall
      m.guest(
        "8b1c2500000900 31c0 b901000000 0f01d4 8b142500000900 31c9 0f01d4 8b342500000900 0f01c1",
      ).exited(VMCALL);
      assertEquals([m.cpu.gpr(3), m.cpu.gpr(2), m.cpu.gpr(6)], [1n, 2n, 1n]);
      assertEquals(m.get("EPT_POINTER"), BigInt(VM.EPT | 0x1e));
    });
  });
});

describe("PAE paging under EPT", () => {
  it("loads its PDPTEs through EPT by MOV to CR3, and from the VMCS by VM entry", () => {
    onBothEngines((engine) => {
      const m = new EptGuest(engine);
      m.secondary(PROC2.UNRESTRICTED_GUEST);
      m.clear("ENTRY_CONTROLS", 1 << 9);
      m.set("GUEST_EFER", m.get("GUEST_EFER") & ~0x500n).set("GUEST_CS_ACCESS_RIGHTS", 0xc09b);
      // The fixture's page directory serves: PDPTE 0 of the VMCS leads to it.
      m.set("GUEST_PDPTE0", AT.PML4 + 0x2000 | 1);
      const table = 0x9_8000;
      m.entry(table, AT.PML4 + 0x2000 | 1);
      m.map(table, 0);
      // mov eax, table; mov cr3, eax; vmcall
      m.guest("b800800900 0f22d8 0f01c1").exited(REASON.EPT_VIOLATION);
      assertEquals([m.qualification, m.get("GUEST_PHYSICAL_ADDRESS")], [1n, BigInt(table)]);
      m.map(table, table | 0x31);
      m.resume().exited(VMCALL);
      assertEquals([m.get("GUEST_CR3"), m.get("GUEST_PDPTE0")], [
        BigInt(table),
        BigInt(AT.PML4 + 0x2000 | 1),
      ]);
    });
  });
});

describe("looking", () => {
  it("changes nothing: no flag, no cached mapping, no counter, no event, no time", () => {
    const m = new EptGuest("interpreter", { ad: true, vpid: 1 });
    m.map(OTHER, 0);
    // jmp $
    m.guest("ebfe", 10);
    const { cpu, machine } = m;
    let events = 0;
    cpu.trace.on(["walk", "reference", "fill", "invalidate", "fault", "ept", "vmx"], () => events++);
    const state = () => [machine.hash(), JSON.stringify(cpu.counters.snapshot()), cpu.now(), events];
    const before = state();
    const told = [PAGE, OTHER, 0x4000_0000].flatMap((linear) =>
      [{}, { write: true }, { fetch: true, user: true }].map((access) =>
        explainWalk(cpu, BigInt(linear), access)
      )
    );
    assertEquals(told.map((walk) => walk.outcome.kind).filter((_, i) => i % 3 === 0), [
      "mapped",
      "EPT violation",
      "page fault",
    ]);
    for (const walk of told) assert(describeWalk(walk).length > 3);
    // After the exit it can be asked of the VMCS's EPT pointer as well.
    const { outcome } = explainEpt(cpu, OTHER, { write: true }, { eptp: m.get("EPT_POINTER") });
    assertEquals(outcome.kind, "violation");
    assertEquals(state(), before);
  });
});

describe("snapshots", () => {
  it("taken in the guest lead to the same future, with EPT, VPID and a log", () => {
    const m = new EptGuest("interpreter", { ad: true, vpid: 3 });
    m.secondary(PROC2.PML).set("PML_ADDRESS", VM.AREA).set("PML_INDEX", 511);
    // inc dword [PAGE]; jmp to it
    m.guest("ff042500000900 ebf7", 25);
    assertEquals(m.cpu.get32(S.VMX_MODE), 2);
    const snapshot = m.machine.snapshot();
    const future = () => {
      m.machine.run({ steps: 200 });
      return m.machine.hash();
    };
    const first = future();
    const counted = m.word(PAGE);
    m.machine.restore(snapshot);
    assertEquals(m.cpu.get32(S.VMX_MODE), 2);
    assertEquals(future(), first);
    assertEquals(m.word(PAGE), counted);
    assert(counted > 50);
    assertEquals(vmcs.get32(m.cpu, F.VPID), 3);
    updateMode(m.cpu);
  });
});
