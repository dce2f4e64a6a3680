import { assertEquals } from "@std/assert";
import { FW_CFG_KEY, FW_CFG_PORT, FwCfg } from "../../../hw/dev/fw_cfg.ts";

function item(device: FwCfg, key: number, bytes: number): number[] {
  device.writePort(FW_CFG_PORT, 2, key);
  return Array.from({ length: bytes }, () => device.readPort(FW_CFG_PORT + 1, 1));
}

Deno.test("fw_cfg gives the signature, the processors and the RAM size, little-endian", () => {
  const device = new FwCfg(0x1_2345_0000, 3);
  assertEquals(item(device, FW_CFG_KEY.SIGNATURE, 4), [..."QEMU"].map((c) => c.charCodeAt(0)));
  assertEquals(item(device, FW_CFG_KEY.NB_CPUS, 2), [3, 0]);
  assertEquals(item(device, FW_CFG_KEY.RAM_SIZE, 8), [0, 0, 0x45, 0x23, 1, 0, 0, 0]);
});

Deno.test("fw_cfg gives zeros behind an item's end and for items that it has not", () => {
  const device = new FwCfg(1 << 20, 1);
  assertEquals(item(device, FW_CFG_KEY.NB_CPUS, 4), [1, 0, 0, 0]);
  assertEquals(item(device, 0x7777, 2), [0, 0]);
});
