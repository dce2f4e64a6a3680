/** The share that the tests have in `deno task model --guest`, `deno task fuzz --guest` and `deno task soak`. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { gva } from "../../../hw/address.ts";
import { RAM_BASE } from "../../../hw/state.ts";
import type { Kernel } from "../../../kernel/kernel.ts";
import { checkVpte } from "../../../kernel/vm/vpte_check.ts";
import { rootArchives } from "../../../lab/cli/root_archive.ts";
import { runFuzz } from "../../../lab/fuzz.ts";
import { GUEST_KINDS } from "../../../lab/guest/kinds.ts";
import { runModel } from "../../../lab/model/run.ts";
import { runSoak } from "../../../lab/soak.ts";
import { mayRead } from "../kernel_fixture.ts";
import { MADV_INVAL, runVkernel, SCRATCH, SYS } from "./vkernel_fixture.ts";

describe("the model test in a vkernel", () => {
  for (const guest of GUEST_KINDS) {
    for (const cpus of [1, 2]) {
      it(`${guest}, ${cpus} CPUs: bytes, rights, invariants; nothing is left on the host`, () => {
        const { failure, done } = runModel({
          seed: 300 + cpus,
          count: 120,
          cpus,
          tlb: "sticky",
          sanitizer: true,
          memory: 6 << 20,
          bugs: [],
          checkEvery: 10,
          guest,
        });
        assertEquals(failure, undefined);
        assert(done >= 120);
      });
    }
  }
});

describe("the system-call fuzz in a vkernel", { ignore: !mayRead }, () => {
  for (const guest of GUEST_KINDS) {
    it(`${guest}: guest and host stay up, and nothing is left in either`, async () => {
      const archives = await rootArchives([]);
      assertEquals(
        runFuzz({ seed: 50, count: 100, cpus: 2, sanitizer: true, archives, guest }).failure,
        undefined,
      );
    });
  }
});

describe("vkernels under load", { ignore: !mayRead }, () => {
  it("the same seed gives the same machine, instruction for instruction; another another", async () => {
    const archives = await rootArchives([]);
    const run = (seed: number) =>
      runSoak({
        seed,
        cpus: 2,
        guests: ["vpte", "vmm"],
        guestCpus: 2,
        steps: 700_000,
        checkEvery: 350_000,
        archives,
      });
    const first = run(7), second = run(7);
    assertEquals(first.failure, undefined);
    assertEquals(second, first);
    assertNotEquals(run(8).hash, first.hash);
  });
});

describe("checkVpte, the witness of a forgotten MADV_INVAL", () => {
  it("finds what the table has taken away, redirected, or made read only until INVAL; nothing afterwards", () => {
    const seen: string[][] = [];
    let host!: Kernel;
    let read64!: (pa: number) => bigint;
    const { statuses } = runVkernel(function* (vk) {
      const id = yield* vk.space();
      const DATA = 0x80_0000n, CODE = 0x40_0000n;
      yield* vk.code(id, CODE, (a) => a.movImmediate("rax", DATA).db(0x48, 0x89, 0x00).db(0x0f, 0x05));
      const pages = [yield* vk.page(), yield* vk.page()];
      const slot = yield* vk.map(id, DATA, pages[0]!);
      const look = () => seen.push(checkVpte(host, read64).findings.map(({ text }) => text));
      // Gone; another page; read only; not modified.
      for (const change of [0n, pages[1]! | 7n, pages[0]! | 0x65n, pages[0]! | 7n]) {
        // A write, so that the host's entry may be written.
        yield* vk.u.store64(slot, pages[0]! | 7n);
        yield* vk.ok(SYS.vmcontrol, id, DATA, 4096, MADV_INVAL, 0);
        yield* vk.go(id, { rip: CODE, rsp: SCRATCH });
        look();
        yield* vk.u.store64(gva(slot), change);
        look();
        yield* vk.ok(SYS.vmcontrol, id, DATA, 4096, MADV_INVAL, 0);
        look();
      }
    }, {
      prepare(machine, kernel) {
        host = kernel;
        read64 = (pa) => machine.memory.u64[(RAM_BASE + pa) / 8]!;
      },
    });
    assertEquals(statuses, [0]);
    assertEquals(seen.length, 12);
    seen.forEach((texts, i) => assertEquals(texts.length, i % 3 === 1 ? 1 : 0, `${i}: ${texts}`));
    assert(seen[1]![0]!.includes("is 0x0"), seen[1]![0]);
    assert(seen[4]![0]!.includes("leads to page"), seen[4]![0]);
    assert(seen[7]![0]!.includes("does not allow writing"), seen[7]![0]);
    assert(seen[10]![0]!.includes("does not say that it is modified"), seen[10]![0]);
  });
});
