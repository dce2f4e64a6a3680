import { assertEquals } from "@std/assert";
import {
  compile,
  fileHash,
  findCompiler,
  ownHash,
  ownPrograms,
  programNames,
  readManifest,
  sourceHash,
} from "../../lab/gate/user_build.ts";

const granted = (name: "read" | "write" | "run") => Deno.permissions.querySync({ name }).state === "granted";

Deno.test({
  name: "the built programs of user/ match their sources",
  ignore: !granted("read"),
  fn: async () => {
    const { programs } = await readManifest();
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
    const output = await Deno.makeTempFile();
    try {
      for (const name of ["hello", "sse"]) {
        await compile(compiler!.command, name, output);
        const built = await Deno.readFile(new URL(`../../user/bin/${name}`, import.meta.url));
        assertEquals(await Deno.readFile(output), built, name);
      }
    } finally {
      await Deno.remove(output);
    }
  },
});
