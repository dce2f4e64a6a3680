/**
 * Builds the bench image (`bench/bin/bench.elf`) and tells whether the built file matches its sources.
 *
 * Room: `bench/`; imports nothing of the machine.
 *
 *     deno run -A bench/build.ts            rebuild (gcc and objcopy)
 *     deno run -A bench/build.ts --check    say whether it is out of date; exit status 1 if so
 *
 * @module
 */

/** `bench/bin/manifest.json`. */
export interface BenchManifest {
  /** First line of `--version` of the compiler. */
  readonly compiler: string;
  /** SHA-256 over flags and sources, in hexadecimal. */
  readonly sources: string;
  /** SHA-256 of the image. */
  readonly file: string;
}

const BENCH = new URL("./", import.meta.url);
const SOURCES: readonly string[] = ["src/start.S", "src/bench.c", "src/link.ld"];
/** The image: 64-bit code in an ELF32 container, the only one that QEMU's multiboot loader takes. */
export const IMAGE: URL = new URL("bin/bench.elf", BENCH);
/** Flags of the compiler. */
export const BENCH_FLAGS: readonly string[] = [
  "-std=gnu11",
  "-O2",
  "-static",
  "-nostdlib",
  "-ffreestanding",
  "-fno-pic",
  "-fno-pie",
  "-no-pie",
  "-mcmodel=small",
  "-mno-red-zone",
  "-mno-sse",
  "-fno-stack-protector",
  "-fno-asynchronous-unwind-tables",
  "-fcf-protection=none",
  "-Wall",
  "-Wextra",
  "-Werror",
  "-Wl,-z,max-page-size=4096",
  "-Wl,-z,noexecstack",
  "-Wl,--build-id=none",
  "-Wl,-s",
  "-T",
  "src/link.ld",
];

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Hash of everything that the image is made from. */
export async function benchSourceHash(): Promise<string> {
  const parts: string[] = [BENCH_FLAGS.join("\n")];
  for (const path of SOURCES) parts.push(path, await Deno.readTextFile(new URL(path, BENCH)));
  return await sha256(new TextEncoder().encode(parts.join("\0")));
}

/** Hash of the image. */
export async function benchImageHash(): Promise<string> {
  return await sha256(await Deno.readFile(IMAGE));
}

/** The record of the last build. */
export async function readBenchManifest(): Promise<BenchManifest> {
  return JSON.parse(await Deno.readTextFile(new URL("bin/manifest.json", BENCH)));
}

/** Whether sources and image are those of the last build. */
export async function isUpToDate(): Promise<boolean> {
  const manifest = await readBenchManifest();
  return manifest.sources === await benchSourceHash() && manifest.file === await benchImageHash();
}

async function tool(command: string, ...args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(command, {
    args,
    cwd: BENCH,
    env: { LC_ALL: "C" },
  })
    .output();
  if (!success) throw new Error(`Cannot build the bench image:\n${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout);
}

async function build(): Promise<void> {
  const version = (await tool("gcc", "--version")).split("\n")[0]!;
  const wide = await Deno.makeTempFile();
  try {
    await tool("gcc", ...BENCH_FLAGS, "-o", wide, "src/start.S", "src/bench.c");
    await tool("objcopy", "-O", "elf32-i386", wide, "bin/bench.elf");
  } finally {
    await Deno.remove(wide);
  }
  const manifest: BenchManifest = {
    compiler: version,
    sources: await benchSourceHash(),
    file: await benchImageHash(),
  };
  await Deno.writeTextFile(new URL("bin/manifest.json", BENCH), JSON.stringify(manifest, null, 2) + "\n");
}

if (import.meta.main) {
  try {
    if (Deno.args.includes("--check")) {
      if (!await isUpToDate()) {
        console.log("out of date: bench/bin/bench.elf");
        Deno.exit(1);
      }
    } else {
      await build();
      console.log("bench/bin/bench.elf");
    }
  } catch (error) {
    const missing = error instanceof Deno.errors.NotFound;
    console.error(missing ? "Cannot build the bench image: gcc or objcopy is not installed" : String(error));
    Deno.exit(1);
  }
}
