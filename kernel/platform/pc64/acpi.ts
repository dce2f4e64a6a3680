/**
 * Power-off by ACPI: finds the fixed registers in the FADT and sets the sleep type of S5.
 *
 * Room: `kernel/platform/pc64/`; reads the firmware's tables through the direct map. ACPI Specification, "RSDP", "FADT", "PM1 Control".
 *
 * @module
 */
import { type Gva, gva, hpa } from "../../../hw/address.ts";
import type { Exec, GateCpu } from "../../../hw/gates.ts";
import { physToDmap } from "./vmparam.ts";

/** Where the RSDP is looked for, on 16-byte boundaries. */
const RSDP_START = 0xe_0000;
const RSDP_END = 0x10_0000;
/** "RSD PTR " and "FACP" as little-endian numbers. */
const RSDP_SIGNATURE = 0x2052_5450_2044_5352n;
const FADT_SIGNATURE = 0x5043_4146;
/** Byte offsets. */
const RSDP_RSDT = 16;
const TABLE_LENGTH = 4;
const TABLE_HEADER_BYTES = 36;
const FADT_PM1A_CONTROL = 64;
const FADT_PM_TIMER = 76;
/** PM1 control: sleep enable, and where the sleep type stands. */
const SLP_EN = 1 << 13;
const SLP_TYP_SHIFT = 10;
/** Sleep type of S5 on this machine; real kernels take it from \\_S5 in the DSDT. */
const SLP_TYP_S5 = 5;
/** Most tables that the RSDT may name. */
const TABLES_MAX = 64;

function at(physical: number): Gva {
  return physToDmap(hpa(physical));
}

/** Switches the machine off. Comes back only where that is not possible. */
export function* acpiPowerOff(cpu: GateCpu): Exec<void> {
  const fadt = yield* findFadt(cpu);
  if (fadt === undefined) return;
  const port = yield* cpu.load32(gva(at(fadt) + BigInt(FADT_PM1A_CONTROL)));
  yield* cpu.outw(port, SLP_EN | (SLP_TYP_S5 << SLP_TYP_SHIFT));
}

/** I/O port of the power-management timer, if there is one. */
export function* findPmTimer(cpu: GateCpu): Exec<number | undefined> {
  const fadt = yield* findFadt(cpu);
  if (fadt === undefined) return undefined;
  const port = yield* cpu.load32(gva(at(fadt) + BigInt(FADT_PM_TIMER)));
  return port === 0 ? undefined : port;
}

function* findFadt(cpu: GateCpu): Exec<number | undefined> {
  for (let rsdp = RSDP_START; rsdp < RSDP_END; rsdp += 16) {
    if ((yield* cpu.load64(at(rsdp))) !== RSDP_SIGNATURE) continue;
    const rsdt = yield* cpu.load32(at(rsdp + RSDP_RSDT));
    const length = yield* cpu.load32(at(rsdt + TABLE_LENGTH));
    const count = Math.min(Math.floor((length - TABLE_HEADER_BYTES) / 4), TABLES_MAX);
    for (let i = 0; i < count; i++) {
      const table = yield* cpu.load32(at(rsdt + TABLE_HEADER_BYTES + i * 4));
      if ((yield* cpu.load32(at(table))) === FADT_SIGNATURE) return table;
    }
  }
  return undefined;
}
