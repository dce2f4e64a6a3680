import { assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { Cx } from "../../../kernel/context.ts";
import type { Exec } from "../../../hw/gates.ts";
import { Proc } from "../../../kernel/proc/proc.ts";
import {
  VMSPACE_EXIT1,
  VMSPACE_EXIT2,
  vmspaceDrop,
  vmspaceExitfree,
  vmspaceHold,
  vmspaceRef,
  vmspaceRel,
  vmspaceRelexit,
} from "../../../kernel/vm/vmspace.ts";
import { anonymous, inVm, page, poke, type Spaces } from "./vm_fixture.ts";

/** A space with a page in it, that the thread is not in and the fixture does not end. */
function* loose(cx: Cx, spaces: Spaces) {
  const vm = yield* spaces.enter(cx);
  yield* anonymous(cx, vm, 0, 2);
  yield* poke(cx, page(0), 1n);
  const child = yield* spaces.fork(cx, vm);
  spaces.all.splice(spaces.all.indexOf(child), 1);
  return child;
}

describe("an address space ends in two stages", () => {
  it("the mappings go with the last reference, the tables when the process has been reaped", () =>
    inVm(function* (cx, spaces): Exec<void> {
      const vm = yield* loose(cx, spaces);
      const p = new Proc(91);
      p.pVmspace = vm;
      vmspaceRef(vm);
      yield* vmspaceRel(cx, vm);
      assertEquals(vm.vmFlags, 0);
      yield* vmspaceRelexit(cx, vm);
      assertEquals([vm.vmFlags, vm.vmMap.nentries, vm.vmHoldcnt], [VMSPACE_EXIT1, 0, 1]);
      yield* vmspaceExitfree(cx, p);
      assertEquals([vm.vmFlags, p.pVmspace], [VMSPACE_EXIT1 | VMSPACE_EXIT2, undefined]);
    }));
  it("who looks at it keeps the tables", () =>
    inVm(function* (cx, spaces): Exec<void> {
      const vm = yield* loose(cx, spaces);
      yield* vmspaceHold(cx, vm);
      yield* vmspaceRel(cx, vm);
      assertEquals(vm.vmFlags, VMSPACE_EXIT1);
      yield* vmspaceDrop(cx, vm);
      assertEquals(vm.vmFlags, VMSPACE_EXIT1 | VMSPACE_EXIT2);
    }));
  it("historical bug vmspace-refs: they go under who looks", () => {
    assertThrows(
      () =>
        inVm(function* (cx, spaces): Exec<void> {
          const vm = yield* loose(cx, spaces);
          yield* vmspaceHold(cx, vm);
          yield* vmspaceRel(cx, vm);
          yield* vmspaceDrop(cx, vm);
        }, { kernel: { bugs: ["vmspace-refs"] } }),
      Error,
      "address space is gone",
    );
  });
  it("nobody gets a reference to one that ends", () => {
    assertThrows(
      () =>
        inVm(function* (cx, spaces): Exec<void> {
          const vm = yield* loose(cx, spaces);
          yield* vmspaceHold(cx, vm);
          yield* vmspaceRel(cx, vm);
          vmspaceRef(vm);
        }),
      Error,
      "address space is ending",
    );
  });
});
