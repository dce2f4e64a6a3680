import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { parseElf64, PF_R, PF_W, PF_X, PT_INTERP, PT_LOAD, PT_NOTE } from "../../../kernel/proc/elf64.ts";

const LIMIT = 0x7fff_ffff_e000n;
const FILE_BYTES = 0x3000;

interface Segment {
  type?: number;
  flags?: number;
  offset?: bigint;
  va?: bigint;
  fileBytes?: bigint;
  memoryBytes?: bigint;
}

const TEXT: Segment = {
  flags: PF_R | PF_X,
  offset: 0n,
  va: 0x40_0000n,
  fileBytes: 0x1000n,
  memoryBytes: 0x1000n,
};
const DATA: Segment = {
  flags: PF_R | PF_W,
  offset: 0x1000n,
  va: 0x40_1000n,
  fileBytes: 0x100n,
  memoryBytes: 0x5000n,
};

/** The first page of an ELF file; `change` may lie. */
function header(segments: readonly Segment[], change?: (view: DataView) => void): Uint8Array {
  const page = new Uint8Array(4096), view = new DataView(page.buffer);
  page.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0]);
  view.setUint16(16, 2, true);
  view.setUint16(18, 62, true);
  view.setBigUint64(24, 0x40_0100n, true);
  view.setBigUint64(32, 64n, true);
  view.setUint16(54, 56, true);
  view.setUint16(56, segments.length, true);
  segments.forEach((s, i) => {
    const at = 64 + i * 56;
    view.setUint32(at, s.type ?? PT_LOAD, true);
    view.setUint32(at + 4, s.flags ?? 0, true);
    [s.offset, s.va, s.va, s.fileBytes, s.memoryBytes].forEach((word, n) => {
      view.setBigUint64(at + 8 + n * 8, word ?? 0n, true);
    });
  });
  change?.(view);
  return page;
}

const parse = (segments: readonly Segment[], change?: (view: DataView) => void) =>
  parseElf64(header(segments, change), FILE_BYTES, LIMIT);

describe("ELF64 headers, as exec reads them", () => {
  it("gives segments, limits and where the program headers are in memory", () => {
    const image = parse([TEXT, DATA])!;
    assertEquals(image.segments.map(({ va }) => va), [0x40_0000n, 0x40_1000n]);
    assertEquals([image.low, image.high, image.phdr], [0x40_0000n, 0x40_6000n, 0x40_0040n]);
  });

  const lies:
    readonly (readonly [what: string, segments: readonly Segment[], change?: (view: DataView) => void])[] = [
      ["more bytes in the file than in memory", [TEXT, { ...DATA, memoryBytes: 0x80n }]],
      ["a segment behind the end of the file", [TEXT, { ...DATA, fileBytes: 0x3000n }]],
      ["an offset that is not a number that exists", [TEXT, { ...DATA, offset: 0xffff_ffff_ffff_f000n }]],
      ["a segment round the end of the address space", [TEXT, { ...DATA, va: 0xffff_ffff_ffff_f000n }]],
      ["a segment in the kernel's half", [TEXT, { ...DATA, va: 0xffff_8000_0000_0000n }]],
      ["a size that reaches the kernel's half", [TEXT, { ...DATA, memoryBytes: 1n << 62n }]],
      ["offset and address that differ within the page", [TEXT, { ...DATA, va: 0x40_1800n }]],
      ["two segments in one page", [TEXT, { ...DATA, va: 0x40_0000n }]],
      ["segments that descend", [{ ...DATA, va: 0x60_0000n, offset: 0x1000n }, TEXT]],
      ["a segment at address 0", [{ ...TEXT, va: 0n }, DATA]],
      ["nothing to load", [{ ...TEXT, type: PT_NOTE }]],
      ["an entry outside the image", [TEXT, DATA], (view) => view.setBigUint64(24, 0x1234n, true)],
      ["program headers outside the first page", [TEXT, DATA], (view) => view.setBigUint64(32, 4000n, true)],
      ["program headers nowhere", [TEXT, DATA], (view) => view.setBigUint64(32, 1n << 63n, true)],
      ["program headers of another size", [TEXT, DATA], (view) => view.setUint16(54, 32, true)],
      ["no program headers", [TEXT, DATA], (view) => view.setUint16(56, 0, true)],
      ["32 bits", [TEXT, DATA], (view) => view.setUint8(4, 1)],
      ["big-endian", [TEXT, DATA], (view) => view.setUint8(5, 2)],
      ["another machine", [TEXT, DATA], (view) => view.setUint16(18, 183, true)],
      ["an object file", [TEXT, DATA], (view) => view.setUint16(16, 1, true)],
    ];
  for (const [what, segments, change] of lies) {
    it(`refuses ${what}`, () => assertEquals(parse(segments, change), undefined));
  }

  it("refuses any cut of the header", () => {
    const whole = header([TEXT, DATA]);
    for (const length of [0, 3, 4, 63, 64, 100]) {
      assertEquals(parseElf64(whole.subarray(0, length), FILE_BYTES, LIMIT), undefined);
    }
  });

  it("finds the path of a dynamic linker", () => {
    const page = header([TEXT, DATA, { type: PT_INTERP, offset: 0x200n, fileBytes: 8n }]);
    page.set(new TextEncoder().encode("/lib/ld\0"), 0x200);
    assertEquals(parseElf64(page, FILE_BYTES, LIMIT)?.interp, "/lib/ld");
  });

  it("reads notes, and stops at one that goes on behind its segment", () => {
    const page = header([TEXT, DATA, { type: PT_NOTE, offset: 0x200n, fileBytes: 48n }]),
      view = new DataView(page.buffer);
    [4, 16, 1].forEach((word, i) => view.setUint32(0x200 + i * 4, word, true));
    page.set(new TextEncoder().encode("GNU\0"), 0x20c);
    [4, 1000, 1].forEach((word, i) => view.setUint32(0x220 + i * 4, word, true));
    assertEquals(parseElf64(page, FILE_BYTES, LIMIT)?.notes, [{ name: "GNU", type: 1, word: 0 }]);
  });
});
