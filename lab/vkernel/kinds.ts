/**
 * Where a workload runs: on the host kernel, or in one of the three kinds of vkernel on it (DESIGN section 4).
 *
 * Room: `lab/vkernel/`; imports the vkernel's command line, and the host's options for the VMM by their type.
 *
 * @module
 */
import { GUEST_KINDS, vkernelWords } from "../guest/kinds.ts";
import type { VmmOptions } from "../../kernel/vmm/vmm_state.ts";

/** The kinds, in the order of the table. */
export const KINDS = ["host", ...GUEST_KINDS] as const;
/** A kind. */
export type Kind = typeof KINDS[number];

/** Each in a few words. */
export const KIND_NAMES: Readonly<Record<Kind, string>> = {
  host: "host kernel",
  vpte: "vkernel, software page tables",
  vmm: "vkernel on VMX and EPT, ring 3",
  ring0: "vkernel on VMX and EPT, ring 0",
};

/**
 * What the host can be told to do differently for guests on the VMM: how it keeps its own view of their memory (point 6 of the 2013 mail), and where
 * accessed and dirty bits come from (point 9). Compared by count in the kind `vmm`.
 */
export const DESIGNS: readonly {
  readonly label: string;
  readonly about: string;
  readonly vmm: VmmOptions;
}[] = [
  {
    label: "twin",
    about: "two address spaces kept in step, instead of one with EPT tables",
    vmm: { design: "twin" },
  },
  { label: "ad-dragonfly", about: "no A/D bits: pages read only until written", vmm: { ad: "dragonfly" } },
  {
    label: "ad-freebsd",
    about: "no A/D bits: R and W stand for them, software bits for R and W",
    vmm: { ad: "freebsd" },
  },
];

/** Bytes of memory that a guest gets. */
export const GUEST_MEMORY: number = 24 << 20;

/** Whether a kind needs VMX with EPT. */
export function needsEpt(kind: Kind): boolean {
  return kind === "vmm" || kind === "ring0";
}

/**
 * What the host's first process runs: the commands one after the other, or one vkernel whose shell runs them. Between the cold ones and the others the
 * vkernel uses all of its memory once: that the host has not given it some page yet would otherwise be part of every operation, as long as
 * there are such pages.
 */
export function rowCommands(
  kind: Kind,
  cpus: number,
  cold: readonly (readonly string[])[],
  warm: readonly (readonly string[])[],
): readonly (readonly string[])[] {
  if (kind === "host") return [...cold, ...warm];
  const touch = warm.length > 0 ? [["/bin/vkbench", "touch", "2"]] : [];
  const command = [...cold, ...touch, ...warm].map((words) => words.join(" ")).join("; ");
  return [vkernelWords({ kind, memory: GUEST_MEMORY, cpus, command })];
}
