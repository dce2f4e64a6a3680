/** The small commands, all in one boot: a command line, and what it prints. */
import { assertEquals, assertMatch } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { mayRead, run, type UserRun } from "./user_fixture.ts";

/** Lines that the commands below read. */
const FILES = { "t/f": "b 2\na 10\nc 1\na 10\n", "t/w": "foo bar foo\naXbXc\n" };

const PRINTS: readonly (readonly [command: string, output: string])[] = [
  ["sort f", "a 10\na 10\nb 2\nc 1\n"],
  ["sort -rk2n f | head -2", "a 10\na 10\n"],
  ["sort -u f | uniq -c", "   1 a 10\n   1 b 2\n   1 c 1\n"],
  ["wc f", "       4       8      18 f\n"],
  ["wc -l <f", "       4\n"],
  ["head -1 f; tail -1 f; tail -n +3 f", "b 2\na 10\nc 1\na 10\n"],
  ["grep -n '^a.*0$' f", "2:a 10\n4:a 10\n"],
  [
    "grep -cE '(b|c) [12]' f; grep -vi A f; grep -o '[0-9]*' f; grep -q zzz f; echo $?",
    "2\nb 2\nc 1\n2\n10\n1\n10\n1\n",
  ],
  ["cut -d' ' -f2 f | tr '\\n' ,", "2,10,1,10,"],
  ["tr a-z A-Z <w; echo aabb | tr -s a-z; echo hello | tr -d l", "FOO BAR FOO\nAXBXC\nab\nheo\n"],
  ["sed 's/foo/X&Y/g;s/\\(b\\)ar/\\1AZ/' w", "XfooY bAZ XfooY\naXbXc\n"],
  [
    "sed -n '2,3p' f; sed '$d' f; sed -e /a/d f; sed 's/X/-/2' w",
    "a 10\nc 1\nb 2\na 10\nc 1\nb 2\nc 1\nfoo bar foo\naXb-c\n",
  ],
  ["seq 3 -1 1 | tr '\\n' ' '", "3 2 1 "],
  ["expr 3 + 4 \\* 2; expr abc : 'a\\(.\\)'; expr 5 = 6", "11\nb\n0\n"],
  ["basename /a/b.c .c; dirname /a/b/c", "b\n/a/b\n"],
  [
    "mkdir -p d/e; touch d/x; ls d | cat; ls -1F d; find d; ls -1 d | wc -l; rm -r d; ls d 2>&1",
    "e\nx\ne/\nx\nd\nd/e\nd/x\n       2\nls: d: No such file or directory\n",
  ],
  [
    "cp f g; mv g h; ln -s h l; readlink l; cat l | head -1; ln h k; stat h | grep -o 'Links: 2'; cmp f h; rm h k l; ls -1",
    "h\nb 2\nLinks: 2\nf\nw\n",
  ],
  ["hexdump -n 5 f", "00000000  62 20 32 0a 61                                    |b 2.a|\n00000005\n"],
  [
    "dd if=/dev/zero of=z bs=1k count=3 2>&1 | tail -1; ls -l z | cut -c31-35; truncate -s 10 z; wc -c z; rm z",
    "3072 bytes transferred\n 3072\n      10 z\n",
  ],
  ["chmod u=rwx,go-rwx f; ls -l f | cut -c1-10; chmod 644 f; touch m; rm m", "-rwx------\n"],
  ["date -r 951782400; date -u -r 0 +%Y-%m-%d", "Tue Feb 29 00:00:00 UTC 2000\n1970-01-01\n"],
  ["env -i A=1 env; A=2 printenv A", "A=1\n2\n"],
  ["echo a b c | xargs -n 2 echo", "a b\nc\n"],
  ["yes | head -2; true; echo $?; false; echo $?", "y\ny\n0\n1\n"],
  ["echo x | tee a b; cat a b; rm a b", "x\nx\nx\n"],
  ["uname -s; hostname; id -u; which sh; tty", "DragonFly\nexuvia\n0\n/bin/sh\n/dev/console\n"],
  ["time true 2>&1 | cut -d' ' -f1", "real\nuser\nsys\n"],
  ["sleep 100 & kill -9 $!; wait $!; echo $?", "137\n"],
  ["test -d /t && [ 1 -lt 2 ] && /bin/printf '%03d\\n' 7; /bin/test -e /nothing; echo $?", "007\n1\n"],
];

/** What changes from run to run, or from kernel to kernel, but has a form. */
const MATCHES: readonly (readonly [command: string, output: RegExp])[] = [
  ["ps axl", /^ *0 +1 +0 .* (?:\/sbin\/init|init|\[init\])$/m],
  ["ps ax | grep -c pagedaemon", /^[1-9]/],
  ["top -b", /processes: \d+ running[\s\S]*Mem: [\s\S]*Swap: [\s\S]*PID/],
  ["vmstat", /faults\n.* cs\n +\d+ +\d+/],
  ["vmstat -s", /^ *[1-9]\d* total VM faults taken$/m],
  ["free", /^Mem: +[1-9]\d+ +[1-9]\d+ +[1-9]\d+/m],
  ["df", /^tmpfs +[1-9]\d+ .* \/$/m],
  ["mount", /^devfs on \/dev \(devfs/m],
  ["sysctl -n hw.ncpu", /^2\n$/],
  ["sysctl kern.ostype", /^kern.ostype: DragonFly\n$/],
  ["sysctl -a | wc -l", /^ +\d\d+\n$/],
  ["dmesg", /Exuvia/],
  ["uptime", /^up \d+:\d\d:\d\d, \d+ processes/],
  ["du -s /t", /^\d+\t\/t\n$/],
];

describe("small commands", { ignore: !mayRead }, () => {
  const commands = [...PRINTS.map(([command]) => command), ...MATCHES.map(([command]) => command)];
  const runAll = () =>
    run(commands.map((command) => `cd /t; ${command}; echo @@""@@`), { files: FILES, cpus: 2 });
  let all: UserRun | undefined;
  const output = (i: number) => (all ??= runAll()).console.split("@@@@\n")[i];
  for (const [i, [command, expected]] of PRINTS.entries()) {
    it(command, () => assertEquals(output(i), expected));
  }
  for (const [i, [command, expected]] of MATCHES.entries()) {
    it(command, () => assertMatch(output(PRINTS.length + i) ?? "", expected));
  }
  it("leave nothing behind", () => assertEquals((all ??= runAll()).leaks, []));
});
