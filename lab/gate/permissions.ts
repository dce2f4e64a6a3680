/**
 * The permissions that the tests are run with.
 *
 * Room: `lab/gate/`; imports nothing.
 *
 * @module
 */

/** What `deno task test` grants. A test that lacks one of them says so and is ignored. */
export const TEST_PERMISSIONS: readonly string[] = [
  "--allow-read",
  "--allow-write",
  "--allow-run",
  "--allow-env",
  "--allow-ffi",
  "--allow-sys",
];
