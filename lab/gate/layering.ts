/**
 * Arrows run one way, `lab → kernel → hw`, and never in a circle.
 *
 * Room: `lab/gate/`; imports the list of files. Type-only imports obey the layers too, but may form circles: they are gone at run time.
 *
 * @module
 */
import { roomOf, type SourceFile, sourceFiles } from "./source_files.ts";

/** One import of one file. */
export interface ImportEdge {
  readonly from: string;
  /** Path from the root, or the specifier where it is not a file of ours. */
  readonly to: string;
  readonly typeOnly: boolean;
}

/** Which rooms a room may import. */
const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  hw: ["hw"],
  kernel: ["kernel", "hw"],
  "mod.ts": ["kernel", "hw"],
  lab: ["lab", "kernel", "hw", "mod.ts", "bench"],
  bench: ["bench", "lab", "kernel", "hw", "mod.ts"],
  tests: ["tests", "lab", "kernel", "hw", "mod.ts", "bench"],
  third_party: ["third_party"],
  user: [],
};
/** Rooms that may import packages. */
const WITH_PACKAGES = new Set(["lab", "tests", "bench", "third_party"]);
/** The machine's builder knows all of hw; nobody in hw knows it. */
const TOP_OF_HW = "hw/machine.ts";

const STATEMENT =
  /^[ \t]*(?:import|export)\b([^"';]*?)\bfrom\s*"([^"]+)"|^[ \t]*import\s*"([^"]+)"|\bimport\(\s*"([^"]+)"\s*\)/gm;

/** The imports that a file's text says. */
export function importsOf(file: SourceFile): ImportEdge[] {
  const edges: ImportEdge[] = [];
  const code = file.text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/^\s*\/\/.*$/gm, "");
  for (const match of code.matchAll(STATEMENT)) {
    const specifier = match[2] ?? match[3] ?? match[4]!;
    edges.push({ from: file.path, to: resolve(file.path, specifier), typeOnly: isTypeOnly(match[1]) });
  }
  return edges;
}

function isTypeOnly(clause: string | undefined): boolean {
  if (clause === undefined) return false;
  if (/^\s*type\b(?!\s*,)/.test(clause)) return true;
  const names = /^\s*\{([\s\S]*)\}\s*$/.exec(clause)?.[1]?.split(",").map((name) => name.trim()).filter(
    Boolean,
  );
  return names !== undefined && names.length > 0 && names.every((name) => name.startsWith("type "));
}

function resolve(from: string, specifier: string): string {
  if (!specifier.startsWith(".")) return specifier;
  return new URL(specifier, `file:///${from}`).pathname.slice(1);
}

/** Imports that point the wrong way, in words. */
export function wrongArrows(edges: readonly ImportEdge[]): string[] {
  const wrong: string[] = [];
  for (const { from, to } of edges) {
    const room = roomOf(from);
    const ours = /\.(ts|js)$/.test(to) && !to.includes(":") && !to.startsWith("@");
    if (!ours) {
      if (!WITH_PACKAGES.has(room)) wrong.push(`${from} imports ${to}: ${room} has no packages`);
    } else if (!(ALLOWED[room] ?? []).includes(roomOf(to))) {
      wrong.push(
        `${from} imports ${to}: ${room} may import ${(ALLOWED[room] ?? []).join(", ") || "nothing"}`,
      );
    } else if (room === "hw" && to === TOP_OF_HW) {
      wrong.push(`${from} imports ${to}: nothing in hw knows the machine's builder`);
    }
  }
  return wrong;
}

/** Circles of imports that exist at run time, each as the files along it. */
export function importCycles(edges: readonly ImportEdge[]): string[][] {
  const next = new Map<string, string[]>();
  for (const { from, to, typeOnly } of edges) {
    if (!typeOnly) next.set(from, [...next.get(from) ?? [], to]);
  }
  const cycles: string[][] = [];
  const done = new Set<string>();
  const path: string[] = [];
  const visit = (file: string): void => {
    const at = path.indexOf(file);
    if (at >= 0) {
      cycles.push([...path.slice(at), file]);
      return;
    }
    if (done.has(file)) return;
    path.push(file);
    for (const to of next.get(file) ?? []) visit(to);
    path.pop();
    done.add(file);
  };
  for (const file of next.keys()) visit(file);
  return cycles;
}

/** Everything that is wrong with the arrows, in words. */
export async function checkLayering(): Promise<string[]> {
  const edges = (await sourceFiles([".ts", ".js"])).flatMap(importsOf);
  return [
    ...wrongArrows(edges),
    ...importCycles(edges).map((cycle) => `import cycle: ${cycle.join(" -> ")}`),
  ];
}
