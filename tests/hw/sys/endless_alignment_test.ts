/**
 * Delivering #AC on a stack that #AC refuses: silicon never comes out of it, the simulation does.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { CR0_AM } from "../../../hw/paging.ts";
import { RFLAGS, S, SEG } from "../../../hw/state.ts";
import { deliverFault } from "../../../hw/sys/event.ts";
import { updateMode } from "../../../hw/sys/mode.ts";
import { Bench } from "../paging_fixture.ts";

Deno.test("an endless #AC leaves the processor where it was", () => {
  const bench = new Bench(), { cpu } = bench;
  const TABLES = 0x20_0000, STACK = 0x20_1000, RIP = 0x40_0000;
  bench.protectedMode(true);
  bench.map(BigInt(TABLES), TABLES, 7n);
  bench.map(BigInt(STACK), STACK, 7n);
  // GDT: ring-3 code at 08H. IDT at 100H: #AC to it, through an interrupt gate that keeps the privilege.
  bench.poke32(TABLES + 8, 0xffff);
  bench.poke32(TABLES + 12, 0x00cf_fb00);
  bench.poke32(TABLES + 0x100 + 17 * 8, 0x000b_0000);
  bench.poke32(TABLES + 0x100 + 17 * 8 + 4, 0x0041_ee00);
  cpu.set64Halves(S.GDTR, TABLES, 0);
  cpu.set32(S.GDTR + 8, 0xff);
  cpu.set64Halves(S.IDTR, TABLES + 0x100, 0);
  cpu.set32(S.IDTR + 8, 0xff);
  cpu.set32(S.CR0, cpu.get32(S.CR0) | 1 | CR0_AM);
  cpu.set32(S.RFLAGS, 2 | RFLAGS.AC);
  bench.segment(SEG.CS, 0n, 0xffff_ffff, 0xc0fb);
  bench.segment(SEG.SS, 0n, 0xffff_ffff, 0xc0f3);
  bench.cpl(3);
  updateMode(cpu);
  cpu.set64Halves(S.GPR + 4 * 8, STACK + 0x801, 0);
  cpu.set64Halves(S.RIP, RIP, 0);
  cpu.setFault(17, 0);
  deliverFault(cpu);
  assertEquals([cpu.rip, cpu.gpr(4), cpu.cpl], [BigInt(RIP), BigInt(STACK + 0x801), 3]);
  assertEquals([cpu.get32(S.FAULTVECTOR), cpu.get32(S.ACTIVITY)], [17, 0]);
  // With an aligned stack the same event is delivered.
  cpu.set64Halves(S.GPR + 4 * 8, STACK + 0x800, 0);
  deliverFault(cpu);
  assertEquals([cpu.rip, cpu.gpr(4)], [0x41_0000n, BigInt(STACK + 0x7f0)]);
});
