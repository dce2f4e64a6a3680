import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { HISTORICAL_BUGS } from "../../kernel/bugs.ts";
import { userProgram } from "../kernel/user_program.ts";

const ROOT = new URL("../../", import.meta.url);
const allowed = (["run", "read", "write"] as const).every((name) =>
  Deno.permissions.querySync({ name }).state === "granted"
);
if (!allowed) {
  console.log("tests/lab/cli_test.ts: needs --allow-run, --allow-read and --allow-write; ignored");
}

interface Result {
  readonly code: number;
  readonly lines: string[];
  readonly errors: string;
}

/** Runs a front end as a user does. */
async function cli(front: "boot" | "run", args: string[], input?: string): Promise<Result> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", `lab/cli/${front}.ts`, ...args],
    cwd: ROOT,
    stdin: input === undefined ? "null" : "piped",
    stdout: "piped",
    stderr: "piped",
    env: { NO_COLOR: "1" },
  }).spawn();
  if (input !== undefined) {
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(input));
    await writer.close();
  }
  const { code, stdout, stderr } = await child.output();
  const decoder = new TextDecoder();
  const lines = decoder.decode(stdout).replaceAll("\r\n", "\n").split("\n");
  assertEquals(lines.pop(), "", "standard output ends with a line feed");
  return { code, lines, errors: decoder.decode(stderr) };
}

/** 64-bit code as a plain ELF file for `run`. */
const image = (bytes: number[]) => userProgram((a) => a.db(...bytes));

async function withImage(bytes: Uint8Array, test: (path: string) => Promise<void>): Promise<void> {
  const path = await Deno.makeTempFile({ suffix: ".elf" });
  try {
    await Deno.writeFile(path, bytes);
    await test(path);
  } finally {
    await Deno.remove(path);
  }
}

describe("deno task boot", { ignore: !allowed }, () => {
  it("prints how to repeat it, the kernel's lines, the program's, and how it ended", async () => {
    const { code, lines } = await cli("boot", ["--exec", "hello"]);
    assertEquals(lines[0], "deno task boot --seed 1 --exec hello");
    assertMatch(lines[1]!, /^Exuvia /);
    assert(lines.includes("real memory  = 268435456 (256 MB)"));
    assert(lines.includes("Hello from ring 3"));
    assertMatch(lines.at(-1)!, /^exuvia: the guest switched the machine off; [\d,]+ instructions, /);
    assertEquals(code, 0);
  });

  it("gives the last program's exit status, and its arguments", async () => {
    const { code, lines } = await cli("boot", [
      "--quiet",
      "--exec",
      "hello",
      "--exec",
      "args",
      "--",
      "9",
      "b c",
    ]);
    assertEquals(lines[0], "deno task boot --seed 1 --quiet --exec hello --exec args -- 9 'b c'");
    assertStringIncludes(lines.join("\n"), '  argv[2] = "b c"');
    assertEquals(code, 9);
  });

  it("reports a fault with disassembly", async () => {
    const { code, lines } = await cli("boot", ["--exec", "null"]);
    const text = lines.join("\n");
    assertStringIncludes(text, "fault: page fault (#PF)");
    assertMatch(text, /code {7}[0-9a-f]{16} {2}([0-9a-f]{2} )+ +mov eax,\[/);
    assertEquals(code, 139);
  });

  it("with --stats json, the last line on standard output is one JSON object and the same twice", async () => {
    const run = async () => {
      const { lines, errors } = await cli("boot", ["--stats", "json", "--seed", "5", "--exec", "sse"]);
      assertStringIncludes(errors, "exuvia: the guest switched the machine off");
      return JSON.parse(lines.at(-1)!);
    };
    const stats = await run();
    assertEquals([stats.seed, stats.engine, stats.exitCode], [5, "interpreter", 0]);
    assertMatch(stats.hash, /^[0-9a-f]{16}$/);
    assert(stats.instructions > 1000);
    assert(stats.counters.walks > 0);
    assertEquals(await run(), stats);
  });

  it("refuses a machine that is too small for the kernel", async () => {
    const { code, errors } = await cli("boot", ["--memory", "1M"]);
    assertStringIncludes(errors, "a machine with more memory");
    assertEquals(code, 2);
  });

  it("traces every instruction, in the same order on every engine", async () => {
    const trace = async (engine: string) => {
      const { errors } = await cli("boot", [
        "--quiet",
        "--steps",
        "20000",
        "--engine",
        engine,
        "--tlb",
        "sticky",
        "--trace",
        "all",
      ]);
      return errors.split("\n").filter((line) => line.startsWith("{"));
    };
    const lines = await trace("interpreter");
    const count = lines.filter((line) => JSON.parse(line).kind === "instruction").length;
    assert(count > 500, `${count} instructions`);
    assertEquals(await trace("reference"), lines);
  });

  it("prints a first line that repeats the run exactly", async () => {
    const line = (await cli("boot", ["--exec", "args 'a b'", "--cpus", "3", "--", "$x", "it's"])).lines[0]!;
    const words = line.split(" ");
    assertEquals(words.slice(0, 5), ["deno", "task", "boot", "--seed", "1"]);
    const shell = new Deno.Command("sh", {
      args: ["-c", line.replace("deno task boot", `"${Deno.execPath()}" run -A --quiet lab/cli/boot.ts`)],
      cwd: ROOT,
    });
    const again = new TextDecoder().decode((await shell.output()).stdout).replaceAll("\r\n", "\n").split(
      "\n",
    );
    assertEquals(again[0], line);
    assertEquals(again.filter((text) => text.includes("argv[")).slice(-2), [
      '  argv[2] = "$x"',
      `  argv[3] = "it's"`,
    ]);
  });

  it("is a shell on the console: piped commands run, and its exit code is the code", async () => {
    const { code, lines } = await cli("boot", [], "vmstat; ps\necho $((6 * 7)) | cat\nexit 3\n");
    const text = lines.join("\n");
    assertMatch(text, /PID +STAT +TIME +COMMAND/);
    assertMatch(text, /\n(# )?42\n/);
    assertEquals(code, 3);
  });

  it("ends the shell when input ends", async () => {
    const { code, lines } = await cli("boot", ["--quiet"], "false\n");
    assertEquals(code, 1, lines.join("\n"));
  });

  it("lays a directory over the root file system with --root", async () => {
    const path = await Deno.makeTempDir();
    try {
      await Deno.writeTextFile(`${path}/greeting`, "hello from the host\n");
      const { lines } = await cli("boot", ["--quiet", "--root", path, "--exec", "cat /greeting"]);
      assert(lines.includes("hello from the host"));
    } finally {
      await Deno.remove(path, { recursive: true });
    }
  });

  it("ends the shell's reader and the shell, one after the other, when input ends", async () => {
    assertEquals((await cli("boot", ["--quiet"], "cat\n")).code, 0);
    assertEquals((await cli("boot", ["--quiet"], "exit 5")).code, 5);
  });

  it("refuses a --root that is no archive", async () => {
    const { code, errors } = await cli("boot", ["--root", "deno.json"]);
    assertStringIncludes(errors, "neither a directory nor a cpio");
    assertEquals(code, 2);
  });

  it("lists the historical bugs, and refuses one that there is not", async () => {
    const { code, lines } = await cli("boot", ["--bug", "list"]);
    assert(lines.length >= HISTORICAL_BUGS.length);
    assertEquals(code, 0);
    assertEquals((await cli("boot", ["--bug", "no-such-bug"])).code, 2);
  });

  it("writes trace events as lines of JSON", async () => {
    const path = await Deno.makeTempFile();
    try {
      await cli("boot", ["--exec", "null", "--trace", "exception,fault", "--trace-out", path]);
      const events = (await Deno.readTextFile(path)).trimEnd().split("\n").map((line) => JSON.parse(line));
      assert(events.some((e) => e.kind === "exception" && e.vector === 14));
      assert(events.some((e) => e.kind === "fault" && e.linear === "0x0"));
    } finally {
      await Deno.remove(path);
    }
  });
});

describe("--explain", { ignore: !allowed }, () => {
  it("tells the walk of each page fault with its entries, and is an error without --trace", async () => {
    const path = await Deno.makeTempFile();
    try {
      await cli("boot", ["--exec", "null", "--trace", "fault", "--explain", "--trace-out", path]);
      const events = (await Deno.readTextFile(path)).trimEnd().split("\n").map((line) => JSON.parse(line));
      const event = events.find((e) => e.linear === "0x0");
      assertStringIncludes(event.explain[0], "linear address 0x0, 4-level paging");
      assertStringIncludes(event.explain.at(-1), "page fault: ");
    } finally {
      await Deno.remove(path);
    }
    assertEquals((await cli("boot", ["--exec", "null", "--explain"])).code, 2);
  });
});

describe("deno task run", { ignore: !allowed }, () => {
  it("ends with the guest's exit code", async () => {
    // mov al, 20; out F4H, al
    await withImage(image([0xb0, 20, 0xe6, 0xf4]), async (path) => {
      const { code, lines } = await cli("run", [path]);
      assertEquals(lines[0], `deno task run --seed 1 ${path}`);
      assertStringIncludes(lines.at(-1)!, "exit 41");
      assertEquals(code, 41);
    });
  });

  it("passes piped input to the serial port and its output back", async () => {
    const code = [
      ...[0x66, 0xba, 0xfd, 0x03], // loop: mov dx, 3FDH
      ...[0xec, 0xa8, 0x01, 0x74, 0xf7], // in al, dx; test al, 1; jz loop
      ...[0x66, 0xba, 0xf8, 0x03, 0xec], // mov dx, 3F8H; in al, dx
      ...[0x3c, 0x2e, 0x74, 0x05], // cmp al, '.'; je end
      ...[0x34, 0x20, 0xee, 0xeb, 0xe7], // xor al, 20H; out dx, al; jmp loop
      ...[0x31, 0xc0, 0xe6, 0xf4], // end: xor eax, eax; out F4H, al
    ];
    await withImage(image(code), async (path) => {
      const { code, lines } = await cli("run", [path, "--steps", "50M"], "Hello.");
      assertEquals(lines[1], "hELLO");
      assertEquals(code, 1);
    });
  });

  it("stops a guest that spins with interrupts off after --steps, exactly", async () => {
    await withImage(image([0xfa, 0xeb, 0xfe]), async (path) => {
      const { code, lines } = await cli("run", [path, "--steps", "12345", "--stats", "json"]);
      assertEquals(JSON.parse(lines.at(-1)!).instructions, 12345);
      assertEquals(code, 0);
    });
  });

  it("ends a spinning guest on Ctrl-C", { ignore: Deno.build.os === "windows" }, async () => {
    await withImage(image([0xfa, 0xeb, 0xfe]), async (path) => {
      const child = new Deno.Command(Deno.execPath(), {
        args: ["run", "-A", "--quiet", "lab/cli/run.ts", path],
        cwd: ROOT,
        stdin: "null",
        stdout: "piped",
        stderr: "piped",
      }).spawn();
      const reader = child.stdout.getReader();
      await reader.read(); // the first line: it runs
      reader.releaseLock();
      await new Promise((resolve) => setTimeout(resolve, 200));
      child.kill("SIGINT");
      const { code, stdout } = await child.output();
      assertStringIncludes(new TextDecoder().decode(stdout), "ended by the user");
      assertEquals(code, 130);
    });
  });

  it("says how a triple fault ended it", async () => {
    await withImage(image([0x0f, 0x0b]), async (path) => {
      const { code, lines } = await cli("run", [path]);
      assertStringIncludes(lines.at(-1)!, "triple fault on cpu0");
      assertEquals(code, 1);
    });
  });

  it("refuses what is no image, what is not there, and what does not fit", async () => {
    await withImage(new TextEncoder().encode("#!/bin/sh"), async (path) => {
      const { code, errors } = await cli("run", [path]);
      assertStringIncludes(errors, "neither ELF, multiboot nor a Linux image");
      assertEquals(code, 2);
    });
    const missing = await cli("run", ["/does/not/exist"]);
    assertEquals([missing.code, missing.errors.includes('Cannot read image "/does/not/exist"')], [2, true]);
    await withImage(image([0xf4]), async (path) => {
      const { code, errors } = await cli("run", [path, "--memory", "8G"]);
      assertStringIncludes(errors, "at most");
      assertEquals(code, 2);
      const huge = await Deno.makeTempFile();
      try {
        await Deno.truncate(huge, 2 ** 33);
        const module = await cli("run", [path, "--module", huge]);
        assertStringIncludes(module.errors, "it has more than 3221225472 bytes");
        assertEquals(module.code, 2);
      } finally {
        await Deno.remove(huge);
      }
    });
  });

  it("usage errors name the nearest spelling and end with 2", async () => {
    const { code, errors } = await cli("run", ["--memroy", "1G"]);
    assertStringIncludes(errors, 'Unknown option "--memroy": did you mean "--memory"?');
    assertEquals(code, 2);
    assertEquals((await cli("run", [])).code, 2);
    const noUnit = await cli("run", ["--until", "5", "x"]);
    assertStringIncludes(noUnit.errors, '"5" has no unit: did you mean "5s"?');
    assertEquals(noUnit.code, 2);
  });

  it("lists the processor models", async () => {
    const { code, lines } = await cli("run", ["--cpu-model", "list"]);
    assert(lines.some((line) => line.startsWith("haswell")));
    assertEquals(code, 0);
  });
});
