/**
 * Address spaces with map entries, in a booted kernel: what the tests of maps, objects and faults begin with.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { type Gva, gva } from "../../../hw/address.ts";
import type { Exec } from "../../../hw/gates.ts";
import type { Cx } from "../../../kernel/context.ts";
import { tsleep } from "../../../kernel/lwkt/sleep.ts";
import { kthreadCreate, lwktExit, lwktReapAll } from "../../../kernel/lwkt/thread.ts";
import { checkInvariants } from "../../../kernel/pmap/invariants.ts";
import { pmapPinit2 } from "../../../kernel/pmap/pmap_pinit.ts";
import { pmapSetlwpvm } from "../../../kernel/pmap/pmap_switch.ts";
import { vmLeaks, vmUse } from "../../../kernel/vm/leak.ts";
import { vmCheck } from "../../../kernel/vm/vm_check.ts";
import { vmMapFind } from "../../../kernel/vm/vm_map_insert.ts";
import type { VmObject } from "../../../kernel/vm/vm_object.ts";
import { KERN_SUCCESS, VM_PROT_ALL, VM_PROT_RW } from "../../../kernel/vm/vm_param.ts";
import { type Vmspace, vmspaceCacheDrain, vmspaceRel } from "../../../kernel/vm/vmspace.ts";
import { vmspaceFork } from "../../../kernel/vm/vmspace_fork.ts";
import { type InKernelOptions, runInKernel } from "../in_kernel.ts";
import { enterSpace, newSpace, page, peek, poke } from "../pmap/pmap_fixture.ts";

export { type Gva, gva, page, peek, poke };

/** The test's spaces, so that each step can be checked. */
export class Spaces {
  readonly all: Vmspace[] = [];
  /** References of the test to objects. */
  readonly refs: Map<VmObject, number> = new Map();
  /** Where the thread is when it is in none of them. */
  readonly #home: Vmspace;

  constructor(home: Vmspace) {
    this.#home = home;
  }

  /** A new space, which the thread goes to. */
  *enter(cx: Cx): Exec<Vmspace> {
    const vm = yield* newSpace(cx);
    this.all.push(vm);
    yield* this.go(cx, vm);
    return vm;
  }
  /** The thread goes to another space. */
  *go(cx: Cx, vm: Vmspace): Exec<void> {
    yield* pmapSetlwpvm(cx, cx.lwp!, vm);
  }
  /** A copy of a space. */
  *fork(cx: Cx, vm: Vmspace): Exec<Vmspace> {
    const child = yield* vmspaceFork(cx, vm);
    pmapPinit2(cx, child.vmPmap);
    this.all.push(child);
    return child;
  }
  /** Ends a space. */
  *end(cx: Cx, vm: Vmspace): Exec<void> {
    this.all.splice(this.all.indexOf(vm), 1);
    if (cx.lwp?.lwpVmspace === vm) yield* this.go(cx, this.#home);
    yield* vmspaceRel(cx, vm);
  }
  /** All rules hold. */
  *check(cx: Cx): Exec<void> {
    assertEquals(yield* vmCheck(cx, [...this.all, this.#home].map((vm) => vm.vmMap), this.refs), []);
    assertEquals(checkInvariants(cx), []);
  }
}

/** What {@link anonymous} maps otherwise than usual. */
export interface Extra {
  readonly prot?: number;
  readonly max?: number;
  readonly inheritance?: number;
  readonly cow?: number;
  readonly object?: VmObject;
  readonly offset?: number;
}

/** Maps memory at page `n`, `pages` pages; anonymous, private, RW unless `extra` says otherwise. */
export function* anonymous(cx: Cx, vm: Vmspace, n: number, pages: number, extra: Extra = {}): Exec<void> {
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
    const home = yield* newSpace(cx);
    yield* enterSpace(cx, home);
    // Kernel stacks are kept for the next threads: have some before anything is counted.
    for (let i = 0; i < 3; i++) yield* kthreadCreate(cx, lwktExit, `stack ${i}`);
    yield* tsleep(cx, {}, 0, "stacks", 2);
    yield* lwktReapAll(cx);
    yield* vmspaceCacheDrain(cx);
    const before = vmUse(cx.k);
    const spaces = new Spaces(home);
    yield* body(cx, spaces);
    yield* spaces.check(cx);
    yield* spaces.go(cx, home);
    for (const vm of [...spaces.all]) yield* spaces.end(cx, vm);
    yield* spaces.check(cx);
    yield* tsleep(cx, {}, 0, "reap", 2);
    yield* lwktReapAll(cx);
    yield* vmspaceCacheDrain(cx);
    assertEquals(vmLeaks(before, vmUse(cx.k)), []);
  });
}
