import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { gva } from "../../../hw/address.ts";
import { Sanitizer } from "../../../hw/sanitizer.ts";
import type { VmmAdMode } from "../../../kernel/vmm/vmm_state.ts";
import type { Booted } from "../kernel_fixture.ts";
import { type Guest, RAM, runVmm, SYS } from "./vmm_fixture.ts";

const READ_ONLY = RAM + 0x30_0000n, WRITTEN = RAM + 0x31_0000n;

/** Pages of the guest's EPT: what the tables say of accessed and dirty. */
function* touch(guest: Guest) {
  const { u } = guest;
  if ((yield* guest.enter()) !== 0) return 1;
  if ((yield* u.load64(gva(READ_ONLY))) !== 0n) return 2;
  yield* u.load64(gva(WRITTEN));
  yield* u.store64(gva(WRITTEN), 7n);
  yield* u.store64(gva(WRITTEN), 8n);
  // mincore(addr, len, vec): what the kernel knows of the two pages.
  yield* guest.ok(78, READ_ONLY, 4096, RAM + 0x12_0000n);
  yield* guest.ok(78, WRITTEN, 4096, RAM + 0x12_0001n);
  const seen = yield* u.load16(gva(RAM + 0x12_0000n));
  return seen;
}

function run(model: string, ad?: VmmAdMode): Booted & { readonly stale: number } {
  const sanitizer = new Sanitizer();
  const booted = runVmm(function* (guest) {
    const seen = yield* touch(guest);
    yield* guest.ok(SYS.exit, (seen & 0xff) === 0 ? 99 : (seen >> 8) & 2 ? 0 : 98);
  }, {
    cpuModel: model,
    tlb: "sticky",
    sanitizer,
    kernel: { vmm: ad === undefined ? {} : { ad } },
  });
  return { ...booted, stale: sanitizer.count };
}

describe("accessed and dirty bits of EPT entries", () => {
  it("are the processor's where it has them, else emulated DragonFly's way; FreeBSD's on demand", () => {
    const modes = [
      ["haswell", undefined, 0],
      ["nehalem", undefined, 0],
      ["nehalem", "hardware", 0],
      ["nehalem", "dragonfly", 0],
      ["nehalem", "freebsd", 1],
      ["haswell", "freebsd", 1],
      ["icelake", "dragonfly", 0],
    ] as const;
    const faults: Record<string, number> = {};
    for (const [model, ad, emulates] of modes) {
      const booted = run(model, ad);
      const name = `${model} ${ad ?? ""}`;
      assertEquals([booted.stop, booted.statuses, booted.stale], [{ reason: "poweroff" }, [0], 0], name);
      const { counters } = booted.kernel.vmm;
      assertEquals(counters.adEmulated > 0, emulates === 1, name);
      faults[name] = counters.eptFaults;
    }
    // A page that is read first and written later faults twice where the first write must be seen by vm_fault.
    assert(faults["nehalem dragonfly"]! > faults["haswell "]!, JSON.stringify(faults));
    assertEquals(faults["nehalem freebsd"], faults["haswell "]);
    assertEquals(faults["nehalem hardware"], faults["nehalem dragonfly"], "what is not there is emulated");
  });
});
