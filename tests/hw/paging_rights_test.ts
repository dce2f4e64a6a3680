/**
 * Every combination of rights in the tables, access, CPL and control bits, against a model that is written from the text of the
 * SDM (vol. 3A, "Determination of Access Rights") and shares no code with the walker.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { explainWalk } from "../../hw/explain_walk.ts";
import { ACCESS, CR0_WP, CR4_PKE, CR4_SMAP, CR4_SMEP, EFER_LMA, EFER_NXE, Walker } from "../../hw/paging.ts";
import { S } from "../../hw/state.ts";
import { Bench } from "./paging_fixture.ts";

interface Case {
  /** Rights per level, PML4E first; XD only where NXE = 1. */
  readonly w: readonly boolean[];
  readonly u: readonly boolean[];
  readonly xd: readonly boolean[];
  readonly kind: "read" | "write" | "fetch";
  readonly user: boolean;
  /** RFLAGS.AC = 1 and the access is explicit. */
  readonly acOverrides: boolean;
  readonly wp: boolean;
  readonly smep: boolean;
  readonly smap: boolean;
  readonly nxe: boolean;
  /** PKRU AD and WD of the leaf's key; undefined: CR4.PKE = 0. */
  readonly key: { readonly ad: boolean; readonly wd: boolean } | undefined;
}

/** The error code that the SDM asks for, or −1. */
function model(c: Case): number {
  const userPage = c.u.every(Boolean), writable = c.w.every(Boolean), executable = !c.xd.some(Boolean);
  let refused: boolean;
  if (!c.user) {
    if (c.kind === "fetch") refused = !executable || (userPage && c.smep);
    else {
      refused = userPage && c.smap && !c.acOverrides;
      if (c.kind === "write" && c.wp && !writable) refused = true;
    }
  } else if (!userPage) refused = true;
  else if (c.kind === "fetch") refused = !executable;
  else refused = c.kind === "write" && !writable;
  const byKey = c.key !== undefined && userPage && c.kind !== "fetch" &&
    (c.key.ad || (c.key.wd && c.kind === "write" && (c.user || c.wp)));
  if (!refused && !byKey) return -1;
  return 1 | (c.kind === "write" ? 2 : 0) | (c.user ? 4 : 0) |
    (c.kind === "fetch" && (c.smep || c.nxe) ? 16 : 0) | (byKey ? 32 : 0);
}

const both = [false, true];
const LINEAR = 0x40_0000n;

/** One right is missing at one level, or at none. */
function lacking(): boolean[][] {
  const rows = [[true, true, true, true]];
  for (let level = 0; level < 4; level++) rows.push([0, 1, 2, 3].map((i) => i !== level));
  return rows;
}

function setUp(bench: Bench, entries: readonly number[], c: Case): number {
  for (let level = 4; level >= 1; level--) {
    const i = 4 - level;
    let value = bench.peek64(entries[level]!) & ~(6n | (1n << 63n));
    if (c.w[i]) value |= 2n;
    if (c.u[i]) value |= 4n;
    if (c.xd[i]) value |= 1n << 63n;
    if (level === 1) value = value & ~(15n << 59n) | (5n << 59n);
    bench.poke64(entries[level]!, value);
  }
  const { cpu } = bench;
  cpu.set32(S.CR0, (cpu.get32(S.CR0) & ~CR0_WP) | (c.wp ? CR0_WP : 0));
  const cr4 = cpu.get32(S.CR4) & ~(CR4_SMEP | CR4_SMAP | CR4_PKE);
  cpu.set32(
    S.CR4,
    cr4 | (c.smep ? CR4_SMEP : 0) | (c.smap ? CR4_SMAP : 0) | (c.key ? CR4_PKE : 0),
  );
  cpu.set32(S.EFER, EFER_LMA | (c.nxe ? EFER_NXE : 0));
  cpu.set32(S.PKRU, c.key ? ((c.key.ad ? 1 : 0) | (c.key.wd ? 2 : 0)) << 10 : 0);
  let access = c.user ? ACCESS.USER : c.smap && !c.acOverrides && c.kind !== "fetch" ? ACCESS.SMAP : 0;
  if (c.kind === "write") access |= ACCESS.WRITE;
  if (c.kind === "fetch") access |= ACCESS.FETCH;
  return access;
}

function* cases(): Generator<Case> {
  const keys = [undefined, ...both.flatMap((ad) => both.map((wd) => ({ ad, wd })))];
  for (const w of lacking()) {
    for (const u of lacking()) {
      for (const x of lacking()) {
        for (const nxe of both) {
          const xd = x.map((executable) => !executable);
          if (!nxe && xd.some(Boolean)) continue;
          for (const kind of ["read", "write", "fetch"] as const) {
            for (const user of both) {
              for (let bits = 0; bits < 16; bits++) {
                for (const key of keys) {
                  if (key !== undefined && xd.some(Boolean)) continue;
                  yield {
                    w,
                    u,
                    xd,
                    nxe,
                    kind,
                    user,
                    wp: (bits & 1) !== 0,
                    smep: (bits & 2) !== 0,
                    smap: (bits & 4) !== 0,
                    acOverrides: (bits & 8) !== 0,
                    key,
                  };
                }
              }
            }
          }
        }
      }
    }
  }
}

Deno.test("the walker decides every combination of rights and access as the SDM does", () => {
  const bench = new Bench();
  const entries = bench.map(LINEAR, 0x20_0000, 7n);
  const walker = new Walker(bench.cpu, bench.access.features, { pure: false, storeSlow: () => {} });
  let count = 0, refusals = 0;
  for (const c of cases()) {
    const access = setUp(bench, entries, c);
    const got = walker.walk(Number(LINEAR), 0, access), want = model(c);
    if (got !== want) assertEquals(got, want, JSON.stringify(c));
    count++;
    if (want >= 0) refusals++;
  }
  assertEquals(count > 30_000 && refusals > 10_000 && refusals < count, true);
});

Deno.test("explainWalk gives the same outcome as the walker, and changes nothing", () => {
  const bench = new Bench();
  const entries = bench.map(LINEAR, 0x20_0000, 7n);
  let n = 0;
  for (const c of cases()) {
    if (n++ % 37 !== 0) continue;
    const access = setUp(bench, entries, c);
    const before = entries.map((at) => bench.peek64(at));
    const { outcome } = explainWalk(bench.cpu, LINEAR, {
      write: c.kind === "write",
      fetch: c.kind === "fetch",
      user: c.user,
      smap: (access & ACCESS.SMAP) !== 0,
    });
    assertEquals(outcome.kind === "page fault" ? outcome.errorCode : -1, model(c), JSON.stringify(c));
    assertEquals(entries.map((at) => bench.peek64(at)), before);
  }
});
