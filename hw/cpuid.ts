/**
 * CPU models, and what the CPUID instruction reports of them. What a model reports is exactly what works: a feature
 * that is not in {@link FEATURES} does not exist here, a feature that is taken out of a model makes its
 * instructions #UD and its control bits reserved.
 *
 * Room: `hw/`; imports state.ts, the names of VMX features and the processor's type. SDM vol. 2A, "CPUID — CPU Identification".
 *
 * @module
 */
import { TICKS_PER_SECOND } from "./clock.ts";
import type { Cpu } from "./cpu.ts";
import { S } from "./state.ts";
import { VMX_FEATURES, type VmxFeature, type VmxParameters } from "./vmx/features.ts";

/** Where CPUID reports a feature: leaf, subleaf, register (0 EAX … 3 EDX), bit. */
type Place = readonly [leaf: number, subleaf: number, register: number, bit: number];

const EAX = 0, EBX = 1, ECX = 2, EDX = 3;

/** Every feature that a model may offer, and its CPUID bit. The names stand in `Row.flags.cpuid`. */
export const FEATURES = {
  fpu: [1, 0, EDX, 0],
  vme: [1, 0, EDX, 1],
  de: [1, 0, EDX, 2],
  pse: [1, 0, EDX, 3],
  tsc: [1, 0, EDX, 4],
  msr: [1, 0, EDX, 5],
  pae: [1, 0, EDX, 6],
  mce: [1, 0, EDX, 7],
  cx8: [1, 0, EDX, 8],
  apic: [1, 0, EDX, 9],
  sep: [1, 0, EDX, 11],
  mtrr: [1, 0, EDX, 12],
  pge: [1, 0, EDX, 13],
  mca: [1, 0, EDX, 14],
  cmov: [1, 0, EDX, 15],
  pat: [1, 0, EDX, 16],
  pse36: [1, 0, EDX, 17],
  clfsh: [1, 0, EDX, 19],
  mmx: [1, 0, EDX, 23],
  fxsr: [1, 0, EDX, 24],
  sse: [1, 0, EDX, 25],
  sse2: [1, 0, EDX, 26],
  sse3: [1, 0, ECX, 0],
  monitor: [1, 0, ECX, 3],
  vmx: [1, 0, ECX, 5],
  ssse3: [1, 0, ECX, 9],
  cx16: [1, 0, ECX, 13],
  pcid: [1, 0, ECX, 17],
  sse4_1: [1, 0, ECX, 19],
  sse4_2: [1, 0, ECX, 20],
  x2apic: [1, 0, ECX, 21],
  movbe: [1, 0, ECX, 22],
  popcnt: [1, 0, ECX, 23],
  tsc_deadline: [1, 0, ECX, 24],
  xsave: [1, 0, ECX, 26],
  rdrand: [1, 0, ECX, 30],
  hypervisor: [1, 0, ECX, 31],
  fsgsbase: [7, 0, EBX, 0],
  tsc_adjust: [7, 0, EBX, 1],
  bmi1: [7, 0, EBX, 3],
  smep: [7, 0, EBX, 7],
  bmi2: [7, 0, EBX, 8],
  erms: [7, 0, EBX, 9],
  invpcid: [7, 0, EBX, 10],
  rdseed: [7, 0, EBX, 18],
  adx: [7, 0, EBX, 19],
  smap: [7, 0, EBX, 20],
  clflushopt: [7, 0, EBX, 23],
  clwb: [7, 0, EBX, 24],
  umip: [7, 0, ECX, 2],
  pku: [7, 0, ECX, 3],
  la57: [7, 0, ECX, 16],
  rdpid: [7, 0, ECX, 22],
  xsaveopt: [0xd, 1, EAX, 0],
  xsavec: [0xd, 1, EAX, 1],
  xgetbv1: [0xd, 1, EAX, 2],
  xsaves: [0xd, 1, EAX, 3],
  lahf_lm: [0x8000_0001, 0, ECX, 0],
  lzcnt: [0x8000_0001, 0, ECX, 5],
  syscall: [0x8000_0001, 0, EDX, 11],
  nx: [0x8000_0001, 0, EDX, 20],
  pdpe1gb: [0x8000_0001, 0, EDX, 26],
  rdtscp: [0x8000_0001, 0, EDX, 27],
  lm: [0x8000_0001, 0, EDX, 29],
  wbnoinvd: [0x8000_0008, 0, EBX, 9],
} as const satisfies Readonly<Record<string, Place>>;

/** Name of a feature. */
export type Feature = keyof typeof FEATURES;

/** Names that other tools use for the same feature. */
const ALIASES: Readonly<Record<string, Feature>> = { abm: "lzcnt", "sse4.1": "sse4_1", "sse4.2": "sse4_2" };

/** One cache, as leaf 4 reports it. Lines have 64 bytes. */
export interface CacheShape {
  /** 1 to 3. */
  readonly level: 1 | 2 | 3;
  /** What it holds. */
  readonly kind: "data" | "instruction" | "unified";
  /** Ways of a set. */
  readonly ways: number;
  /** Number of sets; lines have 64 bytes. */
  readonly sets: number;
}

/** What software can tell about a processor. */
export interface CpuModel {
  /** Name on the command line. */
  readonly name: string;
  /** Brand string, at most 47 characters. */
  readonly brand: string;
  /** Family as CPUID leaf 1 gives it, extended family included. */
  readonly family: number;
  /** Model, extended model included. */
  readonly model: number;
  /** Stepping, 0 to 15. */
  readonly stepping: number;
  /** Revision of the microcode update that firmware has loaded (IA32_BIOS_SIGN_ID); software looks for known errata by it. */
  readonly microcode: number;
  /** MAXPHYADDR, 36 … 52. */
  readonly maxPhysicalBits: number;
  /** Width of linear addresses: 57 with LA57, otherwise 48. */
  readonly linearBits: 48 | 57;
  /** Highest basic leaf. */
  readonly maxLeaf: number;
  /** Names from {@link FEATURES}, and with "vmx" from `VMX_FEATURES` of vmx/features.ts. */
  readonly features: ReadonlySet<string>;
  /** What there is to say of VMX beside its features. */
  readonly vmx: VmxParameters;
  /** Caches that leaf 4 reports. */
  readonly caches: readonly CacheShape[];
}

/** Ticks of the time-stamp counter in a second: it counts the machine's ticks. */
export const TSC_HZ: number = TICKS_PER_SECOND;

/** Offset of PKRU (component 9) in the standard form of the XSAVE area, as on silicon. */
export const XSAVE_PKRU_OFFSET = 0xa80;
/** Bytes of the legacy region and the XSAVE header. */
const XSAVE_BASE_BYTES = 512 + 64;

const BASE: readonly Feature[] = [
  "fpu",
  "vme",
  "de",
  "pse",
  "tsc",
  "msr",
  "pae",
  "mce",
  "cx8",
  "apic",
  "sep",
  "mtrr",
  "pge",
  "mca",
  "cmov",
  "pat",
  "pse36",
  "clfsh",
  "mmx",
  "fxsr",
  "sse",
  "sse2",
  "sse3",
  "monitor",
  "ssse3",
  "cx16",
  "sse4_1",
  "lahf_lm",
  "syscall",
  "nx",
  "lm",
];
const NEHALEM: readonly Feature[] = [...BASE, "sse4_2", "popcnt", "rdtscp"];
const HASWELL: readonly Feature[] = [
  ...NEHALEM,
  "pcid",
  "x2apic",
  "movbe",
  "tsc_deadline",
  "xsave",
  "xsaveopt",
  "rdrand",
  "fsgsbase",
  "tsc_adjust",
  "bmi1",
  "smep",
  "bmi2",
  "erms",
  "invpcid",
  "lzcnt",
  "pdpe1gb",
];
const BROADWELL: readonly Feature[] = [...HASWELL, "rdseed", "adx", "smap"];
const SKYLAKE: readonly Feature[] = [
  ...BROADWELL,
  "clflushopt",
  "xsavec",
  "xgetbv1",
];
const ICELAKE: readonly Feature[] = [...SKYLAKE, "clwb", "umip", "pku", "la57", "rdpid", "wbnoinvd"];

/** VMX of the Core 2: no EPT, no VPID, no TRUE controls. */
const VMX_PENRYN: readonly (Feature | VmxFeature)[] = [
  "vmx",
  "vmx-ins-outs",
  "vmx-activity-hlt",
  "vmx-activity-shutdown",
  "vmx-activity-wait-sipi",
  "vmx-intr-exit",
  "vmx-nmi-exit",
  "vmx-vnmi",
  "vmx-vintr-pending",
  "vmx-tsc-offset",
  "vmx-hlt-exit",
  "vmx-invlpg-exit",
  "vmx-mwait-exit",
  "vmx-rdpmc-exit",
  "vmx-rdtsc-exit",
  "vmx-cr8-load-exit",
  "vmx-cr8-store-exit",
  "vmx-flexpriority",
  "vmx-vnmi-pending",
  "vmx-movdr-exit",
  "vmx-io-exit",
  "vmx-io-bitmap",
  "vmx-msr-bitmap",
  "vmx-monitor-exit",
  "vmx-pause-exit",
  "vmx-secondary-ctls",
  "vmx-apic-access",
  "vmx-wbinvd-exit",
  "vmx-exit-host-64",
  "vmx-exit-ack-intr",
  "vmx-entry-ia32e",
];
const VMX_NEHALEM: readonly (Feature | VmxFeature)[] = [
  ...VMX_PENRYN,
  "vmx-true-ctls",
  "vmx-preemption-timer",
  "vmx-cr3-load-exit",
  "vmx-cr3-store-exit",
  "vmx-mtf",
  "vmx-ept",
  "vmx-desc-exit",
  "vmx-rdtscp",
  "vmx-x2apic",
  "vmx-vpid",
  "vmx-exit-save-debug",
  "vmx-exit-save-pat",
  "vmx-exit-load-pat",
  "vmx-exit-save-efer",
  "vmx-exit-load-efer",
  "vmx-exit-save-preemption-timer",
  "vmx-entry-load-debug",
  "vmx-entry-load-pat",
  "vmx-entry-load-efer",
  "vmx-ept-execonly",
  "vmx-page-walk-4",
  "vmx-ept-uc",
  "vmx-ept-wb",
  "vmx-ept-2mb",
  "vmx-ept-1gb",
  "vmx-invept",
  "vmx-invept-single-context",
  "vmx-invept-all-context",
  "vmx-invvpid",
  "vmx-invvpid-single-addr",
  "vmx-invvpid-single-context",
  "vmx-invvpid-all-context",
  "vmx-invvpid-single-context-noglobals",
];
/** Virtual-interrupt delivery and what belongs to it, which server parts have. */
const VMX_APICV: readonly VmxFeature[] = ["vmx-apic-register", "vmx-vintr-delivery", "vmx-posted-intr"];
const VMX_HASWELL: readonly (Feature | VmxFeature)[] = [
  ...VMX_NEHALEM,
  "vmx-store-lma",
  "vmx-vmwrite-vmexit-fields",
  "vmx-unrestricted-guest",
  "vmx-ple",
  "vmx-rdrand-exit",
  "vmx-invpcid",
  "vmx-vmfunc",
  "vmx-eptp-switching",
  "vmx-shadow-vmcs",
  "vmx-ept-ad",
];
const VMX_BROADWELL: readonly (Feature | VmxFeature)[] = [
  ...VMX_HASWELL,
  "vmx-rdseed-exit",
  "vmx-pml",
  "vmx-ept-violation-ve",
];
const VMX_SKYLAKE: readonly (Feature | VmxFeature)[] = [
  ...VMX_BROADWELL,
  "vmx-zero-len-inject",
  "vmx-mode-based-execute",
];
const VMX_ICELAKE: readonly (Feature | VmxFeature)[] = [
  ...VMX_SKYLAKE,
  ...VMX_APICV,
  "vmx-tsc-scaling",
  "vmx-page-walk-5",
  "vmx-ept-advanced-exitinfo",
];

/** The caches of a model: 32-KiB first level, then as given. */
function caches(l2Ways: number, l2Sets: number, l3Ways: number, l3Sets: number): readonly CacheShape[] {
  const shapes: CacheShape[] = [
    { level: 1, kind: "data", ways: 8, sets: 64 },
    { level: 1, kind: "instruction", ways: 8, sets: 64 },
    { level: 2, kind: "unified", ways: l2Ways, sets: l2Sets },
  ];
  if (l3Ways > 0) shapes.push({ level: 3, kind: "unified", ways: l3Ways, sets: l3Sets });
  return shapes;
}

function named(
  name: string,
  model: number,
  stepping: number,
  microcode: number,
  maxPhysicalBits: number,
  maxLeaf: number,
  features: readonly string[],
  shapes: readonly CacheShape[],
  vmx: VmxParameters,
): CpuModel {
  return {
    name,
    brand: `Exuvia ${name}`,
    family: 6,
    model,
    stepping,
    microcode,
    maxPhysicalBits,
    linearBits: features.includes("la57") ? 57 : 48,
    maxLeaf,
    features: withAliases(features),
    caches: shapes,
    vmx,
  };
}

/** Adds the other names of the features, so that a row may use either. */
function withAliases(features: Iterable<string>): ReadonlySet<string> {
  const set = new Set(features);
  for (const [alias, feature] of Object.entries(ALIASES)) {
    if (set.has(feature)) set.add(alias);
    else set.delete(alias);
  }
  return set;
}

/** The models by name. */
export const cpuModels: Readonly<Record<string, CpuModel>> = {
  penryn: named("penryn", 0x17, 10, 0xa0b, 36, 0xa, [...BASE, ...VMX_PENRYN], caches(24, 4096, 0, 0), {
    revision: 0xd,
    timerRate: 0,
    source: "Core 2 (45 nm); as QEMU's model Penryn",
  }),
  nehalem: named("nehalem", 0x1a, 5, 0x1d, 40, 0xb, [...NEHALEM, ...VMX_NEHALEM], caches(8, 512, 16, 8192), {
    revision: 0xe,
    timerRate: 5,
    source: "first-generation Core i7; as QEMU's model Nehalem (unrestricted guest came with Westmere)",
  }),
  haswell: named(
    "haswell",
    0x3c,
    3,
    0x28,
    39,
    0xd,
    [...HASWELL, ...VMX_HASWELL, ...VMX_APICV],
    caches(8, 512, 16, 8192),
    {
      revision: 0x12,
      timerRate: 5,
      source: "as QEMU's model Haswell (APIC virtualization as on the servers of that generation)",
    },
  ),
  broadwell: named(
    "broadwell",
    0x3d,
    4,
    0x2f,
    39,
    0x14,
    [...BROADWELL, ...VMX_BROADWELL, ...VMX_APICV],
    caches(8, 512, 16, 8192),
    {
      revision: 0x12,
      timerRate: 5,
      source: "as QEMU's model Broadwell; #VE by the SDM",
    },
  ),
  skylake: named(
    "skylake",
    0x5e,
    3,
    0xf0,
    39,
    0x16,
    [...SKYLAKE, ...VMX_SKYLAKE],
    caches(4, 1024, 16, 8192),
    {
      revision: 4,
      timerRate: 5,
      source:
        "client part: as QEMU's model Skylake-Client, and mode-based execute control, which QEMU names as missing there",
    },
  ),
  icelake: named(
    "icelake",
    0x6a,
    6,
    0xd00_03e7,
    46,
    0x16,
    [...ICELAKE, ...VMX_ICELAKE],
    caches(20, 1024, 12, 16384),
    {
      revision: 4,
      timerRate: 5,
      source:
        "server part: as QEMU's model Icelake-Server, and by the SDM TSC scaling, 5-level EPT walks and advanced exit information",
    },
  ),
};

/** The model that a machine has unless told otherwise. */
export const defaultModel: CpuModel = cpuModels["skylake"]!;

/** What {@link customModel} changes. */
export interface ModelChanges {
  /** Name of the new model. */
  readonly name?: string;
  /** Brand string of leaves 80000002H to 80000004H. */
  readonly brand?: string;
  /** Features to offer, by their names in `FEATURES` and `VMX_FEATURES`. */
  readonly add?: readonly string[];
  /** Features to take away. */
  readonly remove?: readonly string[];
  /** MAXPHYADDR. */
  readonly maxPhysicalBits?: number;
  /** Family. */
  readonly family?: number;
  /** Model number. */
  readonly model?: number;
  /** Stepping. */
  readonly stepping?: number;
}

/**
 * A model like `base` with features added and removed.
 *
 * @throws {RangeError} for a feature that does not exist, or an impossible MAXPHYADDR.
 */
export function customModel(base: CpuModel, changes: ModelChanges): CpuModel {
  const canonicalName = (name: string): string => {
    const feature = ALIASES[name] ?? name;
    if (!(feature in FEATURES) && !(feature in VMX_FEATURES)) {
      throw new RangeError(`No CPU feature "${name}"`);
    }
    return feature;
  };
  const features = new Set(base.features);
  for (const name of changes.add ?? []) features.add(canonicalName(name));
  for (const name of changes.remove ?? []) features.delete(canonicalName(name));
  const maxPhysicalBits = changes.maxPhysicalBits ?? base.maxPhysicalBits;
  if (!Number.isInteger(maxPhysicalBits) || maxPhysicalBits < 36 || maxPhysicalBits > 52) {
    throw new RangeError(`MAXPHYADDR of ${maxPhysicalBits} bits: it must be 36 to 52`);
  }
  const name = changes.name ?? `${base.name}-custom`;
  return {
    ...base,
    name,
    brand: changes.brand ?? `Exuvia ${name}`,
    family: changes.family ?? base.family,
    model: changes.model ?? base.model,
    stepping: changes.stepping ?? base.stepping,
    maxPhysicalBits,
    linearBits: features.has("la57") ? 57 : 48,
    features: withAliases(features),
  };
}

/** XCR0 bits that the model lets software set: x87, SSE, and PKRU where there are protection keys. */
export function xcr0Mask(model: CpuModel): number {
  return 3 | (model.features.has("pku") ? 1 << 9 : 0);
}

/** Bytes of an XSAVE area for the components in `xcr0`. */
export function xsaveBytes(xcr0: number): number {
  return xcr0 & (1 << 9) ? XSAVE_PKRU_OFFSET + 8 : XSAVE_BASE_BYTES;
}

/** What CPUID leaves in EAX, EBX, ECX, EDX (unsigned). */
export type CpuidResult = [eax: number, ebx: number, ecx: number, edx: number];

/** Bits of the feature flags of one leaf that come from the model. */
function featureBits(model: CpuModel, leaf: number, result: CpuidResult): void {
  for (const [name, [at, , register, bit]] of Object.entries(FEATURES)) {
    if (at === leaf && model.features.has(name)) result[register] = (result[register]! | (1 << bit)) >>> 0;
  }
}

/** Sixteen characters of a string as four registers. */
function text(s: string, from: number): CpuidResult {
  const word = (at: number) =>
    [3, 2, 1, 0].reduce((value, i) => (value << 8) | (s.charCodeAt(at + i) || 0), 0) >>> 0;
  return [word(from), word(from + 4), word(from + 8), word(from + 12)];
}

/** CR4.OSXSAVE, CR4.PKE. */
const CR4_OSXSAVE = 1 << 18, CR4_PKE = 1 << 22;
/** IA32_MISC_ENABLE: MONITOR enabled; at most leaf 2; and in its upper half XD disabled. */
const MISC_MONITOR = 1 << 18, MISC_LIMIT_CPUID = 1 << 22, MISC_XD_DISABLE_HIGH = 1 << 2;

/** Number of low bits of an APIC ID that number the `count` processors of a package. */
function topologyShift(count: number): number {
  return count <= 1 ? 0 : 32 - Math.clz32(count - 1);
}

/**
 * CPUID as `cpu` executes it.
 *
 * @param leaf EAX, unsigned.
 * @param subleaf ECX, unsigned.
 */
export function cpuid(cpu: Cpu, leaf: number, subleaf: number): CpuidResult {
  const model = cpu.model;
  const maxBasic = cpu.get32(S.MISC_ENABLE) & MISC_LIMIT_CPUID ? 2 : model.maxLeaf;
  const extended = leaf >= 0x8000_0000 && leaf <= 0x8000_0008;
  // Out of range: the data of the highest basic leaf (SDM vol. 2A, CPUID).
  const effective = extended || leaf <= maxBasic ? leaf : maxBasic;
  return extended ? extendedLeaf(cpu, effective) : basicLeaf(cpu, effective, subleaf, maxBasic);
}

function basicLeaf(cpu: Cpu, leaf: number, subleaf: number, maxBasic: number): CpuidResult {
  const model = cpu.model;
  switch (leaf) {
    case 0:
      return [maxBasic, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]; // GenuineIntel
    case 1:
      return leaf1(cpu);
    case 2:
      return [0x0000_ff01, 0, 0, 0]; // "see leaf 4"
    case 4:
      return cacheLeaf(cpu, subleaf);
    case 5:
      return model.features.has("monitor") ? [64, 64, 3, 0] : [0, 0, 0, 0];
    case 6:
      return [4, 0, 0, 0]; // the APIC timer never stops
    case 7: {
      const result: CpuidResult = [0, 0, 0, 0];
      if (subleaf !== 0) return result;
      featureBits(model, 7, result);
      if (model.features.has("pku") && (cpu.get32(S.CR4) & CR4_PKE)) result[ECX] |= 1 << 4; // OSPKE
      return result;
    }
    case 0xb:
      return topologyLeaf(cpu, subleaf);
    case 0xd:
      return xsaveLeaf(cpu, subleaf);
    case 0x15:
      return [1, 1, TSC_HZ, 0];
    case 0x16:
      return [TSC_HZ / 1e6, TSC_HZ / 1e6, 100, 0];
    default:
      return [0, 0, 0, 0];
  }
}

function leaf1(cpu: Cpu): CpuidResult {
  const { model } = cpu;
  const signature = ((model.family > 15 ? 15 : model.family) << 8) |
    ((model.family > 15 ? model.family - 15 : 0) << 20) | ((model.model & 0xf) << 4) |
    ((model.model >>> 4) << 16) | model.stepping;
  const result: CpuidResult = [
    signature,
    ((cpu.id << 24) | (Math.min(1 << topologyShift(cpu.count), 255) << 16) | (8 << 8)) >>> 0,
    0,
    0,
  ];
  featureBits(model, 1, result);
  if (!(cpu.get32(S.MISC_ENABLE) & MISC_MONITOR)) result[ECX] &= ~(1 << 3);
  if (model.features.has("xsave") && (cpu.get32(S.CR4) & CR4_OSXSAVE)) result[ECX] |= 1 << 27;
  if (!(cpu.get32(S.APIC_BASE) & 0x800)) result[EDX] &= ~(1 << 9);
  if (cpu.count > 1) result[EDX] |= 1 << 28; // EBX[23:16] is valid
  result[ECX] >>>= 0;
  result[EDX] >>>= 0;
  return result;
}

function cacheLeaf(cpu: Cpu, subleaf: number): CpuidResult {
  const shape = cpu.model.caches[subleaf];
  if (shape === undefined) return [0, 0, 0, 0];
  const type = shape.kind === "data" ? 1 : shape.kind === "instruction" ? 2 : 3;
  const cores = (1 << topologyShift(cpu.count)) - 1;
  const shared = shape.level === 3 ? cores : 0;
  return [
    (type | (shape.level << 5) | (1 << 8) | (shared << 14) | (Math.min(cores, 63) << 26)) >>> 0,
    (63 | ((shape.ways - 1) << 22)) >>> 0,
    shape.sets - 1,
    0,
  ];
}

/** One thread per core, all cores in one package. */
function topologyLeaf(cpu: Cpu, subleaf: number): CpuidResult {
  if (subleaf === 0) return [0, 1, 0x100, cpu.id];
  if (subleaf === 1) return [topologyShift(cpu.count), cpu.count, 0x201, cpu.id];
  return [0, 0, subleaf & 0xff, cpu.id];
}

function xsaveLeaf(cpu: Cpu, subleaf: number): CpuidResult {
  if (!cpu.model.features.has("xsave")) return [0, 0, 0, 0];
  const mask = xcr0Mask(cpu.model);
  if (subleaf === 0) return [mask, xsaveBytes(cpu.get32(S.XCR0)), xsaveBytes(mask), 0];
  if (subleaf === 1) {
    const result: CpuidResult = [0, 0, 0, 0];
    featureBits(cpu.model, 0xd, result);
    // The compacted format has PKRU right behind the header.
    const enabled = cpu.get32(S.XCR0);
    if (cpu.model.features.has("xsavec") || cpu.model.features.has("xsaves")) {
      result[EBX] = XSAVE_BASE_BYTES + (enabled & (1 << 9) ? 8 : 0);
    }
    return result;
  }
  if (subleaf === 9 && (mask & (1 << 9))) return [8, XSAVE_PKRU_OFFSET, 0, 0];
  return [0, 0, 0, 0];
}

function extendedLeaf(cpu: Cpu, leaf: number): CpuidResult {
  const { model } = cpu;
  const result: CpuidResult = [0, 0, 0, 0];
  switch (leaf) {
    case 0x8000_0000:
      return [0x8000_0008, 0, 0, 0];
    case 0x8000_0001:
      featureBits(model, leaf, result);
      // Intel processors report SYSCALL in 64-bit mode only.
      if (!cpu.is64) result[EDX] &= ~(1 << 11);
      if (cpu.get32(S.MISC_ENABLE + 4) & MISC_XD_DISABLE_HIGH) result[EDX] &= ~(1 << 20);
      result[EDX] >>>= 0;
      return result;
    case 0x8000_0002:
    case 0x8000_0003:
    case 0x8000_0004:
      return text(model.brand, (leaf - 0x8000_0002) * 16);
    case 0x8000_0006: {
      const l2 = model.caches.find((c) => c.level === 2);
      if (l2 !== undefined) result[ECX] = (((l2.ways * l2.sets) / 16) << 16 | (6 << 12) | 64) >>> 0;
      return result;
    }
    case 0x8000_0007:
      return [0, 0, 0, 1 << 8]; // the time-stamp counter is invariant
    case 0x8000_0008:
      featureBits(model, leaf, result);
      result[0] = model.maxPhysicalBits | ((model.features.has("lm") ? model.linearBits : 32) << 8);
      return result;
    default:
      return result;
  }
}
