/**
 * A disk image in a file of the host.
 *
 * Room: `lab/cli/`; imports the block device's interface.
 *
 * @module
 */
import { type BlockStore, SECTOR_BYTES } from "../../hw/dev/virtio_blk.ts";
import { UsageError } from "./args.ts";

/** A file as a disk. */
export class FileDisk implements BlockStore {
  readonly bytes: number;
  readonly readOnly: boolean;
  readonly id: string;
  readonly #file: Deno.FsFile;

  private constructor(file: Deno.FsFile, bytes: number, readOnly: boolean, id: string) {
    this.#file = file;
    this.bytes = bytes;
    this.readOnly = readOnly;
    this.id = id;
  }

  /**
   * Opens an image; read-only if the file may not be written.
   *
   * @throws {UsageError} when it can't be read or its size is not a whole number of sectors.
   */
  static open(path: string): FileDisk {
    const name = path.split("/").at(-1)!.slice(0, 20);
    try {
      const bytes = Deno.statSync(path).size;
      if (bytes === 0 || bytes % SECTOR_BYTES !== 0) {
        throw new UsageError(
          `Cannot use "${path}" as a disk: it has ${bytes} bytes, no multiple of ${SECTOR_BYTES}`,
        );
      }
      try {
        return new FileDisk(Deno.openSync(path, { read: true, write: true }), bytes, false, name);
      } catch (error) {
        if (!(error instanceof Deno.errors.PermissionDenied)) throw error;
        return new FileDisk(Deno.openSync(path, { read: true }), bytes, true, name);
      }
    } catch (error) {
      if (error instanceof UsageError) throw error;
      throw new UsageError(`Cannot open disk "${path}": ${error instanceof Error ? error.message : error}`);
    }
  }

  read(offset: number, into: Uint8Array): void {
    this.#file.seekSync(offset, Deno.SeekMode.Start);
    for (let done = 0; done < into.length;) {
      const n = this.#file.readSync(into.subarray(done));
      if (n === null) {
        into.fill(0, done);
        return;
      }
      done += n;
    }
  }

  write(offset: number, data: Uint8Array): void {
    this.#file.seekSync(offset, Deno.SeekMode.Start);
    for (let done = 0; done < data.length;) done += this.#file.writeSync(data.subarray(done));
  }

  flush(): void {
    this.#file.syncDataSync();
  }
}
