/**
 * Where a workload runs: on the host kernel, or in one of the three kinds of vkernel on it (DESIGN section 4).
 *
 * Room: `lab/vkernel/`; imports nothing.
 *
 * @module
 */
/** The kinds, in the order of the table. */
export const KINDS = ["host", "vpte", "vmm", "ring0"] as const;
/** A kind. */
export type Kind = typeof KINDS[number];

/** Each in a few words. */
export const KIND_NAMES: Readonly<Record<Kind, string>> = {
  host: "host kernel",
  vpte: "vkernel, software page tables",
  vmm: "vkernel on VMX and EPT, ring 3",
  ring0: "vkernel on VMX and EPT, ring 0",
};

/** Memory that a guest gets. */
export const GUEST_MEMORY = "32M";

/** Whether a kind needs VMX with EPT. */
export function needsEpt(kind: Kind): boolean {
  return kind === "vmm" || kind === "ring0";
}

/** What the host's first process runs: the commands one after the other, or one vkernel whose shell runs them. */
export function rowCommands(
  kind: Kind,
  cpus: number,
  commands: readonly (readonly string[])[],
): readonly (readonly string[])[] {
  if (kind === "host") return commands;
  const script = commands.map((words) => words.join(" ")).join("; ");
  return [["/usr/sbin/vkernel", "-d", kind, "-m", GUEST_MEMORY, "-n", String(cpus), "-c", script]];
}
