/**
 * A small encoder for ACPI Machine Language: as much as the machine's DSDT needs.
 *
 * Room: leaf of `hw/dev/`; imports nothing. ACPI specification, "ACPI Machine Language (AML) Specification" and "Resource Data Types".
 *
 * @module
 */

/** Encoded AML. */
export type Aml = readonly number[];

/** PkgLength: the length counts its own bytes. */
function packageLength(body: number): number[] {
  if (body + 1 < 0x40) return [body + 1];
  if (body + 2 < 0x1000) {
    const n = body + 2;
    return [0x40 | (n & 0xf), n >>> 4];
  }
  const n = body + 3;
  return [0x80 | (n & 0xf), (n >>> 4) & 0xff, n >>> 12];
}

function nameSegment(name: string): number[] {
  return [...name.padEnd(4, "_")].map((c) => c.charCodeAt(0));
}

/** A name: one segment, or `\` and one segment. */
function nameString(name: string): number[] {
  return name.startsWith("\\") ? [0x5c, ...nameSegment(name.slice(1))] : nameSegment(name);
}

/** An integer constant, 0 … 2^32 − 1. */
export function integer(value: number): Aml {
  if (value === 0) return [0x00];
  if (value === 1) return [0x01];
  if (value <= 0xff) return [0x0a, value];
  if (value <= 0xffff) return [0x0b, value & 0xff, value >>> 8];
  return [0x0c, ...word32(value)];
}

/** A string constant (ASCII). */
export function text(value: string): Aml {
  return [0x0d, ...[...value].map((c) => c.charCodeAt(0)), 0];
}

/** A compressed EISA id such as "PNP0501", as the integer that _HID takes. */
export function eisaId(id: string): Aml {
  const letter = (i: number) => id.charCodeAt(i) - 0x40;
  const packed = (letter(0) << 26) | (letter(1) << 21) | (letter(2) << 16) | parseInt(id.slice(3), 16);
  return [0x0c, (packed >>> 24) & 0xff, (packed >>> 16) & 0xff, (packed >>> 8) & 0xff, packed & 0xff];
}

/** Name (name, value). */
export function name(id: string, value: Aml): Aml {
  return [0x08, ...nameString(id), ...value];
}

/** Package { … }. */
export function pack(elements: readonly Aml[]): Aml {
  const body = [elements.length, ...elements.flat()];
  return [0x12, ...packageLength(body.length), ...body];
}

/** Scope (name) { … }. */
export function scope(id: string, terms: readonly Aml[]): Aml {
  const body = [...nameString(id), ...terms.flat()];
  return [0x10, ...packageLength(body.length), ...body];
}

/** Device (name) { … }. */
export function device(id: string, terms: readonly Aml[]): Aml {
  const body = [...nameString(id), ...terms.flat()];
  return [0x5b, 0x82, ...packageLength(body.length), ...body];
}

/** ResourceTemplate () { … }: a buffer that ends in an end tag. */
export function resources(items: readonly Aml[]): Aml {
  const bytes = [...items.flat(), 0x79, 0x00];
  const body = [...integer(bytes.length), ...bytes];
  return [0x11, ...packageLength(body.length), ...body];
}

/** IO (Decode16, first, first, 1, count). */
export function io(first: number, count: number): Aml {
  return [0x47, 0x01, first & 0xff, first >>> 8, first & 0xff, first >>> 8, 1, count];
}

/** IRQNoFlags () {line}: edge-triggered, active high. */
export function irqNoFlags(line: number): Aml {
  return [0x22, (1 << line) & 0xff, (1 << line) >>> 8];
}

/** Memory32Fixed (ReadWrite, base, bytes). */
export function memory32Fixed(base: number, bytes: number): Aml {
  return [0x86, 0x09, 0x00, 0x01, ...word32(base), ...word32(bytes)];
}

/** Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive) {line}. */
export function levelInterrupt(line: number): Aml {
  return [0x89, 0x06, 0x00, 0x01, 0x01, ...word32(line)];
}

function word32(value: number): number[] {
  return [value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24];
}
