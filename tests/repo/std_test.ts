import { assert, assertEquals, assertThrows } from "@std/assert";
import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";

describe("the local @std packages", () => {
  const calls: string[] = [];
  beforeEach(() => {
    calls.push("before");
  });
  afterEach(() => {
    calls.push("after");
  });

  it("assert() narrows", () => {
    const value: string | undefined = ["a"][0];
    assert(value);
    assertEquals(value.length, 1);
  });

  describe("inner groups", () => {
    it("run the outer hooks around each case", () => {
      assertEquals(calls, ["before", "after", "before"]);
    });
  });

  it("assertThrows() gives the error", () => {
    const error = assertThrows(
      () => {
        throw new RangeError("too much");
      },
      RangeError,
      "much",
    );
    assertEquals(error.message, "too much");
  });
});
