import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { anonymous, inVm, page, peek, poke } from "./vm_fixture.ts";

describe("vm_fault", () => {
  it("fills anonymous memory with zeros at the first access", () =>
    inVm(function* (cx, spaces) {
      const vm = yield* spaces.enter(cx);
      yield* anonymous(cx, vm, 0, 4);
      const { vZfod } = cx.k.vmmeter;
      assertEquals(yield* peek(cx, page(1)), 0n);
      assertEquals(yield* poke(cx, page(2), 5n), true);
      assertEquals(yield* peek(cx, page(2)), 5n);
      assertEquals(cx.k.vmmeter.vZfod - vZfod, 2);
      assertEquals(yield* peek(cx, page(4)), undefined);
      yield* spaces.check(cx);
    }));
  it("copies on write after a fork, on either side", () =>
    inVm(function* (cx, spaces) {
      const vm = yield* spaces.enter(cx);
      yield* anonymous(cx, vm, 0, 2);
      yield* poke(cx, page(0), 1n);
      yield* poke(cx, page(1), 2n);
      const child = yield* spaces.fork(cx, vm);
      yield* spaces.check(cx);
      yield* poke(cx, page(0), 10n);
      yield* spaces.check(cx);
      yield* spaces.go(cx, child);
      assertEquals(yield* peek(cx, page(0)), 1n);
      yield* poke(cx, page(1), 20n);
      yield* spaces.check(cx);
      yield* spaces.go(cx, vm);
      assertEquals([yield* peek(cx, page(0)), yield* peek(cx, page(1))], [10n, 2n]);
      yield* spaces.end(cx, child);
      yield* spaces.check(cx);
      assertEquals([yield* peek(cx, page(0)), yield* peek(cx, page(1))], [10n, 2n]);
    }));
});
