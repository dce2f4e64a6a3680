import { assertEquals, assertStringIncludes } from "@std/assert";
import { findMemtest, Memtest, START_SCREEN_STEPS } from "../../lab/memtest.ts";

/** Debian's image, where its package is installed and may be read; never in the repository. */
function image(): Uint8Array | undefined {
  const granted = ["read", "env"].every((name) =>
    Deno.permissions.querySync({ name } as Deno.PermissionDescriptor).state === "granted"
  );
  const path = granted ? findMemtest() : undefined;
  return path === undefined ? undefined : Deno.readFileSync(path);
}

const found = image();
const name = "memtest86+ comes up, takes Enter over the serial line, and tests without an error";

Deno.test({
  name: found ? name : `${name} (ignored: no memtest86+ image, or no permission to read it)`,
  ignore: !found,
  fn() {
    const memtest = new Memtest(found!);
    memtest.run(START_SCREEN_STEPS);
    memtest.pressEnter();
    memtest.run(400_000_000);
    const state = memtest.state();
    assertEquals(state.errors, 0);
    assertStringIncludes(state.test, "#");
    assertStringIncludes(memtest.text(), "Testing: ");
  },
});
