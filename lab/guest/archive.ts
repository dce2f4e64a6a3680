/**
 * A root file system for vkernels that run no programs: the smallest that a host and a guest can have.
 *
 * Room: `lab/guest/`; imports the archive writer.
 *
 * @module
 */
import { cpio } from "../../kernel/vfs/cpio.ts";

const S_IFREG = 0o100755, S_IFDIR = 0o040755;

/** Folders, and TypeScript programs by their paths: `vkernel` in /usr/sbin, others in /bin. */
export function guestArchive(gates: readonly string[] = []): Uint8Array<ArrayBuffer> {
  const text = (of: string) => new TextEncoder().encode(of);
  return cpio([
    ...["bin", "tmp", "usr", "usr/sbin", "var"].map((path) => ({ path, mode: S_IFDIR, data: text("") })),
    { path: "usr/sbin/vkernel", mode: S_IFREG, data: text("#!gate vkernel\n") },
    ...gates.map((name) => ({ path: `bin/${name}`, mode: S_IFREG, data: text(`#!gate ${name}\n`) })),
  ]);
}
