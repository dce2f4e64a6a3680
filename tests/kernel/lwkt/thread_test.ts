import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { hz } from "../../../kernel/lwkt/callout.ts";
import { LwktCpusync, lwktCpusyncDeinterlock, lwktCpusyncInterlock } from "../../../kernel/lwkt/cpusync.ts";
import { lwktSendIpiq } from "../../../kernel/lwkt/ipiq.ts";
import {
  LK_EXCLUPGRADE,
  LK_EXCLUSIVE,
  LK_NOWAIT,
  LK_RELEASE,
  LK_SHARED,
  Lock,
  lockmgr,
} from "../../../kernel/lwkt/lock.ts";
import { lwktDomsg, LwktMsg, LwktPort, lwktReplymsg, lwktWaitport } from "../../../kernel/lwkt/msgport.ts";
import { tsleep, tsleepInterlock, wakeup } from "../../../kernel/lwkt/sleep.ts";
import { Spinlock, spinLock, spinUnlock } from "../../../kernel/lwkt/spinlock.ts";
import { kthreadCreate, lwktSetcpuSelf, lwktYield } from "../../../kernel/lwkt/thread.ts";
import { lwktGettoken, lwktGettokenShared, lwktReltoken, LwktToken } from "../../../kernel/lwkt/token.ts";
import { ERRNO } from "../../../kernel/kern/errno.ts";
import { runInKernel } from "../in_kernel.ts";

describe("LWKT threads", () => {
  for (const cpus of [1, 4]) {
    it(`${cpus} CPUs: threads sleep, are woken, and time passes`, () => {
      const seen: string[] = [];
      runInKernel({ cpus }, function* (cx) {
        const ident = {};
        yield* kthreadCreate(cx, function* (at) {
          seen.push("child sleeps");
          assertEquals(yield* tsleep(at, ident, 0, "test", 0), 0);
          seen.push("child woken");
          wakeup(at, seen);
        }, "child");
        const before = cx.k.ticks;
        assertEquals(yield* tsleep(cx, {}, 0, "nothing", hz / 10), ERRNO.EWOULDBLOCK);
        assert(cx.k.ticks - before >= hz / 10, "a timeout lasts as long as it was told");
        tsleepInterlock(cx, seen);
        wakeup(cx, ident);
        seen.push("parent woke it");
        yield* tsleep(cx, seen, 0, "done", 0);
        seen.push("parent back");
      });
      assertEquals(seen, ["child sleeps", "parent woke it", "child woken", "parent back"]);
    });
  }

  it("a token is exclusive while its holder runs, let go while it sleeps, and there again after", () => {
    const order: string[] = [];
    runInKernel({ cpus: 2 }, function* (cx) {
      const tok = new LwktToken("test");
      let inside = 0, done = 0;
      for (const gd of cx.k.lwkt.gds) {
        yield* kthreadCreate(
          cx,
          function* (at) {
            for (let i = 0; i < 50; i++) {
              yield* lwktGettoken(at, tok);
              inside++;
              assertEquals(inside, 1, "two threads are inside");
              for (let n = 0; n < 5; n++) yield;
              assertEquals(inside, 1, "two threads are inside");
              inside--;
              if (i === 25) {
                yield* tsleep(at, {}, 0, "with token", 2);
                order.push(`cpu${at.gd.gdCpuid} slept`);
              }
              assertEquals(tok.tOwner, at.td, "the token came back after the sleep");
              lwktReltoken(at, tok);
            }
            done++;
            wakeup(at, tok);
          },
          `t${gd.gdCpuid}`,
          gd,
        );
      }
      while (done < 2) yield* tsleep(cx, tok, 0, "test", 1);
      assertEquals(tok.tOwner, undefined);
    });
    assertEquals(order.length, 2);
  });

  it("shared tokens may be held by several threads", () => {
    runInKernel({}, function* (cx) {
      const tok = new LwktToken("shared");
      let most = 0, now = 0, done = 0;
      for (let i = 0; i < 3; i++) {
        yield* kthreadCreate(cx, function* (at) {
          yield* lwktGettokenShared(at, tok);
          most = Math.max(most, ++now);
          yield* lwktYield(at);
          now--;
          lwktReltoken(at, tok);
          done++;
        }, `s${i}`);
      }
      while (done < 3) yield* tsleep(cx, tok, 0, "test", 1);
      assert(most >= 1);
    });
  });

  it("spinlocks exclude processors from each other", () => {
    runInKernel({ cpus: 4 }, function* (cx) {
      const spin = new Spinlock("test");
      let inside = 0, count = 0, done = 0;
      for (const gd of cx.k.lwkt.gds) {
        yield* kthreadCreate(
          cx,
          function* (at) {
            for (let i = 0; i < 100; i++) {
              yield* spinLock(at, spin);
              assertEquals(++inside, 1);
              const seen = count;
              yield;
              count = seen + 1;
              inside--;
              spinUnlock(at, spin);
            }
            done++;
          },
          `t${gd.gdCpuid}`,
          gd,
        );
      }
      while (done < 4) yield* tsleep(cx, spin, 0, "test", 1);
      assertEquals(count, 400);
    });
  });

  it("lockmgr locks: sharers together, one exclusive owner, upgrades that fail lose the lock", () => {
    runInKernel({}, function* (cx) {
      const lk = new Lock("test");
      assertEquals(yield* lockmgr(cx, lk, LK_SHARED), 0);
      let other = -1;
      const ident = {};
      yield* kthreadCreate(cx, function* (at) {
        other = yield* lockmgr(at, lk, LK_SHARED);
        yield* tsleep(at, ident, 0, "hold", 0);
        assertEquals(yield* lockmgr(at, lk, LK_EXCLUPGRADE), ERRNO.EBUSY, "another upgrades already");
      }, "sharer");
      yield* tsleep(cx, {}, 0, "wait", 2);
      assertEquals(other, 0);
      yield* kthreadCreate(cx, function* (at) {
        assertEquals(yield* lockmgr(at, lk, LK_EXCLUSIVE | LK_NOWAIT), ERRNO.EBUSY);
        wakeup(at, ident);
      }, "taker");
      assertEquals(yield* lockmgr(cx, lk, LK_EXCLUPGRADE), 0, "the only other sharer let go");
      assertEquals(lk.lkLockholder, cx.td);
      yield* lockmgr(cx, lk, LK_RELEASE);
    });
  });

  it("a message to another processor runs there; a thread moves there", () => {
    runInKernel({ cpus: 3 }, function* (cx) {
      const where: number[] = [];
      const [, one, two] = cx.k.lwkt.gds;
      yield* lwktSendIpiq(cx, one!, (at) => {
        where.push(at.gd.gdCpuid);
      }, undefined);
      yield* tsleep(cx, {}, 0, "wait", 1);
      assertEquals(where, [1]);
      yield* lwktSetcpuSelf(cx, two!);
      assertEquals(cx.gd.gdCpuid, 2);
      yield* lwktSetcpuSelf(cx, cx.k.lwkt.gds[0]!);
    });
  });

  it("a rendezvous stops all others between its two stages", () => {
    runInKernel({ cpus: 4 }, function* (cx) {
      let stop = false, ended = 0;
      const steps = [0, 0, 0, 0];
      for (const gd of cx.k.lwkt.gds.slice(1)) {
        yield* kthreadCreate(
          cx,
          function* (at) {
            while (!stop) {
              steps[gd.gdCpuid]!++;
              yield;
            }
            ended++;
            yield* tsleep(at, {}, 0, "end", 1);
          },
          `spin${gd.gdCpuid}`,
          gd,
        );
      }
      yield* tsleep(cx, {}, 0, "let them run", 1);
      const ran: number[] = [];
      for (let i = 0; i < 5; i++) {
        const cs = new LwktCpusync(0xf, (at) => ran.push(at.gd.gdCpuid), undefined);
        yield* lwktCpusyncInterlock(cx, cs);
        const before = [...steps];
        for (let n = 0; n < 50; n++) yield;
        assertEquals(steps, before, "a processor went on inside the interlock");
        yield* lwktCpusyncDeinterlock(cx, cs);
      }
      assertEquals(ran.sort(), [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3]);
      stop = true;
      while (ended < 3) yield* tsleep(cx, {}, 0, "end", 1);
    });
  });

  it("two masters of a rendezvous at once do not wait for each other forever", () => {
    runInKernel({ cpus: 3 }, function* (cx) {
      let done = 0;
      for (const gd of cx.k.lwkt.gds) {
        yield* kthreadCreate(
          cx,
          function* (at) {
            for (let i = 0; i < 30; i++) {
              const cs = new LwktCpusync(0x7, undefined, undefined);
              yield* lwktCpusyncInterlock(at, cs);
              yield;
              yield* lwktCpusyncDeinterlock(at, cs);
            }
            done++;
          },
          `m${gd.gdCpuid}`,
          gd,
        );
      }
      while (done < 3) yield* tsleep(cx, {}, 0, "wait", 1);
    });
  });

  it("messages: a request is answered by the thread at the port", () => {
    runInKernel({}, function* (cx) {
      class Square extends LwktMsg {
        result = 0;
        constructor(reply: LwktPort, readonly n: number) {
          super(reply);
        }
      }
      const port = new LwktPort<Square>("squares"), reply = new LwktPort("reply");
      yield* kthreadCreate(cx, function* (at) {
        for (;;) {
          const msg = yield* lwktWaitport(at, port);
          msg.result = msg.n * msg.n;
          lwktReplymsg(at, msg, 0);
        }
      }, "server");
      const msg = new Square(reply, 7);
      assertEquals(yield* lwktDomsg(cx, port, msg), 0);
      assertEquals(msg.result, 49);
    });
  });
});
