/**
 * What of VMX a processor model may offer, by name: each name is a bit of a capability MSR. The names are those that people who
 * configure virtual machines know them by. `customModel` takes them as it takes CPUID features.
 *
 * A control that is not in this table is never offered. Left out, because the machine lacks what they are about: entry to SMM and
 * dual-monitor treatment (no SMM), loading IA32_PERF_GLOBAL_CTRL (no performance counters), MPX, CET, PKRS, FRED, user interrupts, processor trace,
 * last-branch records, SGX (ENCLS and ENCLV exiting), sub-page write permissions, PASID translation, bus-lock and notify exits, and the tertiary and
 * secondary exit controls, which belong to later processors than any model here.
 *
 * Room: `hw/vmx/`; leaf: imports nothing. cpuid.ts uses it.
 *
 * @module
 */

/** Where a feature stands: which capability, and which bit of it. */
export type VmxPlace = readonly [
  group: "basic" | "misc" | "pin" | "proc" | "proc2" | "exit" | "entry" | "ept" | "function",
  bit: number,
];

/** Every feature and its place. For controls the bit is the control's. */
export const VMX_FEATURES = {
  // IA32_VMX_BASIC
  "vmx-ins-outs": ["basic", 54],
  "vmx-true-ctls": ["basic", 55],
  "vmx-any-errcode": ["basic", 56],
  // IA32_VMX_MISC
  "vmx-store-lma": ["misc", 5],
  "vmx-activity-hlt": ["misc", 6],
  "vmx-activity-shutdown": ["misc", 7],
  "vmx-activity-wait-sipi": ["misc", 8],
  "vmx-vmwrite-vmexit-fields": ["misc", 29],
  "vmx-zero-len-inject": ["misc", 30],
  // Pin-based
  "vmx-intr-exit": ["pin", 0],
  "vmx-nmi-exit": ["pin", 3],
  "vmx-vnmi": ["pin", 5],
  "vmx-preemption-timer": ["pin", 6],
  "vmx-posted-intr": ["pin", 7],
  // Primary processor-based
  "vmx-vintr-pending": ["proc", 2],
  "vmx-tsc-offset": ["proc", 3],
  "vmx-hlt-exit": ["proc", 7],
  "vmx-invlpg-exit": ["proc", 9],
  "vmx-mwait-exit": ["proc", 10],
  "vmx-rdpmc-exit": ["proc", 11],
  "vmx-rdtsc-exit": ["proc", 12],
  "vmx-cr3-load-exit": ["proc", 15],
  "vmx-cr3-store-exit": ["proc", 16],
  "vmx-cr8-load-exit": ["proc", 19],
  "vmx-cr8-store-exit": ["proc", 20],
  "vmx-flexpriority": ["proc", 21],
  "vmx-vnmi-pending": ["proc", 22],
  "vmx-movdr-exit": ["proc", 23],
  "vmx-io-exit": ["proc", 24],
  "vmx-io-bitmap": ["proc", 25],
  "vmx-mtf": ["proc", 27],
  "vmx-msr-bitmap": ["proc", 28],
  "vmx-monitor-exit": ["proc", 29],
  "vmx-pause-exit": ["proc", 30],
  "vmx-secondary-ctls": ["proc", 31],
  // Secondary processor-based
  "vmx-apic-access": ["proc2", 0],
  "vmx-ept": ["proc2", 1],
  "vmx-desc-exit": ["proc2", 2],
  "vmx-rdtscp": ["proc2", 3],
  "vmx-x2apic": ["proc2", 4],
  "vmx-vpid": ["proc2", 5],
  "vmx-wbinvd-exit": ["proc2", 6],
  "vmx-unrestricted-guest": ["proc2", 7],
  "vmx-apic-register": ["proc2", 8],
  "vmx-vintr-delivery": ["proc2", 9],
  "vmx-ple": ["proc2", 10],
  "vmx-rdrand-exit": ["proc2", 11],
  "vmx-invpcid": ["proc2", 12],
  "vmx-vmfunc": ["proc2", 13],
  "vmx-shadow-vmcs": ["proc2", 14],
  "vmx-rdseed-exit": ["proc2", 16],
  "vmx-pml": ["proc2", 17],
  "vmx-ept-violation-ve": ["proc2", 18],
  "vmx-xsaves": ["proc2", 20],
  "vmx-mode-based-execute": ["proc2", 22],
  "vmx-tsc-scaling": ["proc2", 25],
  // VM-exit
  "vmx-exit-save-debug": ["exit", 2],
  "vmx-exit-host-64": ["exit", 9],
  "vmx-exit-ack-intr": ["exit", 15],
  "vmx-exit-save-pat": ["exit", 18],
  "vmx-exit-load-pat": ["exit", 19],
  "vmx-exit-save-efer": ["exit", 20],
  "vmx-exit-load-efer": ["exit", 21],
  "vmx-exit-save-preemption-timer": ["exit", 22],
  // VM-entry
  "vmx-entry-load-debug": ["entry", 2],
  "vmx-entry-ia32e": ["entry", 9],
  "vmx-entry-load-pat": ["entry", 14],
  "vmx-entry-load-efer": ["entry", 15],
  // IA32_VMX_EPT_VPID_CAP
  "vmx-ept-execonly": ["ept", 0],
  "vmx-page-walk-4": ["ept", 6],
  "vmx-page-walk-5": ["ept", 7],
  "vmx-ept-uc": ["ept", 8],
  "vmx-ept-wb": ["ept", 14],
  "vmx-ept-2mb": ["ept", 16],
  "vmx-ept-1gb": ["ept", 17],
  "vmx-invept": ["ept", 20],
  "vmx-ept-ad": ["ept", 21],
  "vmx-ept-advanced-exitinfo": ["ept", 22],
  "vmx-invept-single-context": ["ept", 25],
  "vmx-invept-all-context": ["ept", 26],
  "vmx-invvpid": ["ept", 32],
  "vmx-invvpid-single-addr": ["ept", 40],
  "vmx-invvpid-single-context": ["ept", 41],
  "vmx-invvpid-all-context": ["ept", 42],
  "vmx-invvpid-single-context-noglobals": ["ept", 43],
  // IA32_VMX_VMFUNC
  "vmx-eptp-switching": ["function", 0],
} as const satisfies Readonly<Record<string, VmxPlace>>;

/** What a model says of VMX beside its features. */
export interface VmxParameters {
  /** VMCS revision identifier, 31 bits. */
  readonly revision: number;
  /**
   * The preemption timer counts down each time this bit of the time-stamp counter changes: 5 on most processors. (Some later ones have 7; 5
   * is also what nested hypervisors show, and at 100 MHz it is the better fit.)
   */
  readonly timerRate: number;
  /** Where what the model offers is known from. */
  readonly source: string;
}

/** Name of a VMX feature. */
export type VmxFeature = keyof typeof VMX_FEATURES;

/**
 * What needs what: a feature without one of these is not offered, so that taking one away from a model leaves no control that no VM
 * entry could accept.
 */
const REQUIRES: { readonly [name in VmxFeature]?: readonly VmxFeature[] } = {
  "vmx-vnmi": ["vmx-nmi-exit"],
  "vmx-vnmi-pending": ["vmx-vnmi"],
  "vmx-posted-intr": ["vmx-vintr-delivery", "vmx-exit-ack-intr"],
  "vmx-exit-save-preemption-timer": ["vmx-preemption-timer"],
  "vmx-unrestricted-guest": ["vmx-ept"],
  "vmx-x2apic": ["vmx-flexpriority"],
  "vmx-apic-register": ["vmx-flexpriority"],
  "vmx-vintr-delivery": ["vmx-flexpriority", "vmx-intr-exit"],
  "vmx-pml": ["vmx-ept", "vmx-ept-ad"],
  "vmx-ept-violation-ve": ["vmx-ept"],
  "vmx-mode-based-execute": ["vmx-ept"],
  "vmx-eptp-switching": ["vmx-ept", "vmx-vmfunc"],
  "vmx-vmfunc": ["vmx-ept"],
};

/** The features of `offered` that are VMX features and have what they require; none without "vmx". */
export function effectiveVmxFeatures(offered: Iterable<string>): ReadonlySet<VmxFeature> {
  const all = new Set(offered), found = new Set<VmxFeature>();
  if (!all.has("vmx")) return found;
  for (const name of Object.keys(VMX_FEATURES) as VmxFeature[]) if (all.has(name)) found.add(name);
  for (;;) {
    const before = found.size;
    for (const name of found) {
      const [group] = VMX_FEATURES[name];
      const needs: VmxFeature[] = [...(REQUIRES[name] ?? [])];
      if (group === "proc2") needs.push("vmx-secondary-ctls");
      if (group === "function") needs.push("vmx-vmfunc");
      if (group === "ept") needs.push(name.startsWith("vmx-invvpid") ? "vmx-vpid" : "vmx-ept");
      if (needs.some((need) => !found.has(need))) found.delete(name);
    }
    if (found.size === before) return found;
  }
}
