/**
 * The activator of scripts (`sys/kern/imgact_shell.c`): `#!interpreter [arguments]`, split at blanks.
 *
 * Room: `kernel/proc/`; imports imgact.
 *
 * @module
 */
import type { Exec } from "../../hw/gates.ts";
import type { Cx } from "../context.ts";
import { ERRNO } from "../kern/errno.ts";
import { type ImageParams, NOT_MINE } from "./imgact.ts";

/** Longest first line that is understood (`MAXSHELLCMDLEN`). */
const MAXSHELLCMDLEN = 256;

/** Makes the interpreter the program to look at; the script's path takes the place of argv[0]. */
export function* shellActivator(_cx: Cx, imgp: ImageParams): Exec<number> {
  const { header } = imgp;
  if (header[0] !== 0x23 || header[1] !== 0x21) return NOT_MINE;
  if (imgp.interpreted) return ERRNO.ENOEXEC;
  const line = header.subarray(2, MAXSHELLCMDLEN);
  const newline = line.indexOf(10);
  if (newline < 0) return ERRNO.ENOEXEC;
  const words = new TextDecoder().decode(line.subarray(0, newline)).trim().split(/[ \t]+/);
  const interpreter = words[0] ?? "";
  if (interpreter === "") return ERRNO.ENOEXEC;
  const encoder = new TextEncoder();
  imgp.argv = [
    ...words.map((word) => encoder.encode(word)),
    encoder.encode(imgp.path),
    ...imgp.argv.slice(1),
  ];
  imgp.path = interpreter;
  imgp.interpreted = true;
  return 0;
}
