/**
 * `@std/assert` where JSR cannot be reached: the same functions from npm, with types whose assertions narrow.
 *
 * @module
 */
// @ts-types="./mod.d.ts"
export * from "npm:deno-std@1.4.0/assert/mod.js";
