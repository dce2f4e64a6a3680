import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { gva } from "../../../hw/address.ts";
import type { Exec } from "../../../hw/gates.ts";
import { Sanitizer } from "../../../hw/sanitizer.ts";
import { checkInvariantsWith } from "../../../kernel/pmap/invariants.ts";
import type { VmmAdMode, VmmDesign } from "../../../kernel/vmm/vmm_state.ts";
import { type Guest, GUEST_DATA, RAM, runVmm, SYS } from "./vmm_fixture.ts";

const LOW = 0x2000_0000n, NOTE = RAM + 0x12_0000n;
const ANON_PRIVATE_FIXED = 0x1012;

/** Everything that changes a map, and looks at what became of it from both sides: the guest's loads, the kernel's copies. */
function* exercise(guest: Guest): Exec<number> {
  const { u } = guest;
  const text = (at: bigint, string: string) => u.storeBytes(gva(at), new TextEncoder().encode(string));
  // Copied on write after the way into VMM mode, of either kind.
  yield* guest.ok(SYS.mmap, LOW, 0x8000, 3, ANON_PRIVATE_FIXED, -1, 0, 0);
  yield* text(LOW, "before");
  if ((yield* guest.enter()) !== 0) return 1;
  yield* text(RAM + 0x18_0000n, "/file\0");
  const fd = yield* guest.ok(SYS.open, RAM + 0x18_0000n, 0x602, 0o600);
  const written = function* (at: bigint, bytes: number): Exec<string> {
    yield* guest.ok(SYS.write, fd, at, bytes);
    yield* guest.ok(199, fd, 0, -bytes, 1);
    yield* guest.ok(3, fd, NOTE, bytes);
    return new TextDecoder().decode(yield* u.loadBytes(gva(NOTE), bytes));
  };
  if ((yield* written(LOW, 6)) !== "before") return 2;
  yield* text(LOW, "after ");
  if ((yield* written(LOW, 6)) !== "after ") return 3;
  // The kernel writes first, the guest reads; and the reverse, on fresh pages.
  yield* guest.ok(199, fd, 0, 0, 0);
  yield* guest.ok(3, fd, LOW + 0x1ffdn, 6);
  if (new TextDecoder().decode(yield* u.loadBytes(gva(LOW + 0x1ffdn), 6)) !== "before") return 4;
  yield* text(LOW + 0x3000n, "fresh ");
  if ((yield* written(LOW + 0x3000n, 6)) !== "fresh ") return 5;
  // Rights taken away hold on both sides.
  yield* guest.ok(SYS.mprotect, LOW + 0x3000n, 0x1000, 1);
  yield* guest.ok(199, fd, 0, 0, 0);
  if ((yield* guest.sys(3, fd, LOW + 0x3000n, 1)).errno !== 14) return 6;
  if (new TextDecoder().decode(yield* u.loadBytes(gva(LOW + 0x3000n), 6)) !== "fresh ") return 7;
  yield* guest.ok(SYS.mprotect, LOW + 0x3000n, 0x1000, 3);
  yield* text(LOW + 0x3000n, "again ");
  // Another page at the same address.
  yield* guest.ok(SYS.munmap, LOW + 0x3000n, 0x1000);
  if ((yield* guest.sys(SYS.write, fd, LOW + 0x3000n, 1)).errno !== 14) return 8;
  yield* guest.ok(SYS.mmap, LOW + 0x3000n, 0x1000, 3, ANON_PRIVATE_FIXED, -1, 0, 0);
  if ((yield* u.load64(gva(LOW + 0x3000n))) !== 0n) return 9;
  // The stack is elsewhere: linear addresses that are not the process's.
  const stack = gva((u.gpr(4) & ~0xfffn) + 0x100n);
  yield* text(stack, "stack ");
  if ((yield* written(stack, 6)) !== "stack ") return 10;
  // Its guests.
  const { root, data } = yield* guest.program((a) => {
    a.movImmediate("rbx", GUEST_DATA).movImmediate32("rcx", 0x77).store("rbx", 8, "rcx").db(0x0f, 0x05);
  });
  if ((yield* guest.run(root, {})).trapno !== 0x100n) return 11;
  return (yield* u.load64(gva(data + 8n))) === 0x77n ? 0 : 12;
}

function run(design: VmmDesign, cpuModel: string, ad?: VmmAdMode) {
  const sanitizer = new Sanitizer();
  const wrong: string[] = [];
  const booted = runVmm(exercise, {
    cpuModel,
    cpus: 2,
    tlb: "sticky",
    sanitizer,
    kernel: {
      vmm: { design, ...(ad === undefined ? {} : { ad }) },
      onCommandEnd: (k) => wrong.push(...checkInvariantsWith(k, (pa) => booted0!(pa))),
    },
    prepare: (machine) =>
      void (booted0 = (pa) => {
        const low = BigInt(machine.cpus[0]!.bus.read(pa, 4) >>> 0);
        return low | (BigInt(machine.cpus[0]!.bus.read(pa + 4, 4) >>> 0) << 32n);
      }),
  });
  const what = `${design} on ${cpuModel} ${ad ?? ""}`;
  assertEquals(
    [booted.stop, booted.statuses, sanitizer.count, wrong],
    [{ reason: "poweroff" }, [0], 0, []],
    what,
  );
  return booted.kernel.vmm.counters;
}
let booted0: ((pa: number) => bigint) | undefined;

describe("hw.vmm.design", () => {
  it("merged and twin give a guest the same memory, with every way to have accessed and dirty bits", () => {
    for (
      const [model, ad] of [["haswell", undefined], ["nehalem", undefined], ["nehalem", "freebsd"]] as const
    ) {
      const merged = run("merged", model, ad), twin = run("twin", model, ad);
      assertEquals([merged.twinCopies, merged.twinUpdates], [0, 0]);
      // What the two cost: walks of the guest's tables for every copy, or every change of the map twice.
      assert(twin.guestWalks < merged.guestWalks / 4, `${twin.guestWalks} of ${merged.guestWalks}`);
      assert(twin.twinUpdates > 0 && twin.twinCopies > 0);
      assertEquals(twin.syscalls, merged.syscalls);
    }
  });
});
