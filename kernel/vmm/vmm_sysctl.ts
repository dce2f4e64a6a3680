/**
 * `hw.vmm.*`: what the VMM can, how it runs guests, and what it has counted (`sys/platform/pc64/vmm/vmm.c`; section 15.2 of the reference).
 *
 * Room: `kernel/vmm/`; imports the types of rows.
 *
 * @module
 */
import type { Cx } from "../context.ts";
import { ERRNO } from "../kern/errno.ts";
import { CTLTYPE_INT, CTLTYPE_LONG, CTLTYPE_STRING, type SysctlRow } from "../proc/sysctl_types.ts";
import type { VmmCounters, VmxCapability } from "./vmm_state.ts";
import { vmxCapabilityOf, vmxDisableLater } from "./vmx_init.ts";

const DESIGNS = ["merged", "twin"] as const;
const AD_MODES = ["hardware", "dragonfly", "freebsd"] as const;

/** A word of the capability; there is none where there is no VMX. */
function word(name: string, get: (capability: VmxCapability) => number): SysctlRow {
  return {
    name: `hw.vmm.vmx.${name}`,
    type: CTLTYPE_LONG,
    get(cx) {
      const capability = vmxCapabilityOf(cx);
      return capability === undefined ? undefined : get(capability);
    },
  };
}

/** A choice between names; it holds for processes that enter VMM mode later. */
function choice<T extends string>(
  name: string,
  description: string,
  names: readonly T[],
  get: (cx: Cx) => string,
  set: (cx: Cx, value: T) => void,
): SysctlRow {
  return {
    name,
    description,
    type: CTLTYPE_STRING,
    get,
    set(cx, value) {
      const found = names.find((one) => one === value);
      if (found === undefined) return ERRNO.EINVAL;
      set(cx, found);
      return 0;
    },
  };
}

const count = (name: string, get: (counters: VmmCounters) => number): SysctlRow => ({
  name: `hw.vmm.stats.${name}`,
  type: CTLTYPE_LONG,
  get: (cx) => get(cx.k.vmm.counters),
});

/** The rows. */
export const vmmSysctls: readonly SysctlRow[] = [
  {
    name: "hw.vmm.enable",
    description: "Processes may enter VMM mode",
    type: CTLTYPE_INT,
    get: (cx) => cx.k.vmm.enabled && vmxCapabilityOf(cx) !== undefined ? 1 : 0,
    set(cx, value) {
      if (typeof value !== "number") return ERRNO.EINVAL;
      const { vmm } = cx.k;
      if (value === 0 && vmm.procs.size > 0) return ERRNO.EBUSY;
      if (value !== 0 && vmxCapabilityOf(cx) === undefined) return ERRNO.ENODEV;
      vmm.enabled = value !== 0;
      // It goes on again with the first process that asks.
      if (!vmm.enabled) vmxDisableLater(cx);
      return 0;
    },
  },
  {
    name: "hw.vmm.type",
    type: CTLTYPE_STRING,
    get: (cx) => vmxCapabilityOf(cx) === undefined ? "none" : "VMX",
  },
  choice(
    "hw.vmm.design",
    "merged: EPT tables alone; twin: the process's tables and EPT tables in step",
    DESIGNS,
    (cx) => cx.k.vmm.design,
    (cx, value) => cx.k.vmm.design = value,
  ),
  choice(
    "hw.vmm.ad",
    "Accessed and dirty bits of EPT entries: hardware, dragonfly (read only until written), freebsd (rights as bits)",
    AD_MODES,
    (cx) => cx.k.vmm.ad ?? (vmxCapabilityOf(cx)?.hasAd === true ? "hardware" : "dragonfly"),
    (cx, value) => cx.k.vmm.ad = value,
  ),
  word("revision", ({ revision }) => revision),
  word("region_size", ({ regionSize }) => regionSize),
  word("width_addr", ({ widthAddr }) => widthAddr),
  word("pinbased_ctls", ({ pinbased }) => pinbased >>> 0),
  word("procbased_ctls", ({ procbased }) => procbased >>> 0),
  word("procbased2_ctls", ({ procbased2 }) => procbased2 >>> 0),
  word("vmexit_ctls", ({ vmexit }) => vmexit >>> 0),
  word("vmentry_ctls", ({ vmentry }) => vmentry >>> 0),
  word("ept_vpid_cap", ({ eptVpidCap }) => Number(eptVpidCap)),
  count("entries", ({ entries }) => entries),
  count("exits", ({ exits }) => exits.reduce((sum, n) => sum + n, 0)),
  count("syscalls", ({ syscalls }) => syscalls),
  count("ept_faults", ({ eptFaults }) => eptFaults),
  count("invepts", ({ invepts }) => invepts),
  count("migrations", ({ migrations }) => migrations),
  count("sync_addrs", ({ syncAddrs }) => syncAddrs),
];
