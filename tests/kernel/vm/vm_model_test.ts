import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { runVmModel } from "./vm_model.ts";
import { runThreadsModel } from "./vm_threads_model.ts";

describe("random operations agree with the model", () => {
  it("one space at a time, every rule checked after every operation", () => {
    for (const seed of [1, 2]) {
      const { stale, compared } = runVmModel({ seed, operations: 250, threads: 1, checkAll: true });
      assertEquals(stale, []);
      assert(compared > 100);
    }
  });
  it("several families of spaces on four processors, a sticky TLB under them", () => {
    for (const seed of [3, 4]) {
      assertEquals(runVmModel({ seed, operations: 300, threads: 4, cpus: 4 }).stale, []);
    }
  });
  it("with less memory than they use", () => {
    const { stale, swappgsout, swappgsin } = runVmModel({
      seed: 11,
      operations: 350,
      threads: 3,
      cpus: 2,
      memory: 0x38_0000,
      swap: 64 << 20,
      window: 1600,
    });
    assertEquals(stale, []);
    assert(swappgsout > 0 && swappgsin > 0, "nothing was swapped");
  });
  it("threads that use pages which others map, unmap, protect, wire and fork", () => {
    for (const seed of [1, 2]) {
      const { stale, forks } = runThreadsModel({ seed, cpus: 3, threads: 4, operations: 150 });
      assertEquals(stale, []);
      assert(forks > 0);
    }
  });
});
