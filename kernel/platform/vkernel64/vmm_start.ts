/**
 * A vkernel moves into VMX non-root operation (`create_pagetables` and `init.c` of `sys/platform/vkernel64`, with VMM; section 17 of the
 * reference): its page tables become real ones, on top of what the host makes of the process's addresses.
 *
 * Room: `kernel/platform/vkernel64/`; imports the host's calls and the layout of their argument.
 *
 *     slot 0     the process's own addresses as they are, in 2-MiB pages: the first GiB, and RAM
 *     slot 1     KVA, by the kernel's own tables (pmap_bootstrap)
 *     slot 255   the top 2 MiB of the process: its stack and the signal trampoline, which the host copies down
 *
 * Deviation: 2-MiB pages always, and only where there is something; DragonFly maps 512 GiB, in 1-GiB pages where the processor has them.
 *
 * @module
 */
import { gva, type Hpa } from "../../../hw/address.ts";
import type { Exec, GateCpu } from "../../../hw/gates.ts";
import { PG_PS_IDX, PG_RW_IDX, PG_U_IDX, PG_V_IDX, VPTE_FORMAT } from "../../pmap/pmap_bits.ts";
import { VMM_GUEST_RUN, VMM_OPTIONS, VMM_OPTIONS_BYTES } from "../../vmm/vmm.ts";
import { VM_MAX_USER_ADDRESS } from "../pc64/vmparam.ts";
import { host, HostError, MAP_ANON, MAP_FIXED, MAP_SHARED, must, PROT_ALL, SYS } from "./host.ts";
import { IO_VA, VMM_STACK_VA, VMM_TABLES_VA } from "./vmparam.ts";

const LARGE = 0x20_0000n, GIB = 1n << 30n, PAGE = 0x1000n;
/** Pages of tables: two PDPs, and PDs for the first GiB, the stack, and 3 GiB of RAM. */
const TABLE_PAGES = 7n;
const BITS = VPTE_FORMAT.pmapBits;
/** An entry that leads to a table: everything runs at CPL 3. */
const TABLE = BITS[PG_V_IDX]! | BITS[PG_RW_IDX]! | BITS[PG_U_IDX]!;
const LEAF = TABLE | BITS[PG_PS_IDX]!;

/**
 * Enters. The continuation goes along.
 *
 * @param root The kernel's PML4.
 * @param base RAM.
 * @throws {HostError} when the host has no VMM, or refuses.
 */
export function* enterVmm(u: GateCpu, root: Hpa, base: number, bytes: number): Exec<void> {
  // Before: it makes the process a vkernel (`p_vkernel`).
  yield* must(u, "vmspace_create (is the sysctl vm.vkernel_enable 1?)", SYS.vmspace_create, 0, 0, 0);
  const flags = MAP_ANON | MAP_SHARED | MAP_FIXED;
  const low = VMM_TABLES_VA + TABLE_PAGES * PAGE - VMM_STACK_VA;
  yield* must(u, "mmap", SYS.mmap, VMM_STACK_VA, low, PROT_ALL, flags, -1, 0, 0);
  yield* buildTables(u, BigInt(root), BigInt(base), BigInt(base + bytes));
  const options = gva(IO_VA), at = (field: number) => gva(IO_VA + BigInt(field));
  yield* u.zeroBytes(options, VMM_OPTIONS_BYTES);
  yield* u.store64(at(VMM_OPTIONS.guestCr3), BigInt(root));
  yield* u.store64(at(VMM_OPTIONS.newStack), VMM_STACK_VA + (VM_MAX_USER_ADDRESS & (LARGE - 1n)));
  yield* u.store8(at(VMM_OPTIONS.master), 1);
  u.rebindNext = true;
  const { errno } = yield* host(u, SYS.vmm_guest_ctl, VMM_GUEST_RUN, options);
  if (errno !== 0) throw new HostError("vmm_guest_ctl (no VMX with EPT on this processor?)", errno);
}

/** Entries for the process's own addresses. */
function* buildTables(u: GateCpu, root: bigint, from: bigint, to: bigint): Exec<void> {
  let next = VMM_TABLES_VA;
  const table = () => {
    const made = next;
    next += PAGE;
    return made;
  };
  const put = (page: bigint, slot: bigint, entry: bigint) => u.store64(gva(page + slot * 8n), entry);
  const pdp = table();
  yield* put(root, 0n, pdp | TABLE);
  for (const [first, last] of [[0n, GIB], [from, to]] as const) {
    for (let at = first; at < last; at += GIB) {
      const pd = table();
      yield* put(pdp, at / GIB, pd | TABLE);
      for (let i = 0n; i < 512n && at + i * LARGE < last; i++) yield* put(pd, i, at + i * LARGE | LEAF);
    }
  }
  const top = VM_MAX_USER_ADDRESS & ~(LARGE - 1n);
  const stackPdp = table(), stackPd = table();
  yield* put(root, top >> 39n & 511n, stackPdp | TABLE);
  yield* put(stackPdp, top >> 30n & 511n, stackPd | TABLE);
  yield* put(stackPd, top >> 21n & 511n, VMM_STACK_VA | LEAF);
}
