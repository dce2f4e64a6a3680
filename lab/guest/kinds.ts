/**
 * The kinds of vkernels, and the command that starts one.
 *
 * Room: `lab/guest/`; imports the command line's parts.
 *
 * @module
 */
import { choice, shellQuote } from "../cli/args.ts";

/** What `vkernel -d` takes: software page tables; VMX at ring 3; VMX at ring 0. */
export const GUEST_KINDS = ["vpte", "vmm", "ring0"] as const;
/** One of them. */
export type GuestKind = typeof GUEST_KINDS[number];

/** The option `--guest`. */
export const guestKind = choice(GUEST_KINDS, "in a vkernel of this kind, on a host kernel");

/** How a vkernel is started. */
export interface VkernelCommand {
  readonly kind: GuestKind;
  /** Bytes of RAM; a multiple of 2 MiB. */
  readonly memory: number;
  readonly cpus: number;
  /** Bytes of swap. Default: as much as memory. */
  readonly swap?: number;
  /** What its shell runs; without it: an interactive one. */
  readonly command?: string;
  /** Kernel messages. */
  readonly verbose?: boolean;
}

/** Words of the command. */
export function vkernelWords(options: VkernelCommand): string[] {
  const words = [
    "/usr/sbin/vkernel",
    "-d",
    options.kind,
    "-m",
    String(options.memory),
    "-n",
    String(options.cpus),
  ];
  if (options.swap !== undefined) words.push("-s", String(options.swap));
  if (options.verbose) words.push("-v");
  if (options.command !== undefined) words.push("-c", options.command);
  return words;
}

/** The same for a shell, which turns `vm.vkernel_enable` on first. Its exit status is the vkernel's. */
export function vkernelLine(options: VkernelCommand): string {
  return `sysctl vm.vkernel_enable=1 >/dev/null; exec ${shellQuote(vkernelWords(options))}`;
}
