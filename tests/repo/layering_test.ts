import { assertEquals } from "@std/assert";
import { checkLayering, importCycles, importsOf, wrongArrows } from "../../lab/gate/layering.ts";

const mayRead = Deno.permissions.querySync({ name: "read", path: "." }).state === "granted";
const file = (path: string, text: string) => ({ path, text });
const arrows = (path: string, text: string) => wrongArrows(importsOf(file(path, text)));

Deno.test({
  name: "the tree has no arrow that points the wrong way and no import cycle",
  ignore: !mayRead,
  fn: async () => assertEquals(await checkLayering(), []),
});

Deno.test("hw may not import kernel, lab or packages; nobody in hw knows machine.ts", () => {
  assertEquals(arrows("hw/a.ts", `import { b } from "./b.ts";`), []);
  assertEquals(arrows("hw/dev/a.ts", `import { b } from "../../kernel/b.ts";`).length, 1);
  assertEquals(arrows("hw/a.ts", `import type { b } from "../lab/b.ts";`).length, 1);
  assertEquals(arrows("hw/a.ts", `import { b } from "iced-x86";`).length, 1);
  assertEquals(arrows("hw/a.ts", `const b = await import("npm:b");`).length, 1);
  assertEquals(arrows("hw/a.ts", `import { Machine } from "./machine.ts";`).length, 1);
});

Deno.test("kernel may import hw, not lab; lab may import both and packages", () => {
  assertEquals(arrows("kernel/a.ts", `import {\n  b,\n  c,\n} from "../hw/b.ts";`), []);
  assertEquals(arrows("kernel/vm/a.ts", `export * from "../../lab/b.ts";`).length, 1);
  assertEquals(arrows("lab/a.ts", `import "iced-x86";\nimport { b } from "../kernel/b.ts";`), []);
});

Deno.test("what stands in a comment is no import", () => {
  assertEquals(importsOf(file("hw/a.ts", `/** import { b } from "../lab/b.ts"; */\n// import "x";`)), []);
});

Deno.test("a circle of imports is found unless one of them is type-only", () => {
  const circle = (second: string) =>
    importCycles([
      ...importsOf(file("hw/a.ts", `import { b } from "./b.ts";`)),
      ...importsOf(file("hw/b.ts", second)),
    ]);
  assertEquals(circle(`import { a } from "./a.ts";`), [["hw/a.ts", "hw/b.ts", "hw/a.ts"]]);
  assertEquals(circle(`import type { a } from "./a.ts";`), []);
  assertEquals(circle(`import { type a, type c } from "./a.ts";`), []);
  assertEquals(circle(`import { type a, c } from "./a.ts";`).length, 1);
});
