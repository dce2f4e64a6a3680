/** What a step of the reference engine promises: RIP, exit codes, precise faults, operands. */
import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { Procedures } from "../../../hw/cpu.ts";
import { ReferenceEngine } from "../../../hw/engine/reference.ts";
import { loadStatusFlags, storeStatusFlags } from "../../../hw/flags.ts";
import type { Semantic } from "../../../hw/isa/builder.ts";
import type { Decoded, Form, RowFlags } from "../../../hw/isa/form.ts";
import { row } from "../../../hw/isa/form.ts";
import {
  EXIT_END,
  EXIT_FAULT,
  EXIT_NONE,
  EXIT_RETRY,
  RFLAGS,
  RFLAGS_STATUS,
  S,
  SEG,
} from "../../../hw/state.ts";
import { CODE, DATA, FlatMachine, STACK } from "../isa/flat_machine.ts";

const { CF, PF, AF, ZF, SF, OF } = RFLAGS;

/** A decoded instruction of a row that only these tests have. */
function made(semantic: Semantic, flags: RowFlags = {}, form: Partial<Form> = {}): Decoded {
  return {
    form: {
      key: "test",
      row: row("TEST", ["F1"], flags, semantic),
      w: 64,
      aw: 64,
      mode: 2,
      cc: 0,
      rep: 0,
      lock: false,
      segment: -1,
      operands: [],
      ...form,
    },
    length: 3,
    r0: 0,
    r1: 0,
    r2: 0,
    base: S.ZERO,
    index: S.ZERO,
    scale: 0,
    segment: S.ZERO,
    disp: 0,
    immLow: 0,
    immHigh: 0,
  };
}

/** Steps a made instruction at CODE. */
function step(m: FlatMachine, decoded: Decoded, procedures: Procedures = {}): number {
  m.cpu.rip = BigInt(CODE);
  return new ReferenceEngine(procedures).step(m.cpu, decoded);
}

describe("a step", () => {
  it("that goes straight on advances RIP by the length and gives EXIT_NONE", () => {
    const m = new FlatMachine();
    assertEquals(step(m, made(() => {})), EXIT_NONE);
    assertEquals(m.cpu.rip, BigInt(CODE + 3));
    assertEquals(m.cpu.get32(S.ILEN), 3);
  });

  it("that jumps inside a branch does nothing behind the branch", () => {
    const m = new FlatMachine();
    const decoded = made((b) => {
      b.if(b.always(true), () => b.jump(b.imm(0x1234)));
      b.setReg(64, 0, b.imm(1));
    });
    assertEquals(step(m, decoded), EXIT_NONE);
    assertEquals([m.cpu.rip, m.get("rax")], [0x1234n, 0n]);
  });

  it("that repeats leaves RIP where it is", () => {
    const m = new FlatMachine();
    assertEquals(step(m, made((b) => b.again())), EXIT_NONE);
    assertEquals(m.cpu.rip, BigInt(CODE));
  });

  it("that faults leaves RIP and gives vector and error code", () => {
    const m = new FlatMachine();
    assertEquals(step(m, made((b) => b.fault(13, 0x18))), EXIT_FAULT);
    assertEquals([m.cpu.rip, m.cpu.get32(S.FAULTVECTOR), m.cpu.get32(S.FAULTCODE)], [BigInt(CODE), 13, 0x18]);
    assertEquals(step(m, made((b) => b.fault(6))), EXIT_FAULT);
    assertEquals(m.cpu.get32(S.FAULTCODE), 0xffff_ffff);
  });

  it("truncates the next IP to 32 bits outside 64-bit mode", () => {
    const m = new FlatMachine(1);
    m.cpu.rip = 0xffff_fffen;
    new ReferenceEngine({}).step(m.cpu, made(() => {}, {}, { mode: 1 }));
    assertEquals(m.cpu.rip, 1n);
  });
});

describe("a procedure", () => {
  it("gets its arguments and gives its result", () => {
    const m = new FlatMachine();
    const decoded = made((b) => b.setReg(64, 0, b.callResult("sum", b.imm(40), b.imm(2n ** 63n))));
    step(m, decoded, {
      sum(cpu) {
        const sum = cpu.arg(0) + cpu.arg(1) + 2n;
        cpu.setResult(Number(sum & 0xffff_ffffn), Number(sum >> 32n));
        return EXIT_NONE;
      },
    });
    assertEquals(m.get("rax"), 2n ** 63n + 42n);
  });

  it("of callEnd sees the next RIP, may replace it, and ends the instruction", () => {
    const m = new FlatMachine();
    let seen = 0n;
    const code = step(m, made((b) => b.callEnd("go")), {
      go(cpu) {
        seen = cpu.rip;
        cpu.rip = 0x5000n;
        return EXIT_NONE;
      },
    });
    assertEquals([code, seen, m.cpu.rip], [EXIT_END, BigInt(CODE + 3), 0x5000n]);
  });

  it("that faults in callEnd puts RIP back", () => {
    const m = new FlatMachine();
    const code = step(m, made((b) => b.callEnd("go")), { go: (cpu) => cpu.raise(11, 8) });
    assertEquals([code, m.cpu.rip, m.cpu.get32(S.FAULTVECTOR)], [EXIT_FAULT, BigInt(CODE), 11]);
  });

  it("may return a fault, or ask to be stepped, instead of throwing", () => {
    const m = new FlatMachine();
    assertEquals(step(m, made((b) => b.call("go")), { go: (cpu) => cpu.setFault(13, 0) }), EXIT_FAULT);
    assertEquals(step(m, made((b) => b.call("go")), { go: () => EXIT_RETRY }), EXIT_RETRY);
    assertEquals(m.cpu.rip, BigInt(CODE));
  });
});

describe("the prologue", () => {
  const run = (flags: RowFlags, prepare: (m: FlatMachine) => void, mode: 1 | 2 = 2) => {
    const m = new FlatMachine(mode);
    prepare(m);
    return step(m, made((b) => b.setReg(64, 0, b.imm(1)), flags, { mode })) === EXIT_FAULT
      ? [m.cpu.get32(S.FAULTVECTOR), m.cpu.get32(S.FAULTCODE) | 0]
      : "done";
  };
  it("raises #GP(0) for a privileged row above CPL 0", () => {
    assertEquals(run({ cpl0: true }, () => {}), "done");
    assertEquals(run({ cpl0: true }, (m) => m.cpu.set32(S.CPL, 3)), [13, 0]);
  });
  it("raises the trap that the unit's word holds", () => {
    assertEquals(run({ trap: "sse" }, () => {}), "done");
    assertEquals(run({ trap: "sse" }, (m) => m.cpu.set32(S.SSETRAP, 6)), [6, -1]);
    assertEquals(run({ trap: "mmx" }, (m) => m.cpu.set32(S.MMXTRAP, 7)), [7, -1]);
    assertEquals(run({ trap: "x87" }, (m) => m.cpu.set32(S.FPUTRAP, 7)), [7, -1]);
  });
  it("raises #UD for a protected-mode row in real and virtual-8086 mode", () => {
    assertEquals(run({ protectedOnly: true }, () => {}, 1), "done");
    assertEquals(run({ protectedOnly: true }, (m) => m.cpu.set64(S.CR0, 0n), 1), [6, -1]);
    assertEquals(run({ protectedOnly: true }, (m) => m.cpu.set32(S.RFLAGS, RFLAGS.VM | 2), 1), [6, -1]);
  });
  it("raises #UD before #GP", () => {
    const prepare = (m: FlatMachine) => {
      m.cpu.set64(S.CR0, 0n);
      m.cpu.set32(S.CPL, 3);
    };
    assertEquals(run({ protectedOnly: true, cpl0: true }, prepare, 1), [6, -1]);
  });
});

describe("memory operands", () => {
  it("add base, scaled index and displacement, cut to the address size", () => {
    const m = new FlatMachine().set({ rbx: DATA, rcx: 4 });
    m.poke(DATA + 0x28, "8877665544332211");
    m.run("48 8b 44 8b 18"); // mov rax, [rbx + rcx*4 + 18h]
    assertEquals(m.get("rax"), 0x1122_3344_5566_7788n);
    m.set({ rbx: 0x1_0000_0000n + BigInt(DATA + 0x28), rcx: 0, rax: 0 });
    m.run("67 8b 03"); // mov eax, [ebx]
    assertEquals(m.get("rax"), 0x5566_7788n);
  });

  it("RIP-relative count from the next instruction", () => {
    const m = new FlatMachine();
    m.poke(CODE + 7 + 0x100, "2a");
    m.run("0f b6 05 00 01 00 00", CODE);
    assertEquals(m.get("rax"), 0x2an);
  });

  it("add the segment base, modulo 2^32 outside 64-bit mode", () => {
    const m = new FlatMachine(1).set({ rbx: 0x8000_0000 });
    m.cpu.set64(S.SEGBASE + SEG.DS * 8, BigInt(0x8000_0000 + DATA));
    m.poke(DATA, "5a");
    assertEquals(m.run("8a 03"), undefined);
    assertEquals(m.get("rax"), 0x5an);
  });

  it("that are read and written fault before anything changes", () => {
    const m = new FlatMachine().set({ rbx: DATA, rax: 1 });
    m.access.readOnly.add(DATA >> 12);
    m.flags = CF;
    assertEquals(m.run("01 03"), { vector: 14, code: 3 });
    assertEquals([m.peek(DATA, 4), m.flags], ["00000000", CF]);
  });

  it("beyond the segment limit give #GP(0), on the stack #SS(0)", () => {
    const m = new FlatMachine(0).set({ rbx: 0xffff, rbp: 0xffff });
    assertEquals(m.run("8b 07"), { vector: 13, code: 0 });
    assertEquals(m.run("8b 46 00"), { vector: 12, code: 0 });
    assertEquals(m.run("8a 07"), undefined);
  });
});

describe("the stack", () => {
  it("wraps in the stack-address size and keeps the rest of rSP", () => {
    const m = new FlatMachine(1);
    m.cpu.set32(S.STACKMODE, 0);
    m.set({ rsp: 0x1234_0002, rax: 0xaabb_ccdd });
    assertEquals(m.run("50"), undefined); // push eax at SS:FFFEh, 32 bits
    assertEquals([m.get("rsp"), m.peek(0xfffe, 4)], [0x1234_fffen, "ddccbbaa"]);
  });
  it("is 64 bits wide in 64-bit mode", () => {
    const m = new FlatMachine().set({ rax: 0x1122_3344_5566_7788n });
    m.run("50");
    assertEquals([m.get("rsp"), m.peek(STACK - 8, 8)], [BigInt(STACK - 8), "8877665544332211"]);
  });
});

describe("jumps", () => {
  it("to a non-canonical address or beyond the CS limit are #GP(0) at the jump", () => {
    const m = new FlatMachine().set({ rax: 0x8000_0000_0000n });
    assertEquals(m.run("ff e0"), { vector: 13, code: 0 });
    const small = new FlatMachine(1);
    small.cpu.set32(S.SEGLIMIT + SEG.CS * 4, 0x9fff);
    assertEquals(small.run("e9 00 10 00 00"), { vector: 13, code: 0 });
    assertEquals(small.run("e9 f0 0f 00 00"), undefined);
  });
  it("of 16 bits truncate IP", () => {
    const m = new FlatMachine(0);
    m.run("eb 10", 0xfff8);
    assertEquals(m.cpu.rip, 0xan);
  });
});

describe("status flags by definition", () => {
  it("agree with a brute count over all 8-bit sums and differences with carry", () => {
    const m = new FlatMachine();
    let a = 0n, c = 0n, carry = 0n, isSum = true;
    const decoded = made((b) => {
      const x = b.imm(a), y = b.imm(c), z = b.imm(carry);
      if (isSum) b.flagsAdd(8, x, y, b.add(8, b.add(8, x, y), z));
      else b.flagsSub(8, x, y, b.sub(8, b.sub(8, x, y), z));
    });
    for (let n = 0; n < 1 << 17; n += 7) {
      const i = n & 255, j = (n >> 8) & 255, k = n >> 16;
      [a, c, carry] = [BigInt(i), BigInt(j), BigInt(k)];
      for (isSum of [true, false]) {
        const wide = isSum ? i + j + k : i - j - k;
        const s = (v: number) => (v << 24) >> 24;
        const exact = isSum ? s(i) + s(j) + k : s(i) - s(j) - k;
        const nibble = isSum ? (i & 15) + (j & 15) + k : (i & 15) - (j & 15) - k;
        const r = wide & 255;
        let ones = 0;
        for (let bit = 0; bit < 8; bit++) ones += (r >> bit) & 1;
        const expected = (wide < 0 || wide > 255 ? CF : 0) | (ones % 2 === 0 ? PF : 0) |
          (nibble < 0 || nibble > 15 ? AF : 0) | (r === 0 ? ZF : 0) | (r > 127 ? SF : 0) |
          (exact < -128 || exact > 127 ? OF : 0);
        step(m, decoded);
        assertEquals(m.flags, expected, `${i} ${isSum ? "+" : "-"} ${j} with carry ${k}`);
      }
    }
  });

  it("survive the round trip through the lazy form, all 64 of them", () => {
    const m = new FlatMachine();
    const { i32 } = m.cpu.memory;
    for (let n = 0; n < 64; n++) {
      const image = [CF, PF, AF, ZF, SF, OF].reduce((sum, flag, bit) => n & (1 << bit) ? sum | flag : sum, 0);
      storeStatusFlags(i32, m.cpu.base, image | ~RFLAGS_STATUS);
      assertEquals(loadStatusFlags(i32, m.cpu.base), image);
    }
  });

  it("setFlags changes exactly those named", () => {
    const m = new FlatMachine();
    m.flags = CF | ZF | SF;
    step(m, made((b) => b.setFlags({ ZF: b.always(false), OF: b.always(true) })));
    assertEquals(m.flags, CF | SF | OF);
  });

  it("conditions are those of the sixteen codes", () => {
    const m = new FlatMachine();
    const truth = (cc: number, flags: number): boolean => {
      const f = (bit: number) => (flags & bit) !== 0;
      const positive = [
        f(OF),
        f(CF),
        f(ZF),
        f(CF) || f(ZF),
        f(SF),
        f(PF),
        f(SF) !== f(OF),
        f(ZF) || f(SF) !== f(OF),
      ];
      return positive[cc >> 1]! !== ((cc & 1) === 1);
    };
    for (const flags of [0, CF, ZF, SF, OF, PF, AF, SF | OF, SF | ZF, CF | ZF | SF | OF | PF]) {
      for (let cc = 0; cc < 16; cc++) {
        m.flags = flags;
        step(m, made((b, _o, f) => b.setReg(64, 0, b.toInt(b.condition(f.cc))), {}, { cc }));
        assertEquals(m.get("rax") === 1n, truth(cc, flags), `condition ${cc}, flags ${flags.toString(16)}`);
      }
    }
  });
});
