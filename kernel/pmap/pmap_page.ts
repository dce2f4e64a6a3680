/**
 * Contents of physical pages, through the direct map (`pmap_zero_page`, `pmap_copy_page`).
 *
 * Room: `kernel/pmap/`; imports the direct map.
 *
 * @module
 */
import { type Hpa, PAGE_SIZE } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { physToDmap } from "../platform/layout.ts";

/** Fills a page with zeros (`pmap_zero_page`). @param pa Page aligned. */
export function* pmapZeroPage(cx: Cx, pa: Hpa): Exec<void> {
  yield* cx.cpu.zeroBytes(physToDmap(cx.k, pa), PAGE_SIZE);
}

/** Copies a page (`pmap_copy_page`). @param from Page aligned. @param to Page aligned, another one. */
export function* pmapCopyPage(cx: Cx, from: Hpa, to: Hpa): Exec<void> {
  yield* cx.cpu.copyBytes(physToDmap(cx.k, to), physToDmap(cx.k, from), PAGE_SIZE);
}
