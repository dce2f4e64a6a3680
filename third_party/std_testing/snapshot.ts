/**
 * `@std/testing/snapshot` where JSR cannot be reached: over the snapshots that `deno test` has built in.
 *
 * @module
 */

/** Compares `actual` with the snapshot of this test; `deno test -u` writes it. */
export function assertSnapshot<T>(t: Deno.TestContext, actual: T, message?: string): Promise<void> {
  return message === undefined ? t.assertSnapshot(actual) : t.assertSnapshot(actual, message);
}
