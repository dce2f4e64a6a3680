import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { Clock } from "../../hw/clock.ts";
import { Cpu } from "../../hw/cpu.ts";
import { defaultModel } from "../../hw/cpuid.ts";
import { Random } from "../../hw/random.ts";
import { type Runner, Scheduler } from "../../hw/scheduler.ts";
import { ATTENTION_MACHINE, S } from "../../hw/state.ts";
import { testBus } from "./dev/board_fixture.ts";

/** A processor that does nothing but count, and calls `step` before each instruction. */
class Counter implements Runner {
  count = 0;
  halted = false;
  #done = 0;
  constructor(readonly cpu: Cpu, readonly step: (self: Counter) => void = () => {}) {}
  get runnable(): boolean {
    return !this.halted;
  }
  elapsed(): number {
    return this.#done;
  }
  run(budget: number): number {
    this.#done = 0;
    while (this.#done < budget && !this.halted && !(this.cpu.get32(S.ATTENTION) & ATTENTION_MACHINE)) {
      this.step(this);
      this.#done++;
      this.count++;
    }
    const done = this.#done;
    this.#done = 0;
    return done;
  }
}

function setup(count: number, seed = 1, step: (self: Counter) => void = () => {}) {
  const bus = testBus(), clock = new Clock();
  const runners = Array.from(
    { length: count },
    (_, id) =>
      new Counter(new Cpu({ id, memory: bus.memory, bus, model: defaultModel }), (self) => step(self)),
  );
  const scheduler = new Scheduler(clock, runners, new Random(seed));
  return { clock, runners, scheduler };
}

describe("one processor", () => {
  it("has one tick an instruction, exact inside instructions", () => {
    const seen: number[] = [];
    const { scheduler, clock } = setup(1, 1, () => seen.push(clock.now()));
    assertEquals(scheduler.run({ steps: 5 }), "steps");
    assertEquals(scheduler.run({ steps: 2 }), "steps");
    assertEquals([seen, clock.now()], [[0, 1, 2, 3, 4, 5, 6], 7]);
  });
  it("gets events at exactly their tick, those too that it makes itself", () => {
    const fired: number[] = [];
    const { scheduler, clock, runners } = setup(1, 1, (self) => {
      if (self.count === 50) timer.set(clock.now() + 3);
    });
    const timer = clock.timer("t", () => fired.push(clock.now(), runners[0]!.count));
    timer.set(10);
    scheduler.run({ steps: 1000 });
    assertEquals(fired, [10, 10, 53, 53]);
  });
  it("jumps to the next event while it is halted", () => {
    const { scheduler, clock, runners } = setup(1, 1, (self) => {
      if (self.count === 9) self.halted = true;
    });
    clock.timer("wake", () => runners[0]!.halted = false).set(1_000_000);
    assertEquals(scheduler.run({ steps: 20 }), "steps");
    assertEquals([runners[0]!.count, clock.now()], [20, 1_000_010]);
  });
  it("is idle when halted with nothing to come, or with events that wake nobody", () => {
    const { scheduler, clock, runners } = setup(1);
    runners[0]!.halted = true;
    assertEquals(scheduler.run(), "idle");
    const timer = clock.timer("vain", (at) => timer.set(at + 1000));
    timer.set(5);
    assertEquals(scheduler.run(), "idle");
    assertEquals(scheduler.run({ untilTick: clock.now() + 10 }), "until");
  });
  it("stops where it is told and goes on as if it had not", () => {
    const once = setup(2, 7), pieces = setup(2, 7);
    once.scheduler.run({ steps: 100_000 });
    for (let i = 0; i < 1000; i++) pieces.scheduler.run({ steps: 100 });
    assertEquals(pieces.scheduler.save(), once.scheduler.save());
    pieces.scheduler.requestStop();
    assertEquals(pieces.scheduler.run({ steps: 5 }), "requested");
    assertEquals(pieces.scheduler.save(), once.scheduler.save());
  });
});

describe("several processors", () => {
  it("see one clock that never goes back", () => {
    let last = 0;
    const { scheduler, clock, runners } = setup(4, 3, () => {
      assert(clock.now() >= last);
      last = clock.now();
    });
    scheduler.run({ steps: 200_000 });
    assertEquals(runners.reduce((n, r) => n + r.count, 0), 200_000);
    assert(Math.abs(clock.now() - 50_000) < 8000, "each runs at full speed over a round");
  });
  it("run in an order that the seed decides", () => {
    const trace = (seed: number) => {
      const order: number[] = [];
      const { scheduler } = setup(3, seed, (self) => {
        if (order.at(-1) !== self.cpu.id) order.push(self.cpu.id);
      });
      scheduler.run({ steps: 500_000 });
      return order.join("");
    };
    assertEquals(trace(5), trace(5));
    assert(trace(5) !== trace(6));
  });
  it("get events at exactly their tick", () => {
    const fired: number[] = [];
    const { scheduler, clock } = setup(3, 9);
    const timer = clock.timer("t", (at) => {
      fired.push(at - clock.now());
      if (at < 20_000) timer.set(at + 777);
    });
    timer.set(100);
    scheduler.run({ steps: 100_000 });
    assertEquals([fired.length, new Set(fired)], [27, new Set([0])]);
  });
  it("are woken in their slice at the exact tick while others run", () => {
    const woken: number[] = [];
    const { scheduler, clock, runners } = setup(2, 4, (self) => {
      if (self.cpu.id === 1 && self.count % 10 === 9) {
        timer.set(clock.now() + 50);
        self.halted = true;
      }
    });
    const timer = clock.timer("wake", (at) => {
      runners[1]!.halted = false;
      woken.push(clock.now() - at);
    });
    scheduler.run({ steps: 100_000 });
    assert(woken.length > 100);
    assert(woken.every((late) => late === 0));
  });
  it("stop on shutdown of one of them", () => {
    const { scheduler, runners } = setup(2);
    runners[1]!.cpu.set32(S.ACTIVITY, 2);
    runners[1]!.halted = true;
    assertEquals(scheduler.run(), "shutdown");
  });
  it("come back from a snapshot in the middle of a round", () => {
    const a = setup(3, 11);
    a.scheduler.run({ steps: 12_345 });
    const state = a.scheduler.save();
    a.scheduler.run({ steps: 1000 });
    const after = a.scheduler.save();
    const b = setup(3, 11);
    b.scheduler.load(state);
    b.scheduler.run({ steps: 1000 });
    assertEquals(b.scheduler.save().used, after.used);
  });
});
