/**
 * The rules that every row of the instruction table keeps (hw/isa/builder.ts, hw/isa/form.ts), checked on the form of each
 * encoding by a builder that only listens.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { FEATURES } from "../../../hw/cpuid.ts";
import type { Builder } from "../../../hw/isa/builder.ts";
import { decode, isDecoded } from "../../../hw/isa/decode.ts";
import type { CodeMode, Form, Operand } from "../../../hw/isa/form.ts";
import { describe } from "../../../hw/isa/prologue.ts";
import { rows } from "../../../hw/isa/table.ts";
import { procedures } from "../../../hw/procedures.ts";
import { S } from "../../../hw/state.ts";
import { ALL_FEATURES } from "./all_features.ts";

/** One form of each row, width and operand kind, found by decoding every opcode behind the prefixes that matter. */
function allForms(): Form[] {
  const forms = new Map<string, Form>();
  const add = (mode: CodeMode, bytes: readonly number[]) => {
    const decoded = decode(
      new Uint8Array([...bytes, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
      0,
      15,
      mode,
      ALL_FEATURES,
    );
    if (isDecoded(decoded)) forms.set(decoded.form.key, decoded.form);
  };
  for (const mode of [2, 1] as const) {
    for (
      const prefix of [[], [0x66], [0xf2], [0xf3], [0xf0], ...(mode === 2 ? [[0x48], [0x66, 0x48]] : [])]
    ) {
      for (const escape of [[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]]) {
        for (let opcode = 0; opcode < 256; opcode++) {
          for (let digit = 0; digit < 8; digit++) {
            add(mode, [...prefix, ...escape, opcode, (digit << 3) | 1]);
          }
          for (let modrm = 0xc0; modrm < 0x100; modrm++) add(mode, [...prefix, ...escape, opcode, modrm]);
        }
      }
    }
    for (const map of [1, 2, 3]) {
      for (let pp = 0; pp < 4; pp++) {
        for (let opcode = 0; opcode < 256; opcode++) {
          for (const digit of [1, 2, 3]) {
            for (const last of [0x78, 0x70, 0xf8, 0xf0]) {
              for (const mod of [0, 0xc0]) {
                add(mode, [0xc4, 0xe0 | map, last | pp, opcode, mod | (digit << 3) | 1]);
              }
            }
          }
        }
      }
    }
  }
  return [...forms.values()];
}

const ENDINGS: ReadonlySet<string> = new Set(["jump", "jumpRel", "jumpRelIf", "again", "callEnd"]);
const CHANGES: ReadonlySet<string> = new Set([
  ...["setReg", "stackAdjust", "setFlags", "flagsResult"],
  ...["flagsAdd", "flagsSub", "flagsLogic", "flagsInc", "flagsDec"],
]);
const FAULTING: ReadonlySet<string> = new Set([
  ...[
    "load",
    "store",
    "stackLoad",
    "stackStore",
    "fault",
    "faultIf",
    "checkTarget",
    "jumpRel",
    "call",
    "callResult",
    "fp",
  ],
]);

/** Fields that are not architectural: arguments, vector temporaries. */
function isScratch(offset: number): boolean {
  return (offset >= S.ARG && offset < S.ARG + 32) || (offset >= S.VTEMP && offset < S.VTEMP + 256);
}

/** What a description did that it may not. */
interface Findings {
  readonly wrong: string[];
  ends: boolean;
  /** Procedures that it calls. */
  readonly calls: Set<string>;
}

/** A builder whose values say nothing and that follows both branches of every condition. */
function listen(form: Form): Findings {
  const found: Findings = { wrong: [], ends: false, calls: new Set() };
  const say = (what: string) => found.wrong.push(`${form.row.mnemonic} [${form.key}]: ${what}`);
  /** Architectural state has changed on the path so far; a write has been probed. */
  let changed = false, probed = false;
  /** The branch is over. */
  let over = false;
  const readOperands = new Set<number>();
  const value = { value: true };
  const change = () => changed = true;
  const mayFault = (name: string) => {
    if (changed && !probed) say(`${name} after a change of state`);
  };
  const isMemory = (o: Operand) => o.kind === "mem";
  const setField = (offset: number) => {
    if (!isScratch(offset)) change();
  };
  const special: Record<string, (...args: never[]) => unknown> = {
    read(o: Operand) {
      if (isMemory(o) && o.access !== "r" && o.access !== "rw") {
        say(`reads operand ${o.index}, which is "${o.access}"`);
      }
      if (isMemory(o)) mayFault("read");
      readOperands.add(o.index);
      return value;
    },
    write(o: Operand) {
      if (o.access !== "w" && o.access !== "rw") say(`writes operand ${o.index}, which is "${o.access}"`);
      if (isMemory(o) && !(o.access === "rw" && readOperands.has(o.index))) mayFault("write");
      change();
    },
    readX(o: Operand) {
      if (isMemory(o) && o.access !== "r" && o.access !== "rw") {
        say(`reads operand ${o.index}, which is "${o.access}"`);
      }
      if (isMemory(o)) mayFault("readX");
      return value;
    },
    writeX(o: Operand) {
      if (o.access !== "w" && o.access !== "rw") say(`writes operand ${o.index}, which is "${o.access}"`);
      if (isMemory(o)) mayFault("writeX");
      change();
    },
    probeWrite() {
      mayFault("probeWrite");
      probed = true;
    },
    variable: () => ({ get: () => value, set: () => {} }),
    if(_c: unknown, then: () => void, otherwise?: () => void) {
      const before = { changed, probed };
      then();
      const left = over ? before : { changed, probed };
      const leftOver = over;
      ({ changed, probed } = before);
      over = false;
      otherwise?.();
      over = over && leftOver;
      changed = changed || left.changed;
      probed = probed || left.probed;
    },
    while(c: () => unknown, body: () => void) {
      c();
      body();
    },
    setState: setField,
    setStateX: setField,
    store() {
      mayFault("store");
      change();
    },
    stackStore() {
      mayFault("stackStore");
      change();
    },
    fault() {
      mayFault("fault");
      over = true;
    },
  };
  const builder = new Proxy({ dataSegment: form.segment < 0 ? 3 : form.segment } as Record<string, unknown>, {
    get(target, name: string) {
      if (name in target) return target[name];
      return (...args: never[]) => {
        if (name === "call" || name === "callResult" || name === "callEnd") found.calls.add(String(args[0]));
        if (over) say(`${name} after the end of the branch`);
        if (ENDINGS.has(name)) {
          found.ends = true;
          over = true;
          return undefined;
        }
        const handler = special[name];
        if (handler !== undefined) return handler(...args);
        if (FAULTING.has(name)) mayFault(name);
        if (CHANGES.has(name)) change();
        return value;
      };
    },
  });
  describe(builder as unknown as Builder<object, object, object>, form);
  return found;
}

const forms = allForms();
const findings = new Map(forms.map((form) => [form, listen(form)]));

Deno.test("every row of the table can be decoded", () => {
  const reached = new Set(forms.map((form) => form.row));
  assertEquals(
    rows.filter((row) => !reached.has(row)).map((row) => `${row.mnemonic} ${row.encodings[0]}`),
    [],
  );
});

Deno.test("every CPUID feature that a row asks for is one that CPUID can report", () => {
  assertEquals([...ALL_FEATURES].filter((name) => !(name in FEATURES)), []);
});

Deno.test("every procedure that a description calls is there, and every other one is called", () => {
  const called = new Set(forms.flatMap((form) => [...findings.get(form)!.calls]));
  // The builders call this one for a floating-point operation.
  called.add("sse.fp");
  assertEquals([...called].filter((name) => !(name in procedures)), []);
  assertEquals(Object.keys(procedures).filter((name) => !called.has(name)), []);
});

Deno.test("a row whose description leaves the straight line says so", () => {
  const silent = forms.filter((form) => findings.get(form)!.ends && form.row.flags.ends !== true);
  assertEquals([...new Set(silent.map((form) => `${form.row.mnemonic} ${form.row.encodings[0]}`))], []);
});

Deno.test("descriptions read and write operands as declared, and fault before they change anything", () => {
  // PUSHA may fault half-way; what it wrote then lies below rSP.
  const checked = forms.filter((form) => form.row.mnemonic !== "PUSHA");
  assertEquals(checked.flatMap((form) => findings.get(form)!.wrong), []);
});
