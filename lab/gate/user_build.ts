/**
 * Builds the C programs of user/ (those of ring 3, the bare-metal ones and those for Linux) and tells whether the built files match their sources.
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
  /** Other names of programs: symbolic links in /bin. */
  readonly links: Readonly<Record<string, string>>;
  /** Bare-metal images and programs for Linux, by name. */
  readonly own: Readonly<Record<string, BuiltProgram>>;
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
  "-ffunction-sections",
  "-fdata-sections",
  "-nostdinc",
  "-Iinclude",
  "-Wall",
  "-Wextra",
  "-Werror",
  "-Wl,-z,max-page-size=4096",
  "-Wl,-z,noexecstack",
  "-Wl,-z,separate-code",
  "-Wl,--build-id=none",
  "-Wl,--gc-sections",
  "-Wl,-s",
];

/** What the bare-metal images and the programs for Linux have in common. */
const FREESTANDING: readonly string[] = [
  "-std=gnu11",
  "-O1",
  "-static",
  "-nostdlib",
  "-ffreestanding",
  "-fno-pie",
  "-no-pie",
  "-mno-red-zone",
  "-mgeneral-regs-only",
  "-fno-stack-protector",
  "-fno-asynchronous-unwind-tables",
  "-fcf-protection=none",
  "-Wall",
  "-Wextra",
  "-Werror",
  "-Wl,--build-id=none",
  "-Wl,-z,noexecstack",
  "-Wl,-z,max-page-size=4096",
  "-Wl,-s",
];

/** A folder of programs that stand on their own, without the library. */
interface OwnKind {
  readonly folder: "bare" | "linux";
  readonly flags: readonly string[];
  /** Other files that they are made from. */
  readonly with: readonly string[];
  /** Whether the ELF file is made a 32-bit one, which is what multiboot loaders take. */
  readonly elf32: boolean;
}

/** Bare-metal images (64-bit code at 1 MiB), and programs for Linux. */
const OWN_KINDS: readonly OwnKind[] = [
  {
    folder: "bare",
    flags: [...FREESTANDING, "-mcmodel=kernel", "-Wl,-T,bare/bare.ld"],
    with: ["bare/bare.ld"],
    elf32: true,
  },
  { folder: "linux", flags: FREESTANDING, with: [], elf32: false },
];

/** A program that stands on its own. */
export interface OwnProgram {
  readonly name: string;
  readonly kind: OwnKind;
}

/** The bare-metal images and programs for Linux, sorted by kind and name. */
export async function ownPrograms(): Promise<OwnProgram[]> {
  const found: OwnProgram[] = [];
  for (const kind of OWN_KINDS) {
    for (const name of await namesIn(`${kind.folder}/`)) found.push({ name, kind });
  }
  return found;
}

/** What of them the compiler alone understands. */
const COMPILE_FLAGS = FLAGS.filter((flag) =>
  !flag.startsWith("-Wl,") && flag !== "-static" && flag !== "-no-pie"
);

/** Files below a folder of user/, relative to user/, sorted. */
async function filesBelow(folder: string): Promise<string[]> {
  const paths: string[] = [];
  for await (const entry of Deno.readDir(new URL(`${folder}/`, USER))) {
    if (entry.isDirectory) paths.push(...await filesBelow(`${folder}/${entry.name}`));
    else paths.push(`${folder}/${entry.name}`);
  }
  return paths.sort();
}

/** Names of the programs, sorted: `programs/NAME.c`, or a folder `programs/NAME/` of C files. */
export async function programNames(): Promise<string[]> {
  return await namesIn("programs/");
}
async function namesIn(folder: string): Promise<string[]> {
  const names: string[] = [];
  for await (const entry of Deno.readDir(new URL(folder, USER))) {
    if (entry.isDirectory) names.push(entry.name);
    else if (entry.name.endsWith(".c")) names.push(entry.name.slice(0, -2));
  }
  return names.sort();
}

async function librarySources(): Promise<string[]> {
  return [...await filesBelow("include"), ...await filesBelow("lib")];
}

/** The files of one program, relative to user/. */
async function programSources(name: string): Promise<string[]> {
  try {
    return await filesBelow(`programs/${name}`);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound) && !(error instanceof Deno.errors.NotADirectory)) {
      throw error;
    }
    return [`programs/${name}.c`];
  }
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Hash of everything that a program is made from. */
export async function sourceHash(name: string): Promise<string> {
  const parts: string[] = [FLAGS.join("\n")];
  for (const path of [...await librarySources(), ...await programSources(name)]) {
    parts.push(path, await Deno.readTextFile(new URL(path, USER)));
  }
  return await sha256(new TextEncoder().encode(parts.join("\0")));
}

/** Hash of everything that such a program is made from. */
export async function ownHash({ name, kind }: OwnProgram): Promise<string> {
  const parts: string[] = [kind.flags.join("\n")];
  for (const path of [...kind.with, `${kind.folder}/${name}.c`]) {
    parts.push(path, await Deno.readTextFile(new URL(path, USER)));
  }
  return await sha256(new TextEncoder().encode(parts.join("\0")));
}

/** Hash of a built file. */
export async function fileHash(name: string): Promise<string> {
  return await sha256(await Deno.readFile(new URL(`bin/${name}`, USER)));
}

/** The names that several commands in one program are called by: those of the toolbox, and the shell's. */
export async function programLinks(): Promise<Record<string, string>> {
  const header = await Deno.readTextFile(new URL("programs/toolbox/toolbox.h", USER));
  const names = [...header.matchAll(/\beach\((\w+)\)/g)].map((match) => [match[1]!, "toolbox"]);
  return Object.fromEntries([...names, ...["[", "printf", "test"].map((name) => [name, "sh"])]);
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

async function runCompiler(command: string, what: string, args: readonly string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(command, {
    args: [...args],
    cwd: USER,
    env: { LC_ALL: "C" },
  })
    .output();
  if (!success) throw new Error(`Cannot build ${what}:\n${new TextDecoder().decode(stderr)}`);
}

/** Compiles the library into a folder; returns its object files. */
export async function compileLibrary(command: string, folder: string): Promise<string[]> {
  const sources = (await librarySources()).filter((path) => path.endsWith(".c"));
  const objects: string[] = [];
  for (const source of sources) {
    const object = `${folder}/${source.replaceAll("/", "_").replace(/\.c$/, ".o")}`;
    await runCompiler(command, source, [...COMPILE_FLAGS, "-c", "-o", object, source]);
    objects.push(object);
  }
  return objects;
}

/**
 * Compiles one program with the library's object files; paths are relative to user/ in what the compiler sees, so that
 * the bytes do not depend on the place.
 */
export async function compile(
  command: string,
  objects: readonly string[],
  name: string,
  output: string,
): Promise<void> {
  const sources = (await programSources(name)).filter((path) => path.endsWith(".c"));
  await runCompiler(command, name, [...FLAGS, "-o", output, ...objects, ...sources]);
}

/** Compiles one program that stands on its own. */
export async function compileOwn(command: string, { name, kind }: OwnProgram, output: string): Promise<void> {
  const run = async (program: string, args: string[]): Promise<void> => {
    const { success, stderr } = await new Deno.Command(program, { args, cwd: USER, env: { LC_ALL: "C" } })
      .output();
    if (!success) throw new Error(`Cannot build ${name}:\n${new TextDecoder().decode(stderr)}`);
  };
  await run(command, [...kind.flags, "-o", output, `${kind.folder}/${name}.c`]);
  if (kind.elf32) await run("objcopy", ["-O", "elf32-i386", output]);
}

async function check(): Promise<string[]> {
  const manifest = await readManifest();
  const stale: string[] = [];
  for (const name of await programNames()) {
    const built = manifest.programs[name];
    if (built?.sources !== await sourceHash(name) || built.file !== await fileHash(name)) stale.push(name);
  }
  for (const program of await ownPrograms()) {
    const built = manifest.own[program.name];
    const isFresh = built?.sources === await ownHash(program) && built.file === await fileHash(program.name);
    if (!isFresh) stale.push(program.name);
  }
  return stale;
}

async function build(): Promise<void> {
  const compiler = await findCompiler();
  if (compiler === undefined) {
    throw new Error("Cannot build the programs of user/: no gcc and no clang is installed");
  }
  const programs: Record<string, BuiltProgram> = {};
  const names = await programNames();
  const folder = await Deno.makeTempDir();
  try {
    const objects = await compileLibrary(compiler.command, folder);
    for (const name of names) {
      await compile(compiler.command, objects, name, `bin/${name}`);
      programs[name] = { sources: await sourceHash(name), file: await fileHash(name) };
      console.log(`user/bin/${name}`);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
  const own: Record<string, BuiltProgram> = {};
  for (const program of await ownPrograms()) {
    await compileOwn(compiler.command, program, `bin/${program.name}`);
    own[program.name] = { sources: await ownHash(program), file: await fileHash(program.name) };
    console.log(`user/bin/${program.name}`);
  }
  for await (const entry of Deno.readDir(new URL("bin/", USER))) {
    if (!names.includes(entry.name) && own[entry.name] === undefined && entry.name !== "manifest.json") {
      await Deno.remove(new URL(`bin/${entry.name}`, USER));
    }
  }
  const manifest: Manifest = { compiler: compiler.version, programs, own, links: await programLinks() };
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
