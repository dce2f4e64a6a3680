/**
 * Rules of the house that no other tool checks.
 *
 * Room: `lab/gate/`; imports the list of files.
 *
 * @module
 */
import { roomOf, ROOT, type SourceFile, sourceFiles } from "./source_files.ts";

/** Lines that a file may have unless its header says `Long:` and why. */
export const LINES_MAX = 800;

/** A construct that may not stand in some rooms. */
interface Ban {
  readonly pattern: RegExp;
  readonly rooms: readonly string[];
  readonly why: string;
}

// Written in pieces, so that the list does not ban itself.
const OWED = ["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK", "not " + "implemented"];

const BANS: readonly Ban[] = [
  { pattern: /\bMath\.random\b/, rooms: ["hw", "kernel"], why: "chance comes from the machine's seed" },
  { pattern: /\bDate\.now\b|\bnew Date\b/, rooms: ["hw", "kernel"], why: "time is instructions retired" },
  { pattern: /\bperformance\.now\b/, rooms: ["hw", "kernel"], why: "time is instructions retired" },
  { pattern: /\bsetTimeout\b|\bsetInterval\b/, rooms: ["hw", "kernel"], why: "time is instructions retired" },
  { pattern: /\bDeno\.(?!test|bench)/, rooms: ["hw", "kernel"], why: "the core does not touch the host" },
  { pattern: /(?::|<|\bas)\s*any\b(?!\w)/, rooms: ["hw", "kernel", "lab"], why: "a type says what it is" },
  {
    pattern: /\/\/\s*@ts-(?:ignore|nocheck)\b/,
    rooms: ["hw", "kernel", "lab", "tests"],
    why: "types are not silenced",
  },
  {
    pattern: new RegExp(`\\b(?:${OWED.join("|")})\\b`),
    rooms: ["hw", "kernel", "lab", "user", "tests", "bench", "mod.ts"],
    why: "finish it, or name an issue",
  },
];

/** Files that break a rule, in words. */
export function untidy(file: SourceFile): string[] {
  const wrong: string[] = [];
  const room = roomOf(file.path);
  const lines = file.text.split("\n");
  const isCode = file.path.endsWith(".ts");
  lines.forEach((line, i) => {
    const inComment = /^\s*(?:\*|\/\/|\/\*)/.test(line);
    for (const { pattern, rooms, why } of BANS) {
      if (!rooms.includes(room) || !pattern.test(line)) continue;
      const wordsOnly = inComment && !OWED.some((word) => line.includes(word)) && !line.includes("@ts-");
      if (!wordsOnly) wrong.push(`${file.path}:${i + 1}: ${pattern.exec(line)![0].trim()}: ${why}`);
    }
  });
  if (!isCode || room === "third_party") return wrong;
  const header = /^(?:#!.*\n)?\/\*\*[\s\S]*?\*\//.exec(file.text)?.[0] ?? "";
  if (["hw", "kernel", "lab"].includes(room) && !header.includes("@module")) {
    wrong.push(`${file.path}: does not begin with a module comment`);
  }
  if (lines.length > LINES_MAX && !header.includes("Long:")) {
    wrong.push(
      `${file.path}: ${lines.length} lines, more than ${LINES_MAX}, and the header does not say why (Long: …)`,
    );
  }
  return wrong;
}

/** Links to files that are not there, in words. */
export async function deadLinks(file: SourceFile): Promise<string[]> {
  const wrong: string[] = [];
  const prose = file.text.replace(/```[\s\S]*?```/g, "");
  for (const match of prose.matchAll(/\]\(([^)#]+)(?:#[^)]*)?\)/g)) {
    const target = match[1]!;
    if (/^[a-z]+:/.test(target)) continue;
    try {
      await Deno.stat(new URL(target, new URL(file.path, ROOT)));
    } catch {
      wrong.push(`${file.path}: links to ${target}, which is not there`);
    }
  }
  return wrong;
}

/** Everything untidy in the tree, in words. */
export async function checkTidy(): Promise<string[]> {
  const wrong = (await sourceFiles([".ts", ".c", ".h"])).flatMap(untidy);
  for (const file of await sourceFiles([".md"])) wrong.push(...await deadLinks(file));
  return wrong;
}
