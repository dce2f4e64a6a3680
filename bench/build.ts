/**
 * Builds the bench images (`bench/bin/bench.elf` and `bench32.elf`) and tells whether the built files match their sources.
 *
 * Room: `bench/`; imports programs.ts, nothing of the machine.
 *
 *     deno run -A bench/build.ts            rebuild (gcc and objcopy)
 *     deno run -A bench/build.ts --check    say whether it is out of date; exit status 1 if so
 *
 * @module
 */

import { IMAGE_NAMES, type ImageName } from "./programs.ts";

/** `bench/bin/manifest.json`. */
export interface BenchManifest {
  /** First line of `--version` of the compiler. */
  readonly compiler: string;
  /** SHA-256 over flags and sources, in hexadecimal. */
  readonly sources: string;
  /** SHA-256 of the images. */
  readonly files: Readonly<Record<ImageName, string>>;
}

const BENCH = new URL("./", import.meta.url);
const SOURCES: readonly string[] = ["src/start.S", "src/start32.S", "src/bench.c", "src/link.ld"];
/** The images. `bench` is 64-bit code in an ELF32 container, the only one that QEMU's multiboot loader takes. */
export const IMAGES: Readonly<Record<ImageName, URL>> = {
  bench: new URL("bin/bench.elf", BENCH),
  bench32: new URL("bin/bench32.elf", BENCH),
};
/** Flags of the compiler for one image only. */
export const IMAGE_FLAGS: Readonly<Record<ImageName, readonly string[]>> = {
  bench: ["-mcmodel=small", "-mno-red-zone", "-mno-sse"],
  bench32: ["-m32", "-march=i686", "-mregparm=3", "-mno-sse"],
};
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

/** Hash of everything that the images are made from. */
export async function benchSourceHash(): Promise<string> {
  const parts: string[] = [BENCH_FLAGS, ...IMAGE_NAMES.map((name) => IMAGE_FLAGS[name])].map((f) =>
    f.join("\n")
  );
  for (const path of SOURCES) parts.push(path, await Deno.readTextFile(new URL(path, BENCH)));
  return await sha256(new TextEncoder().encode(parts.join("\0")));
}

/** Hash of an image. */
export async function benchImageHash(name: ImageName): Promise<string> {
  return await sha256(await Deno.readFile(IMAGES[name]));
}

/** The record of the last build. */
export async function readBenchManifest(): Promise<BenchManifest> {
  return JSON.parse(await Deno.readTextFile(new URL("bin/manifest.json", BENCH)));
}

/** Whether sources and images are those of the last build. */
export async function isUpToDate(): Promise<boolean> {
  const manifest = await readBenchManifest();
  for (const name of IMAGE_NAMES) {
    if (manifest.files[name] !== await benchImageHash(name)) return false;
  }
  return manifest.sources === await benchSourceHash();
}

async function tool(command: string, ...args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(command, {
    args,
    cwd: BENCH,
    env: { LC_ALL: "C" },
  })
    .output();
  if (!success) throw new Error(`Cannot build the bench images:\n${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout);
}

async function build(): Promise<void> {
  const version = (await tool("gcc", "--version")).split("\n")[0]!;
  const wide = await Deno.makeTempFile();
  try {
    await tool("gcc", ...IMAGE_FLAGS.bench, ...BENCH_FLAGS, "-o", wide, "src/start.S", "src/bench.c");
    await tool("objcopy", "-O", "elf32-i386", wide, "bin/bench.elf");
    const narrow = [...IMAGE_FLAGS.bench32, ...BENCH_FLAGS, "-o", "bin/bench32.elf"];
    await tool("gcc", ...narrow, "src/start32.S", "src/bench.c");
    for (const name of IMAGE_NAMES) await Deno.chmod(IMAGES[name], 0o644);
  } finally {
    await Deno.remove(wide);
  }
  const manifest: BenchManifest = {
    compiler: version,
    sources: await benchSourceHash(),
    files: { bench: await benchImageHash("bench"), bench32: await benchImageHash("bench32") },
  };
  await Deno.writeTextFile(new URL("bin/manifest.json", BENCH), JSON.stringify(manifest, null, 2) + "\n");
}

if (import.meta.main) {
  try {
    if (Deno.args.includes("--check")) {
      if (!await isUpToDate()) {
        console.log("out of date: bench/bin/");
        Deno.exit(1);
      }
    } else {
      await build();
      console.log("bench/bin/bench.elf bench/bin/bench32.elf");
    }
  } catch (error) {
    const missing = error instanceof Deno.errors.NotFound;
    console.error(missing ? "Cannot build the bench images: gcc or objcopy is not installed" : String(error));
    Deno.exit(1);
  }
}
