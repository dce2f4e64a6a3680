/**
 * Address spaces with map entries, in a booted kernel: what the tests of maps, objects and faults begin with.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { type Gva, gva } from "../../../hw/address.ts";
import type { Exec } from "../../../hw/gates.ts";
import type { Cx } from "../../../kernel/context.ts";
import { checkInvariants } from "../../../kernel/pmap/invariants.ts";
import { vmLeaks, vmUse } from "../../../kernel/vm/leak.ts";
import { vmCheck } from "../../../kernel/vm/vm_check.ts";
import { vmMapFind } from "../../../kernel/vm/vm_map_insert.ts";
import type { VmObject } from "../../../kernel/vm/vm_object.ts";
import { KERN_SUCCESS, VM_PROT_ALL, VM_PROT_RW } from "../../../kernel/vm/vm_param.ts";
import {
  type Vmspace,
  vmspaceCacheDrain,
  vmspaceDrop,
  vmspaceHold,
  vmspaceRel,
} from "../../../kernel/vm/vmspace.ts";
import { type InKernelOptions, runInKernel } from "../in_kernel.ts";
import { enterSpace, leaveSpace, newSpace, page, peek, poke } from "../pmap/pmap_fixture.ts";
import { lwktSwitch } from "../../../kernel/lwkt/thread.ts";
import { tsleep } from "../../../kernel/lwkt/sleep.ts";

export { enterSpace, leaveSpace, newSpace, page, peek, poke };

/** The test's spaces, so that each step can be checked. */
export class Spaces {
  readonly all: Vmspace[] = [];

  /** A new space, entered by the thread. */
  *enter(cx: Cx): Exec<Vmspace> {
    const vm = yield* newSpace(cx);
    this.all.push(vm);
    yield* enterSpace(cx, vm);
    return vm;
  }
  /** Ends a space. */
  *end(cx: Cx, vm: Vmspace): Exec<void> {
    this.all.splice(this.all.indexOf(vm), 1);
    if (cx.lwp?.lwpVmspace === vm) {
      leaveSpace(cx);
      // The switch of threads takes the tables away.
      yield* tsleep(cx, {}, 0, "leave", 1);
    }
    yield* vmspaceRel(cx, vm);
  }
  /** All rules hold. */
  *check(cx: Cx): Exec<void> {
    assertEquals(yield* vmCheck(cx, this.all.map((vm) => vm.vmMap)), []);
    assertEquals(checkInvariants(cx), []);
  }
}

/** Maps anonymous memory, `pages` pages from page `n`. */
export function* anonymous(
  cx: Cx,
  vm: Vmspace,
  n: number,
  pages: number,
  extra: {
    prot?: number;
    max?: number;
    inheritance?: number;
    cow?: number;
    object?: VmObject;
    offset?: number;
  } = {},
): Exec<void> {
  const at = yield* vmMapFind(cx, vm.vmMap, {
    addr: page(n),
    length: BigInt(pages) * 0x1000n,
    fitit: false,
    prot: VM_PROT_RW,
    max: VM_PROT_ALL,
    ...extra,
  });
  assertEquals(at.rv, KERN_SUCCESS);
}

/** Runs a body in a booted kernel; afterwards every space has ended and nothing is left. */
export function inVm(body: (cx: Cx, spaces: Spaces) => Exec<void>, options: InKernelOptions = {}): void {
  runInKernel(options, function* (cx) {
    yield* vmspaceCacheDrain(cx);
    const before = vmUse(cx.k);
    const spaces = new Spaces();
    yield* body(cx, spaces);
    yield* spaces.check(cx);
    for (const vm of [...spaces.all]) yield* spaces.end(cx, vm);
    yield* spaces.check(cx);
    yield* vmspaceCacheDrain(cx);
    assertEquals(vmLeaks(before, vmUse(cx.k)), []);
  });
}

/** Unused but kept for symmetry with hold and drop. */
export { type Gva, gva, lwktSwitch, vmspaceDrop, vmspaceHold };
