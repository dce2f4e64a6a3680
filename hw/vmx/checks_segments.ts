/**
 * Checks on guest segment registers, in the manual's order (SDM vol. 3C, "Checks on Guest Segment Registers"): selectors, bases,
 * limits in virtual-8086 mode, access rights field by field.
 *
 * Room: `hw/vmx/`; imports check.ts. checks_guest.ts puts them in their place.
 *
 * @module
 */
import { type EntryContext, type Rule, rule } from "./check.ts";
import { ENTRY } from "./controls.ts";
import { F, type FieldName } from "./fields.ts";

const SECTION = "Checks on Guest Segment Registers";
const RFLAGS_VM = 0x2_0000;
const UNUSABLE = 0x1_0000, S_BIT = 0x10, PRESENT = 0x80, L = 0x2000, DB = 0x4000, G = 0x8000;
/** Reserved bits of access rights: 11:8 and 31:17. */
const AR_RESERVED = 0xfffe_0f00 | 0;

type Name = "ES" | "CS" | "SS" | "DS" | "FS" | "GS" | "LDTR" | "TR";

/** The fields by segment: names put together at each check would be half of a VM entry's time. */
const NAMES: readonly Name[] = ["ES", "CS", "SS", "DS", "FS", "GS", "LDTR", "TR"];
type FieldsBySegment = Readonly<Record<Name, number>>;
function fieldsBySegment(field: (name: Name) => number): FieldsBySegment {
  return Object.fromEntries(NAMES.map((name) => [name, field(name)])) as FieldsBySegment;
}
const SELECTORS = fieldsBySegment((name) => F[`GUEST_${name}_SELECTOR`]);
const RIGHTS = fieldsBySegment((name) => F[`GUEST_${name}_ACCESS_RIGHTS`]);
const BASES = fieldsBySegment((name) => F[`GUEST_${name}_BASE`]);
const LIMITS = fieldsBySegment((name) => F[`GUEST_${name}_LIMIT`]);

function selectorOf(c: EntryContext, name: Name): number {
  return c.low(SELECTORS[name]) & 0xffff;
}
function rightsOf(c: EntryContext, name: Name): number {
  return c.low(RIGHTS[name]);
}
function typeOf(c: EntryContext, name: Name): number {
  return rightsOf(c, name) & 15;
}
function dplOf(c: EntryContext, name: Name): number {
  return (rightsOf(c, name) >>> 5) & 3;
}
function isUsable(c: EntryContext, name: Name): boolean {
  return (rightsOf(c, name) & UNUSABLE) === 0;
}
function isVirtual8086(c: EntryContext): boolean {
  return (c.low(F.GUEST_RFLAGS) & RFLAGS_VM) !== 0;
}
function ia32e(c: EntryContext): boolean {
  return (c.entry & ENTRY.IA32E_GUEST) !== 0;
}

/** A rule on access rights: asked outside virtual-8086 mode, and, for all but CS and TR, of usable segments only. */
function rights(
  name: Name,
  suffix: string,
  satisfied: string,
  holds: (c: EntryContext) => boolean,
  more: readonly FieldName[] = [],
): Rule {
  const always = name === "CS" || name === "TR";
  return rule(
    SECTION,
    `guest${name}${suffix}`,
    [`GUEST_${name}_ACCESS_RIGHTS`, "GUEST_RFLAGS", ...more],
    satisfied,
    (c) =>
      ((name !== "TR" && name !== "LDTR") && isVirtual8086(c)) || (!always && !isUsable(c, name)) || holds(c),
  );
}

/** Limit and granularity agree. */
function granularityHolds(c: EntryContext, name: Name): boolean {
  const limit = c.low(LIMITS[name]), granular = (rightsOf(c, name) & G) !== 0;
  return granular ? (limit & 0xfff) === 0xfff : (limit & 0xfff0_0000) === 0;
}

const DATA = ["SS", "DS", "ES", "FS", "GS"] as const;
const SIX = ["CS", "SS", "DS", "ES", "FS", "GS"] as const;

const selectorRules: readonly Rule[] = [
  rule(
    SECTION,
    "guestTrSelector",
    ["GUEST_TR_SELECTOR"],
    "TI clear",
    (c) => (selectorOf(c, "TR") & 4) === 0,
  ),
  rule(
    SECTION,
    "guestLdtrSelector",
    ["GUEST_LDTR_SELECTOR", "GUEST_LDTR_ACCESS_RIGHTS"],
    "TI clear in a usable LDTR",
    (c) => !isUsable(c, "LDTR") || (selectorOf(c, "LDTR") & 4) === 0,
  ),
  rule(
    SECTION,
    "guestSsSelector",
    ["GUEST_SS_SELECTOR", "GUEST_CS_SELECTOR", "GUEST_RFLAGS", "SECONDARY_CONTROLS"],
    "RPL as in CS, unless the guest is unrestricted or in virtual-8086 mode",
    (c) => isVirtual8086(c) || c.unrestricted || (selectorOf(c, "SS") & 3) === (selectorOf(c, "CS") & 3),
  ),
];

const baseRules: readonly Rule[] = [
  ...SIX.map((name) =>
    rule(
      SECTION,
      `guest${name}BaseVirtual8086`,
      [`GUEST_${name}_BASE`, `GUEST_${name}_SELECTOR`, "GUEST_RFLAGS"],
      "16 times the selector in virtual-8086 mode",
      (c) =>
        !isVirtual8086(c) ||
        (c.low(BASES[name]) === selectorOf(c, name) * 16 &&
          c.high(BASES[name]) === 0),
    )
  ),
  ...(["TR", "FS", "GS"] as const).map((name) =>
    rule(
      SECTION,
      `guest${name}BaseCanonical`,
      [`GUEST_${name}_BASE`],
      "a canonical address",
      (c) => c.isCanonical(BASES[name]),
    )
  ),
  rule(
    SECTION,
    "guestLdtrBaseCanonical",
    ["GUEST_LDTR_BASE", "GUEST_LDTR_ACCESS_RIGHTS"],
    "a canonical address in a usable LDTR",
    (c) => !isUsable(c, "LDTR") || c.isCanonical(F.GUEST_LDTR_BASE),
  ),
  rule(
    SECTION,
    "guestCsBaseHigh",
    ["GUEST_CS_BASE"],
    "bits 63:32 clear",
    (c) => c.high(F.GUEST_CS_BASE) === 0,
  ),
  ...(["SS", "DS", "ES"] as const).map((name) =>
    rule(
      SECTION,
      `guest${name}BaseHigh`,
      [`GUEST_${name}_BASE`, `GUEST_${name}_ACCESS_RIGHTS`],
      "bits 63:32 clear in a usable segment",
      (c) => !isUsable(c, name) || c.high(BASES[name]) === 0,
    )
  ),
];

const limitRules: readonly Rule[] = SIX.map((name) =>
  rule(
    SECTION,
    `guest${name}LimitVirtual8086`,
    [`GUEST_${name}_LIMIT`, "GUEST_RFLAGS"],
    "FFFFH in virtual-8086 mode",
    (c) => !isVirtual8086(c) || c.low(LIMITS[name]) === 0xffff,
  )
);

const virtualRightsRules: readonly Rule[] = SIX.map((name) =>
  rule(
    SECTION,
    `guest${name}RightsVirtual8086`,
    [`GUEST_${name}_ACCESS_RIGHTS`, "GUEST_RFLAGS"],
    "F3H in virtual-8086 mode",
    (c) => !isVirtual8086(c) || rightsOf(c, name) === 0xf3,
  )
);

/** Types of code segments (accessed), as a bit set; type 3 is for unrestricted guests. */
const CODE_TYPES = (1 << 9) | (1 << 11) | (1 << 13) | (1 << 15);

const typeRules: readonly Rule[] = [
  rights(
    "CS",
    "Type",
    "accessed code (9, 11, 13, 15), or 3 for an unrestricted guest",
    (c) => ((CODE_TYPES >>> typeOf(c, "CS")) & 1) === 1 || (c.unrestricted && typeOf(c, "CS") === 3),
  ),
  rights("SS", "Type", "3 or 7", (c) => (typeOf(c, "SS") & 11) === 3),
  ...(["DS", "ES", "FS", "GS"] as const).flatMap((name) => [
    rights(name, "TypeAccessed", "an accessed segment", (c) => (typeOf(c, name) & 1) !== 0),
    rights(name, "TypeReadable", "data, or readable code", (c) => (typeOf(c, name) & 10) !== 8),
  ]),
];

const descriptorRules: readonly Rule[] = SIX.map((name) =>
  rights(name, "DescriptorType", "S set", (c) => (rightsOf(c, name) & S_BIT) !== 0)
);

const dplRules: readonly Rule[] = [
  rights("CS", "DplData", "DPL 0 where the type is 3", (c) => typeOf(c, "CS") !== 3 || dplOf(c, "CS") === 0),
  rights(
    "CS",
    "DplNonconforming",
    "DPL as in SS for nonconforming code",
    (c) => (typeOf(c, "CS") & 13) !== 9 || dplOf(c, "CS") === dplOf(c, "SS"),
    ["GUEST_SS_ACCESS_RIGHTS"],
  ),
  rights(
    "CS",
    "DplConforming",
    "DPL not above that of SS for conforming code",
    (c) => (typeOf(c, "CS") & 13) !== 13 || dplOf(c, "CS") <= dplOf(c, "SS"),
    ["GUEST_SS_ACCESS_RIGHTS"],
  ),
  rule(
    SECTION,
    "guestSSDplRpl",
    ["GUEST_SS_ACCESS_RIGHTS", "GUEST_SS_SELECTOR", "SECONDARY_CONTROLS", "GUEST_RFLAGS"],
    "DPL equal to RPL, unless the guest is unrestricted",
    (c) => isVirtual8086(c) || c.unrestricted || dplOf(c, "SS") === (selectorOf(c, "SS") & 3),
  ),
  rule(
    SECTION,
    "guestSSDplReal",
    ["GUEST_SS_ACCESS_RIGHTS", "GUEST_CS_ACCESS_RIGHTS", "GUEST_CR0", "GUEST_RFLAGS"],
    "DPL 0 where the type of CS is 3 or CR0.PE is clear",
    (c) =>
      isVirtual8086(c) || (typeOf(c, "CS") !== 3 && (c.low(F.GUEST_CR0) & 1) !== 0) || dplOf(c, "SS") === 0,
  ),
  ...(["DS", "ES", "FS", "GS"] as const).map((name) =>
    rule(
      SECTION,
      `guest${name}Dpl`,
      [`GUEST_${name}_ACCESS_RIGHTS`, `GUEST_${name}_SELECTOR`, "SECONDARY_CONTROLS", "GUEST_RFLAGS"],
      "DPL not below RPL for data and nonconforming code, unless the guest is unrestricted",
      (c) =>
        isVirtual8086(c) || c.unrestricted || !isUsable(c, name) || typeOf(c, name) > 11 ||
        dplOf(c, name) >= (selectorOf(c, name) & 3),
    )
  ),
];

const presentRules: readonly Rule[] = SIX.map((name) =>
  rights(name, "Present", "P set", (c) => (rightsOf(c, name) & PRESENT) !== 0)
);

const reservedRules: readonly Rule[] = SIX.map((name) =>
  rights(name, "RightsReserved", "bits 11:8 and 31:17 clear", (c) => (rightsOf(c, name) & AR_RESERVED) === 0)
);

const sizeRules: readonly Rule[] = [
  rights(
    "CS",
    "DefaultSize",
    "D/B clear in 64-bit code",
    (c) => !ia32e(c) || (rightsOf(c, "CS") & L) === 0 || (rightsOf(c, "CS") & DB) === 0,
  ),
];

const granularityRules: readonly Rule[] = (["CS", ...DATA] as const).map((name) =>
  rights(
    name,
    "Granularity",
    "G clear unless bits 11:0 of the limit are all 1, G set if one of bits 31:20 is 1",
    (c) => granularityHolds(c, name),
    [`GUEST_${name}_LIMIT`],
  )
);

const systemRules: readonly Rule[] = [
  rights(
    "TR",
    "Type",
    "a busy TSS: 11, or 3 outside IA-32e mode",
    (c) => typeOf(c, "TR") === 11 || (typeOf(c, "TR") === 3 && !ia32e(c)),
  ),
  rights("TR", "DescriptorType", "S clear", (c) => (rightsOf(c, "TR") & S_BIT) === 0),
  rights("TR", "Present", "P set", (c) => (rightsOf(c, "TR") & PRESENT) !== 0),
  rights("TR", "RightsReserved", "bits 11:8 and 31:17 clear", (c) => (rightsOf(c, "TR") & AR_RESERVED) === 0),
  rights("TR", "Granularity", "G as the limit demands", (c) => granularityHolds(c, "TR"), ["GUEST_TR_LIMIT"]),
  rights("TR", "Usable", "bit 16 clear", (c) => isUsable(c, "TR")),
  rights("LDTR", "Type", "2", (c) => typeOf(c, "LDTR") === 2),
  rights("LDTR", "DescriptorType", "S clear", (c) => (rightsOf(c, "LDTR") & S_BIT) === 0),
  rights("LDTR", "Present", "P set", (c) => (rightsOf(c, "LDTR") & PRESENT) !== 0),
  rights(
    "LDTR",
    "RightsReserved",
    "bits 11:8 and 31:17 clear",
    (c) => (rightsOf(c, "LDTR") & AR_RESERVED) === 0,
  ),
  rights("LDTR", "Granularity", "G as the limit demands", (c) => granularityHolds(c, "LDTR"), [
    "GUEST_LDTR_LIMIT",
  ]),
];

/** All checks on segment registers, in order. */
export const guestSegmentRules: readonly Rule[] = [
  ...selectorRules,
  ...baseRules,
  ...limitRules,
  ...virtualRightsRules,
  ...typeRules,
  ...descriptorRules,
  ...dplRules,
  ...presentRules,
  ...reservedRules,
  ...sizeRules,
  ...granularityRules,
  ...systemRules,
];
