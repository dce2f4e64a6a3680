/**
 * What firmware leaves in every processor: caches on, memory types.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { findMsr } from "../../../hw/msr.ts";
import { Machine } from "../../../hw/machine.ts";
import { CR0 } from "../../../hw/sys/mode.ts";
import { S } from "../../../hw/state.ts";

describe("a machine past its firmware", () => {
  it("has caches on and the same memory types in all processors", () => {
    const machine = new Machine({ memory: 1 << 20, cpus: 2, cpuModel: "nehalem" });
    for (const cpu of machine.cpus) {
      const msr = (number: number) => findMsr(cpu, number)!.read(cpu);
      assertEquals(cpu.get32(S.CR0) & (CR0.CD | CR0.NW), 0);
      assertEquals(msr(0x2ff), 0xc06n, "write-back where nothing else is said");
      assertEquals([msr(0x250), msr(0x258)], [0x0606_0606_0606_0606n, 0x0606_0606_0606_0606n]);
      assertEquals(msr(0x259), 0n, "the screen is not cached");
      assertEquals(msr(0x26f), 0x0505_0505_0505_0505n, "ROM");
      assertEquals([msr(0x200), msr(0x201)], [0xc000_0000n, 0xff_c000_0800n], "devices below 4 GiB");
    }
  });
});
