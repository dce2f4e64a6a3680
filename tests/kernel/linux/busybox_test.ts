import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { Machine } from "../../../hw/machine.ts";
import { bootKernel } from "../../../kernel/boot.ts";
import { cpio } from "../../../kernel/vfs/cpio.ts";

/** Debian's busybox-static, from the package of that name. */
const BUSYBOX = "/usr/bin/busybox";

function granted(descriptor: Deno.PermissionDescriptor): boolean {
  return Deno.permissions.querySync(descriptor).state === "granted";
}

/** Whether the host has a static busybox that may be run for comparison. */
function available(): boolean {
  if (!granted({ name: "read", path: BUSYBOX }) || !granted({ name: "run", command: BUSYBOX })) return false;
  if (Deno.build.arch !== "x86_64") return false;
  try {
    // EI_OSABI of a static program with indirect functions, which the dynamic one has not.
    return Deno.readFileSync(BUSYBOX)[7] === 3;
  } catch {
    return false;
  }
}

const ready = available();
if (!ready) {
  console.log(`tests/kernel/linux: no static ${BUSYBOX} that may be read and run; its tests are ignored`);
}

/** Some kilobytes of text that is always the same. */
function sample(): string {
  let state = 12345;
  const words = "map page fault object queue wire pmap entry shadow swap".split(" "), lines: string[] = [];
  for (let i = 0; i < 600; i++) {
    const line: string[] = [];
    for (let n = 0; n < 6; n++) {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      line.push(words[(state >>> 16) % words.length]!);
    }
    lines.push(`${(state >>> 8) % 1000} ${line.join(" ")}`);
  }
  return lines.join("\n") + "\n";
}

const SCRIPTS: Readonly<Record<string, string>> = {
  ls: "ls -1 .; ls -ln text | awk '{print $1, $5, $9}'",
  sha256sum: "sha256sum text; md5sum text; sha1sum < text",
  sort: "sort text | sha256sum; sort -rn text | head -3; cut -d' ' -f2 text | sort | uniq -c | sort -rn",
  awk:
    "awk '{ n[$2]++; s += $1 } END { print s, s / NR, int(s / 7); for (w in n) print w, n[w] }' text | sort",
  gzip: "gzip -c text | sha256sum; gzip -9 -c text | gunzip -c | cmp - text && echo same",
  sed: "sed -n -e 's/page/PAGE/g' -e '1,5p' text; tr a-z A-Z < text | tail -2; grep -c swap text; wc text",
  sh: "f() { i=0; while [ $i -lt $1 ]; do i=$((i + 3)); done; echo $i; }; f 100; (exit 3); echo $?; " +
    "sh -c 'kill -TERM $$'; echo $?; trap 'echo trapped' USR1; kill -USR1 $$; echo $(echo a $(echo b)); " +
    'sleep 0.02 & wait; for x in *; do echo "[$x]"; done; case $PWD in /*) echo absolute;; esac; cat /none 2>&1',
};

/** Runs `sh -c script` in /work on a booted kernel. */
function guest(
  script: string,
  text: string,
): { readonly console: string; readonly status: number | undefined } {
  const bytes: number[] = [];
  const machine = new Machine({
    memory: 64 << 20,
    gates: true,
    serial: { output: (piece) => bytes.push(...piece) },
  });
  const directory = (path: string) => ({ path, mode: 0o040755, data: new Uint8Array(0) });
  const archive = cpio([
    directory("bin"),
    directory("tmp"),
    directory("work"),
    { path: "bin/busybox", mode: 0o100755, data: Deno.readFileSync(BUSYBOX) },
    { path: "work/text", mode: 0o100644, data: new TextEncoder().encode(text) },
  ]);
  const kernel = bootKernel(machine, {
    archives: [archive],
    commands: [["/bin/busybox", "sh", "-c", `exec 2>/dev/null; cd /work; ${script}`]],
    verbose: false,
  });
  machine.run({ steps: 1_000_000_000 });
  const console = new TextDecoder().decode(Uint8Array.from(bytes)).replaceAll("\r\n", "\n");
  return { console, status: kernel.procs.statuses[0] };
}

describe("Debian's busybox-static gives here what it gives on the host", { ignore: !ready }, () => {
  const text = sample();
  for (const [name, script] of Object.entries(SCRIPTS)) {
    it(name, async () => {
      const directory = await Deno.makeTempDir();
      try {
        const file = `${directory}/text`;
        await Deno.writeTextFile(file, text);
        await Deno.chmod(file, 0o644);
        const { stdout, code } = await new Deno.Command(BUSYBOX, {
          args: ["sh", "-c", script],
          cwd: directory,
          clearEnv: true,
          env: { PATH: "/bin", HOME: "/root", TERM: "vt100" },
          stderr: "null",
        }).output();
        const { console, status } = guest(script, text);
        assertEquals(console, new TextDecoder().decode(stdout));
        assertEquals(status, code);
      } finally {
        await Deno.remove(directory, { recursive: true });
      }
    });
  }
});
