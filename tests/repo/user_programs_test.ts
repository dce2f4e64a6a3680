import { assertEquals } from "@std/assert";
import {
  compile,
  compileLibrary,
  fileHash,
  findCompiler,
  ownHash,
  ownPrograms,
  programLinks,
  programNames,
  readManifest,
  sourceHash,
} from "../../lab/gate/user_build.ts";

const granted = (name: "read" | "write" | "run") => Deno.permissions.querySync({ name }).state === "granted";

Deno.test({
  name: "the built programs of user/ match their sources",
  ignore: !granted("read"),
  fn: async () => {
    const { programs, links } = await readManifest();
    assertEquals(links, await programLinks());
    const names = await programNames();
    assertEquals(Object.keys(programs), names);
    for (const name of names) {
      assertEquals(programs[name], { sources: await sourceHash(name), file: await fileHash(name) }, name);
    }
    const { own } = await readManifest(), found = await ownPrograms();
    assertEquals(Object.keys(own), found.map(({ name }) => name));
    for (const program of found) {
      const { name } = program;
      assertEquals(own[name], { sources: await ownHash(program), file: await fileHash(name) }, name);
    }
  },
});

const compiler = granted("run") ? await findCompiler() : undefined;
const recorded = granted("read") ? (await readManifest()).compiler : undefined;

Deno.test({
  name: "the compiler that built user/ makes the same bytes again",
  ignore: compiler === undefined || compiler.version !== recorded || !granted("write"),
  fn: async () => {
    const folder = await Deno.makeTempDir();
    const output = `${folder}/program`;
    try {
      const objects = await compileLibrary(compiler!.command, folder);
      for (const name of ["hello", "sse"]) {
        await compile(compiler!.command, objects, name, output);
        const built = await Deno.readFile(new URL(`../../user/bin/${name}`, import.meta.url));
        assertEquals(await Deno.readFile(output), built, name);
      }
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
