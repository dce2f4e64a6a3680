import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { BootError } from "../../hw/boot/boot_error.ts";
import { elfSymbols, parseElf } from "../../hw/boot/elf.ts";
import { loadImage } from "../../hw/boot/image.ts";
import { Machine } from "../../hw/machine.ts";
import { Random } from "../../hw/random.ts";
import { userProgram } from "../kernel/user_program.ts";
import { HELLO } from "./guest_programs.ts";

const MEMORY = 6 << 20;
const ROUNDS = 1000;

/** A small bzImage: setup header 2.15, relocatable, 64-bit entry, NOPs. */
function bzImage(): Uint8Array {
  const image = new Uint8Array(3 * 512 + 0x300), v = new DataView(image.buffer);
  image[0x1f1] = 2;
  v.setUint16(0x1fe, 0xaa55, true);
  image.set([0xeb, 0x66], 0x200);
  v.setUint32(0x202, 0x5372_6448, true);
  v.setUint16(0x206, 0x020f, true);
  image[0x211] = 1;
  v.setUint32(0x214, 0x10_0000, true);
  v.setUint32(0x22c, 0x7fff_ffff, true);
  v.setUint32(0x230, 0x1000, true);
  image[0x234] = 1;
  v.setUint16(0x236, 1, true);
  v.setUint32(0x238, 255, true);
  v.setUint32(0x258, 0x10_0000, true);
  v.setUint32(0x260, 0x1000, true);
  image.fill(0x90, 3 * 512);
  return image;
}

const elf64 = () => userProgram((a) => a.db(0xeb, 0xfe));
/** An ELF file with a multiboot header behind its headers. */
function elfMultiboot(): Uint8Array {
  const elf = elf64();
  const image = new Uint8Array(((elf.length + 3) & ~3) + 12), v = new DataView(image.buffer);
  image.set(elf);
  [0x1bad_b002, 3, -(0x1bad_b002 + 3)].forEach((word, i) =>
    v.setUint32(image.length - 12 + 4 * i, word, true)
  );
  return image;
}

const IMAGES: Readonly<Record<string, () => Uint8Array>> = {
  "a flat multiboot image": () => HELLO,
  "a multiboot ELF file": elfMultiboot,
  "a plain ELF64 file": elf64,
  "a bzImage": bzImage,
};

/** Values that break sums and comparisons. */
const NASTY = [0, 1, 0x7f, 0x80, 0xff, 0x7fff_ffff, 0x8000_0000, 0xffff_fff0, 0xffff_ffff];

/** Cuts, overwrites, or swaps; headers more often than the rest. */
function mutate(image: Uint8Array, random: Random, headers: number): Uint8Array {
  let copy = image.slice();
  const draw = (n: number) => random.next() % n;
  for (let changes = 1 + draw(4); changes > 0; changes--) {
    const at = draw(draw(4) === 0 ? copy.length : Math.min(headers, copy.length));
    const view = new DataView(copy.buffer);
    switch (draw(6)) {
      case 0:
        copy = copy.slice(0, Math.max(1, at));
        break;
      case 1:
        copy[at] = random.next();
        break;
      case 2:
        copy[at]! ^= 1 << draw(8);
        break;
      default: {
        const aligned = at & ~(draw(2) === 0 ? 7 : 3), value = NASTY[draw(NASTY.length)]!;
        if (aligned + 4 <= copy.length) view.setUint32(aligned, value, true);
        if (draw(2) === 0 && aligned + 8 <= copy.length) view.setUint32(aligned + 4, value, true);
      }
    }
  }
  return copy;
}

describe("a broken image is refused with a reason, or runs as far as it does:", () => {
  for (const [name, make] of Object.entries(IMAGES)) {
    it(name, () => {
      const image = make(), random = new Random(name.length);
      const machine = new Machine({ memory: MEMORY, engine: "reference" });
      const start = machine.snapshot();
      assert(loadImage(machine, image) !== undefined, "as it is, it loads");
      let refused = 0;
      for (let round = 0; round < ROUNDS; round++) {
        const broken = mutate(image, random, name === "a bzImage" ? 0x268 : 0x100);
        try {
          loadImage(machine, broken, { commandLine: "a=b" });
        } catch (error) {
          if (!(error instanceof BootError)) throw error;
          assert(error.message.startsWith("Cannot start the image: "));
          refused++;
          continue;
        }
        machine.run({ steps: 20 });
        machine.restore(start);
      }
      assert(refused > ROUNDS / 10 && refused < ROUNDS, `${refused} refused`);
    });
  }

  it("an ELF file cut off anywhere", () => {
    const image = elf64();
    for (let length = 0; length < image.length; length++) {
      try {
        elfSymbols(parseElf(image.subarray(0, length)));
      } catch (error) {
        assert(error instanceof BootError, `${length}: ${error}`);
      }
    }
  });

  it("names without an end in a string table without an end", () => {
    const image = new Uint8Array(64 + 56 + 2 * 64 + 16).fill(0x41), v = new DataView(image.buffer);
    image.set(elf64().subarray(0, 120));
    const table = 120, strings = table + 64;
    v.setBigUint64(40, BigInt(table), true); // e_shoff
    [1, 64, 2, 1].forEach((value, i) => v.setUint16(56 + 2 * i, value, true)); // e_phnum, e_shentsize, e_shnum, e_shstrndx
    v.setBigUint64(64 + 8, 0n, true); // p_offset
    v.setBigUint64(64 + 32, 1n, true); // p_filesz
    image.fill(0, table, table + 64);
    // A string table at the end of the file that takes no room there (SHT_NOBITS) and claims 2^52 bytes.
    v.setUint32(strings, 3, true);
    v.setUint32(strings + 4, 8, true);
    v.setBigUint64(strings + 24, BigInt(image.length - 16), true);
    v.setBigUint64(strings + 32, 1n << 52n, true);
    assertEquals(parseElf(image).sections.map((s) => s.name), ["A".repeat(16), "A".repeat(13)]);
  });
});
