/**
 * Contents of physical pages.
 *
 * Room: `kernel/pmap/`.
 *
 * @module
 */
import type { Hpa } from "../../hw/address.ts";
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { physToDmap } from "../platform/pc64/vmparam.ts";

/** Fills a page with zeros (`pmap_zero_page`). */
export function* pmapZeroPage(cx: Cx, pa: Hpa): Exec<void> {
  yield* cx.cpu.zeroBytes(physToDmap(pa), 4096);
}
/** Copies a page (`pmap_copy_page`). */
export function* pmapCopyPage(cx: Cx, from: Hpa, to: Hpa): Exec<void> {
  yield* cx.cpu.copyBytes(physToDmap(to), physToDmap(from), 4096);
}
