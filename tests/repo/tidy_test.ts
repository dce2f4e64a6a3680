import { assertEquals } from "@std/assert";
import { checkTidy, deadLinks, LINES_MAX, untidy } from "../../lab/gate/tidy.ts";

const mayRead = Deno.permissions.querySync({ name: "read", path: "." }).state === "granted";
const HEADER = "/**\n * A file.\n *\n * @module\n */\n";
const wrong = (path: string, code: string) => untidy({ path, text: HEADER + code }).length;

Deno.test({
  name: "the tree is tidy",
  ignore: !mayRead,
  fn: async () => assertEquals(await checkTidy(), []),
});

Deno.test("host clock and chance may not stand in hw and kernel", () => {
  assertEquals(wrong("hw/a.ts", "const a = Math.random();"), 1);
  assertEquals(wrong("kernel/a.ts", "const a = Date.now();"), 1);
  assertEquals(wrong("kernel/a.ts", "const a = performance.now();"), 1);
  assertEquals(wrong("lab/a.ts", "const a = performance.now();"), 0);
  assertEquals(wrong("hw/a.ts", "// not Math.random here"), 0);
});

Deno.test("words that admit something is missing may not stand anywhere", () => {
  assertEquals(wrong("hw/a.ts", "// TO" + "DO: more"), 1);
  assertEquals(untidy({ path: "user/a.c", text: "/* FIX" + "ME */" }).length, 1);
});

Deno.test("types are not silenced", () => {
  assertEquals(wrong("hw/a.ts", "let a: any;"), 1);
  assertEquals(wrong("hw/a.ts", "const a = b as any;"), 1);
  assertEquals(wrong("hw/a.ts", "let a: anything;"), 0);
});

Deno.test("a long file says why, and every file says what room it is", () => {
  const long = "\n".repeat(LINES_MAX);
  assertEquals(wrong("hw/a.ts", long), 1);
  assertEquals(
    untidy({ path: "hw/a.ts", text: HEADER.replace("@module", "Long: one table.\n * @module") + long }),
    [],
  );
  assertEquals(untidy({ path: "hw/a.ts", text: "export const a = 1;" }).length, 1);
});

Deno.test({
  name: "links lead somewhere",
  ignore: !mayRead,
  fn: async () => {
    const links = (text: string) => deadLinks({ path: "docs/a.md", text });
    assertEquals(await links("[here](../README.md#x) [there](https://example.org)"), []);
    assertEquals((await links("[gone](../gone.md)")).length, 1);
    assertEquals(await links("```\n[code](gone.md)\n```"), []);
  },
});
