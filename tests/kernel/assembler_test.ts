import { assertEquals, assertThrows } from "@std/assert";
import { Assembler, REGISTER, type RegisterName } from "../../kernel/platform/pc64/assembler.ts";

const granted = Deno.permissions.querySync({ name: "read" }).state === "granted";
if (!granted) console.log("tests/kernel/assembler_test.ts: iced-x86 needs --allow-read; ignored");
const iced = granted ? await import("iced-x86") : undefined;

function test(name: string, fn: () => void): void {
  Deno.test({ name, fn, ignore: iced === undefined });
}

/** What an independent disassembler makes of the bytes. */
function read(build: (a: Assembler) => void): string[] {
  const { Code, Decoder, DecoderOptions, Formatter, FormatterSyntax } = iced!;
  const a = new Assembler(0x10_0000, 0x40_0000n);
  build(a);
  const decoder = new Decoder(64, a.finish(), DecoderOptions.None);
  decoder.ip = 0x40_0000n;
  const formatter = new Formatter(FormatterSyntax.Intel);
  const lines: string[] = [];
  while (decoder.canDecode) {
    const instruction = decoder.decode();
    assertEquals(instruction.code === Code.INVALID, false);
    lines.push(formatter.format(instruction));
    instruction.free();
  }
  formatter.free();
  decoder.free();
  return lines;
}

test("every register goes through every form as it should", () => {
  for (const name of Object.keys(REGISTER) as RegisterName[]) {
    assertEquals(read((a) => a.movImmediate(name, 0x1122_3344_5566_7788n)), [
      `mov ${name},1122334455667788h`,
    ]);
    assertEquals(read((a) => a.move(name, "r9")), [`mov ${name},r9`]);
    assertEquals(read((a) => a.move("rdx", name)), [`mov rdx,${name}`]);
    assertEquals(read((a) => a.push(name)), [`push ${name}`]);
    assertEquals(read((a) => a.storeStack(0x48, name)), [`mov [rsp+48h],${name}`]);
    assertEquals(read((a) => a.loadStack(name, 0x48)), [`mov ${name},[rsp+48h]`]);
    assertEquals(read((a) => a.storeGs(0x60, name)), [`mov gs:[60h],${name}`]);
    assertEquals(read((a) => a.loadGs(name, 0x60)), [`mov ${name},gs:[60h]`]);
    assertEquals(read((a) => a.load(name, "rdi", 0x20)), [`mov ${name},[rdi+20h]`]);
  }
});

test("the rest of the instructions", () => {
  assertEquals(read((a) => a.testStack(0xa8, 3).adjustStack(-128).pushGs(0x60).pushImmediate(-1)), [
    "test byte ptr [rsp+0A8h],3",
    "add rsp,0FFFFFFFFFFFFFF80h",
    "push qword ptr gs:[60h]",
    "push 0FFFFFFFFFFFFFFFFh",
  ]);
  assertEquals(read((a) => a.lgdt("rdi", 0).lidt("r9", 16).ltr().movFromCr2().movToControl(3)), [
    "lgdt [rdi]",
    "lidt [r9+10h]",
    "ltr ax",
    "mov rax,cr2",
    "mov cr3,rax",
  ]);
  assertEquals(read((a) => a.swapgs().iretq().cli().sti().hlt().cld().rdmsr().wrmsr()), [
    "swapgs",
    "iretq",
    "cli",
    "sti",
    "hlt",
    "cld",
    "rdmsr",
    "wrmsr",
  ]);
});

test("jumps reach their labels, forwards and backwards", () => {
  assertEquals(read((a) => a.label("a").jump("b").jumpIf("nz", "a").label("b").hlt()), [
    "jmp 000000000040000Bh",
    "jne 0000000000400000h",
    "hlt",
  ]);
  assertEquals(read((a) => a.label("x").movAddress("rax", "x")), ["mov rax,400000h"]);
});

test("a label is there once", () => {
  assertThrows(() => read((a) => a.jump("nowhere")), Error, 'No label is named "nowhere"');
  assertThrows(() => read((a) => a.label("a").label("a")), Error, 'Two labels are named "a"');
});
