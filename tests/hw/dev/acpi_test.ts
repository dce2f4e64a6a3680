import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { acpiTables, FACS_ADDRESS, RSDP_ADDRESS } from "../../../hw/dev/acpi.ts";
import { device, eisaId, integer, name, pack, resources, scope, text } from "../../../hw/dev/aml.ts";
import { testBus } from "./board_fixture.ts";

function memory(cpus = 3, disk = true) {
  const bus = testBus();
  for (const { address, bytes } of acpiTables({ cpus, disk })) bus.writeRam(address, bytes);
  const sum = (at: number, bytes: number) => bus.readRam(at, bytes).reduce((s, b) => (s + b) & 0xff, 0);
  const signature = (at: number, bytes = 4) => String.fromCharCode(...bus.readRam(at, bytes));
  return { bus, sum, signature };
}

describe("the ACPI tables", () => {
  it("are found from the RSDP, each with a right checksum", () => {
    const { bus, sum, signature } = memory();
    assertEquals([signature(RSDP_ADDRESS, 8), RSDP_ADDRESS % 16], ["RSD PTR ", 0]);
    assertEquals([sum(RSDP_ADDRESS, 20), sum(RSDP_ADDRESS, 36)], [0, 0]);
    const rsdt = bus.read(RSDP_ADDRESS + 16, 4), xsdt = bus.read(RSDP_ADDRESS + 24, 4);
    const tables = [bus.read(rsdt + 36, 4), bus.read(rsdt + 40, 4)];
    assertEquals([bus.read(xsdt + 36, 4), bus.read(xsdt + 44, 4)], tables);
    const dsdt = bus.read(tables[0]! + 40, 4);
    assertEquals(
      [rsdt, xsdt, ...tables, dsdt].map((at) => signature(at)),
      ["RSDT", "XSDT", "FACP", "APIC", "DSDT"],
    );
    for (const at of [rsdt, xsdt, ...tables, dsdt]) {
      assertEquals(sum(at, bus.read(at + 4, 4)), 0, signature(at));
    }
  });
  it("say in the FADT where the fixed hardware is", () => {
    const { bus, signature } = memory();
    const fadt = bus.read(bus.read(RSDP_ADDRESS + 16, 4) + 36, 4);
    assertEquals(bus.read(fadt + 4, 4), 276, "length of revision 6");
    assertEquals(bus.read(fadt + 36, 4), FACS_ADDRESS);
    assertEquals(FACS_ADDRESS % 64, 0);
    assertEquals(signature(FACS_ADDRESS), "FACS");
    assertEquals([bus.read(fadt + 46, 2), bus.read(fadt + 48, 4)], [9, 0], "SCI; no SMI command");
    assertEquals([56, 64, 76].map((at) => bus.read(fadt + at, 4)), [0x600, 0x604, 0x608]);
    assertEquals([88, 89, 91].map((at) => bus.read(fadt + at, 1)), [4, 2, 4]);
    assertEquals(bus.read(fadt + 108, 1), 0x32, "century");
    assertEquals(bus.read(fadt + 112, 4), 0x565, "flags");
    assertEquals([bus.read(fadt + 116, 1), bus.read(fadt + 120, 4), bus.read(fadt + 128, 1)], [1, 0xcf9, 6]);
    assertEquals([bus.read(fadt + 208, 1), bus.read(fadt + 212, 4)], [1, 0x608], "X_PM_TMR_BLK");
  });
  it("list processors, I/O APIC and overrides in the MADT", () => {
    const { bus } = memory(3);
    const madt = bus.read(bus.read(RSDP_ADDRESS + 16, 4) + 40, 4), end = madt + bus.read(madt + 4, 4);
    assertEquals([bus.read(madt + 36, 4), bus.read(madt + 40, 4)], [0xfee0_0000, 1]);
    const entries: number[][] = [];
    for (let at = madt + 44; at < end; at += bus.read(at + 1, 1)) {
      entries.push([...bus.readRam(at, bus.read(at + 1, 1))]);
    }
    assertEquals(entries.filter((e) => e[0] === 0).map((e) => e[3]), [0, 1, 2]);
    assertEquals(entries.filter((e) => e[0] === 1).length, 1);
    assertEquals(entries.filter((e) => e[0] === 2).map((e) => [e[3], e[4], e[8]]), [[0, 2, 0], [9, 9, 13], [
      11,
      11,
      13,
    ]]);
  });
  it("name the disk in the DSDT only if there is one", () => {
    for (const disk of [true, false]) {
      const { bus } = memory(1, disk);
      const dsdt = bus.read(bus.read(bus.read(RSDP_ADDRESS + 16, 4) + 36, 4) + 40, 4);
      const body = String.fromCharCode(...bus.readRam(dsdt, bus.read(dsdt + 4, 4)));
      assertEquals(body.includes("LNRO0005"), disk);
      assert(
        body.includes("\x08\\_S5_\x12\x08\x04\x0a\x05\x0a\x05\x00\x00"),
        "Name (\\_S5, Package (4) {5, 5, 0, 0})",
      );
    }
  });
});

describe("the AML encoder", () => {
  it("encodes integers, strings and EISA ids as iasl does", () => {
    assertEquals([0, 1, 0x7f, 0x1234, 0x1234_5678].map((n) => integer(n)), [
      [0],
      [1],
      [0x0a, 0x7f],
      [0x0b, 0x34, 0x12],
      [0x0c, 0x78, 0x56, 0x34, 0x12],
    ]);
    assertEquals(text("A"), [0x0d, 0x41, 0]);
    assertEquals(eisaId("PNP0501"), [0x0c, 0x41, 0xd0, 0x05, 0x01]);
  });
  it("counts lengths in one, two or three bytes, their own included", () => {
    const body = (n: number) => [text("x".repeat(n - 2))];
    assertEquals(pack([]), [0x12, 2, 0]);
    assertEquals(scope("A", body(58)).slice(0, 2), [0x10, 0x3f]);
    assertEquals(scope("A", body(59)).slice(0, 3), [0x10, 0x41, 0x04]);
    assertEquals(device("A", body(59)).slice(0, 4), [0x5b, 0x82, 0x41, 0x04]);
    assertEquals(scope("A", body(5000)).slice(0, 4), [
      0x10,
      0x80 | (5007 & 15),
      (5007 >> 4) & 0xff,
      5007 >> 12,
    ]);
    assertEquals(name("_S5", integer(1)), [0x08, 0x5f, 0x53, 0x35, 0x5f, 1]);
    assertEquals(resources([]), [0x11, 5, 0x0a, 2, 0x79, 0]);
  });
});
