/** The share that the tests have in `deno task model` and `deno task fuzz`. */
import { assertEquals, assertNotEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { runFuzz } from "../../lab/fuzz.ts";
import { rootArchives } from "../../lab/cli/root_archive.ts";
import { type ModelOptions, runModel, shrink } from "../../lab/model/run.ts";
import { VmModel } from "../../lab/model/vm_model.ts";
import { mayRead } from "../kernel/kernel_fixture.ts";

const OPTIONS: ModelOptions = {
  seed: 1,
  count: 400,
  cpus: 1,
  tlb: "sticky",
  sanitizer: true,
  memory: 6 << 20,
  bugs: [],
  checkEvery: 10,
};

describe("the model test", () => {
  for (const cpus of [1, 2, 3, 4]) {
    it(`${cpus} CPUs: bytes, rights and invariants agree after each batch`, () => {
      const { failure, done } = runModel({ ...OPTIONS, cpus, seed: 100 + cpus });
      assertEquals(failure, undefined);
      assertEquals(done >= OPTIONS.count, true);
    });
  }

  it("is the same twice with the same seed, and another with another", () => {
    const short = { ...OPTIONS, count: 100 };
    assertEquals(runModel(short), runModel(short));
    assertNotEquals(runModel(short).script, runModel({ ...short, seed: 2 }).script);
  });

  it("says what differs, and a failing run becomes a short one", () => {
    // A model that is wrong: a write that the kernel carries out is said to fail.
    const apply = VmModel.prototype.apply;
    VmModel.prototype.apply = function (op) {
      const expected = apply.call(this, op);
      return op.kind === "write" && op.value > 20 ? { kind: "fault" } : expected;
    };
    try {
      const { failure, script } = runModel({ ...OPTIONS, count: 200 });
      assertEquals(failure?.includes('"kind":"write"'), true, failure);
      const shorter = shrink(OPTIONS, script);
      assertEquals(shorter.flat().length <= 4, true, JSON.stringify(shorter));
    } finally {
      VmModel.prototype.apply = apply;
    }
  });
});

describe("the system-call fuzz", { ignore: !mayRead }, () => {
  for (const cpus of [1, 3]) {
    it(`${cpus} CPUs: the kernel stays up, and nothing is left when the program has exited`, async () => {
      const archives = await rootArchives([]);
      assertEquals(
        runFuzz({ seed: 40 + cpus, count: 600, cpus, sanitizer: true, archives }).failure,
        undefined,
      );
    });
  }
});
