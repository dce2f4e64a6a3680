/**
 * Ring-3 programs of a few instructions, for tests, as ELF64 files.
 *
 * @module
 */
import { Assembler } from "../../kernel/platform/pc64/assembler.ts";

/** Where the code stands. */
export const CODE_VA = 0x401000;

/** Appends `GATE n` alone. */
export function gateOnly(a: Assembler, n: number): Assembler {
  return a.db(0x0f, 0xff, 0x05).dd(n);
}

/** Appends `RESUME` alone. */
export function resumeOnly(a: Assembler): Assembler {
  return a.db(0x0f, 0xff, 0x05).dd(-1);
}

/** Appends exit(RDI). */
export function exitCall(a: Assembler): Assembler {
  return a.movImmediate32("rax", 1).db(0x0f, 0x05);
}

/** An ELF64 file whose code `build` writes. */
export function userProgram(build: (a: Assembler) => void): Uint8Array<ArrayBuffer> {
  const a = new Assembler(CODE_VA, BigInt(CODE_VA));
  build(a);
  return elf64(a.finish());
}

/** An ELF64 file with one read-execute segment at {@link CODE_VA}, entered at its first byte. */
export function elf64(code: Uint8Array): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(0x1000 + code.length);
  const view = new DataView(out.buffer);
  out.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, 2, true);
  view.setUint16(18, 62, true);
  view.setUint32(20, 1, true);
  view.setBigUint64(24, BigInt(CODE_VA), true);
  view.setBigUint64(32, 64n, true);
  view.setUint16(52, 64, true);
  view.setUint16(54, 56, true);
  view.setUint16(56, 1, true);
  view.setUint32(64, 1, true);
  view.setUint32(68, 5, true);
  view.setBigUint64(72, 0x1000n, true);
  view.setBigUint64(80, BigInt(CODE_VA), true);
  view.setBigUint64(88, BigInt(CODE_VA), true);
  view.setBigUint64(96, BigInt(code.length), true);
  view.setBigUint64(104, BigInt(code.length), true);
  view.setBigUint64(112, 0x1000n, true);
  out.set(code, 0x1000);
  return out;
}
