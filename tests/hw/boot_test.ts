import { assert, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { BootError } from "../../hw/boot/boot_error.ts";
import { parseElf, PT } from "../../hw/boot/elf.ts";
import { imageKind, loadImage } from "../../hw/boot/image.ts";
import { loadLinux, parseLinuxHeader } from "../../hw/boot/linux.ts";
import { Bytes, memoryMap } from "../../hw/boot/memory_map.ts";
import { findMultibootHeader, loadMultiboot } from "../../hw/boot/multiboot.ts";
import { Machine } from "../../hw/machine.ts";
import { R, S, SEG } from "../../hw/state.ts";
import { flatImage, HELLO, hex } from "./guest_programs.ts";

const MEMORY = 4 << 20;
const machine = () => new Machine({ memory: MEMORY, engine: "reference" });
const textAt = (m: Machine, at: number) => {
  let s = "";
  for (; m.bus.read(at, 1) !== 0; at++) s += String.fromCharCode(m.bus.read(at, 1));
  return s;
};

interface Piece {
  readonly virtual: bigint;
  readonly physical: bigint;
  readonly bytes: Uint8Array;
  readonly memory?: number;
}

/** An ELF file of the given class with these PT_LOAD segments. */
function elf(elfClass: 32 | 64, entry: bigint, pieces: readonly Piece[]): Uint8Array {
  const is64 = elfClass === 64, headerBytes = is64 ? 64 : 52, size = is64 ? 56 : 32;
  const start = headerBytes + size * pieces.length;
  const total = start + pieces.reduce((n, p) => n + p.bytes.length, 0);
  const image = new Uint8Array(total), v = new DataView(image.buffer);
  const address = (at: number, value: bigint) =>
    is64 ? v.setBigUint64(at, value, true) : v.setUint32(at, Number(value), true);
  image.set([0x7f, 0x45, 0x4c, 0x46, is64 ? 2 : 1, 1, 1]);
  v.setUint16(16, 2, true);
  v.setUint16(18, is64 ? 62 : 3, true);
  v.setUint32(20, 1, true);
  address(24, entry);
  address(is64 ? 32 : 28, BigInt(headerBytes));
  v.setUint16(is64 ? 54 : 42, size, true);
  v.setUint16(is64 ? 56 : 44, pieces.length, true);
  let offset = start;
  pieces.forEach((p, i) => {
    const at = headerBytes + i * size,
      memory = BigInt(p.memory ?? p.bytes.length),
      file = BigInt(p.bytes.length);
    v.setUint32(at, 1, true);
    v.setUint32(is64 ? at + 4 : at + 24, 7, true);
    address(is64 ? at + 8 : at + 4, BigInt(offset));
    address(is64 ? at + 16 : at + 8, p.virtual);
    address(is64 ? at + 24 : at + 12, p.physical);
    address(is64 ? at + 32 : at + 16, file);
    address(is64 ? at + 40 : at + 20, memory);
    image.set(p.bytes, offset);
    offset += p.bytes.length;
  });
  return image;
}

/** Changes a copy of an image. */
function with32(image: Uint8Array, at: number, value: number): Uint8Array {
  const copy = image.slice();
  new DataView(copy.buffer).setUint32(at, value, true);
  return copy;
}

const HEADER = hex("02b0ad1b 03000000 fb4f52e4");

describe("the memory map", () => {
  it("is sorted, free of overlaps, and ends RAM where it ends", () => {
    for (const ram of [1 << 20, 256 << 20, 3 * 2 ** 30]) {
      const map = memoryMap(ram);
      for (let i = 1; i < map.length; i++) assert(map[i]!.base >= map[i - 1]!.base + map[i - 1]!.bytes);
      const usable = map.filter((r) => r.type === 1);
      assertEquals(usable.at(-1)!.base + usable.at(-1)!.bytes, ram === 1 << 20 ? 639 * 1024 : ram);
    }
  });
});

describe("the ELF parser", () => {
  const good = elf(64, 0x10_0000n, [{
    virtual: 0x10_0000n,
    physical: 0x10_0000n,
    bytes: Uint8Array.of(1, 2, 3),
  }]);
  it("reads both classes", () => {
    for (const c of [32, 64] as const) {
      const file = parseElf(
        elf(c, 0x1234n, [{ virtual: 0x1000n, physical: 0x2000n, bytes: hex("aabb"), memory: 9 }]),
      );
      assertEquals([file.class, file.entry, file.segments.length], [c, 0x1234n, 1]);
      const s = file.segments[0]!;
      assertEquals([s.type, s.flags, s.virtualAddress, s.physicalAddress, s.fileBytes, s.memoryBytes], [
        PT.LOAD,
        7,
        0x1000n,
        0x2000n,
        2,
        9,
      ]);
    }
  });
  it("says what is wrong with a bad file", () => {
    const cases: [string, Uint8Array, string][] = [
      ["not ELF", hex("4d5a9000"), "7F 45 4C 46"],
      ["cut off", good.subarray(0, 40), "cut off"],
      ["cut off 64", good.subarray(0, 60), "cut off"],
      ["class", with32(good, 4, 0x0001_0103), "class is 3"],
      ["big-endian", with32(good, 4, 0x0001_0202), "encoding is 2"],
      ["object file", with32(good, 16, 0x003e_0001), "type is 1"],
      ["ARM", with32(good, 16, 0x00b7_0002), "machine is 183"],
      ["headers outside", with32(good, 32, 0x1000), "program headers end"],
      ["huge offset", with32(good, 36, 0x4000_0000), "2^53"],
      ["no segments", with32(good, 56, 0), "no program headers"],
      ["small headers", with32(good, 52, 0x0010_0040), "16 bytes"],
      ["no PT_LOAD", with32(good, 64, 4), "no PT_LOAD"],
      ["segment outside", with32(good, 64 + 32, 1000), "segment 0 ends"],
      ["file larger than memory", with32(good, 64 + 40, 1), "no more in the file"],
      ["wraps", with32(with32(good, 64 + 16, 0xffff_ffff), 64 + 20, 0xffff_ffff), "round the end"],
      ["alignment", with32(good, 64 + 48, 3), "power of two"],
    ];
    for (const [name, image, message] of cases) {
      assertThrows(() => parseElf(image), BootError, message, name);
    }
  });
  it("does not throw anything else on random damage", () => {
    let x = 12345;
    for (let i = 0; i < 2000; i++) {
      const copy = good.slice();
      for (let k = 0; k < 3; k++) {
        x = (Math.imul(x, 1103515245) + 12345) >>> 0;
        copy[4 + (x >>> 8) % (copy.length - 4)] = x >>> 24;
      }
      try {
        parseElf(copy);
      } catch (error) {
        assert(error instanceof BootError);
      }
    }
  });
});

describe("the multiboot loader", () => {
  it("enters flat 32-bit protected mode with EAX and EBX set", () => {
    const m = machine(), cpu = m.cpus[0]!;
    loadMultiboot(m, HELLO, {
      commandLine: "a b=c",
      modules: [{ bytes: hex("c0ffee"), commandLine: "mod x" }],
    });
    assertEquals([cpu.gpr(R.RAX), cpu.rip, cpu.cpl, cpu.get32(S.CODEMODE)], [0x2bad_b002n, 0x10_0000n, 0, 1]);
    assertEquals([cpu.get32(S.CR0) & 0x8000_0001, cpu.rflags & 0x200], [1, 0]);
    for (const seg of [SEG.CS, SEG.DS, SEG.ES, SEG.SS, SEG.FS, SEG.GS]) {
      assertEquals([cpu.segBase(seg), cpu.segLimit(seg)], [0n, 0xffff_ffff]);
    }
    const info = Number(cpu.gpr(R.RBX)), word = (i: number) => m.bus.read(info + i, 4);
    assertEquals(word(0), 0x24d);
    assertEquals([word(4), word(8)], [639, (MEMORY >> 10) - 1024]);
    assertEquals([textAt(m, word(16)), textAt(m, word(64))], ["a b=c", "Exuvia"]);
    const mod = word(24), [from, to] = [m.bus.read(mod, 4), m.bus.read(mod + 4, 4)];
    assertEquals([word(20), from! % 4096, to! - from!], [1, 0, 3]);
    assertEquals([m.bus.read(from!, 1), textAt(m, m.bus.read(mod + 8, 4))], [0xc0, "mod x"]);
    const ranges = [];
    for (let at = word(48); at < word(48) + word(44); at += m.bus.read(at, 4) + 4) {
      ranges.push({
        base: m.bus.read(at + 4, 4),
        bytes: m.bus.read(at + 12, 4),
        type: m.bus.read(at + 20, 4),
      });
    }
    assertEquals(ranges, memoryMap(MEMORY));
  });
  it("loads ELF32 and ELF64 bodies by their physical addresses, and clears bss", () => {
    for (const c of [32, 64] as const) {
      const m = machine();
      m.bus.writeRam(0x20_0000, new Uint8Array(8192).fill(0xee));
      const virtual = c === 32 ? 0xc020_0000n : 0xffff_ffff_8020_0000n;
      const body = Uint8Array.from([...HEADER, 0xf4]);
      loadMultiboot(m, elf(c, virtual + 12n, [{ virtual, physical: 0x20_0000n, bytes: body, memory: 5000 }]));
      assertEquals(m.cpus[0]!.rip, 0x20_000cn, "the entry is made physical");
      assertEquals([m.bus.read(0x20_000c, 1), m.bus.read(0x20_000d, 4), m.bus.read(0x20_1387, 2)], [
        0xf4,
        0,
        0xee00,
      ]);
    }
  });
  it("moves its information away from an image in low memory", () => {
    const m = machine();
    loadMultiboot(
      m,
      elf(32, 0x8000n, [{ virtual: 0x8000n, physical: 0x8000n, bytes: HEADER, memory: 0x8000 }]),
    );
    assertEquals(m.cpus[0]!.gpr(R.RBX), 0x10_0000n);
  });
  it("finds the header within 8 KiB, aligned, with a right checksum", () => {
    const image = new Uint8Array(9000);
    image.set(HEADER, 8180);
    assertEquals(findMultibootHeader(image)?.offset, 8180);
    image.fill(0).set(HEADER, 8184);
    assertEquals(findMultibootHeader(image), undefined);
    image.fill(0).set(HEADER, 6);
    assertEquals(findMultibootHeader(image), undefined);
    image.fill(0).set(with32(HEADER, 8, 1), 0);
    assertEquals(findMultibootHeader(image), undefined);
  });
  it("says what is wrong with a bad image", () => {
    const at = HELLO.length - 32;
    const header = (...words: number[]) => {
      const copy = HELLO.slice(), v = new DataView(copy.buffer);
      words.forEach((w, i) => v.setUint32(at + 12 + 4 * i, w, true));
      return copy;
    };
    const load = (image: Uint8Array) => () => loadMultiboot(machine(), image);
    assertThrows(load(hex("00")), BootError, "no multiboot header");
    assertThrows(load(HEADER), BootError, "gives no addresses");
    assertThrows(load(hex("02b0ad1b 10000000 ee4f52e4")), BootError, "requires flags 0x10");
    assertThrows(load(header(0x10_0000, 0x20_0000, 0, 0, 0)), BootError, "above the header");
    assertThrows(load(header(0x20_0000, 0x10_0000, 0, 0, 0)), BootError, "before its file");
    assertThrows(load(header(0x10_0000 + at, 0x10_0000, 0x20_0000, 0, 0)), BootError, "end of file");
    assertThrows(load(header(0x10_0000 + at, 0x10_0000, 0, 0x80_0000, 0)), BootError, "more memory");
    assertThrows(load(header(0xa_0000 + at, 0xa_0000, 0, 0, 0)), BootError, "usable RAM");
    assertThrows(
      load(elf(64, 0n, [{ virtual: 0n, physical: 0x1_0000_0000n, bytes: HEADER }])),
      BootError,
      "below 4 GiB",
    );
    assertThrows(
      () => loadMultiboot(machine(), HELLO, { commandLine: "x".repeat(5000) }),
      BootError,
      "5000 bytes",
    );
  });
});

/** A bzImage whose kernel is one HLT at its 32-bit and one at its 64-bit entry. */
function bzImage(
  options: { version?: number; xload?: number; pref?: number; relocatable?: boolean; initSize?: number } = {},
) {
  const b = new Bytes(0x600 + 0x400);
  b.u8(0x1f1, 2);
  b.u16(0x1fe, 0xaa55);
  b.u16(0x200, 0x66eb);
  b.u32(0x202, 0x5372_6448);
  b.u16(0x206, options.version ?? 0x020f);
  b.u8(0x211, 1);
  b.u32(0x214, 0x10_0000);
  b.u32(0x22c, 0x7fff_ffff);
  b.u32(0x230, 0x20_0000);
  b.u8(0x234, options.relocatable ? 1 : 0);
  b.u16(0x236, options.xload ?? 1);
  b.u32(0x238, 255);
  b.u64(0x258, options.pref ?? 0x10_0000);
  b.u32(0x260, options.initSize ?? 0x1_0000);
  b.u8(0x600, 0xf4);
  b.u8(0x800, 0xf4);
  return b.data;
}

describe("the Linux loader", () => {
  it("enters long mode at +200H with the zero page in RSI", () => {
    const m = machine(), cpu = m.cpus[0]!;
    loadLinux(m, bzImage(), { commandLine: "console=ttyS0", initrd: hex("cafe") });
    assertEquals([cpu.rip, cpu.get32(S.CODEMODE), cpu.segSel(SEG.CS), cpu.segSel(SEG.DS)], [
      0x10_0200n,
      2,
      0x10,
      0x18,
    ]);
    const zero = Number(cpu.gpr(R.RSI)), word = (i: number) => m.bus.read(zero + i, 4);
    assertEquals([word(0x202), m.bus.read(zero + 0x210, 1)], [0x5372_6448, 0xff]);
    assertEquals(textAt(m, word(0x228)), "console=ttyS0");
    assertEquals([word(0x218), word(0x21c)], [MEMORY - 4096, 2]);
    assertEquals(m.bus.read(MEMORY - 4096, 2), 0xfeca);
    assertEquals(m.bus.read(zero + 0x1e8, 1), memoryMap(MEMORY).length);
    assertEquals([word(0x2d0), word(0x2d8), word(0x2e0)], [0, 639 * 1024, 1]);
    assertEquals([word(0x70), m.bus.read(word(0x70), 4)], [0xf_0000, 0x2044_5352], "RSDP");
    // The identity mapping and the GDT hold: the HLT is carried out, and a segment load works.
    assertEquals(m.run({ steps: 5 }).reason, "idle");
    assertEquals(cpu.rip, 0x10_0201n);
  });
  it("enters protected mode when the kernel has no 64-bit entry", () => {
    for (const image of [bzImage({ xload: 0 }), bzImage({ version: 0x0206 })]) {
      const m = machine(), cpu = m.cpus[0]!;
      loadLinux(m, image);
      assertEquals([cpu.rip, cpu.get32(S.CODEMODE), cpu.gpr(R.RBX)], [0x10_0000n, 1, 0n]);
      assertEquals(m.run({ steps: 5 }).reason, "idle");
    }
  });
  it("puts a relocatable kernel where it prefers, or where it fits", () => {
    const m = machine();
    loadLinux(m, bzImage({ relocatable: true, pref: 0x20_0000 }));
    assertEquals(m.cpus[0]!.rip, 0x20_0200n);
    const small = machine();
    loadLinux(small, bzImage({ relocatable: true, pref: 0x100_0000 }));
    assertEquals(small.cpus[0]!.rip, 0x20_0200n, "1 MiB rounded up to its alignment");
  });
  it("says what is wrong with a bad image", () => {
    const load = (image: Uint8Array, initrd = new Uint8Array(0)) => () =>
      loadLinux(machine(), image, { initrd });
    assertThrows(load(HELLO), BootError, "no Linux setup header");
    assertThrows(load(bzImage({ version: 0x0203 })), BootError, "2.3");
    assertThrows(load(with32(bzImage(), 0x210, 0)), BootError, "zImage");
    assertThrows(load(bzImage().subarray(0, 0x250)), BootError, "cut off");
    assertThrows(load(bzImage().subarray(0, 0x600)), BootError, "whole image");
    assertThrows(load(bzImage({ initSize: 0x800_0000 })), BootError, "the kernel needs");
    assertThrows(load(bzImage(), new Uint8Array(MEMORY)), BootError, "initrd");
    assertThrows(
      () => loadLinux(machine(), bzImage(), { commandLine: "x".repeat(256) }),
      BootError,
      "at most 255",
    );
    assertEquals(parseLinuxHeader(bzImage()).has64BitEntry, true);
  });
});

describe("any image", () => {
  it("is known by its header", () => {
    assertEquals([HELLO, bzImage(), elf(64, 0n, []), hex("4d5a")].map(imageKind), [
      "multiboot",
      "linux",
      "elf64",
      undefined,
    ]);
    assertThrows(() => loadImage(machine(), hex("4d5a9000")), BootError, "4d 5a 90 00");
    assertThrows(() => loadImage(machine(), HELLO, { initrd: hex("00") }), BootError, "initrd");
    assertThrows(
      () => loadImage(machine(), bzImage(), { modules: [{ bytes: hex("00") }] }),
      BootError,
      "modules",
    );
  });
  it("may be a plain ELF64 file, linked anywhere", () => {
    for (const virtual of [0x10_0000n, 0xffff_ffff_8000_0000n]) {
      const m = machine(), cpu = m.cpus[0]!;
      // mov al, 3; out F4H, al
      const image = elf(64, virtual, [{
        virtual,
        physical: 0x10_0000n,
        bytes: hex("b003 e6f4"),
        memory: 8192,
      }]);
      assertEquals(loadImage(m, image, { commandLine: "x=1" }), "elf64");
      assertEquals(textAt(m, Number(cpu.gpr(R.RDI))), "x=1");
      assertEquals(m.run({ steps: 10 }), { reason: "exit", code: 7 });
    }
    const small = elf(32, 0n, [{ virtual: 0n, physical: 0n, bytes: hex("f4") }]);
    assertThrows(() => loadImage(machine(), small), BootError, "32-bit ELF");
  });
  it("runs through one door", () => {
    const m = machine();
    assertEquals(loadImage(m, flatImage(hex("b001 e6f4"))), "multiboot");
    assertEquals(m.run({ steps: 10 }), { reason: "exit", code: 3 });
  });
});
