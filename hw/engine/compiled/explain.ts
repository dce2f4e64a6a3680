/**
 * A compiled region told to people: its guest instructions block by block, where control goes, and each way out by name.
 *
 * Room: `hw/engine/compiled/`; imports types only. `machine.regions.all()` has the regions. Whoever wants operands gives a disassembler.
 *
 * @module
 */
import type { Block } from "./graph.ts";
import type { Region } from "./regions.ts";

/** Writes an instruction as text: its physical address and length. */
export type Disassemble = (physical: number, length: number) => string;

/** Describes a region, one line an instruction or a way out. */
export function explainRegion(region: Region, disassemble?: Disassemble): string[] {
  const { graph, parts } = region;
  const physicalOf = (offset: number): number => {
    const part = parts.find(({ number }) => number === offset >> 12)!;
    return part.page.physical + (offset & 0xfff);
  };
  const where = (offset: number): string =>
    graph.blocks.has(offset) ? `to ${physicalOf(offset).toString(16)}` : `exit: jump, ${signed(offset)}`;
  const lines = [
    `region of ${graph.instructions} instructions, ${region.bytes} bytes of wasm, pages ` +
    parts.map(({ page }) => page.physical.toString(16)).join(" "),
  ];
  for (const block of graph.blocks.values()) {
    const marks = [
      graph.entries.has(block.offset) ? "entry" : "",
      region.loopHeads.get(block.offset) === block.offset ? "loop" : "",
    ].filter((mark) => mark !== "");
    lines.push(`${physicalOf(block.offset).toString(16)}:${marks.map((mark) => ` ${mark}`).join("")}`);
    for (const { offset, decoded, effects } of block.steps) {
      const physical = physicalOf(offset);
      const text = disassemble?.(physical, decoded.length) ??
        `${decoded.form.row.mnemonic} ${decoded.form.w}`;
      lines.push(`  ${physical.toString(16)}  ${text}${effects.exits ? "  (exit: fault or access)" : ""}`);
    }
    lines.push(...waysOut(block, where));
  }
  for (const reason of graph.refused) lines.push(`left to the interpreter, ${reason}`);
  return lines;
}

function waysOut(block: Block, where: (offset: number) => string): string[] {
  const out = block.targets.map((target) => `  -> ${where(target)}`);
  if (block.leaves) out.push("  -> exit: indirect, unless an entry here");
  if (block.fallsThrough) out.push(`  -> on ${where(block.end)}`);
  return out;
}

/** An offset from the region's first page. */
function signed(offset: number): string {
  return offset < 0 ? `-${(-offset).toString(16)}` : `+${offset.toString(16)}`;
}
