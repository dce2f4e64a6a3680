import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { gva } from "../../../hw/address.ts";
import { GUEST_DATA, RAM, runVmm, SYS } from "./vmm_fixture.ts";

describe("vmm_guest_ctl", () => {
  it("goes on in non-root operation, where a system call is still one of the host", () => {
    let modes: number[] = [];
    const { kernel, statuses, stop } = runVmm(function* (guest) {
      const before = yield* guest.ok(SYS.getpid);
      const errno = yield* guest.enter();
      if (errno !== 0) return errno;
      modes = [kernel_mode(guest.u.cpu.get32(0))];
      const after = yield* guest.ok(SYS.getpid);
      return before === after ? 0 : 1;
    });
    void modes;
    assertEquals([stop, statuses], [{ reason: "poweroff" }, [0]]);
    console.log(kernel.vmm.counters);
  });

  it("runs guest code of its own: system calls, exceptions", () => {
    const { statuses, stop } = runVmm(function* (guest) {
      const errno = yield* guest.enter();
      if (errno !== 0) return errno;
      const { root, data } = yield* guest.program((a) => {
        a.movImmediate("rbx", GUEST_DATA).movImmediate32("rcx", 0x1234).store("rbx", 8, "rcx");
        a.movImmediate32("rax", 99).db(0x0f, 0x05).db(0x0f, 0x0b);
      });
      const frame = yield* guest.run(root, {});
      if (frame.trapno !== 0x100n || frame.rax !== 99n) return 2;
      if ((yield* guest.u.load64(gva(data + 8n))) !== 0x1234n) return 3;
      const ud = yield* guest.again(root);
      return ud.trapno === 6n ? 0 : 4;
    });
    assertEquals([stop, statuses], [{ reason: "poweroff" }, [0]]);
    void RAM;
  });
});
function kernel_mode(n: number): number {
  return n;
}
