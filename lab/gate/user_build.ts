/**
 * Builds the C programs of user/ (those of ring 3, and the bare-metal ones) and tells whether the built files match their sources.
 *
 * Room: `lab/gate/`; imports nothing of the machine.
 *
 *     deno task user            rebuild all
 *     deno task user --check    say which are out of date; exit status 1 if any is
 *
 * @module
 */

/** What is recorded of one built program. */
export interface BuiltProgram {
  /** SHA-256 over flags and sources, in hexadecimal. */
  readonly sources: string;
  /** SHA-256 of the ELF file. */
  readonly file: string;
}

/** `user/bin/manifest.json`. */
export interface Manifest {
  /** First line of `--version` of the compiler. */
  readonly compiler: string;
  readonly programs: Readonly<Record<string, BuiltProgram>>;
  /** Bare-metal images, by name. */
  readonly bare: Readonly<Record<string, BuiltProgram>>;
}

const USER = new URL("../../user/", import.meta.url);
/** Flags of both compilers. */
export const FLAGS: readonly string[] = [
  "-std=c11",
  "-O1",
  "-static",
  "-nostdlib",
  "-ffreestanding",
  "-fno-pie",
  "-no-pie",
  "-fno-stack-protector",
  "-fno-asynchronous-unwind-tables",
  "-fno-optimize-sibling-calls",
  "-mno-red-zone",
  "-fcf-protection=none",
  "-Wall",
  "-Wextra",
  "-Werror",
  "-Wl,-z,max-page-size=4096",
  "-Wl,-z,noexecstack",
  "-Wl,-z,separate-code",
  "-Wl,--build-id=none",
  "-Wl,-s",
];

/** Flags for bare-metal images: 64-bit code that may use general-purpose registers alone, at 1 MiB. */
export const BARE_FLAGS: readonly string[] = [
  "-std=gnu11",
  "-O1",
  "-static",
  "-nostdlib",
  "-ffreestanding",
  "-fno-pie",
  "-no-pie",
  "-mcmodel=kernel",
  "-mno-red-zone",
  "-mgeneral-regs-only",
  "-fno-stack-protector",
  "-fno-asynchronous-unwind-tables",
  "-fcf-protection=none",
  "-Wall",
  "-Wextra",
  "-Werror",
  "-Wl,-T,bare/bare.ld",
  "-Wl,--build-id=none",
  "-Wl,-z,noexecstack",
  "-Wl,-z,max-page-size=4096",
  "-Wl,-s",
];

/** Names of the programs of ring 3, sorted. */
export async function programNames(): Promise<string[]> {
  return await namesIn("programs/");
}
/** Names of the bare-metal images, sorted. */
export async function bareNames(): Promise<string[]> {
  return await namesIn("bare/");
}

async function namesIn(folder: string): Promise<string[]> {
  const names: string[] = [];
  for await (const entry of Deno.readDir(new URL(folder, USER))) {
    if (entry.name.endsWith(".c")) names.push(entry.name.slice(0, -2));
  }
  return names.sort();
}

async function librarySources(): Promise<string[]> {
  const names: string[] = [];
  for await (const entry of Deno.readDir(new URL("lib/", USER))) names.push(`lib/${entry.name}`);
  return names.sort();
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Hash of everything that a program is made from. */
export async function sourceHash(name: string): Promise<string> {
  const parts: string[] = [FLAGS.join("\n")];
  for (const path of [...await librarySources(), `programs/${name}.c`]) {
    parts.push(path, await Deno.readTextFile(new URL(path, USER)));
  }
  return await sha256(new TextEncoder().encode(parts.join("\0")));
}

/** Hash of everything that a bare-metal image is made from. */
export async function bareHash(name: string): Promise<string> {
  const parts: string[] = [BARE_FLAGS.join("\n")];
  for (const path of ["bare/bare.ld", `bare/${name}.c`]) {
    parts.push(path, await Deno.readTextFile(new URL(path, USER)));
  }
  return await sha256(new TextEncoder().encode(parts.join("\0")));
}

/** Hash of a built file. */
export async function fileHash(name: string): Promise<string> {
  return await sha256(await Deno.readFile(new URL(`bin/${name}`, USER)));
}

/** The record of the last build. */
export async function readManifest(): Promise<Manifest> {
  return JSON.parse(await Deno.readTextFile(new URL("bin/manifest.json", USER)));
}

/** A compiler that can be run, and the first line of what it says of itself; undefined when there is none. */
export async function findCompiler(): Promise<{ command: string; version: string } | undefined> {
  for (const command of ["gcc", "clang", "cc"]) {
    try {
      const { stdout, success } = await new Deno.Command(command, { args: ["--version"] }).output();
      if (success) return { command, version: new TextDecoder().decode(stdout).split("\n")[0]! };
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return undefined;
}

/** Compiles one program; the file's path is relative to user/ in what the compiler sees, so that the bytes do not depend on the place. */
export async function compile(command: string, name: string, output: string): Promise<void> {
  const sources = (await librarySources()).filter((path) => path.endsWith(".c"));
  const { success, stderr } = await new Deno.Command(command, {
    args: [...FLAGS, "-Ilib", "-o", output, ...sources, `programs/${name}.c`],
    cwd: USER,
    env: { LC_ALL: "C" },
  }).output();
  if (!success) throw new Error(`Cannot build ${name}:\n${new TextDecoder().decode(stderr)}`);
}

/** Compiles one bare-metal image. The ELF file is made a 32-bit one, which is what multiboot loaders take. */
export async function compileBare(command: string, name: string, output: string): Promise<void> {
  const run = async (program: string, args: string[]): Promise<void> => {
    const { success, stderr } = await new Deno.Command(program, { args, cwd: USER, env: { LC_ALL: "C" } })
      .output();
    if (!success) throw new Error(`Cannot build ${name}:\n${new TextDecoder().decode(stderr)}`);
  };
  await run(command, [...BARE_FLAGS, "-o", output, `bare/${name}.c`]);
  await run("objcopy", ["-O", "elf32-i386", output]);
}

async function check(): Promise<string[]> {
  const manifest = await readManifest();
  const stale: string[] = [];
  for (const name of await programNames()) {
    const built = manifest.programs[name];
    if (built?.sources !== await sourceHash(name) || built.file !== await fileHash(name)) stale.push(name);
  }
  for (const name of await bareNames()) {
    const built = manifest.bare[name];
    if (built?.sources !== await bareHash(name) || built.file !== await fileHash(name)) stale.push(name);
  }
  return stale;
}

async function build(): Promise<void> {
  const compiler = await findCompiler();
  if (compiler === undefined) {
    throw new Error("Cannot build the programs of user/: no gcc and no clang is installed");
  }
  const programs: Record<string, BuiltProgram> = {};
  for (const name of await programNames()) {
    await compile(compiler.command, name, `bin/${name}`);
    programs[name] = { sources: await sourceHash(name), file: await fileHash(name) };
    console.log(`user/bin/${name}`);
  }
  const bare: Record<string, BuiltProgram> = {};
  for (const name of await bareNames()) {
    await compileBare(compiler.command, name, `bin/${name}`);
    bare[name] = { sources: await bareHash(name), file: await fileHash(name) };
    console.log(`user/bin/${name}`);
  }
  const manifest: Manifest = { compiler: compiler.version, programs, bare };
  await Deno.writeTextFile(new URL("bin/manifest.json", USER), JSON.stringify(manifest, null, 2) + "\n");
}

if (import.meta.main) {
  if (Deno.args.includes("--check")) {
    const stale = await check();
    for (const name of stale) console.log(`out of date: user/bin/${name}`);
    Deno.exit(stale.length > 0 ? 1 : 0);
  }
  try {
    await build();
  } catch (error) {
    console.error(error instanceof Error ? error.message : String(error));
    Deno.exit(1);
  }
}
