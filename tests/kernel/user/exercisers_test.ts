/** The exercisers of user/: each checks its data and says ok; nothing leaks, and no revoked translation is used. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { mayRead, run, type RunOptions } from "./user_fixture.ts";

/** On a TLB that keeps every entry as long as it may. */
const HARD: RunOptions = { tlb: "sticky", sanitizer: true };

const RUNS: readonly (readonly [command: string, options: RunOptions])[] = [
  ["libctest", {}],
  ["forkcow 2 3 16", { ...HARD, cpus: 3 }],
  ["forkcow 2 2 200", { memory: 4 << 20, swap: 16 }],
  ["mmapfile 8", { ...HARD, cpus: 2 }],
  ["stackgrow 256", HARD],
  ["mprotsegv 32 60", { ...HARD, cpus: 2 }],
  ["thrhammer 3 4 24", { ...HARD, cpus: 4 }],
  ["thrhammer 2 4 8", {}],
  ["thrfork 2 3 4", { ...HARD, cpus: 3 }],
  ["swapthrash 5 2", { memory: 4 << 20, swap: 16, cpus: 2 }],
  ["stress -v 2 -b 512K -c 1 -f 1 -i 1 -r 1", { cpus: 2 }],
  ["fuzz 5 600", { ...HARD, cpus: 2 }],
];

describe("exercisers", { ignore: !mayRead }, () => {
  for (const [command, options] of RUNS) {
    const { cpus = 1, sanitizer, swap } = options;
    const how = `${cpus} CPUs${sanitizer ? ", sticky TLB" : ""}${swap === undefined ? "" : ", swap"}`;
    it(`${command}: ok, nothing leaks (${how})`, () => {
      const { console, statuses, leaks, stale, stop } = run([command], options);
      assertEquals(statuses, [0], console);
      assertMatch(console, /: ok: |, 0 wrong\n/);
      assertEquals(stop, "poweroff");
      assertEquals(stale, []);
      assertEquals(leaks, []);
    });
  }
});

describe("with a historical bug", { ignore: !mayRead }, () => {
  it("thrfork sees a parent's store in the child, when fork tells no other processor", () => {
    const { console, statuses, stale } = run(["thrfork 2 3 6"], {
      ...HARD,
      cpus: 3,
      bugs: ["fork-no-flush"],
    });
    assertMatch(console, /thrfork: page \d+ of thread \d+ changed in the child/);
    assertEquals(statuses, [1]);
    assert(stale.length > 0);
  });

  it("the sanitizer sees the use of a revoked translation, when no other processor is told of any change", () => {
    const { stale } = run(["forkcow 2 3 16"], { ...HARD, cpus: 3, bugs: ["inval-no-ipi"] });
    assert(stale.length > 0);
  });
});

describe("kbench", { ignore: !mayRead }, () => {
  it("counts exactly: a system call is one, a fresh page one fill, a shared page one copy", () => {
    const { console, statuses } = run(["kbench syscall 100; kbench zfod 64; kbench cow 64; kbench fork 3"]);
    assertEquals(statuses, [0]);
    const field = (test: string, name: string) =>
      Number(new RegExp(`^${test} .*\\b${name}=(\\d+)`, "m").exec(console)?.[1]);
    const idle = field("zfod", "v_syscall");
    assertEquals(field("syscall", "v_syscall") - idle, 100);
    assertEquals(field("zfod", "v_zfod"), 64);
    assertEquals(field("cow", "v_cow_faults") >= 64, true);
    assertEquals(field("fork", "v_forks"), 3);
  });
});
