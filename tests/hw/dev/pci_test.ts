/**
 * PCI configuration space: a host bridge and nothing else.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { PciPorts } from "../../../hw/dev/pci.ts";

/** Reads configuration space as software does. */
function configuration(pci: PciPorts, address: number, byte: number, size: 1 | 2 | 4): number {
  pci.writePort(0xcf8, 4, address);
  return (pci.readPort(0xcfc + byte, size) & (size === 4 ? -1 : 2 ** (8 * size) - 1)) >>> 0;
}

describe("PCI configuration space", () => {
  it("has a host bridge at 0:0.0, readable at any width", () => {
    const pci = new PciPorts(() => {});
    assertEquals(configuration(pci, 0x8000_0000, 0, 4), 0x1237_8086);
    assertEquals(configuration(pci, 0x8000_0000, 2, 2), 0x1237);
    assertEquals(configuration(pci, 0x8000_0008, 2, 2), 0x0600, "class: host bridge");
    assertEquals(configuration(pci, 0x8000_000c, 2, 1), 0, "header type: one function");
    assertEquals(configuration(pci, 0x8000_0010, 0, 4), 0, "no memory of its own");
  });

  it("has nothing else, and nothing while it is off", () => {
    const pci = new PciPorts(() => {});
    for (const address of [0x8000_0100, 0x8000_0800, 0x8001_0000, 0x0000_0000]) {
      assertEquals(configuration(pci, address, 0, 4), 0xffff_ffff);
    }
  });

  it("reads the address back: how software finds out about mechanism #1", () => {
    const pci = new PciPorts(() => {});
    pci.writePort(0xcf8, 4, 0x8000_0000);
    assertEquals(pci.readPort(0xcf8, 4) >>> 0, 0x8000_0000);
  });
});
