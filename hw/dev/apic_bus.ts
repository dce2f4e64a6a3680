/**
 * The interrupt message bus: who receives an IPI or an interrupt message of the I/O APIC, and the broadcast of EOIs.
 *
 * Room: `hw/dev/`; imports types of apic.ts only.
 * SDM vol. 3A, "Determining IPI Destination", "Lowest Priority Delivery Mode".
 *
 * Delivery takes no time. Lowest-priority delivery goes to the candidate with the lowest processor priority; of
 * several, to the first one after the last winner, so the choice is fair and repeats.
 *
 * @module
 */
import type { LocalApic } from "./apic.ts";

/** Delivery modes of interrupt messages (SDM vol. 3A, "Interrupt Command Register (ICR)"). */
export const DELIVERY = {
  fixed: 0,
  lowestPriority: 1,
  smi: 2,
  nmi: 4,
  init: 5,
  startUp: 6,
  extInt: 7,
} as const;

/** An interrupt message on its way. */
export interface ApicMessage {
  /** Interrupt vector, or for a start-up IPI its page. */
  readonly vector: number;
  /** One of {@link DELIVERY}. */
  readonly delivery: number;
  /** Level-triggered. */
  readonly level: boolean;
  /** Logical destination mode; physical otherwise. */
  readonly logical: boolean;
  /** Destination, as the mode says. */
  readonly destination: number;
  /** True if the destination is a full 32-bit x2APIC one; else it is 8 bits wide. */
  readonly wide: boolean;
}

/** Who hears of EOIs of level-triggered interrupts: I/O APICs. */
export interface EoiListener {
  /** A level-triggered interrupt with this vector is done. */
  endOfInterrupt(vector: number): void;
}

/** The bus between the local APICs of a machine and its I/O APIC. */
export class ApicBus {
  /** The local APICs. */
  readonly apics: LocalApic[] = [];
  /** Who hears of EOIs. */
  readonly eoiListeners: EoiListener[] = [];
  /** Interrupt vector of the 8259 pair: whether its output is up, which vector an acknowledge would give, and the acknowledge itself. */
  pic: { readonly output: boolean; peek(): number; acknowledge(): number } | null = null;
  #lastWinner = -1;

  /** Delivers a message. Returns whether anybody was addressed. */
  send(message: ApicMessage): boolean {
    if (message.delivery === DELIVERY.lowestPriority) return this.#sendLowest(message);
    let accepted = false;
    for (const apic of this.apics) {
      if (apic.isAddressedBy(message)) {
        apic.receive(message);
        accepted = true;
      }
    }
    return accepted;
  }

  /** Broadcasts the EOI of a level-triggered vector. */
  endOfInterrupt(vector: number): void {
    for (const listener of this.eoiListeners) listener.endOfInterrupt(vector);
  }

  /** The 8259's output changed: every local APIC's LINT0 follows. */
  setPicOutput(level: boolean): void {
    for (const apic of this.apics) apic.setLint(0, level);
  }
  /** The NMI line changed: every local APIC's LINT1 follows. */
  setNmiLine(level: boolean): void {
    for (const apic of this.apics) apic.setLint(1, level);
  }

  /** The state as plain data, for a snapshot. */
  save(): { readonly lastWinner: number } {
    return { lastWinner: this.#lastWinner };
  }
  /** Puts a saved state back. */
  load(state: { readonly lastWinner: number }): void {
    this.#lastWinner = state.lastWinner;
  }

  #sendLowest(message: ApicMessage): boolean {
    const n = this.apics.length;
    let winner: LocalApic | null = null, winnerIndex = 0;
    for (let i = 1; i <= n; i++) {
      const index = (this.#lastWinner + i) % n;
      const apic = this.apics[index]!;
      if (!apic.softwareEnabled || !apic.isAddressedBy(message)) continue;
      if (winner === null || apic.ppr < winner.ppr) {
        winner = apic;
        winnerIndex = index;
      }
    }
    if (winner === null) return false;
    this.#lastWinner = winnerIndex;
    winner.receive(message);
    return true;
  }
}
