import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { gva } from "../../../hw/address.ts";
import { Sanitizer } from "../../../hw/sanitizer.ts";
import type { VmmAdMode } from "../../../kernel/vmm/vmm_state.ts";
import type { Kernel } from "../../../kernel/kernel.ts";
import { indexInParent, parentPindex, pindexLevel } from "../../../kernel/pmap/pmap.ts";
import { EPT_PMAP, PG_RW_IDX, TYPE_IDX } from "../../../kernel/pmap/pmap_bits.ts";
import { pmapEnter } from "../../../kernel/pmap/pmap_enter.ts";
import { eptPmapAdInRights, vmxEptPmapPinit } from "../../../kernel/pmap/pmap_pinit.ts";
import { pmapIsModified, pmapTsReferenced } from "../../../kernel/pmap/pmap_protect.ts";
import { pmapPte } from "../../../kernel/pmap/pmap_pte.ts";
import { pmapRemove } from "../../../kernel/pmap/pmap_remove.ts";
import { VM_PROT_READ, VM_PROT_RW, VM_PROT_WRITE } from "../../../kernel/vm/vm_param.ts";
import { vmspaceRel } from "../../../kernel/vm/vmspace.ts";
import { eptEmulateAccessedDirty } from "../../../kernel/vmm/ept_ad.ts";
import { runInKernel } from "../in_kernel.ts";
import type { Booted } from "../kernel_fixture.ts";
import { assertSound, freePage, newPage, newSpace, page } from "../pmap/pmap_fixture.ts";
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

  it("as rights (FreeBSD's way): A and M are taken away and set again, never W without R; clearing them flushes", () => {
    runInKernel({}, function* (cx) {
      const vm = yield* newSpace(cx), pmap = vm.vmPmap;
      yield* vmxEptPmapPinit(cx, pmap, false);
      eptPmapAdInRights(pmap);
      const m = yield* newPage(cx, 1n), readOnly = yield* newPage(cx, 2n);
      yield* pmapEnter(cx, pmap, page(0), m, VM_PROT_RW, false);
      yield* pmapEnter(cx, pmap, page(1), readOnly, VM_PROT_READ, false);
      const entry = function* (n: number) {
        return (yield* cx.cpu.load64((yield* pmapPte(cx, pmap, page(n)))!)) & 7n;
      };
      assertEquals(yield* entry(0), 5n, "A is set in advance: R and X; M is not: no W");
      const emulate = (n: number, prot: number) => eptEmulateAccessedDirty(cx, pmap, page(n), prot);
      assertEquals(yield* emulate(0, VM_PROT_WRITE), true);
      assertEquals([yield* entry(0), yield* pmapIsModified(cx, m)], [7n, true]);
      assertEquals(yield* emulate(1, VM_PROT_WRITE), false, "not allowed: vm_fault's affair");
      assertEquals(yield* emulate(2, VM_PROT_READ), false, "nothing is mapped");
      // Aging: A goes, and as M would stay alone, M with it, into the page.
      const generation = pmap.pmInvgen;
      assertEquals([m.dirty, yield* pmapTsReferenced(cx, m)], [0, 1]);
      assertEquals([yield* entry(0), m.dirty, pmap.pmInvgen > generation], [0n, 0xff, true]);
      assertEquals(yield* pmapTsReferenced(cx, m), 0);
      // The next access is seen.
      assertEquals([yield* emulate(0, VM_PROT_READ), yield* entry(0), yield* pmapTsReferenced(cx, m)], [
        true,
        5n,
        1,
      ]);
      assertSound(cx);
      yield* pmapRemove(cx, pmap, page(0), page(2));
      freePage(cx, m);
      freePage(cx, readOnly);
      yield* vmspaceRel(cx, vm);
    });
  });

  it("DragonFly's way: what is writable in the EPT is a page that is known to be dirty", () => {
    let kernel: Kernel | undefined;
    const booted = runVmm(function* (guest) {
      const seen = yield* touch(guest);
      let writable = 0;
      for (const pmap of kernel!.pmap.pmapList) {
        if (pmap.pmapBits[TYPE_IDX] !== EPT_PMAP) continue;
        for (const pv of pmap.pmPvroot) {
          if (pv.pvM === undefined || pindexLevel(pv.pvPindex) !== 0) continue;
          const table = pmap.pmPvroot.find(parentPindex(pv.pvPindex))!.pvM!;
          const word = guest.u.cpu.bus.read(table.physAddr + indexInParent(pv.pvPindex) * 8, 4);
          if ((BigInt(word >>> 0) & pmap.pmapBits[PG_RW_IDX]!) === 0n) continue;
          writable++;
          if (pv.pvM.dirty === 0) return 3;
        }
      }
      return seen !== 0 && writable > 3 ? 0 : 4;
    }, { cpuModel: "nehalem", prepare: (_, k) => void (kernel = k) });
    assertEquals([booted.stop, booted.statuses], [{ reason: "poweroff" }, [0]]);
  });
});
