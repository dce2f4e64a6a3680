/**
 * The root file system's archives: cpio (newc) of user/'s programs and files, and what `--root` adds.
 *
 * Room: `lab/cli/`; imports the command line's errors.
 *
 * @module
 */
import { type ArchiveEntry, cpio } from "../../kernel/vfs/cpio.ts";
import { UsageError } from "./args.ts";

/** What of bin/manifest.json matters here: programs for the kernel; the other files are for the bare machine. */
interface Manifest {
  readonly programs: Readonly<Record<string, unknown>>;
  readonly links: Readonly<Record<string, string>>;
}

const S_IFREG = 0o100000, S_IFDIR = 0o040000, S_IFLNK = 0o120000;
const USER = new URL("../../user/", import.meta.url);
const EMPTY = new Uint8Array(0);

/** Everything in a directory of the host, sorted by path. */
export async function directoryEntries(path: string | URL, prefix = ""): Promise<ArchiveEntry[]> {
  const base = path instanceof URL ? path.pathname.replace(/\/$/, "") : path;
  const entries: ArchiveEntry[] = [];
  const found = await Array.fromAsync(Deno.readDir(base));
  for (const { name, isDirectory, isSymlink, isFile } of found.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const from = `${base}/${name}`, to = `${prefix}${name}`;
    if (isSymlink) {
      entries.push({
        path: to,
        mode: S_IFLNK | 0o777,
        data: new TextEncoder().encode(await Deno.readLink(from)),
      });
    } else if (isDirectory) {
      entries.push(
        { path: to, mode: S_IFDIR | 0o755, data: EMPTY },
        ...await directoryEntries(from, `${to}/`),
      );
    } else if (isFile) {
      const mode = (await Deno.stat(from)).mode ?? 0o644;
      entries.push({ path: to, mode: S_IFREG | (mode & 0o777), data: await Deno.readFile(from) });
    }
  }
  return entries;
}

/** The archive of user/: programs in /bin (init in /sbin), files of user/root as they stand. */
export async function userArchive(): Promise<Uint8Array<ArrayBuffer>> {
  const directory = (path: string): ArchiveEntry => ({ path, mode: S_IFDIR | 0o755, data: EMPTY });
  const entries = ["bin", "sbin", "root", "tmp", "usr", "usr/sbin"].map(directory);
  const vkernel = new TextEncoder().encode("#!gate vkernel\n");
  entries.push({ path: "usr/sbin/vkernel", mode: S_IFREG | 0o755, data: vkernel });
  const manifest: Manifest = JSON.parse(await Deno.readTextFile(new URL("bin/manifest.json", USER)));
  for (const entry of await directoryEntries(new URL("bin/", USER))) {
    if (!Object.hasOwn(manifest.programs, entry.path)) continue;
    entries.push({
      ...entry,
      path: `${entry.path === "init" ? "sbin" : "bin"}/${entry.path}`,
      mode: S_IFREG | 0o755,
    });
  }
  for (const [name, target] of Object.entries(manifest.links)) {
    entries.push({ path: `bin/${name}`, mode: S_IFLNK | 0o777, data: new TextEncoder().encode(target) });
  }
  try {
    entries.push(...await directoryEntries(new URL("root/", USER)));
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return cpio(entries);
}

/**
 * All archives of a boot: user/'s, then those of `--root`, in order.
 *
 * @throws {UsageError} when one cannot be read.
 */
export async function rootArchives(roots: readonly string[]): Promise<Uint8Array<ArrayBuffer>[]> {
  const archives = [await userArchive()];
  for (const root of roots) {
    try {
      const { isDirectory } = await Deno.stat(root);
      const archive = isDirectory ? cpio(await directoryEntries(root)) : await Deno.readFile(root);
      if (!isArchive(archive)) {
        throw new UsageError("it is neither a directory nor a cpio (newc) or tar archive");
      }
      archives.push(archive);
    } catch (error) {
      throw new UsageError(`Cannot read --root ${root}: ${error instanceof Error ? error.message : error}`);
    }
  }
  return archives;
}

/** Whether bytes begin as a cpio archive in the new ASCII format does, or as a tar archive. */
function isArchive(bytes: Uint8Array): boolean {
  const text = (at: number, length: number) =>
    new TextDecoder("latin1").decode(bytes.subarray(at, at + length));
  return ["070701", "070702"].includes(text(0, 6)) || text(257, 5) === "ustar";
}
