/**
 * The machine code around a guest (`vmx_vmlaunch`, `vmx_vmresume`, `vmx_vmexit` of `sys/platform/pc64/vmm/vmx_support.s`).
 *
 * Room: `kernel/platform/pc64/`; imports the assembler and the frame. Part of locore's image.
 *
 *     vmx_enter   RDI = the guest's trap frame, ESI = 0: VMLAUNCH, else VMRESUME. Called from a gate's body, interrupts off
 *       … the guest …
 *     vmx_exit    host RIP. The guest's registers go to the frame, the caller's continuation (R15) comes back; RAX = 0
 *                 RAX = 1 when there was no entry (VMfail)
 *
 * Of the host only RSP and R15 must survive: everything else of a gate's body is TypeScript's.
 *
 * @module
 */
import type { Assembler } from "./assembler.ts";
import { TF, TF_REGISTERS } from "./frame.ts";

/** Encoding of the field "host RSP". */
const HOST_RSP = 0x6c14;

/** Appends the code; its labels are `vmx_enter` and `vmx_exit`. */
export function vmxStub(a: Assembler): void {
  a.align(16).label("vmx_enter").push("r15").push("rdi");
  a.movImmediate32("rdx", HOST_RSP).db(0x0f, 0x79, 0xd4); // vmwrite rdx, rsp
  a.db(0x85, 0xf6); // test esi, esi; MOV leaves the flags alone
  for (const name of TF_REGISTERS) if (name !== "rdi") a.load(name, "rdi", TF[name]);
  a.load("rdi", "rdi", TF.rdi);
  a.jumpIf("nz", "vmx_resume");
  a.db(0x0f, 0x01, 0xc2).jump("vmx_failed"); // vmlaunch
  a.label("vmx_resume").db(0x0f, 0x01, 0xc3); // vmresume
  a.label("vmx_failed").db(0x5f); // pop rdi
  a.movImmediate32("rax", 1).jump("vmx_done");

  a.align(16).label("vmx_exit");
  a.db(0x48, 0x87, 0x3c, 0x24); // xchg [rsp], rdi
  for (const name of TF_REGISTERS) if (name !== "rdi") a.store("rdi", TF[name], name);
  a.db(0x58).store("rdi", TF.rdi, "rax"); // pop rax: the guest's rdi
  a.movImmediate32("rax", 0);
  a.label("vmx_done").db(0x41, 0x5f).ret(); // pop r15
}
