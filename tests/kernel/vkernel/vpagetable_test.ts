import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { gva } from "../../../hw/address.ts";
import { MemoryDisk } from "../../../hw/dev/virtio_blk.ts";
import type { Exec } from "../../../hw/gates.ts";
import type { Kernel } from "../../../kernel/kernel.ts";
import {
  A,
  ANON,
  DMAP,
  FIXED,
  M,
  MADV_INVAL,
  MADV_SETMAP,
  NX,
  PRIVATE,
  PROT_RWX,
  PS,
  runVkernel,
  RW,
  SCRATCH,
  SHARED,
  SYS,
  U,
  V,
  Vkernel,
  VPAGETABLE,
  VRWU,
} from "./vkernel_fixture.ts";

const CODE = 0x40_0000n, DATA = 0x50_0000n, PAGE = 4096n;
const EINVAL = 22, ENOMEM = 12, EFAULT = 14;
const SYSCALL = [0x0f, 0x05], READ = [0x48, 0x8b, 0x03], WRITE = [0x48, 0x89, 0x03];

/** A kernel window, as a vkernel has one: the same memory through tables, its file offset the address. */
const KVA = 0x80_0000_0000n, KVA_BYTES = 1n << 39n;

function* window(vk: Vkernel, flags = SHARED | FIXED | VPAGETABLE): Exec<bigint> {
  const root = yield* vk.page();
  yield* vk.ok(SYS.mmap, KVA, KVA_BYTES, PROT_RWX, flags, vk.fd, 0, KVA);
  yield* vk.ok(SYS.mcontrol, KVA, KVA_BYTES, MADV_SETMAP, root | V | RW);
  return root;
}

/** Bits A and M of the entries for an address, the page's own first. */
function* bitsOf(vk: Vkernel, root: bigint, va: bigint): Exec<bigint[]> {
  const bits: bigint[] = [];
  for (let level = 0; level < 4; level++) {
    bits.push((yield* vk.u.load64(yield* vk.entry(root, va, level))) & (A | M));
  }
  return bits;
}

describe("software page tables", () => {
  it("a read sets A on every level, a write A and M, and the first write after a read is seen", () => {
    const seen: bigint[][] = [], walks: number[] = [];
    let k: Kernel | undefined;
    runVkernel(function* (vk) {
      const id = yield* vk.space(), count = () => walks.push(k!.vkernel.vpteWalks);
      yield* vk.map(id, DATA, yield* vk.page());
      yield* vk.code(id, CODE, (a) => a.db(...READ).db(...SYSCALL).align(32).db(...WRITE).db(...SYSCALL));
      yield* vk.go(id, { rip: CODE + 3n });
      seen.push(yield* bitsOf(vk, id, DATA));
      count();
      yield* vk.go(id, { rip: CODE, rbx: DATA });
      seen.push(yield* bitsOf(vk, id, DATA));
      count();
      yield* vk.go(id, { rip: CODE + 32n, rbx: DATA });
      seen.push(yield* bitsOf(vk, id, DATA));
      count();
      // Neither needs the host any more.
      yield* vk.go(id, { rip: CODE, rbx: DATA });
      yield* vk.go(id, { rip: CODE + 32n, rbx: DATA });
      count();
    }, {
      prepare(_m, kernel) {
        k = kernel;
      },
    });
    // The code page's walk went through the levels above: it is in the same 2 MiB.
    assertEquals(seen, [[0n, A, A, A], [A, A, A, A], [A | M, A | M, A | M, A | M]]);
    assertEquals(walks.map((n) => n - walks[0]!), [0, 1, 2, 2]);
  });

  it("a page that is RW and M already is mapped writable by a read", () => {
    let k: Kernel | undefined;
    const walks: number[] = [];
    runVkernel(function* (vk) {
      const id = yield* vk.space();
      yield* vk.map(id, DATA, yield* vk.page(), VRWU | A | M);
      yield* vk.map(id, DATA + PAGE, yield* vk.page(), V | U | A | M);
      yield* vk.code(id, CODE, (a) => a.db(...READ).db(...WRITE).db(...SYSCALL));
      yield* vk.go(id, { rip: CODE + 6n });
      walks.push(k!.vkernel.vpteWalks);
      const { trapno } = yield* vk.go(id, { rip: CODE, rbx: DATA });
      walks.push(k!.vkernel.vpteWalks, Number(trapno));
      // M without RW gives nothing.
      walks.push(Number((yield* vk.go(id, { rip: CODE, rbx: DATA + PAGE })).trapno));
    }, {
      prepare(_m, kernel) {
        k = kernel;
      },
    });
    assertEquals(walks, [walks[0]!, walks[0]! + 1, 256, 14]);
  });

  it("every level must allow: V for all, RW for writing, no NX for executing, U where the root has it", () => {
    const answers: Record<string, readonly number[]> = {};
    runVkernel(function* (vk) {
      for (let level = 0; level < 4; level++) {
        for (const [name, bits] of [["V", V], ["RW", RW], ["U", U], ["NX", NX]] as const) {
          const id = yield* vk.space();
          yield* vk.map(id, DATA, yield* vk.page());
          // Its own gigabytes, so that the levels are not shared.
          const code = 0x100_0000_0000n;
          yield* vk.code(id, code, (a) => a.db(...READ).db(...SYSCALL).align(32).db(...WRITE).db(...SYSCALL));
          const slot = yield* vk.entry(id, DATA, level);
          yield* vk.u.store64(slot, (yield* vk.u.load64(slot)) ^ bits);
          const read = yield* vk.go(id, { rip: code, rbx: DATA });
          const write = yield* vk.go(id, { rip: code + 32n, rbx: DATA });
          const execute = yield* vk.go(id, { rip: DATA });
          answers[`${name} ${level}`] = [read, write, execute].map((frame) =>
            frame.trapno === 14n && frame.addr === DATA ? 0 : 1
          );
          yield* vk.ok(SYS.destroy, id);
        }
      }
    }, { memory: 40 << 20 });
    for (const [name, answer] of Object.entries(answers)) {
      // The page that is executed holds zeros: add [rax],al faults elsewhere.
      const wanted = { V: [0, 0, 0], RW: [1, 0, 1], U: [0, 0, 0], NX: [1, 1, 0] }[name.split(" ")[0]!];
      assertEquals(answer, wanted, name);
    }
  });

  it("PS ends the walk: 2 MiB by one entry, the whole memory by the root alone", () => {
    const words: bigint[] = [];
    runVkernel(function* (vk) {
      const root = yield* window(vk);
      const pd = yield* vk.page(), far = 0x9_d000n;
      yield* vk.u.store64(vk.at(root + 8n), (yield* vk.page()) | V | RW);
      const pdp = (yield* vk.u.load64(vk.at(root + 8n))) & ~0xfffn;
      yield* vk.u.store64(vk.at(pdp), pd | V | RW);
      yield* vk.u.store64(vk.at(pd + 3n * 8n), 0n | V | RW | PS);
      yield* vk.u.store64(vk.at(far), 0xabcn);
      words.push(yield* vk.u.load64(gva(KVA + 3n * 0x20_0000n + far)));
      yield* vk.u.store64(gva(KVA + 3n * 0x20_0000n + far), 0xdefn);
      words.push(yield* vk.u.load64(vk.at(far)), (yield* vk.u.load64(vk.at(pd + 24n))) & (A | M));
      yield* vk.ok(SYS.mcontrol, KVA, KVA_BYTES, MADV_SETMAP, 0x1000n | V | RW | PS);
      // An index is an offset in the object: the mapping's own offset counts.
      yield* vk.ok(SYS.mmap, KVA, PAGE * 64n, PROT_RWX, SHARED | FIXED | VPAGETABLE, vk.fd, 0, 0x9_0000);
      yield* vk.ok(SYS.mcontrol, KVA, PAGE * 64n, MADV_SETMAP, V | RW | PS);
      words.push(yield* vk.u.load64(gva(KVA + 0xd000n)));
    });
    assertEquals(words, [0xabcn, 0xdefn, A | M, 0xdefn]);
  });

  it("a vkernel's own window: an entry may change at any time, INVAL makes the host look again", () => {
    const words: bigint[] = [];
    const { statuses } = runVkernel(function* (vk) {
      const root = yield* window(vk), va = gva(KVA + 0x1234_5000n);
      const one = yield* vk.page(), two = yield* vk.page();
      yield* vk.u.store64(vk.at(one), 1n);
      yield* vk.u.store64(vk.at(two), 2n);
      const slot = yield* vk.map(root, va, one, V | RW);
      words.push(yield* vk.u.load64(va));
      yield* vk.u.store64(slot, two | V | RW);
      yield* vk.ok(SYS.mcontrol, va, PAGE, MADV_INVAL, 0);
      words.push(yield* vk.u.load64(va));
      yield* vk.u.store64(va, 3n);
      words.push(yield* vk.u.load64(vk.at(one)), yield* vk.u.load64(vk.at(two)));
      words.push((yield* vk.u.load64(slot)) & 0xfffn);
      // M cleared and seen again: the duty of section 13.4.
      yield* vk.u.store64(slot, two | V | RW);
      yield* vk.ok(SYS.mcontrol, va, PAGE, MADV_INVAL, 0);
      yield* vk.u.load64(va);
      words.push((yield* vk.u.load64(slot)) & 0xfffn);
      yield* vk.u.store64(va, 4n);
      words.push((yield* vk.u.load64(slot)) & 0xfffn);
    });
    assertEquals(statuses, [0]);
    assertEquals(words, [1n, 2n, 1n, 3n, V | RW | A | M, V | RW | A, V | RW | A | M]);
  });

  it("what the tables do not grant is a SIGSEGV of the vkernel's own, in its own window; for the host's copies EFAULT", () => {
    const answers: number[] = [];
    const { statuses, faults } = runVkernel(function* (vk) {
      const root = yield* window(vk), va = KVA + 0x5000n;
      answers.push(yield* vk.sys(SYS.write, 1, va, 8));
      const page = yield* vk.page();
      yield* vk.map(root, va, page, V);
      yield* vk.u.storeBytes(vk.at(page), new TextEncoder().encode("through\n"));
      answers.push(yield* vk.sys(SYS.write, 1, va, 8));
      // Read only for the kernel's stores too: gettimeofday and its like. A sleep's remainder goes there.
      answers.push(yield* vk.sys(SYS.sigprocmask, 1, 0, va));
      yield* vk.u.store64(gva(va), 1n);
      return 0;
    }, { kernel: { faultReports: false } });
    assertEquals(answers, [-EFAULT, 8, -EFAULT]);
    assertEquals([statuses, faults.length], [[128 + 11], 1]);
  });

  it("SETMAP: only where MAP_VPAGETABLE is, part of a mapping too, and all mappings of before are gone", () => {
    const seen: (bigint | number)[] = [];
    const { statuses } = runVkernel(function* (vk) {
      seen.push(yield* vk.sys(SYS.mcontrol, SCRATCH, PAGE, MADV_SETMAP, V | RW));
      for (let i = 0; i < 4; i++) yield* vk.page();
      const one = yield* vk.page(), two = yield* vk.page();
      yield* vk.u.store64(vk.at(one), 1n);
      yield* vk.u.store64(vk.at(two), 2n);
      yield* vk.ok(SYS.mmap, KVA, 4n * PAGE, PROT_RWX, SHARED | FIXED | VPAGETABLE, vk.fd, 0, 0);
      yield* vk.ok(SYS.mcontrol, KVA, 4n * PAGE, MADV_SETMAP, one | V | RW | PS);
      seen.push(yield* vk.u.load64(gva(KVA)));
      yield* vk.ok(SYS.mcontrol, KVA, 4n * PAGE, MADV_SETMAP, two | V | RW | PS);
      seen.push(yield* vk.u.load64(gva(KVA)));
      // The second half gets another root, of which only pages 2 and 3 are looked at.
      yield* vk.ok(SYS.mcontrol, KVA + 2n * PAGE, 2n * PAGE, MADV_SETMAP, one - 2n * PAGE | V | RW | PS);
      seen.push(yield* vk.u.load64(gva(KVA)), yield* vk.u.load64(gva(KVA + 2n * PAGE)));
      // Advice that touches the whole does not join them.
      yield* vk.ok(SYS.mcontrol, KVA, 4n * PAGE, 6, 0);
      yield* vk.ok(SYS.mcontrol, KVA, 4n * PAGE, MADV_INVAL, 0);
      seen.push(yield* vk.u.load64(gva(KVA)), yield* vk.u.load64(gva(KVA + 2n * PAGE)));
    });
    assertEquals(statuses, [0]);
    assertEquals(seen, [-EINVAL, 1n, 2n, 2n, 1n, 2n, 1n]);
  });

  it("mmap takes MAP_VPAGETABLE readable and writable only, no stack; mlock of it fails, munmap and mprotect work", () => {
    const seen: number[] = [];
    const { statuses } = runVkernel(function* (vk) {
      const flags = SHARED | FIXED | VPAGETABLE;
      seen.push(yield* vk.sys(SYS.mmap, KVA, PAGE, 1, flags, vk.fd, 0, 0));
      seen.push(yield* vk.sys(SYS.mmap, KVA, PAGE, 3, 0x400 | VPAGETABLE, -1, 0, 0));
      yield* window(vk);
      seen.push(yield* vk.sys(SYS.mlock, KVA, 4n * PAGE));
      seen.push(
        yield* vk.sys(SYS.munmap, KVA, PAGE),
        yield* vk.sys(SYS.mprotect, KVA + PAGE, KVA_BYTES - PAGE, 0),
      );
      seen.push(
        yield* vk.sys(SYS.write, 1, KVA + PAGE, 1),
        yield* vk.sys(SYS.munmap, KVA + PAGE, KVA_BYTES - PAGE),
      );
    });
    assertEquals(statuses, [0]);
    assertEquals(seen, [-EINVAL, -EINVAL, -ENOMEM, 0, 0, -EFAULT, 0]);
  });

  it("tables in a private mapping are the mapping's own: the file never sees A and M", () => {
    const seen: bigint[] = [];
    const { statuses } = runVkernel(function* (vk) {
      const table = yield* vk.page(), page = yield* vk.page();
      // A tree of one: four levels in one table page, indexes 0.
      yield* vk.u.store64(vk.at(table), table | V | RW);
      yield* vk.u.store64(vk.at(table + 8n), page | V | RW);
      yield* vk.u.store64(vk.at(page), 5n);
      yield* vk.ok(SYS.mmap, KVA, 2n * PAGE, PROT_RWX, PRIVATE | FIXED | VPAGETABLE, vk.fd, 0, 0);
      yield* vk.ok(SYS.mprotect, KVA, 2n * PAGE, 1);
      yield* vk.ok(SYS.mcontrol, KVA, 2n * PAGE, MADV_SETMAP, table | V | RW);
      seen.push(yield* vk.u.load64(gva(KVA + PAGE)));
      yield* vk.ok(SYS.mprotect, KVA, 2n * PAGE, 3);
      yield* vk.u.store64(gva(KVA + PAGE), 6n);
      seen.push(yield* vk.u.load64(gva(KVA + PAGE)), yield* vk.u.load64(vk.at(page)));
      seen.push(
        (yield* vk.u.load64(vk.at(table))) & 0xfffn,
        (yield* vk.u.load64(vk.at(table + 8n))) & 0xfffn,
      );
      // Its first page shows the table itself.
      seen.push((yield* vk.u.load64(gva(KVA))) & 0xfffn);
    });
    assertEquals(statuses, [0]);
    assertEquals(seen, [5n, 6n, 5n, V | RW, V | RW, V | RW | A | M]);
  });

  it("anonymous memory under tables: the object is as large as the tables may say", () => {
    let word = 0n;
    const { statuses } = runVkernel(function* (vk) {
      yield* vk.ok(SYS.mmap, KVA, PAGE * 16n, PROT_RWX, PRIVATE | ANON | FIXED | VPAGETABLE, -1, 0, 0);
      yield* vk.ok(SYS.mcontrol, KVA, PAGE * 16n, MADV_SETMAP, 0x1234_5678_000n | V | RW | PS);
      yield* vk.u.store64(gva(KVA + PAGE), 9n);
      yield* vk.ok(SYS.mcontrol, KVA, PAGE * 16n, MADV_SETMAP, 0x1234_5679_000n | V | RW | PS);
      word = yield* vk.u.load64(gva(KVA));
      // 0x7fffffff pages and no more.
      yield* vk.ok(SYS.mcontrol, KVA, PAGE * 16n, MADV_SETMAP, 0x8_0000_0000_000n | V | RW | PS);
      return -(yield* vk.sys(SYS.write, 1, KVA, 1));
    });
    assertEquals([word, statuses], [9n, [EFAULT]]);
  });

  it("a guest larger than the host's memory is paged out and in, tables and all", () => {
    const pages = 1700n;
    const seen: bigint[] = [], stale: string[] = [];
    const { statuses, stop, kernel } = runVkernel(
      function* (vk) {
        yield* vk.ok(SYS.ftruncate, vk.fd, 0, 0x1000 * 1900);
        yield* vk.ok(SYS.munmap, DMAP, 256 * 4096);
        yield* vk.ok(SYS.mmap, DMAP, 0x1000 * 1900, 3, SHARED | FIXED, vk.fd, 0, 0);
        const id = yield* vk.space(), first = 0x100_0000n, end = first + pages * PAGE;
        yield* vk.code(
          id,
          CODE,
          // 1: mov [rbx], rbx; add rbx, rdx; cmp rbx, rcx; jb 1b; 2: sub rbx, rdx; cmp [rbx], rbx; jne 3f; cmp rbx, rsi; ja 2b; 3: syscall
          (a) =>
            a.db(...[0x48, 0x89, 0x1b, 0x48, 0x01, 0xd3, 0x48, 0x39, 0xcb, 0x72, 0xf5])
              .db(...[
                0x48,
                0x29,
                0xd3,
                0x48,
                0x39,
                0x1b,
                0x75,
                0x05,
                0x48,
                0x39,
                0xf3,
                0x77,
                0xf3,
                0x0f,
                0x05,
              ]),
        );
        for (let va = first; va < end; va += PAGE) {
          const pa = vk.take();
          yield* vk.u.store64(yield* vk.entry(id, va), pa | VRWU);
        }
        const frame = yield* vk.go(id, { rip: CODE, rbx: first, rdx: PAGE, rcx: end, rsi: first });
        seen.push(frame.trapno, frame.rbx);
      },
      {
        memory: 8 << 20,
        cpus: 2,
        tlb: "sticky",
        sanitizer: true,
        disk: new MemoryDisk(new Uint8Array(32 << 20)),
        prepare(machine) {
          machine.sanitizer?.on((use) => stale.push(`${use.access} of 0x${use.linear.toString(16)}`));
        },
        steps: 60_000_000,
      },
    );
    assertEquals([stop.reason, statuses, stale, seen], ["poweroff", [0], [], [256n, 0x100_0000n]]);
    assert(kernel.vmmeter.vSwappgsout > 100, `${kernel.vmmeter.vSwappgsout} pages went out`);
  });

  it("umtx in memory under tables wakes by the address", () => {
    const order: string[] = [];
    const { statuses } = runVkernel(function* (vk) {
      const root = yield* window(vk), va = KVA + 0x7000n, page = yield* vk.page();
      yield* vk.map(root, va, page, V | RW);
      yield* vk.thread(function* (me) {
        order.push("sleeps");
        const answer = yield* me.sys(SYS.umtxSleep, va, 0, 0);
        order.push(`woken ${answer}`);
      });
      yield* vk.until(() => order.length > 0);
      for (let i = 0; i < 5; i++) yield* vk.sys(SYS.umtxSleep, SCRATCH + 0x3ff0n, 0, 10_000);
      yield* vk.u.store64(gva(va), 1n);
      order.push("wakes");
      yield* vk.ok(SYS.umtxWakeup, va, 0);
      yield* vk.until(() => order.length > 2);
    });
    assertEquals([order, statuses], [["sleeps", "wakes", "woken 0"], [0]]);
    assert(order.length === 3);
  });
});
