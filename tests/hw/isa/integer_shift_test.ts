import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { RFLAGS } from "../../../hw/state.ts";
import { FlatMachine } from "./flat_machine.ts";

const { CF, AF, ZF, SF, OF } = RFLAGS;
const GROUP = ["ROL", "ROR", "RCL", "RCR", "SHL", "SHR", "SAL", "SAR"] as const;
type Operation = typeof GROUP[number];

/** One position at a time, as the manual's pseudocode does it. */
function step(operation: Operation, w: number, value: bigint, carry: bigint): [value: bigint, carry: bigint] {
  const top = BigInt(w - 1), high = (value >> top) & 1n, low = value & 1n;
  const left = BigInt.asUintN(w, value << 1n), right = value >> 1n;
  switch (operation) {
    case "ROL":
      return [left | high, high];
    case "ROR":
      return [right | (low << top), low];
    case "RCL":
      return [left | carry, high];
    case "RCR":
      return [right | (carry << top), low];
    case "SHL":
    case "SAL":
      return [left, high];
    case "SHR":
      return [right, low];
    case "SAR":
      return [right | (high << top), low];
  }
}

const WIDTHS = [[8, "d2"], [16, "66 d3"], [32, "d3"], [64, "48 d3"]] as const;

describe("Shifts and rotations by CL", () => {
  GROUP.forEach((operation, digit) => {
    it(`${operation} equals the masked count of single steps, at all widths and counts`, () => {
      const m = new FlatMachine();
      for (const [w, opcode] of WIDTHS) {
        for (let cl = 0; cl < 80; cl++) {
          for (const start of [0x8123_4567_89ab_cdefn, 0x7edc_ba98_7654_3210n, 1n, 0x8080_8080_8080_8080n]) {
            const carryIn = BigInt(cl & 1);
            m.set({ rax: start, rcx: cl });
            m.flags = (carryIn === 1n ? CF : 0) | AF | OF;
            m.run(opcode + (0xc0 | (digit << 3)).toString(16));
            const count = cl & (w === 64 ? 63 : 31);
            let value = BigInt.asUintN(w, start), carry = carryIn;
            for (let i = 0; i < count; i++) [value, carry] = step(operation, w, value, carry);
            assertEquals(BigInt.asUintN(w, m.get("rax")), value);
            const isRotation = digit < 4;
            if (count === 0) {
              assertEquals(m.flags, (carryIn === 1n ? CF : 0) | AF | OF);
              continue;
            }
            if (isRotation || operation === "SAR" || count <= w) {
              assertEquals(m.flags & CF, carry === 1n ? CF : 0);
            }
            if (isRotation) assertEquals(m.flags & AF, AF);
            else {assertEquals(
                m.flags & (ZF | SF),
                (value === 0n ? ZF : 0) | (value >> BigInt(w - 1) ? SF : 0),
              );}
          }
        }
      }
    });

    it(`${operation} by 1 sets OF when the sign changes in the sense of the manual`, () => {
      const m = new FlatMachine();
      for (let al = 0; al < 256; al++) {
        for (const carry of [0, CF]) {
          m.set({ rax: al });
          m.flags = carry;
          m.run("d0" + (0xc0 | (digit << 3)).toString(16));
          const [r, out] = step(operation, 8, BigInt(al), BigInt(carry));
          const msb = r >> 7n, next = (r >> 6n) & 1n;
          const of = operation === "SAR"
            ? 0n
            : operation === "SHR"
            ? BigInt(al >> 7)
            : operation === "ROR" || operation === "RCR"
            ? msb ^ next
            : msb ^ out;
          assertEquals([m.get("rax"), m.flags & (CF | OF)], [r, (out ? CF : 0) | (of ? OF : 0)]);
        }
      }
    });
  });

  it("a count of 0 still clears the upper half of a 32-bit register", () => {
    for (const code of ["d3 e0", "c1 e0 20", "d3 d0", "c1 c0 00", "0f a5 d8"]) {
      const m = new FlatMachine().set({ rax: -1, rcx: 0 });
      m.run(code);
      assertEquals(m.get("rax"), 0xffff_ffffn);
    }
  });
});

describe("SHLD and SHRD", () => {
  it("fill from the source's near end", () => {
    const m = new FlatMachine();
    for (const [w, prefix] of [[16, "66"], [32, ""], [64, "48"]] as const) {
      const a = BigInt.asUintN(w, 0x8123_4567_89ab_cdefn), c = BigInt.asUintN(w, 0xfedc_ba98_7654_3210n);
      for (let count = 1; count < Math.min(w, 33); count++) {
        const imm = count.toString(16).padStart(2, "0"), n = BigInt(count);
        if (count > 31 && w < 64) continue;
        m.set({ rax: a, rbx: c });
        m.run(`${prefix} 0f a4 d8 ${imm}`);
        const wide = (a << BigInt(w)) | c;
        assertEquals(m.get("rax"), BigInt.asUintN(w, (wide << n) >> BigInt(w)));
        assertEquals(m.flags & CF, (a >> (BigInt(w) - n)) & 1n ? CF : 0);
        m.set({ rax: a });
        m.run(`${prefix} 0f ac d8 ${imm}`);
        assertEquals(m.get("rax"), BigInt.asUintN(w, ((c << BigInt(w)) | a) >> n));
        assertEquals(m.flags & CF, (a >> (n - 1n)) & 1n ? CF : 0);
      }
    }
  });
});

describe("BMI2 shifts", () => {
  it("mask their count and leave flags alone", () => {
    const m = new FlatMachine().set({ rbx: 0x8000_0000_0000_0001n, rcx: 65 });
    m.flags = CF | OF | ZF;
    m.run("c4 e2 f1 f7 c3"); // shlx rax, rbx, rcx
    assertEquals(m.get("rax"), 2n);
    m.run("c4 e2 f2 f7 c3"); // sarx
    assertEquals(m.get("rax"), 0xc000_0000_0000_0000n);
    m.run("c4 e2 f3 f7 c3"); // shrx
    assertEquals(m.get("rax"), 0x4000_0000_0000_0000n);
    m.run("c4 e3 fb f0 c3 04"); // rorx rax, rbx, 4
    assertEquals(m.get("rax"), 0x1800_0000_0000_0000n);
    assertEquals(m.flags, CF | OF | ZF);
  });
});
