/** A share of `deno task vmxfuzz`: random VMCS images never throw, and both engines make the same of them. */
import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { fuzzVmcs } from "../../lab/vmx/fuzz.ts";

describe("random VMCS images", () => {
  it("enter or fail by the rules, on both engines alike", () => {
    const one = fuzzVmcs(3000, 7, "interpreter"), other = fuzzVmcs(3000, 7, "reference");
    assertEquals(one, other);
    assert(one.entered > 300 && one.guest > 100 && one.exits.size > 10);
  });
  it("on models with less", () => {
    for (const model of ["penryn", "nehalem", "skylake"]) fuzzVmcs(1000, 3, "interpreter", model);
  });
});
