/**
 * What the test of a Linux kernel needs: the kernel, where one is installed, and a user space of one program.
 *
 * @module
 */

/** Where a kernel is looked for before /boot. */
export const KERNEL_VARIABLE = "EXUVIA_LINUX";

/** The kernel that {@link KERNEL_VARIABLE} names, or the last of /boot/vmlinuz-*; undefined if there is none. */
export function findKernel(): Uint8Array<ArrayBuffer> | undefined {
  const granted = (["env", "read"] as const).every((name) =>
    Deno.permissions.querySync({ name }).state === "granted"
  );
  if (!granted) {
    console.log("tests/hw/linux_guest.ts: needs --allow-env and --allow-read; ignored");
    return undefined;
  }
  const named = Deno.env.get(KERNEL_VARIABLE);
  if (named !== undefined && named !== "") return Deno.readFileSync(named);
  try {
    const names = [...Deno.readDirSync("/boot")].map((e) => e.name).filter((n) => n.startsWith("vmlinuz-"));
    const last = names.sort().at(-1);
    return last === undefined ? undefined : Deno.readFileSync(`/boot/${last}`);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.PermissionDenied) {
      return undefined;
    }
    throw error;
  }
}

/** One file of an archive: path, mode, content, and for a device its number. */
interface ArchiveFile {
  readonly path: string;
  readonly mode: number;
  readonly bytes?: Uint8Array;
  readonly device?: readonly [major: number, minor: number];
}

/** A cpio archive in the "newc" format, which Linux takes as initial RAM disk. */
export function cpio(files: readonly ArchiveFile[]): Uint8Array {
  const out: number[] = [];
  const put = (bytes: Iterable<number>) => {
    for (const byte of bytes) out.push(byte);
    while (out.length % 4 !== 0) out.push(0);
  };
  [...files, { path: "TRAILER!!!", mode: 0 } as ArchiveFile].forEach((file, i) => {
    const name = new TextEncoder().encode(`${file.path}\0`), bytes = file.bytes ?? new Uint8Array();
    const [major, minor] = file.device ?? [0, 0];
    const fields = [i + 1, file.mode, 0, 0, 1, 0, bytes.length, 0, 0, major, minor, name.length, 0];
    const header = "070701" + fields.map((n) => n.toString(16).padStart(8, "0")).join("");
    put([...new TextEncoder().encode(header), ...name]);
    put(bytes);
  });
  return Uint8Array.from(out);
}

/** Address at which the program is linked, and where its text begins in the file. */
const LINKED_AT = 0x40_0000, TEXT = 0x78;

/** An ELF executable without libraries: it writes `message` to its standard output and switches the machine off. */
export function messageProgram(message: string): Uint8Array {
  const text = new TextEncoder().encode(message);
  const u32 = (n: number) => [n & 0xff, (n >>> 8) & 0xff, (n >>> 16) & 0xff, n >>> 24];
  const call = (number: number) => [0xb8, ...u32(number), 0x0f, 0x05]; // mov eax, number; syscall
  const code = (messageAt: number) => [
    ...[0xbf, ...u32(1)], // mov edi, 1
    ...[0xbe, ...u32(messageAt)], // mov esi, message
    ...[0xba, ...u32(text.length)], // mov edx, length
    ...call(1), // write
    ...[0xbf, ...u32(0xfee1_dead)], // mov edi, LINUX_REBOOT_MAGIC1
    ...[0xbe, ...u32(672_274_793)], // mov esi, LINUX_REBOOT_MAGIC2
    ...[0xba, ...u32(0x4321_fedc)], // mov edx, LINUX_REBOOT_CMD_POWER_OFF
    ...call(169), // reboot
    ...[0xeb, 0xfe], // jmp $
  ];
  const program = [...code(LINKED_AT + TEXT + code(0).length), ...text];
  const file = new Uint8Array(TEXT + program.length), view = new DataView(file.buffer);
  const u64 = (at: number, n: number) => view.setBigUint64(at, BigInt(n), true);
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(0x10, 2, true); // ET_EXEC
  view.setUint16(0x12, 62, true); // x86-64
  view.setUint32(0x14, 1, true);
  u64(0x18, LINKED_AT + TEXT);
  u64(0x20, 0x40);
  view.setUint16(0x34, 0x40, true);
  view.setUint16(0x36, 0x38, true);
  view.setUint16(0x38, 1, true); // one program header
  view.setUint32(0x40, 1, true); // PT_LOAD
  view.setUint32(0x44, 5, true); // readable, executable
  u64(0x50, LINKED_AT);
  u64(0x58, LINKED_AT);
  u64(0x60, file.length);
  u64(0x68, file.length);
  u64(0x70, 0x1000);
  file.set(program, TEXT);
  return file;
}

/** An initial RAM disk whose /init is {@link messageProgram}. */
export function messageInitrd(message: string): Uint8Array {
  return cpio([
    { path: "dev", mode: 0o40755 },
    { path: "dev/console", mode: 0o20600, device: [5, 1] },
    { path: "init", mode: 0o100755, bytes: messageProgram(message) },
  ]);
}
