/**
 * Whole systems for comparing engines: boots of the TypeScript kernel, Debian's BusyBox on it, a bare-metal hypervisor with its guest, a Linux
 * kernel, memtest86+. Each runs to its end (the last two to a bound) on every engine, and is compared with the interpreter's run on the way.
 *
 * Room: `lab/agree/`; imports hw's public face, the kernel and the lab's archive of user/.
 *
 * @module
 */
import { loadImage } from "../../hw/boot/image.ts";
import { Machine, type MachineOptions } from "../../hw/machine.ts";
import { bootKernel } from "../../kernel/boot.ts";
import { cpio } from "../../kernel/vfs/cpio.ts";
import { userArchive } from "../cli/root_archive.ts";
import { findMemtest } from "../memtest.ts";
import { compareGuest, type EngineChoice, engineName, engineOptions, type Guest } from "./compare.ts";

/** Names of the systems. */
export const BOOTS = ["kernel", "smp", "vm", "busybox", "hypervisor", "linux", "memtest"] as const;
/** Name of a system. */
export type BootName = (typeof BOOTS)[number];

/** Who the others are compared with. */
const ORACLE: EngineChoice = { engine: "interpreter" };
/** Debian's busybox-static. */
const BUSYBOX = "/usr/bin/busybox";
/** Names the Linux kernel to boot, as for tests/hw/linux_test.ts. */
const LINUX_VARIABLE = "EXUVIA_LINUX";
const BYTES_OF_OUTPUT_SHOWN = 300;

/** Text that is always the same, some kilobytes. */
function sample(): Uint8Array<ArrayBuffer> {
  let state = 12345;
  const words = "map page fault object queue wire pmap entry shadow swap".split(" ");
  const next = () => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) >>> 16;
  const lines = Array.from(
    { length: 1500 },
    () => `${next() % 1000} ${Array.from({ length: 6 }, () => words[next() % words.length]!).join(" ")}`,
  );
  return new TextEncoder().encode(lines.join("\n") + "\n");
}

const BUSYBOX_SCRIPT =
  "cd /work; sort text | sha256sum; sort -rn text | head -3; md5sum text; gzip -c text | gunzip -c | cmp - text && " +
  "echo same; awk '{ n[$2]++; s += $1 } END { print s, s / NR; for (w in n) print w, n[w] }' text | sort; tr a-z A-Z < text | tail -2; " +
  "sed -n -e 's/page/PAGE/g' -e '1,5p' text; i=0; while [ $i -lt 2000 ]; do i=$((i + 3)); done; echo $i; ls -ln; grep -c swap text; wc text";

/** A system, or in words why it can't be had. */
async function system(name: BootName): Promise<Guest | string> {
  const whole = (total: number, piece: number) => {
    // Of different lengths, so that boundaries fall anywhere.
    const stops: number[] = [];
    for (let at = 0; at < total; at += stops.at(-1)!) stops.push(piece + (stops.length % 7) * 10_007);
    return stops;
  };
  const kernelWith = async (exec: readonly string[], options: MachineOptions): Promise<Guest> => {
    const archives = [await userArchive()];
    return {
      make(engine) {
        const machine = new Machine({ memory: 64 << 20, gates: true, ...options, ...engineOptions(engine) });
        bootKernel(machine, { archives, exec, verbose: true });
        return machine;
      },
      stops: whole(400_000_000, 3_000_000),
    };
  };
  switch (name) {
    case "kernel":
      return await kernelWith(["ls -l /bin", "/bin/sse", "/bin/syscalls", "/bin/sieve", "/bin/proctest"], {});
    case "smp":
      return await kernelWith(["/bin/thrhammer", "/bin/thrfork"], { cpus: 4, seed: 3 });
    case "vm":
      return await kernelWith([
        "/bin/forkcow",
        "/bin/mmapfile",
        "/bin/stackgrow",
        "/bin/kbench fork 20",
        "/bin/kbench forkexec 10",
      ], {
        cpus: 2,
      });
    case "busybox": {
      const data = await read(BUSYBOX);
      if (data === undefined) return `${BUSYBOX} is not there (Debian package busybox-static)`;
      const directory = (path: string) => ({ path, mode: 0o040755, data: new Uint8Array(0) });
      const archive = cpio([
        ...["bin", "tmp", "work"].map(directory),
        { path: "bin/busybox", mode: 0o100755, data },
        { path: "work/text", mode: 0o100644, data: sample() },
      ]);
      return {
        make(engine) {
          const machine = new Machine({ memory: 64 << 20, gates: true, ...engineOptions(engine) });
          const commands = [["/bin/busybox", "sh", "-c", BUSYBOX_SCRIPT]];
          bootKernel(machine, { archives: [archive], commands, verbose: false });
          return machine;
        },
        stops: whole(1_000_000_000, 5_000_000),
      };
    }
    case "hypervisor": {
      const image = await Deno.readFile(new URL("../../user/bin/hypervisor", import.meta.url));
      return {
        make(engine) {
          const machine = new Machine({ memory: 32 << 20, ...engineOptions(engine) });
          loadImage(machine, image);
          return machine;
        },
        stops: whole(5_000_000, 20_000),
      };
    }
    case "linux": {
      const path = Deno.env.get(LINUX_VARIABLE);
      const image = path === undefined ? undefined : await read(path);
      if (image === undefined) return `no kernel: name one with ${LINUX_VARIABLE} (docs/running-linux.md)`;
      return {
        make(engine) {
          const machine = new Machine({ ...engineOptions(engine) });
          loadImage(machine, image, { commandLine: "console=ttyS0 cryptomgr.notests" });
          return machine;
        },
        stops: whole(700_000_000, 20_000_000),
      };
    }
    case "memtest": {
      const path = findMemtest(), image = path === undefined ? undefined : await read(path);
      if (image === undefined) return "memtest86+ is not there (Debian package memtest86+)";
      return {
        make(engine) {
          const machine = new Machine({ memory: 32 << 20, ...engineOptions(engine) });
          loadImage(machine, image, { commandLine: "console=ttyS0,115200 nosmp" });
          return machine;
        },
        stops: whole(500_000_000, 20_000_000),
      };
    }
  }
}

async function read(path: string): Promise<Uint8Array<ArrayBuffer> | undefined> {
  try {
    return await Deno.readFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** Compares engines on the named systems with the interpreter, and prints what it finds; true if all agree. */
export async function agreeBoots(
  engines: readonly EngineChoice[],
  names: readonly BootName[],
): Promise<boolean> {
  let isEqual = true;
  for (const name of names) {
    const guest = await system(name);
    if (typeof guest === "string") {
      console.log(`${name}: left out: ${guest}`);
      continue;
    }
    for (const engine of engines) {
      const difference = compareGuest(guest, engine, ORACLE);
      if (difference === undefined) {
        console.log(`${name}: ${engineName(engine)} and ${engineName(ORACLE)} agree at every stop`);
        continue;
      }
      isEqual = false;
      console.log(`${name}: ${JSON.stringify(difference, null, 2).slice(0, 10 * BYTES_OF_OUTPUT_SHOWN)}`);
    }
  }
  return isEqual;
}
