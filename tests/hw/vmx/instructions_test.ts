/** VMX instructions: VMsucceed, VMfailInvalid, VMfailValid and its numbers, #UD and #GP; VMREAD and VMWRITE of every encoding. */
import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { cpuModels, customModel } from "../../../hw/cpuid.ts";
import { S } from "../../../hw/state.ts";
import { SHADOW } from "../../../hw/vmcs.ts";
import { vmxCapability } from "../../../hw/vmx/capability.ts";
import { PROC2 } from "../../../hw/vmx/contract.ts";
import { F, type FieldName, fieldNames, fieldWidth } from "../../../hw/vmx/fields.ts";
import { AT, onBothEngines } from "../sys/system_fixture.ts";
import { everything, VM, VmxFixture } from "./vmx_fixture.ts";

/** Executes an instruction whose memory operand is the quadword at AT.DATA. */
function withPointer(m: VmxFixture, hex: string, pointer: bigint | number): VmxFixture {
  m.view.setBigUint64(AT.DATA, BigInt(pointer), true);
  return m.run(hex, 1);
}
const VMXON = "f30fc7342500000300", VMCLEAR = "660fc7342500000300";
const VMPTRLD = "0fc7342500000300", VMPTRST = "0fc73c2500000300";

/** VMREAD rax ← field rcx. */
function vmread(m: VmxFixture, encoding: bigint | number): bigint {
  m.cpu.setGpr(0, 0x5a5a_5a5a_5a5a_5a5an);
  m.cpu.setGpr(1, BigInt(encoding));
  m.run("0f78c8", 1);
  return m.cpu.gpr(0);
}
function vmwrite(m: VmxFixture, encoding: bigint | number, value: bigint): void {
  m.cpu.setGpr(0, value);
  m.cpu.setGpr(1, BigInt(encoding));
  m.run("0f79c8", 1);
}

describe("VMXON", () => {
  it("is #UD without CR4.VMXE, #GP(0) at CPL 3, without the enable in FEATURE_CONTROL and with CR0.NE clear", () => {
    onBothEngines((engine) => {
      const off = new VmxFixture(everything, engine);
      off.cpu.set32(S.CR4, off.cpu.get32(S.CR4) & ~0x2000);
      assertEquals(withPointer(off, VMXON + "90", VM.VMXON).step(1).caught, 6);
      const locked = new VmxFixture(everything, engine);
      locked.cpu.set64(S.FEATURE_CONTROL, 1n);
      assertEquals(withPointer(locked, VMXON, VM.VMXON).step(1).caught, 13);
      const ne = new VmxFixture(everything, engine);
      ne.cpu.set32(S.CR0, ne.cpu.get32(S.CR0) & ~0x20);
      assertEquals(withPointer(ne, VMXON, VM.VMXON).step(1).caught, 13);
      const user = new VmxFixture(everything, engine).setRing(3);
      user.view.setBigUint64(AT.DATA, BigInt(VM.VMXON), true);
      assertEquals(user.run(VMXON, 2, AT.USER_CODE).caught, 13);
    });
  });
  it("is VMfailInvalid for a bad pointer or revision", () => {
    for (const pointer of [VM.VMXON + 8, 1n << 60n, AT.STACK0]) {
      const m = withPointer(new VmxFixture(), VMXON, pointer);
      assertEquals([m.status, m.cpu.get32(S.VMX_MODE)], ["invalid", 0]);
    }
    const shadow = new VmxFixture();
    shadow.view.setUint32(VM.VMXON, (shadow.capability.revision | SHADOW) >>> 0, true);
    assertEquals(withPointer(shadow, VMXON, VM.VMXON).status, "invalid");
  });
  it("in root operation is VMfail(15), VMfailInvalid without a current VMCS", () => {
    const m = new VmxFixture().start();
    assertEquals(withPointer(m, VMXON, VM.VMXON).status, 15);
    withPointer(m, VMCLEAR, VM.VMCS);
    assertEquals(withPointer(m, VMXON, VM.VMXON).status, "invalid");
  });
});

describe("CR0 and CR4 in VMX operation", () => {
  it("keep their fixed bits: #GP(0)", () => {
    const cr4 = new VmxFixture().start();
    cr4.cpu.setGpr(0, BigInt(cr4.cpu.get32(S.CR4) & ~0x2000));
    assertEquals(cr4.run("0f22e0", 2).caught, 13);
    const cr0 = new VmxFixture().start();
    cr0.cpu.setGpr(0, BigInt(cr0.cpu.get32(S.CR0) & ~0x20));
    assertEquals(cr0.run("0f22c0", 2).caught, 13);
  });
});

describe("VMXOFF", () => {
  it("leaves VMX operation; then VMX instructions are #UD", () => {
    const m = new VmxFixture().start().run("0f01c4", 1);
    assertEquals([m.status, m.cpu.get32(S.VMX_MODE)], ["ok", 0]);
    assertEquals(m.run("0f01c4", 2).caught, 6);
  });
});

describe("VMCLEAR", () => {
  it("fails with 2 and 3, makes the current VMCS not current, and clears the launch state", () => {
    const m = new VmxFixture().start();
    assertEquals(withPointer(m, VMCLEAR, VM.VMCS + 1).status, 2);
    assertEquals(withPointer(m, VMCLEAR, VM.VMXON).status, 3);
    m.guest("0fa2").exited(10);
    m.cpu.set32(S.ACTIVITY, 0);
    assertEquals(m.enter().status, 4, "VMLAUNCH of a launched VMCS");
    withPointer(m, VMCLEAR, VM.VMCS);
    assertEquals(withPointer(m, VMPTRST, 0).view.getBigUint64(AT.DATA, true), 0xffff_ffff_ffff_ffffn);
    withPointer(m, VMPTRLD, VM.VMCS);
    assertEquals(m.enter(true).status, 5, "VMRESUME of a clear VMCS");
  });
});

describe("VMPTRLD", () => {
  it("fails with 9, 10 and 11 and leaves the current VMCS", () => {
    const m = new VmxFixture().start();
    assertEquals(withPointer(m, VMPTRLD, VM.VMCS2 + 4).status, 9);
    assertEquals(withPointer(m, VMPTRLD, 1n << 50n).status, 9);
    assertEquals(withPointer(m, VMPTRLD, VM.VMXON).status, 10);
    assertEquals(withPointer(m, VMPTRLD, VM.EXTRA).status, 11);
    withPointer(m, VMPTRST, 0);
    assertEquals(m.view.getBigUint64(AT.DATA, true), BigInt(VM.VMCS));
  });
  it("takes a shadow VMCS only where there is VMCS shadowing; it cannot be launched", () => {
    const m = new VmxFixture().start();
    m.view.setUint32(VM.VMCS2, (m.capability.revision | SHADOW) >>> 0, true);
    assertEquals(withPointer(m, VMPTRLD, VM.VMCS2).status, "ok");
    assertEquals(m.enter().status, "invalid");
    const old = new VmxFixture("nehalem").start();
    old.view.setUint32(VM.VMCS2, (old.capability.revision | SHADOW) >>> 0, true);
    assertEquals(withPointer(old, VMPTRLD, VM.VMCS2).status, 11);
  });
  it("finds a VMCS that was copied as memory", () => {
    const m = new VmxFixture().start();
    vmwrite(m, F.GUEST_RIP, 0x1234_5678_9abc_def0n);
    withPointer(m, VMCLEAR, VM.VMCS);
    for (let i = 0; i < 4096; i++) m.view.setUint8(VM.VMCS2 + i, m.view.getUint8(VM.VMCS + i));
    withPointer(m, VMPTRLD, VM.VMCS2);
    assertEquals(vmread(m, F.GUEST_RIP), 0x1234_5678_9abc_def0n);
  });
});

describe("VMREAD and VMWRITE", () => {
  it("without a current VMCS are VMfailInvalid", () => {
    const m = new VmxFixture().start();
    withPointer(m, VMCLEAR, VM.VMCS);
    assertEquals(vmread(m, F.GUEST_RIP), 0x5a5a_5a5a_5a5a_5a5an);
    assertEquals(m.status, "invalid");
    vmwrite(m, F.GUEST_RIP, 1n);
    assertEquals(m.status, "invalid");
  });
  it("know each field in its width, and its upper half where it has 64 bits", () => {
    const m = new VmxFixture().start();
    const value = 0xfedc_ba98_7654_3210n;
    for (const name of fieldNames) {
      const exists = m.capability.fields[F[name]] !== 0;
      vmwrite(m, F[name], value);
      assertEquals(m.status, exists ? "ok" : 12, name);
      if (!exists) continue;
      const bits = [16n, 64n, 32n, 64n][fieldWidth(F[name])]!;
      assertEquals(vmread(m, F[name]), BigInt.asUintN(Number(bits), value), name);
      const high = vmread(m, F[name] + 1);
      if (fieldWidth(F[name]) === 1) assertEquals([m.status, high], ["ok", value >> 32n], name);
      else assertEquals(m.status, 12, name);
    }
  });
  it("fail with 12 for every encoding that is no field", () => {
    const m = new VmxFixture().start();
    const known = new Set<number>(fieldNames.filter((n) => m.capability.fields[F[n]] !== 0).map((n) => F[n]));
    for (let encoding = 0; encoding < 0x8000; encoding += 2) {
      if (known.has(encoding)) continue;
      vmread(m, encoding);
      if (m.status !== 12) assertEquals(m.status, 12, encoding.toString(16));
    }
    vmread(m, (1n << 32n) + BigInt(F.GUEST_RIP));
    assertEquals(m.status, 12);
  });
  it("IA32_VMX_VMCS_ENUM is the highest index that can be read", () => {
    for (const model of Object.values(cpuModels)) {
      const capability = vmxCapability(model);
      const indices = fieldNames.filter((n) => capability.fields[F[n]] !== 0).map((n) =>
        (F[n] >>> 1) & 0x1ff
      );
      assertEquals(capability.vmcsEnum, BigInt(Math.max(...indices)) << 1n);
    }
  });
  it("VMWRITE of a read-only field fails with 13 where IA32_VMX_MISC does not allow it", () => {
    const old = new VmxFixture("nehalem").start();
    vmwrite(old, F.EXIT_REASON, 5n);
    assertEquals(old.status, 13);
    const m = new VmxFixture().start();
    vmwrite(m, F.EXIT_REASON, 5n);
    assertEquals([m.status, vmread(m, F.EXIT_REASON)], ["ok", 5n]);
  });
  it("can use memory", () => {
    const m = new VmxFixture().start();
    m.view.setBigUint64(AT.DATA, 0x7777n, true);
    m.cpu.setGpr(1, BigInt(F.GUEST_RSP));
    m.run("0f790c2500000300 0f780c2508000300", 2);
    assertEquals(m.view.getBigUint64(AT.DATA + 8, true), 0x7777n);
  });
});

describe("VM entry", () => {
  it("in the shadow of MOV SS fails with 26", () => {
    onBothEngines((engine) => {
      const m = new VmxFixture(everything, engine).start();
      m.cpu.setGpr(0, 0x10n);
      assertEquals(m.run("8ed0 0f01c2", 2).status, 26);
    });
  });
  it("without a current VMCS is VMfailInvalid", () => {
    const m = new VmxFixture().start();
    withPointer(m, VMCLEAR, VM.VMCS);
    assertEquals(m.enter().status, "invalid");
  });
});

describe("VMCALL in root operation", () => {
  it("fails with 1", () => assertEquals(new VmxFixture().start().run("0f01c1", 1).status, 1));
});

describe("INVEPT and INVVPID", () => {
  const invept = "660f38800c2500000300", invvpid = "660f38810c2500000300";
  const run = (m: VmxFixture, hex: string, type: number | bigint, first: bigint, second: bigint) => {
    m.cpu.setGpr(1, BigInt(type));
    m.view.setBigUint64(AT.DATA, first, true);
    m.view.setBigUint64(AT.DATA + 8, second, true);
    return m.run(hex, 1).status;
  };
  it("INVEPT checks its type and, for a single context, its EPT pointer", () => {
    const m = new VmxFixture().start();
    assertEquals(run(m, invept, 1, BigInt(VM.EPT | 0x1e), 0n), "ok");
    assertEquals(run(m, invept, 2, 0n, 0n), "ok");
    assertEquals(run(m, invept, 0, 0n, 0n), 28);
    assertEquals(run(m, invept, 3, 0n, 0n), 28);
    assertEquals(run(m, invept, 1, BigInt(VM.EPT | 0x1d), 0n), 28);
    assertEquals(run(m, invept, (1n << 32n) | 2n, 0n, 0n), 28);
  });
  it("INVVPID checks its type, reserved bits, VPID 0 and the address", () => {
    const m = new VmxFixture().start();
    for (const type of [0, 1, 2, 3]) assertEquals(run(m, invvpid, type, 1n, 0n), "ok");
    for (const type of [0, 1, 3]) assertEquals(run(m, invvpid, type, 0n, 0n), 28);
    assertEquals(run(m, invvpid, 2, 0n, 0n), "ok");
    for (const type of [0, 1, 2, 3]) assertEquals(run(m, invvpid, type, 0x1_0001n, 0n), 28);
    assertEquals(run(m, invvpid, 0, 1n, 1n << 60n), 28);
    assertEquals(run(m, invvpid, 4, 1n, 0n), 28);
  });
  it("are #UD where the model has neither EPT nor VPID", () => {
    const m = new VmxFixture("penryn").start();
    assertEquals(m.run(invept, 2).caught, 6);
    const v = new VmxFixture("penryn").start();
    assertEquals(v.run(invvpid, 2).caught, 6);
  });
});

describe("VMCS shadowing", () => {
  it("lets VMREAD and VMWRITE of fields whose bits are clear reach the VMCS at the link pointer", () => {
    onBothEngines((engine) => {
      const m = new VmxFixture(everything, engine).start();
      m.view.setUint32(VM.VMCS2, (m.capability.revision | SHADOW) >>> 0, true);
      m.secondary(PROC2.VMCS_SHADOWING).set("VMCS_LINK_POINTER", VM.VMCS2);
      m.set("VMREAD_BITMAP", VM.LIST).set("VMWRITE_BITMAP", VM.LIST);
      m.view.setUint8(VM.LIST + (F.GUEST_RSP >>> 3), 1 << (F.GUEST_RSP & 7));
      // mov ecx, GUEST_RIP; mov eax, 1234h; vmwrite; vmread rbx; mov ecx, GUEST_RSP; vmread rbx
      m.guest("b91e680000 b834120000 0f79c8 0f78cb b91c680000 0f78cb").exited(23);
      assertEquals(m.cpu.gpr(3), 0x1234n);
      assertEquals(m.get("GUEST_RIP"), BigInt(VM.GUEST + 21));
      // Register form: Reg1 is RBX (3), Reg2 is RCX (1).
      assertEquals(
        m.get("EXIT_INSTRUCTION_INFORMATION") & 0xf000_0478n,
        (1n << 28n) | (1n << 10n) | (3n << 3n),
      );
    });
  });
});

describe("capability MSRs", () => {
  it("of the TRUE and the old kind agree: only default1 bits differ", () => {
    for (const model of Object.values(cpuModels)) {
      const c = vmxCapability(model);
      for (const range of [c.pin, c.proc, c.exit, c.entry]) {
        assertEquals(range.mustBeOne & ~range.mayBeOne, 0);
        assertEquals(range.trueMustBeOne & ~range.mustBeOne, 0);
      }
    }
  });
  it("custom models add and take away", () => {
    const without = customModel(cpuModels["icelake"]!, { remove: ["vmx-ept"] });
    const c = vmxCapability(without);
    assertEquals(c.proc2.mayBeOne & (PROC2.EPT | PROC2.UNRESTRICTED_GUEST | PROC2.PML), 0);
    const more = vmxCapability(customModel(cpuModels["skylake"]!, { add: ["vmx-tsc-scaling"] }));
    assert((more.proc2.mayBeOne & PROC2.TSC_SCALING) !== 0);
    assertEquals(vmxCapability(customModel(cpuModels["icelake"]!, { remove: ["vmx"] })).features.size, 0);
  });
  it("fields come and go with the features", () => {
    const fields = (name: string): ReadonlySet<FieldName> => {
      const c = vmxCapability(cpuModels[name]!);
      return new Set(fieldNames.filter((n) => c.fields[F[n]] !== 0));
    };
    assert(!fields("penryn").has("EPT_POINTER") && fields("nehalem").has("EPT_POINTER"));
    assert(!fields("haswell").has("PML_INDEX") && fields("broadwell").has("PML_INDEX"));
    assert(
      !fields("skylake").has("GUEST_INTERRUPT_STATUS") && fields("icelake").has("GUEST_INTERRUPT_STATUS"),
    );
  });
});
