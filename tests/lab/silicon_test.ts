/**
 * The engines against this host's own processor, on a small share of what `deno task silicon` runs; and what keeps that
 * comparison honest: it sees a wrong engine, and it never lets a sequence near memory that is not its own.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { ENGINES } from "../../hw/machine.ts";
import { decode, isDecoded } from "../../hw/isa/decode.ts";
import { defaultModel } from "../../hw/cpuid.ts";
import { S } from "../../hw/state.ts";
import { Fuzzer } from "../../lab/silicon/fuzz.ts";
import { Generator } from "../../lab/silicon/generator.ts";
import { CODE, CODE_BYTES, DATA, DATA_BYTES, REGION, REGION_BYTES } from "../../lab/silicon/layout.ts";
import { hostIsSupported, HostProcessor, SEQUENCE_END } from "../../lab/silicon/native.ts";
import { undefinedFlags } from "../../lab/silicon/rules.ts";
import { assemble, type Item } from "../../lab/silicon/sequence.ts";
import { REGISTER_WORDS, W } from "../../lab/silicon/state.ts";
import { Pool } from "../../lab/silicon/values.ts";

const granted = Deno.permissions.querySync({ name: "ffi" }).state === "granted";
if (!granted) console.log("tests/lab/silicon_test.ts: needs --allow-ffi; ignored");
const ignore = !hostIsSupported() || !granted;
const SEED = 7;

function decoded(bytes: Uint8Array) {
  const padded = new Uint8Array(16);
  padded.set(bytes.subarray(0, 15));
  const result = decode(padded, 0, 15, 2, defaultModel.features);
  return isDecoded(result) ? result : undefined;
}

describe("this host's processor and the engines", { ignore }, () => {
  it("agree on 3000 random sequences", () => {
    const fuzzer = new Fuzzer({ seed: SEED, first: 0, count: 3000, engines: ENGINES, only: [] });
    try {
      assertEquals(fuzzer.run(), []);
      assert(fuzzer.endings.get(-1)! > 1500, "most sequences should come to their end");
      for (const vector of [0, 6, 13, 14, 16, 19]) {
        assert(fuzzer.endings.has(vector), `no exception ${vector} was met`);
      }
    } finally {
      fuzzer.close();
    }
  });
});

describe("an engine that is wrong", { ignore }, () => {
  it("is seen, and the difference narrowed down to the instruction", () => {
    // Without BMI1 the bytes of TZCNT are BSF's, which gives another result for 0 and other flags.
    const options = { seed: SEED, first: 0, count: 300, only: ["TZCNT", "ADD"], without: ["bmi1"] } as const;
    const fuzzer = new Fuzzer({ ...options, engines: ["reference"] });
    try {
      const [difference] = fuzzer.run();
      assert(difference !== undefined, "TZCNT and BSF should differ");
      assertEquals(decoded(difference.code)?.form.row.mnemonic, "TZCNT");
      assert(difference.lines.length > 0);
    } finally {
      fuzzer.close();
    }
  });
});

describe("the host's side", { ignore }, () => {
  const run = (bytes: readonly number[], change: (registers: Uint32Array) => void = () => {}) => {
    const host = new HostProcessor();
    try {
      const registers = new Uint32Array(REGISTER_WORDS);
      registers[W.flags] = 0x202;
      registers[W.mxcsr] = 0x1f80;
      registers[W.fcw] = 0x37f;
      registers[8] = DATA + 0x1000; // rsp
      change(registers);
      const item: Item = {
        bytes,
        undefinedFlags: 0,
        looseX87: false,
        looseAlignment: false,
        looseFaults: false,
        looseOrder: false,
      };
      const { code } = assemble([item], CODE)!;
      let result;
      host.withSignals(() => {
        const { ending, registers: out } = host.run(code, CODE, registers, new Uint32Array(DATA_BYTES / 4));
        result = { ending, rax: out[0], mxcsr: out[W.mxcsr] };
      });
      return result;
    } finally {
      host.close();
    }
  };

  it("gives registers at the end of a sequence", () => {
    const result = run([0x48, 0x01, 0xc0], (r) => r[0] = 21); // add rax, rax
    assertEquals(result, {
      ending: { vector: -1, code: 0, rip: SEQUENCE_END, cr2: 0 },
      rax: 42,
      mxcsr: 0x1f80,
    });
  });
  it("gives the page fault of a sequence, and lives on", () => {
    const result = run([0x90, 0x88, 0x04, 0x25, 0, 0, 0x70, 0x30], (r) => r[0] = 5); // nop; mov [30700000h], al
    assertEquals(result, {
      ending: { vector: 14, code: 6, rip: CODE + 1, cr2: 0x3070_0000 },
      rax: 5,
      mxcsr: 0x1f80,
    });
  });
  it("gives a division by zero", () => {
    const result = run([0x31, 0xc9, 0xf7, 0xf1], (r) => r[0] = 9); // xor ecx, ecx; div ecx
    assertEquals(result, { ending: { vector: 0, code: 0, rip: CODE + 2, cr2: 0 }, rax: 9, mxcsr: 0x1f80 });
  });
});

describe("generated sequences", () => {
  const data = new Uint32Array(DATA_BYTES / 4);
  const make = (only: readonly string[] = []) =>
    new Generator(SEED, new Pool(SEED), defaultModel.features, only);

  it("depend on the seed and their number alone", () => {
    const one = make().make(123, data), again = make();
    again.make(5, data);
    assertEquals(again.make(123, data).items, one.items);
  });

  it("leave the registers that addresses are made of alone", () => {
    const generator = make();
    const kept = new Set([3, 5, 6, 7, 12, 13, 14, 15].map((n) => S.GPR + 8 * n));
    for (let n = 0; n < 500; n++) {
      for (const item of generator.make(n, data).items) {
        const instruction = decoded(Uint8Array.from(item.bytes));
        if (instruction === undefined) continue;
        for (const operand of instruction.form.operands) {
          if (operand.kind !== "reg" || operand.access === "r" || operand.access === "none") continue;
          const offset = instruction[operand.slot as "r0" | "r1" | "r2"];
          assert(!kept.has(offset), `${instruction.form.row.mnemonic} writes register ${offset / 8}`);
        }
      }
    }
  });

  it("use nothing but the instructions asked for", () => {
    const generator = make(["ADC", "SBB"]);
    for (let n = 0; n < 50; n++) {
      for (const item of generator.make(n, data).items) {
        const name = decoded(Uint8Array.from(item.bytes))?.form.row.mnemonic ?? "ADC";
        assert(name === "ADC" || name === "SBB", name);
      }
    }
  });

  it("cannot be made of an instruction that is left out", () => {
    assertThrows(() => make(["CPUID"]), RangeError, "CPUID");
  });

  it("stay inside the region", () => {
    assert(CODE + CODE_BYTES <= DATA && DATA + DATA_BYTES < REGION + REGION_BYTES);
    assert(REGION + REGION_BYTES < 2 ** 31, "absolute addresses have 31 bits");
  });
});

describe("items", () => {
  const item = (bytes: readonly number[], jump?: Item["jump"]): Item => ({
    bytes,
    ...(jump === undefined ? {} : { jump }),
    undefinedFlags: 0,
    looseX87: false,
    looseAlignment: false,
    looseFaults: false,
    looseOrder: false,
  });
  const nop = item([0x90]);

  it("jump to the next one kept when the target is left out", () => {
    const items = [item([0xeb, 0], { at: 1, size: 1, end: 2, to: 2 }), nop, nop, item([0xf8])];
    assertEquals([...assemble(items, CODE)!.code.subarray(0, 2)], [0xeb, 1]);
    assertEquals([...assemble(items, CODE, [0, 1, 3])!.code.subarray(0, 4)], [0xeb, 1, 0x90, 0xf8]);
  });
  it("end in a jump to where sequences end", () => {
    const { code } = assemble([nop], CODE)!;
    assertEquals(code[1], 0xe9);
    assertEquals(new DataView(code.buffer).getInt32(2, true) + CODE + 6, SEQUENCE_END);
  });
});

describe("undefined flags", () => {
  const AF = 0x10, OF = 0x800, CF = 1;
  const of = (bytes: readonly number[], count = -1) =>
    undefinedFlags(decoded(Uint8Array.from(bytes))!, count);

  it("are none after ADD, AF after AND", () => {
    assertEquals(of([0x01, 0xc0]), 0);
    assertEquals(of([0x21, 0xc0]), AF);
  });
  it("depend on the count of a shift", () => {
    assertEquals(of([0xc1, 0xe0, 0], 0), 0);
    assertEquals(of([0xc1, 0xe0, 1], 1), AF);
    assertEquals(of([0xc1, 0xe0, 2], 2), AF | OF);
    assertEquals(of([0xc0, 0xe0, 9], 9), AF | OF | CF);
  });
});
