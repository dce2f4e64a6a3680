/**
 * The repository's own source files, as the checks of the gate see them.
 *
 * Room: `lab/gate/`; imports nothing.
 *
 * @module
 */

/** Root of the work tree. */
export const ROOT: URL = new URL("../../", import.meta.url);

/** Folders that hold no source of ours. */
const SKIPPED = new Set([".git", ".ci", "node_modules", "coverage", "bin", "__snapshots__"]);

/** One text file. */
export interface SourceFile {
  /** Path from the root, with slashes. */
  readonly path: string;
  readonly text: string;
}

/** All files with one of the endings, sorted by path. */
export async function sourceFiles(endings: readonly string[]): Promise<SourceFile[]> {
  const files: SourceFile[] = [];
  await collect("", endings, files);
  return files.sort((a, b) => (a.path < b.path ? -1 : 1));
}

async function collect(folder: string, endings: readonly string[], files: SourceFile[]): Promise<void> {
  for await (const entry of Deno.readDir(new URL(folder, ROOT))) {
    const path = folder + entry.name;
    if (entry.isDirectory && !SKIPPED.has(entry.name)) await collect(`${path}/`, endings, files);
    else if (entry.isFile && endings.some((ending) => entry.name.endsWith(ending))) {
      files.push({ path, text: await Deno.readTextFile(new URL(path, ROOT)) });
    }
  }
}

/** The first folder of a path, or the file's name at the top. */
export function roomOf(path: string): string {
  return path.split("/")[0]!;
}
