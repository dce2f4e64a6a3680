/**
 * Fetch, decode, execute, one instruction at a time: the reference engine's side of the run loop.
 *
 * Room: `hw/engine/`; imports the decoder and the reference engine. What stands in memory is decoded anew each time,
 * so that changed code is seen by construction; only the translation of the fetch is cached, as on every engine.
 *
 * @module
 */
import { EXIT_FAULT, S, SEG } from "../state.ts";
import type { Cpu } from "../cpu.ts";
import type { CodeMode } from "../isa/form.ts";
import { decode, INSTRUCTION_BYTES_MAX, isDecoded, NEED_BYTES } from "../isa/decode.ts";
import { FETCH_FAULT, fetchedPage, fetchEntry } from "./fetch.ts";
import type { ReferenceEngine } from "./reference.ts";

/** Steps a processor on the reference engine. */
export class ReferenceStepper {
  readonly #engine: ReferenceEngine;
  readonly #bytes = new Uint8Array(INSTRUCTION_BYTES_MAX);

  constructor(engine: ReferenceEngine) {
    this.#engine = engine;
  }

  /** Executes one instruction (one iteration of a repeated one). Gives EXIT_FAULT with the fault pending and RIP unchanged, or another EXIT_ code. */
  step(cpu: Cpu): number {
    const mode = cpu.get32(S.CODEMODE) as CodeMode;
    const ip = cpu.get32(S.RIP);
    let low = ip | 0, high = cpu.get32(S.RIP + 4) | 0;
    let limit = INSTRUCTION_BYTES_MAX;
    if (mode !== 2) {
      const room = cpu.segLimit(SEG.CS) - ip + 1;
      if (room <= 0) return cpu.setFault(13, 0);
      limit = Math.min(limit, room);
      low = (ip + cpu.get32(S.SEGBASE + SEG.CS * 8)) | 0;
      high = 0;
    }
    const bytes = this.#bytes;
    let available = 0;
    for (;;) {
      const position = (low >>> 0) + available;
      const nextHigh = mode === 2 && position > 0xffff_ffff ? (high + 1) | 0 : high;
      if (fetchEntry(cpu, position | 0, nextHigh) === FETCH_FAULT) return EXIT_FAULT;
      const page = fetchedPage;
      const inPage = Math.min(4096 - (position & 0xfff), limit - available);
      for (let i = 0; i < inPage; i++) {
        bytes[available++] = cpu.access.readPhysical(page + (position & 0xfff) + i, 1);
      }
      const decoded = decode(bytes, 0, available, mode, cpu.model.features);
      if (isDecoded(decoded)) return this.#engine.step(cpu, decoded);
      if (decoded !== NEED_BYTES) return cpu.setFault(decoded, decoded === 13 ? 0 : -1);
      if (available >= limit) return cpu.setFault(13, 0);
    }
  }
}
