import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { RFLAGS } from "../../../hw/state.ts";
import { DATA, FlatMachine } from "./flat_machine.ts";

const { CF, PF, AF, ZF, SF, OF } = RFLAGS;
const MASK64 = (1n << 64n) - 1n;

/** A reproducible stream of 64-bit values, many of them near the edges. */
function* values(seed: number): Generator<bigint, never> {
  let x = BigInt(seed);
  for (let i = 0;; i++) {
    x = (x * 6364136223846793005n + 1442695040888963407n) & MASK64;
    const bits = x >> 58n;
    yield i % 3 === 0 ? x >> bits : i % 3 === 1 ? (1n << bits) - 1n + (x & 1n) : MASK64 - (x >> bits);
  }
}

describe("ADD, SUB and their kin", () => {
  it("set all six flags from the operands' width", () => {
    const m = new FlatMachine().set({ rax: 0x7f, rcx: 1 });
    m.run("00 c8"); // add al, cl
    assertEquals([m.get("rax"), m.flags], [0x80n, SF | AF | OF]);
    m.set({ rax: 0x80, rcx: 0x80 });
    m.run("00 c8");
    assertEquals([m.get("rax"), m.flags], [0n, CF | PF | ZF | OF]);
    m.set({ rax: 0, rcx: 1 });
    m.run("48 29 c8"); // sub rax, rcx
    assertEquals([m.get("rax"), m.flags], [MASK64, CF | PF | AF | SF]);
  });

  it("clear the upper half of a 32-bit destination and keep the rest of a 16-bit one", () => {
    const m = new FlatMachine().set({ rax: MASK64, rcx: 1 });
    m.run("66 01 c8");
    assertEquals(m.get("rax"), 0xffff_ffff_ffff_0000n);
    m.run("01 c8");
    assertEquals(m.get("rax"), 0xffff_0001n);
  });

  it("reach AH without REX and SPL with it", () => {
    const m = new FlatMachine().set({ rax: 0x1100, rsp: 0x7000 });
    m.run("80 c4 01"); // add ah, 1
    assertEquals(m.get("rax"), 0x1200n);
    m.run("40 80 c4 01"); // add spl, 1
    assertEquals(m.get("rsp"), 0x7001n);
  });

  it("ADC and SBB take the carry in, and carry out when operand plus carry wraps", () => {
    const m = new FlatMachine().set({ rax: 5, rcx: MASK64 });
    m.flags = CF;
    m.run("48 11 c8"); // adc rax, rcx
    assertEquals([m.get("rax"), m.flags & CF], [5n, CF]);
    m.run("48 19 c8"); // sbb rax, rcx
    assertEquals([m.get("rax"), m.flags & CF], [5n, CF]);
  });

  it("INC and DEC keep CF", () => {
    const m = new FlatMachine().set({ rax: 0xff });
    m.flags = CF;
    m.run("fe c0");
    assertEquals([m.get("rax"), m.flags], [0n, CF | PF | AF | ZF]);
    m.run("fe c8");
    assertEquals([m.get("rax"), m.flags], [0xffn, CF | PF | AF | SF]);
  });

  it("change neither registers nor flags when the destination refuses the write", () => {
    const m = new FlatMachine().set({ rax: DATA, rcx: 1 });
    m.access.readOnly.add(DATA >> 12);
    m.flags = ZF;
    assertEquals(m.run("01 08"), { vector: 14, code: 3 });
    assertEquals([m.flags, m.peek(DATA, 4)], [ZF, "00000000"]);
  });

  it("the alias of 80H at 82H is only there outside 64-bit mode", () => {
    assertEquals(new FlatMachine(2).run("82 c0 01"), { vector: 6, code: -1 });
    const m = new FlatMachine(1);
    assertEquals(m.run("82 c0 01"), undefined);
    assertEquals(m.get("rax"), 1n);
  });

  it("ADCX and ADOX carry through one flag each", () => {
    const m = new FlatMachine().set({ rax: MASK64, rcx: 0 });
    m.flags = CF | PF;
    m.run("66 48 0f 38 f6 c1");
    assertEquals([m.get("rax"), m.flags], [0n, CF | PF]);
    m.set({ rax: MASK64, rcx: 1 });
    m.run("f3 48 0f 38 f6 c1");
    assertEquals([m.get("rax"), m.flags], [0n, CF | PF | OF]);
  });
});

describe("DIV and IDIV", () => {
  it("divide 128 bits by 64 exactly", () => {
    const m = new FlatMachine(), next = values(1);
    let divided = 0;
    for (let i = 0; i < 3000; i++) {
      const high = next.next().value, low = next.next().value, d = next.next().value;
      m.set({ rdx: high, rax: low, rcx: d });
      const fault = m.run("48 f7 f1");
      const n = (high << 64n) | low;
      if (d === 0n || n / d > MASK64) {
        assertEquals([fault?.vector, m.get("rax"), m.get("rdx")], [0, low, high]);
      } else {
        assertEquals([fault, m.get("rax"), m.get("rdx")], [undefined, n / d, n % d]);
        divided++;
      }
    }
    assertEquals(divided > 500, true);
  });

  it("divide signed 128 bits by 64 exactly, truncating towards 0", () => {
    const m = new FlatMachine(), next = values(2);
    let divided = 0;
    for (let i = 0; i < 3000; i++) {
      let high = next.next().value;
      const low = next.next().value, d = next.next().value;
      if (i % 2 === 0) high = BigInt.asUintN(64, BigInt.asIntN(64, high) >> 50n);
      m.set({ rdx: high, rax: low, rcx: d });
      const fault = m.run("48 f7 f9");
      const n = BigInt.asIntN(128, (high << 64n) | low), signed = BigInt.asIntN(64, d);
      if (signed === 0n || BigInt.asIntN(64, n / signed) !== n / signed) {
        assertEquals([fault?.vector, m.get("rax"), m.get("rdx")], [0, low, high]);
      } else {
        const expected = [undefined, BigInt.asUintN(64, n / signed), BigInt.asUintN(64, n % signed)];
        assertEquals([fault, m.get("rax"), m.get("rdx")], expected);
        divided++;
      }
    }
    assertEquals(divided > 500, true);
  });

  for (const [w, divide] of [[8, "f6 f9"], [16, "66 f7 f9"], [32, "f7 f9"], [64, "48 f7 f9"]] as const) {
    it(`IDIV of the smallest ${w}-bit dividend that fits by -1 is #DE, and one more is not`, () => {
      const m = new FlatMachine(), minimum = 1n << BigInt(w - 1), ones = (1n << BigInt(w)) - 1n;
      const dividend = (n: bigint) => {
        const full = BigInt.asUintN(2 * w, n);
        return w === 8 ? { rax: full } : { rax: full & ones, rdx: full >> BigInt(w) };
      };
      m.set({ ...dividend(-minimum), rcx: ones });
      assertEquals(m.run(divide), { vector: 0, code: -1 });
      m.set({ ...dividend(-minimum + 1n), rcx: ones });
      assertEquals(m.run(divide), undefined);
      assertEquals(m.get("rax") & ones, minimum - 1n);
      m.set({ ...dividend(-(1n << BigInt(2 * w - 1))), rcx: ones });
      assertEquals(m.run(divide), { vector: 0, code: -1 });
    });
  }
});

describe("MUL and IMUL", () => {
  it("give the whole product, and CF = OF when the upper half matters", () => {
    const m = new FlatMachine(), next = values(3);
    for (let i = 0; i < 500; i++) {
      const a = next.next().value, c = next.next().value;
      m.set({ rax: a, rcx: c });
      m.run("48 f7 e1");
      assertEquals((m.get("rdx") << 64n) | m.get("rax"), a * c);
      assertEquals(m.flags & (CF | OF), a * c > MASK64 ? CF | OF : 0);
      m.set({ rax: a, rcx: c });
      m.run("48 f7 e9");
      const product = BigInt.asIntN(64, a) * BigInt.asIntN(64, c);
      assertEquals((m.get("rdx") << 64n) | m.get("rax"), BigInt.asUintN(128, product));
      assertEquals(m.flags & (CF | OF), BigInt.asIntN(64, product) === product ? 0 : CF | OF);
    }
  });

  it("8-bit MUL writes AX only", () => {
    const m = new FlatMachine().set({ rax: MASK64, rcx: 0xff, rdx: 7 });
    m.run("f6 e1");
    assertEquals([m.get("rax"), m.get("rdx")], [0xffff_ffff_ffff_fe01n, 7n]);
  });

  it("MULX leaves the high half where both destinations are one register, and no flags", () => {
    const m = new FlatMachine().set({ rdx: MASK64, rbx: MASK64 });
    m.flags = ZF | OF;
    m.run("c4 e2 fb f6 c3"); // mulx rax, rax, rbx
    assertEquals([m.get("rax"), m.flags], [MASK64 - 1n, ZF | OF]);
  });
});

describe("Compare and exchange", () => {
  it("CMPXCHG loads the accumulator when they differ, and leaves the destination register whole", () => {
    const m = new FlatMachine().set({ rax: 0x1_0000_0001n, rcx: 2, rbx: 0x5_0000_0007n });
    m.run("0f b1 cb"); // cmpxchg ebx, ecx
    assertEquals([m.get("rax"), m.get("rbx"), m.flags & ZF], [7n, 0x5_0000_0007n, 0]);
    m.run("0f b1 cb");
    assertEquals([m.get("rax"), m.get("rbx"), m.flags & ZF], [7n, 2n, ZF]);
  });

  it("CMPXCHG writes to memory even when they differ, so a read-only page faults", () => {
    const m = new FlatMachine().set({ rax: 1, rcx: 2, rbx: DATA });
    m.access.readOnly.add(DATA >> 12);
    assertEquals(m.run("f0 0f b1 0b"), { vector: 14, code: 3 });
    assertEquals(m.get("rax"), 1n);
  });

  it("CMPXCHG8B changes ZF alone", () => {
    const m = new FlatMachine().set({ rax: 0x44332211, rdx: 0x88776655, rbx: 1, rcx: 2, rsi: DATA });
    m.poke(DATA, "1122334455667788");
    m.flags = CF | SF | OF;
    m.run("f0 0f c7 0e");
    assertEquals([m.peek(DATA, 8), m.flags], ["0100000002000000", CF | SF | OF | ZF]);
    m.run("0f c7 0e");
    assertEquals([m.get("rax"), m.get("rdx"), m.flags], [1n, 2n, CF | SF | OF]);
  });

  it("CMPXCHG16B wants its operand aligned to 16 bytes", () => {
    const m = new FlatMachine().set({ rax: 0, rdx: 0, rbx: 1, rcx: 2, rsi: DATA + 8 });
    assertEquals(m.run("48 0f c7 0e"), { vector: 13, code: 0 });
    m.set({ rsi: DATA });
    assertEquals(m.run("f0 48 0f c7 0e"), undefined);
    assertEquals([m.peek(DATA, 16), m.flags & ZF], ["01000000000000000200000000000000", ZF]);
    assertEquals(m.run("48 0f c7 0e"), undefined);
    assertEquals([m.get("rax"), m.get("rdx"), m.flags & ZF], [1n, 2n, 0]);
  });

  it("XADD of a register with itself doubles it, and finds its memory operand before it changes the source", () => {
    const m = new FlatMachine().set({ rax: 21 });
    m.run("48 0f c1 c0");
    assertEquals(m.get("rax"), 42n);
    m.set({ rbx: DATA }).poke(DATA, "0500000000000000");
    m.run("48 0f c1 1b"); // xadd [rbx], rbx
    assertEquals([m.get("rbx"), m.peek(DATA, 8)], [5n, "0540000000000000"]);
  });

  it("LOCK on a register destination, or on CMP, is #UD", () => {
    assertEquals(new FlatMachine().run("f0 01 c8")?.vector, 6);
    assertEquals(new FlatMachine().set({ rax: DATA }).run("f0 39 08")?.vector, 6);
    assertEquals(new FlatMachine().set({ rax: DATA }).run("f0 01 08"), undefined);
  });
});
