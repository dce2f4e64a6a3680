import { assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { TestClock } from "./dev/board_fixture.ts";

describe("the clock's timers", () => {
  it("fire in order of time, then of making", () => {
    const clock = new TestClock(), fired: string[] = [];
    const [a, b, c] = ["a", "b", "c"].map((n) => clock.timer(n, (at) => fired.push(`${n}@${at}`)));
    c!.set(10);
    b!.set(20);
    a!.set(20);
    clock.to(30);
    assertEquals(fired, ["c@10", "a@20", "b@20"]);
    assertEquals(clock.next, Infinity);
  });
  it("may arm themselves again while firing", () => {
    const clock = new TestClock(), fired: number[] = [];
    const t = clock.timer("t", (at) => {
      fired.push(at);
      if (at < 30) t.set(at + 10);
    });
    t.set(10);
    clock.to(100);
    assertEquals(fired, [10, 20, 30]);
  });
  it("say when the earliest deadline moves nearer, and only then", () => {
    const clock = new TestClock(), told: number[] = [];
    clock.onEarlier = (at) => told.push(at);
    const a = clock.timer("a", () => {}), b = clock.timer("b", () => {});
    a.set(50);
    b.set(60);
    b.set(40);
    b.cancel();
    a.set(55);
    assertEquals(told, [50, 40]);
  });
  it("come back from a snapshot by name", () => {
    const clock = new TestClock();
    const a = clock.timer("a", () => {}), b = clock.timer("b", () => {});
    a.set(7);
    const state = clock.save();
    a.set(99);
    b.set(3);
    clock.load(state);
    assertEquals([a.at, b.at, clock.next], [7, Infinity, 7]);
    assertThrows(() => clock.timer("a", () => {}), Error, '"a"');
  });
});
