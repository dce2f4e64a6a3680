import { assert, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { Exec } from "../../../hw/gates.ts";
import type { Cx } from "../../../kernel/context.ts";
import { nameToVnode } from "../../../kernel/vfs/nlookup.ts";
import { vnReadBytes } from "../../../kernel/vfs/vfs_vnops.ts";
import { vref } from "../../../kernel/vfs/vnode.ts";
import { vpToTmpfsNode } from "../../../kernel/vfs/tmpfs/tmpfs.ts";
import { cpio } from "../../../kernel/vfs/cpio.ts";
import { runInKernel } from "../in_kernel.ts";
import { archiveFile } from "./vfs_fixture.ts";

const encoder = new TextEncoder();

/** A ustar archive by hand: [type, name, text, link]. */
function tar(...entries: readonly (readonly [string, string, string?, string?])[]): Uint8Array {
  const blocks: Uint8Array[] = [];
  for (const [type, name, text = "", link = ""] of entries) {
    const h = new Uint8Array(512);
    const put = (at: number, value: string) => h.set(encoder.encode(value), at);
    const data = encoder.encode(text);
    put(0, name);
    put(100, "0000640\0");
    put(108, "0000007\0");
    put(116, "0000010\0");
    put(124, data.length.toString(8).padStart(11, "0") + "\0");
    put(136, "00000001000\0");
    put(148, "        ");
    put(156, type);
    put(157, link);
    put(257, "ustar\0" + "00");
    put(148, h.reduce((sum, byte) => sum + byte, 0).toString(8).padStart(6, "0") + "\0 ");
    const padded = new Uint8Array(Math.ceil(data.length / 512) * 512);
    padded.set(data);
    blocks.push(h, padded);
  }
  blocks.push(new Uint8Array(1024));
  const all = new Uint8Array(blocks.reduce((sum, block) => sum + block.length, 0));
  let at = 0;
  for (const block of blocks) {
    all.set(block, at);
    at += block.length;
  }
  return all;
}

function* text(cx: Cx, path: string): Exec<string | number> {
  const vp = nameToVnode(cx, path);
  if (typeof vp === "number") return vp;
  vref(vp);
  const bytes = yield* vnReadBytes(cx, vp, 0, 100000);
  return typeof bytes === "number" ? bytes : new TextDecoder().decode(bytes);
}

function withArchives(archives: readonly Uint8Array[], body: (cx: Cx) => Exec<void>): string {
  return runInKernel({ kernel: { archives, verbose: true } }, body).console;
}

describe("a root archive", () => {
  it("may be cpio: files, links, directories, with their modes", () => {
    const files = [
      { path: "etc", mode: 0o040700, data: new Uint8Array(0) },
      archiveFile("etc/motd", "welcome", 0o640),
      { path: "etc/link", mode: 0o120777, data: encoder.encode("motd") },
      archiveFile("./usr/share/deep", "made its directories"),
    ];
    withArchives([cpio(files)], function* (cx) {
      assertEquals(yield* text(cx, "/etc/motd"), "welcome");
      assertEquals(yield* text(cx, "/etc/link"), "welcome");
      assertEquals(yield* text(cx, "/usr/share/deep"), "made its directories");
      assertEquals(vpToTmpfsNode(nameToVnode(cx, "/etc") as never).tnMode, 0o700);
      assertEquals(vpToTmpfsNode(nameToVnode(cx, "/etc/motd") as never).tnMode, 0o640);
    });
  });

  it("may be ustar: long names, hard and symbolic links", () => {
    const long = "very/".repeat(30) + "long";
    const archive = tar(
      ["5", "dir/"],
      ["0", "dir/file", "text in tar"],
      ["1", "dir/hard", "", "dir/file"],
      ["2", "soft", "", "dir/file"],
      ["L", "././@LongLink", long + "\0"],
      ["0", "short", "long name"],
      ["x", "pax", "18 path=dir/paxed\n"],
      ["0", "ignored", "pax name"],
    );
    withArchives([archive], function* (cx) {
      for (const path of ["/dir/file", "/dir/hard", "/soft"]) {
        assertEquals(yield* text(cx, path), "text in tar");
      }
      assertEquals(vpToTmpfsNode(nameToVnode(cx, "/dir/hard") as never).tnLinks, 2);
      assertEquals(yield* text(cx, `/${long}`), "long name");
      assertEquals(yield* text(cx, "/dir/paxed"), "pax name");
      assertEquals(yield* text(cx, "/ignored"), 2);
      const { tnUid, tnGid, tnMode } = vpToTmpfsNode(nameToVnode(cx, "/dir/file") as never);
      assertEquals([tnUid, tnGid, tnMode], [7, 8, 0o640]);
    });
  });

  it("that comes later replaces files of those before, and adds to their directories", () => {
    const first = cpio([archiveFile("a/x", "old"), archiveFile("a/y", "kept")]);
    withArchives([first, tar(["0", "a/x", "new"], ["0", "a/z", "more"])], function* (cx) {
      assertEquals(yield* text(cx, "/a/x"), "new");
      assertEquals(yield* text(cx, "/a/y"), "kept");
      assertEquals(yield* text(cx, "/a/z"), "more");
    });
  });

  it("that is broken is said so, and what comes before the break is used", () => {
    const good = cpio([archiveFile("a", "first"), archiveFile("b", "second".repeat(100))]);
    const text100 = (archive: Uint8Array) =>
      withArchives([archive], function* (cx) {
        assertEquals(yield* text(cx, "/b"), 2);
      });
    assert(/archive 1: .*longer than the archive/.test(text100(good.slice(0, 400))));
    const garbled = good.slice();
    garbled.set(encoder.encode("XXXXXX"), 116 + 8);
    assert(/archive 1: no entry begins at/.test(text100(garbled)));
    assert(/neither cpio/.test(text100(new Uint8Array(2000))));
    assert(/within an entry/.test(text100(good.slice(0, 60))));
    assert(/no path for a file/.test(text100(cpio([archiveFile("x/../../b", "out")]))));
    const badSum = tar(["0", "b", "x"]);
    badSum[0] = 0x63;
    assert(/wrong checksum/.test(text100(badSum)));
    assertThrows(() => text100(good));
  });
});
