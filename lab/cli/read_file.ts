/**
 * Files that a command line names.
 *
 * Room: `lab/cli/`; imports args.ts.
 *
 * @module
 */
import { UsageError } from "./args.ts";

/** No file that is larger could be loaded: the most RAM that a machine has. */
const FILE_BYTES_MAX = 3 * 2 ** 30;
/** Of what is no plain file (a pipe, a device) this much is read. */
const STREAM_BYTES_MAX = 2 ** 28;

/**
 * Reads a whole file.
 *
 * @param what What it is for, in the message.
 * @throws {UsageError} when it can't be read, or could never be loaded.
 */
export async function readNamedFile(what: string, path: string | URL): Promise<Uint8Array<ArrayBuffer>> {
  const name = path instanceof URL ? path.pathname : path;
  try {
    const { isFile, isDirectory, size } = await Deno.stat(path);
    if (isFile || isDirectory) {
      if (size > FILE_BYTES_MAX) throw new UsageError(tooLarge(what, name, FILE_BYTES_MAX));
      return await Deno.readFile(path);
    }
    return await readStream(what, name);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`Cannot read ${what} "${name}": ${error instanceof Error ? error.message : error}`);
  }
}

async function readStream(what: string, name: string): Promise<Uint8Array<ArrayBuffer>> {
  const pieces: Uint8Array<ArrayBuffer>[] = [];
  let total = 0;
  for await (const piece of (await Deno.open(name)).readable) {
    pieces.push(piece);
    total += piece.length;
    if (total > STREAM_BYTES_MAX) throw new UsageError(tooLarge(what, name, STREAM_BYTES_MAX));
  }
  const bytes = new Uint8Array(total);
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

function tooLarge(what: string, name: string, most: number): string {
  return `Cannot use ${what} "${name}": it has more than ${most} bytes`;
}
