/** Random code in guests: whatever it does, the host goes on, and nothing stays behind. */
import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { gva } from "../../../hw/address.ts";
import type { Exec } from "../../../hw/gates.ts";
import { Random } from "../../../hw/random.ts";
import { Sanitizer } from "../../../hw/sanitizer.ts";
import { kernelLeaks, type KernelUse, kernelUse } from "../../../lab/kernel_use.ts";
import { encodeTrapframe } from "../../../kernel/platform/pc64/frame.ts";
import { VMM_GUEST_RUN, VMM_KIND_FULL, VMM_OPTIONS, VMM_OPTIONS_BYTES } from "../../../kernel/vmm/vmm.ts";
import {
  type Guest,
  GUEST_CODE,
  GUEST_DATA,
  guestFrame,
  RAM,
  runVmm,
  SYS,
  SYS_VMM_GUEST_CTL,
} from "./vmm_fixture.ts";

/** Instructions that matter most, and what makes operands for them. */
const PIECES: readonly (readonly number[])[] = [
  [0x0f, 0x05], // syscall
  [0x0f, 0x07], // sysret
  [0x48, 0x0f, 0x07],
  [0x0f, 0x01, 0xc1], // vmcall
  [0x0f, 0x01, 0xc4], // vmxoff
  [0x0f, 0x01, 0xc2], // vmlaunch
  [0x0f, 0x01, 0xf8], // swapgs
  [0x0f, 0x01, 0xd1], // xsetbv
  [0x0f, 0x30], // wrmsr
  [0x0f, 0x32], // rdmsr
  [0x0f, 0x22, 0xc0], // mov cr0, rax
  [0x0f, 0x22, 0xd8], // mov cr3, rax
  [0x0f, 0x22, 0xe0], // mov cr4, rax
  [0x44, 0x0f, 0x22, 0xc0], // mov cr8, rax
  [0x0f, 0x20, 0xc0],
  [0x0f, 0x20, 0xe0],
  [0x0f, 0x23, 0xf8], // mov dr7, rax
  [0x0f, 0x21, 0xf0], // mov rax, dr6
  [0x0f, 0x01, 0xf0], // lmsw ax
  [0x0f, 0x06], // clts
  [0x0f, 0x09], // wbinvd
  [0x0f, 0x08], // invd
  [0x0f, 0xa2], // cpuid
  [0x0f, 0x31], // rdtsc
  [0x0f, 0x01, 0xf9], // rdtscp
  [0x0f, 0x33], // rdpmc
  [0xf4], // hlt
  [0xfa],
  [0xfb],
  [0x9d], // popf
  [0x9c],
  [0xcc],
  [0xf1], // int1
  [0xcd, 0x21],
  [0x48, 0xcf], // iretq
  [0xcb], // retf
  [0xe4, 0x20],
  [0xe6, 0x20],
  [0xec],
  [0x8e, 0xd0], // mov ss, ax
  [0x8e, 0xd8],
  [0x0f, 0x00, 0xd8], // ltr ax
  [0x0f, 0x00, 0xd0], // lldt ax
  [0x0f, 0x01, 0x13], // lgdt [rbx]
  [0x0f, 0x01, 0x1b], // lidt [rbx]
  [0x0f, 0x01, 0x3b], // invlpg [rbx]
  [0x0f, 0xc7, 0x33], // vmptrld [rbx]
  [0xf3, 0x0f, 0xc7, 0x33], // vmxon [rbx]
  [0x66, 0x0f, 0x38, 0x80, 0x03], // invept rax, [rbx]
  [0x0f, 0xff, 0x05, 0, 0, 0, 0], // GATE 0
  [0x0f, 0xff, 0x05, 0xff, 0xff, 0xff, 0xff], // RESUME
  [0x89, 0x03], // mov [rbx], eax
  [0x48, 0x8b, 0x0b], // mov rcx, [rbx]
  [0x48, 0x89, 0xc4], // mov rsp, rax
  [0x48, 0xff, 0xe0], // jmp rax
  [0x0f, 0xae, 0x03], // fxsave [rbx]
  [0x0f, 0xae, 0x0b], // fxrstor [rbx]
];
const WORDS: readonly bigint[] = [
  0n,
  1n,
  8n,
  0x10n,
  0x1bn,
  0x3an,
  0x480n,
  0x620n,
  0x26a0n,
  0x8001_0033n,
  0xe001_0033n,
  0xc000_0080n,
  0xc000_0082n,
  0xc000_0102n,
  0xd01n,
  RAM,
  RAM + 0x1_0000n,
  GUEST_CODE,
  GUEST_DATA,
  0x7fff_ffff_f000n,
  0x8000_0000_0000n,
  0xffff_8000_0000_0000n,
  0xffff_c000_0000_0000n,
  0xffff_ffff_ffff_ffffn,
];

/** A piece of random code. */
function randomCode(random: Random): Uint8Array<ArrayBuffer> {
  const bytes: number[] = [];
  const below = (n: number) => random.next() % n;
  while (bytes.length < 160) {
    const what = below(10);
    if (what < 3) {
      // mov register, word
      const register = below(8);
      bytes.push(0x48, 0xb8 + register);
      let word = WORDS[below(WORDS.length)]! + (below(4) === 0 ? BigInt(below(4096)) : 0n);
      for (let i = 0; i < 8; i++, word >>= 8n) bytes.push(Number(word & 0xffn));
    } else if (what === 3) { for (let i = below(6); i >= 0; i--) bytes.push(below(256)); }
    else bytes.push(...PIECES[below(PIECES.length)]!);
  }
  return Uint8Array.from(bytes);
}

/** A guest's program of ring 3, run a few times from wherever it stopped. */
function* ring3(guest: Guest, random: Random): Exec<number> {
  if ((yield* guest.enter()) !== 0) return 1;
  const { root } = yield* guest.program((a) => a.db(...randomCode(random)));
  const frame = RAM + 0x11_0000n;
  yield* guest.u.storeBytes(
    gva(frame),
    guestFrame({
      rip: GUEST_CODE,
      rsp: GUEST_DATA + 0x800n,
      rbx: GUEST_DATA,
      rflags: BigInt(random.next()),
    }),
  );
  yield* guest.u.zeroBytes(gva(frame + 0x100n), 16);
  for (let i = 0; i < 12; i++) {
    const { errno } = yield* guest.sys(SYS.ctl, root, 1, frame, frame + 0x100n);
    if (errno !== 0) break;
    // On behind what trapped.
    const rip = yield* guest.u.load64(gva(frame + 0xa0n));
    yield* guest.u.store64(gva(frame + 0xa0n), rip + BigInt(random.next() % 4));
    yield* guest.u.store64(gva(frame + 0x30n), WORDS[random.next() % WORDS.length]!);
  }
  return 0;
}

/** A guest of ring 0 with no tables of its own, or with an IDT whose handlers are random places of its code. */
function* ring0(guest: Guest, random: Random): Exec<number> {
  const { u } = guest;
  const code = RAM + 0x60_0000n, tables = RAM + 0x90_0000n;
  for (let i = 0; i < 16; i++) yield* u.storeBytes(gva(code + BigInt(i * 128)), randomCode(random));
  for (let vector = 0; vector < 64; vector++) {
    const handler = code + BigInt(random.next() % 2048), at = tables + BigInt(vector * 16);
    yield* u.store64(
      gva(at),
      (handler & 0xffffn) | (8n << 16n) | (0x8en << 40n) | (((handler >> 16n) & 0xffffn) << 48n),
    );
    yield* u.store64(gva(at + 8n), handler >> 32n);
  }
  yield* u.store16(gva(tables + 0xf00n), 0x3ff);
  yield* u.store64(gva(tables + 0xf02n), tables);
  yield* u.store16(gva(tables + 0xf10n), 23);
  yield* u.store64(gva(tables + 0xf12n), tables + 0xf20n);
  for (const [i, word] of [0n, 0x00af_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn].entries()) {
    yield* u.store64(gva(tables + 0xf20n + BigInt(i * 8)), word);
  }
  // mov rbx, tables; lidt [rbx+f00h]; lgdt [rbx+f10h]
  const prologue = [0x0f, 0x01, 0x9b, 0, 0x0f, 0, 0, 0x0f, 0x01, 0x93, 0x10, 0x0f, 0, 0];
  if (random.next() % 4 !== 0) yield* u.storeBytes(gva(code), Uint8Array.from(prologue));
  const at = gva(RAM + 0x10_0000n);
  yield* u.zeroBytes(at, VMM_OPTIONS_BYTES);
  yield* u.store64(gva(at + BigInt(VMM_OPTIONS.guestCr3)), RAM);
  const tf = encodeTrapframe({ rip: code, rsp: RAM + 0x80_0000n, rflags: 2n, rbx: tables });
  yield* u.storeBytes(gva(at + BigInt(VMM_OPTIONS.tf)), tf);
  yield* u.store8(gva(at + BigInt(VMM_OPTIONS.master)), 1);
  yield* u.store8(gva(at + BigInt(VMM_OPTIONS.kind)), VMM_KIND_FULL);
  yield* u.store8(gva(at + BigInt(VMM_OPTIONS.vector)), 0x30);
  // Nobody catches this one: it ends what would run for ever.
  yield* u.store64(gva(at + 0x218n), 20_000n);
  yield* guest.ok(SYS.setitimer, 0, at + 0x200n, 0);
  return (yield* guest.sys(SYS_VMM_GUEST_CTL, VMM_GUEST_RUN, at)).errno;
}

function fuzz(kind: "ring3" | "ring0", seed: number, guests: number, cpuModel: string): void {
  const random = new Random(seed), sanitizer = new Sanitizer(), uses: KernelUse[] = [];
  const { stop, kernel } = runVmm((guest) => (kind === "ring3" ? ring3 : ring0)(guest, random), {
    cpuModel,
    seed,
    sanitizer,
    kernel: {
      commands: Array.from({ length: guests }, () => ["/bin/guest"]),
      faultReports: false,
      onCommandEnd: (k) => uses.push(kernelUse(k)),
    },
    steps: 400_000_000,
  });
  assertEquals(stop, { reason: "poweroff" }, `${kind}, seed ${seed}`);
  assertEquals(uses.length, guests);
  // Random code may open files and leave continuations of signals; memory, threads and processes are all given back.
  assertEquals(kernelLeaks(uses[1]!, uses.at(-1)!), [], `${kind}, seed ${seed}`);
  assertEquals([kernel.vmm.procs.size, kernel.vmm.threads], [0, 0]);
}

/** More with `VMM_FUZZ=seeds`. */
const SEEDS = Deno.permissions.querySync({ name: "env", variable: "VMM_FUZZ" }).state === "granted"
  ? Number(Deno.env.get("VMM_FUZZ") ?? 1)
  : 1;

describe("random code in guests", () => {
  for (const model of ["skylake", "nehalem"]) {
    for (const kind of ["ring3", "ring0"] as const) {
      it(`of ${kind} on ${model} does the host nothing`, () => {
        for (let seed = 1; seed <= SEEDS; seed++) fuzz(kind, seed, kind === "ring3" ? 20 : 10, model);
      });
    }
  }
});
