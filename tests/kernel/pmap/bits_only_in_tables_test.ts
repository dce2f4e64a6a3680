/** One pmap implementation drives all formats: nobody but the tables knows where a bit of an entry stands. */
import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import * as pmapBits from "../../../kernel/pmap/pmap_bits.ts";
import { type SourceFile, sourceFiles } from "../../../lab/gate/source_files.ts";

/** Where bits of entries may be named: the tables of formats. */
const TABLES = "kernel/pmap/pmap_bits.ts";
/** Files of the kernel that go through page tables by themselves, or hand entries on. */
const WALKERS =
  /^kernel\/(?:pmap\/|vm\/vm_fault_vpagetable|vmm\/(?:ept_copy|ept_ad|ept_convert)|platform\/\w+\/(?:machdep|locore|pmap))/;

/**
 * Names of constants that DragonFly has for bits of one format: an implementation for all of them has no use for any. (`PG_FRAME` is no
 * bit: the frame's place is the same in all of them.)
 */
const PG_CONSTANT =
  /\b(?:PG_(?:V|RW|U|A|M|PS|G|NX|PROT|PTE_PAT|PTE_PWT|PTE_PCD|N|NC_PWT|NC_PCD|AVAIL[123]|W|MANAGED|DEVICE)|X86_PG_\w+|EPT_PG_\w+|VPTE_(?:V|R|RW|U|A|M|PS|G|NX|WIRED|MANAGED|DEVICE))\b/;
/** A pmap's bit by its index in the pmap's own table: what everybody uses. */
const BY_INDEX = /\bPG_\w+_IDX\b/g;

/** Bits of the exported formats that are constants of one format and no other: single bits, as BigInt literals would have them. */
function bitLiterals(): RegExp {
  const formats = [pmapBits.REGULAR_FORMAT, pmapBits.EPT_FORMAT, pmapBits.VPTE_FORMAT];
  // Bit 0 is any format's "1"; it says nothing by itself. The type of the pmap, index 0, is no bit of an entry.
  const bits = new Set(formats.flatMap(({ pmapBits }) => pmapBits.slice(1)).filter((bit) => bit > 1n));
  const literals = [...bits].flatMap((bit) => [`0x0*${bit.toString(16)}n`, `${bit}n`]);
  return new RegExp(`[&|]=?\\s*~?(?:${literals.join("|")})\\b`, "i");
}

/** Lines of code, comments and texts taken out, with their numbers. */
function codeLines(file: SourceFile): [number: number, line: string][] {
  const code = file.text.replace(/\/\*[\s\S]*?\*\//g, (comment) => comment.replace(/[^\n]/g, " "))
    .replace(/\/\/.*$/gm, "").replace(/"(?:[^"\\\n]|\\.)*"/g, '""');
  return code.split("\n").map((line, i) => [i + 1, line]);
}

/** Lines that a rule finds, as "file:line: text". */
function found(files: readonly SourceFile[], rule: (line: string) => boolean): string[] {
  return files.flatMap((file) =>
    codeLines(file).filter(([, line]) => rule(line)).map(([n, line]) => `${file.path}:${n}: ${line.trim()}`)
  );
}

const mayRead = (await Deno.permissions.query({ name: "read", path: "." })).state === "granted";
const files = mayRead ? (await sourceFiles([".ts"])).filter(({ path }) => path.startsWith("kernel/")) : [];
const outside = files.filter(({ path }) => path !== TABLES);
const literal = bitLiterals();
const isConstant = (line: string) => PG_CONSTANT.test(line.replace(BY_INDEX, ""));

describe("bits of page-table entries", { ignore: !mayRead }, () => {
  it("have no constants outside the tables of formats", () => {
    assertEquals(found(outside, isConstant), []);
  });
  it("are not written as numbers where page tables are read or changed", () => {
    assertEquals(found(outside.filter(({ path }) => WALKERS.test(path)), (line) => literal.test(line)), []);
  });
  it("come from the pmap by their index, in every file that changes entries", () => {
    const users = found(outside, (line) => line.match(BY_INDEX) !== null);
    assertEquals(users.some((line) => line.startsWith("kernel/pmap/pmap_enter.ts")), true);
    assertEquals(users.some((line) => line.startsWith("kernel/pmap/pmap_protect.ts")), true);
  });
});

describe("the search for such bits", () => {
  const sees = (text: string) =>
    found([{ path: "kernel/pmap/x.ts", text }], (line) => isConstant(line) || literal.test(line)).length;
  it("finds a constant and a number", () => {
    assertEquals(sees("const valid = pte & PG_V;"), 1);
    assertEquals(sees("pte |= 0x40n; // dirty"), 1);
    assertEquals(sees("if (pte & VPTE_M) return;"), 1);
    assertEquals(sees("pte &= ~0x002n;"), 1);
  });
  it("lets the pmap's own bits, comments and texts be", () => {
    assertEquals(sees("const valid = pte & bits[PG_V_IDX]!; // PG_V"), 0);
    assertEquals(sees('throw new Error("PG_RW & 0x40n");'), 0);
    assertEquals(sees("/* PG_M: 0x40n */ const n = offset & 0xfffn;"), 0);
  });
});
