/**
 * The vkernel's command line (`vkernel(7)`).
 *
 * Room: `kernel/platform/vkernel64/`; imports nothing.
 *
 * @module
 */
import type { VkernelMode } from "./vkernel64.ts";

/** What it says. */
export interface VkernelArgs {
  /** `-d`: how page tables are walked. */
  readonly mode: VkernelMode | "ring0";
  /** `-m`: bytes of RAM. */
  readonly memory: number;
  /** `-n`: processors. */
  readonly ncpus: number;
  /** `-r`: archives of the root file system, files of the host; each is laid over those before. */
  readonly roots: readonly string[];
  /** `-c`: a command line for the guest's shell instead of init. */
  readonly command: string | undefined;
  /** `-s`: bytes of swap. */
  readonly swap: number;
  /** `-v`: kernel messages on the console. */
  readonly verbose: boolean;
}

/** What is printed for wrong arguments. */
export const USAGE =
  "usage: vkernel [-v] [-m MEMORY] [-n CPUS] [-d vpte|vmm|ring0] [-r ROOT]... [-s SWAP] [-c COMMAND]\n" +
  "  MEMORY and SWAP in bytes, or with a K, M or G behind; RAM is 4M at least; 1 to 8 CPUs\n" +
  "  ROOT is a cpio (newc) or tar archive; without one, the archives that this kernel was started with\n";

const MIB = 1 << 20;
const MEMORY_MIN = 4 * MIB, MEMORY_MAX = 2048 * MIB;
const CPUS_MAX = 8;

/** Reads a size: digits and an optional K, M or G; undefined if it is none. */
function size(text: string): number | undefined {
  const match = /^([0-9]{1,12})([KMG]?)$/i.exec(text);
  if (match === null) return undefined;
  const unit = { "": 1, K: 1024, M: MIB, G: 1024 * MIB }[match[2]!.toUpperCase()]!;
  return Number(match[1]) * unit;
}

/** Reads the arguments behind the program's name; a text is what is wrong with them. */
export function parseVkernelArgs(argv: readonly string[]): VkernelArgs | string {
  let mode: VkernelArgs["mode"] = "vpte", memory = 32 * MIB, ncpus = 1, verbose: boolean | undefined;
  let command: string | undefined, swap: number | undefined;
  const roots: string[] = [];
  for (let i = 0; i < argv.length; i++) {
    const option = argv[i]!;
    if (option === "-v") {
      verbose = true;
      continue;
    }
    if (!/^-[mndrsc]$/.test(option)) return `${option}: there is no such option`;
    const value = argv[++i];
    if (value === undefined) return `${option} wants a value`;
    if (option === "-m" || option === "-s") {
      const bytes = size(value);
      if (bytes === undefined) return `${option} ${value}: not a size`;
      const pages = Math.floor(bytes / 4096) * 4096;
      if (option === "-s") swap = pages;
      else memory = Math.floor(bytes / (2 * MIB)) * 2 * MIB;
      if (option === "-m" && (memory < MEMORY_MIN || memory > MEMORY_MAX)) return `-m ${value}: 4M to 2G`;
      if (option === "-s" && pages > 1 << 30) return `-s ${value}: 1G at most`;
    } else if (option === "-n") {
      ncpus = /^[0-9]{1,2}$/.test(value) ? Number(value) : 0;
      if (ncpus < 1 || ncpus > CPUS_MAX) return `-n ${value}: 1 to ${CPUS_MAX} processors`;
    } else if (option === "-d") {
      if (value !== "vpte" && value !== "vmm" && value !== "ring0") return `-d ${value}: vpte, vmm or ring0`;
      mode = value;
    } else if (option === "-r") roots.push(value);
    else command = value;
  }
  return {
    mode,
    memory,
    ncpus,
    roots,
    command,
    swap: swap ?? memory,
    verbose: verbose ?? command === undefined,
  };
}
