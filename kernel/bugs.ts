/**
 * Historical bugs: races and errors that DragonFly once had, each selectable, so that the sanitizer, the invariants and the model test can be
 * shown to find them. All are off unless asked for.
 *
 * Room: leaf of `kernel/`; imports nothing. `docs/historical-bugs.md` says which witness finds which within how many seeds.
 *
 * @module
 */

/** One historical bug. */
export interface HistoricalBug {
  /** What `--bug` takes. */
  readonly name: string;
  /** Abbreviated id of the commit that fixed it in DragonFly's tree; empty if it is not known, or there is none. */
  readonly commit: string;
  /** When it was fixed: month and year; "never" for what DragonFly never had. */
  readonly date: string;
  /** What is wrong while it is on. */
  readonly sentence: string;
  /** What finds it: the sanitizer, an invariant, the model test, a panic. */
  readonly witness: string;
}

/** All of them. */
export const HISTORICAL_BUGS: readonly HistoricalBug[] = [
  {
    name: "pv-revalidate",
    commit: "5e78aef9c6",
    date: "October 2013",
    sentence:
      "A thread that slept for a pv entry's lock takes the entry for what it looked for, though it may be another's or nobody's by now.",
    witness: "panic or invariant: a mapping without a pv entry, a pv entry without a pmap",
  },
  {
    name: "pv-list-restart",
    commit: "5ee06c6c18",
    date: "January 2017",
    sentence:
      "Write-protecting a page goes on along its list of mappings after the list's lock was dropped, and misses some.",
    witness:
      "invariant: a writable mapping of a page that is not PG_WRITEABLE; model: bytes lost at page-out",
  },
  {
    name: "pmap-skip-cr3",
    commit: "95270b7ecb",
    date: "January 2017",
    sentence:
      "A processor that switches between two threads of one address space leaves pm_active for a moment and keeps its TLB: an invalidation in the gap misses it.",
    witness: "sanitizer: use of a translation that the tables no longer grant",
  },
  {
    name: "vmspace-refs",
    commit: "93f86408bb",
    date: "July 2014",
    sentence:
      "Who only looks at an address space (procfs, ps) does not keep it: its tables and map go while they are being looked at.",
    witness: "panic: a dead address space is used or ended twice",
  },
  {
    name: "fault-page-stale-pte",
    commit: "7a45978d5d",
    date: "November 2017",
    sentence:
      "vm_fault_page copies a page on write for the kernel and leaves the old, read-only mapping: the program does not see what was written.",
    witness:
      "model: a read shows the old bytes; invariant of vmCheck: a mapping of a page that the object chain does not show",
  },
  {
    name: "pv-association-hold",
    commit: "8e2efb11e5",
    date: "October 2013",
    sentence:
      "A pv entry's place in its pmap's tree is no hold: whoever gives the last hold back may free an entry that another has freed already.",
    witness: "panic: pvzone gives out a pv entry that is in use, or one that a tree or a page still has",
  },
  {
    name: "inval-mask-order",
    commit: "cc694a4adf",
    date: "June 2014",
    sentence:
      "The set of processors to interrupt is read before pm_active is locked: who loads the address space in between keeps its translations.",
    witness: "sanitizer: use of a translation that the tables no longer grant",
  },
  {
    name: "ipi-lost",
    commit: "",
    date: "September 2016",
    sentence:
      "A processor says that it will look at its queue again after it has looked: a message that came in between raises no interrupt.",
    witness: "hang: the sender of an invalidation waits for ever",
  },
  {
    name: "attributes-before-inval",
    commit: "4dd1b99459",
    date: "September 2016",
    sentence:
      "The modified bit of a mapping is taken over before the processors have been stopped: a store in between is forgotten.",
    witness: "data: what was stored is gone after page-out",
  },
  {
    name: "unmanaged-unlocked",
    commit: "76f1911e60",
    date: "January 2017",
    sentence:
      "Nothing is locked while an unmanaged page is entered: two processors enter the same address at the same time.",
    witness: "invariant: a table page's wire count and the residents of the pmap are not what is there",
  },
  {
    name: "clear-m-no-inval",
    commit: "c50e690bc7",
    date: "January 2017",
    sentence: "A page is made read only and its modified bits are cleared, and no TLB is told.",
    witness: "sanitizer: store through a translation that the tables no longer grant",
  },
  {
    name: "pg-writeable-early",
    commit: "c50e690bc7",
    date: "January 2017",
    sentence: "PG_WRITEABLE is set before the page's old mapping is removed, which clears it again.",
    witness: "invariant: a writable mapping of a page that is not PG_WRITEABLE; sanitizer",
  },
  {
    name: "remove-pages-unmanaged",
    commit: "c50e690bc7",
    date: "January 2017",
    sentence:
      "The quick removal of a whole address space leaves unmanaged pages in it for the next user of the tables.",
    witness: "panic: table pages or residents stay in a pmap that is released",
  },
  {
    name: "fault-page-not-busy",
    commit: "dc039ae0ab",
    date: "January 2017",
    sentence:
      "Who writes to a page got by vm_fault_page only holds it: it may be copied on write meanwhile, and the bytes are lost.",
    witness: "data: what was written from outside is not in the address space",
  },
  {
    name: "fault-page-no-growstack",
    commit: "b443039b5d",
    date: "January 2017",
    sentence: "The kernel's own access below a stack does not grow it, as the program's would.",
    witness: "model: EFAULT for an address that the program can use",
  },
  {
    name: "vpte-inval-race",
    commit: "fc531fbc3f",
    date: "February 2017",
    sentence:
      "MADV_INVAL holds the map's lock shared and falls between a fault's walk of a software page table and its pmap_enter: the page that the vkernel has taken away is mapped.",
    witness: "data: a store through the table's old entry reaches a page that has another use",
  },
  {
    name: "vpte-walk-or",
    commit: "",
    date: "2017",
    sentence:
      "The walk of a software page table reads an entry and ORs A and M in afterwards: into one that the vkernel has cleared in between.",
    witness: "data: an entry that was cleared is not 0",
  },
  {
    name: "vmspace-entry-refs",
    commit: "98e80c6197",
    date: "2017",
    sentence:
      "The calls that work on a vkernel's address space do not keep it while they sleep: another thread destroys it under them.",
    witness: "panic: the address space was destroyed while a call was at work on it",
  },
  {
    name: "vmx-loaded-before-clear",
    commit: "c825189df5",
    date: "February 2014",
    sentence:
      "A processor says that it has no VMCS loaded before the VMCLEAR: another one takes the VMCS over, and loses its launch state to the late VMCLEAR.",
    witness: "panic: VMRESUME with a VMCS that is not launched",
  },
  {
    name: "needless-vmclear",
    commit: "e1bcf4167d",
    date: "October 2016",
    sentence:
      "A VMCS is cleared whenever another one is loaded on its processor; only migration and the end need it.",
    witness: "cost: more VMCLEARs than threads and migrations account for",
  },
  {
    name: "eptgen-per-thread",
    commit: "9563660691",
    date: "October 2016",
    sentence:
      "The generation of the EPT that has been seen is kept by thread and not by thread and processor: a thread that was elsewhere during an invalidation and comes back uses old guest-physical translations.",
    witness:
      "sanitizer: use of a guest-physical translation that the EPT no longer grants; data: a page's old content",
  },
  {
    name: "ept-root-reuse",
    commit: "9563660691",
    date: "October 2016",
    sentence:
      "No INVEPT when an EPT ends, and none at the first entry: a new process whose EPT root has the same address uses the old one's translations.",
    witness: "sanitizer: use of a guest-physical translation that the EPT no longer grants",
  },
  {
    name: "vmm-ve-free",
    commit: "e1ea8b243e",
    date: "October 2016",
    sentence:
      "The exit of a thread that runs a guest on the VMM takes the word that the vkernel gave for the space for a vmspace_entry and drops a reference of it.",
    witness: "panic: no reference (in DragonFly: kfree of a number that a program chose)",
  },
  {
    name: "sync-addr-2013",
    commit: "",
    date: "2013",
    sentence:
      "vmm_guest_sync_addr only stores: what the hardware set in the old entry between the vkernel's last look and the store is lost (2017: it exchanges).",
    witness: "data: a page has been changed and the entry that was taken out does not say so",
  },
  {
    name: "inval-no-ipi",
    commit: "",
    date: "never",
    sentence:
      "Not DragonFly's, the simplest mistake: after a change of the tables only this processor forgets the translation.",
    witness: "sanitizer: use of a translation that the tables no longer grant",
  },
  {
    name: "fork-no-flush",
    commit: "",
    date: "never",
    sentence:
      "Not DragonFly's, the simplest mistake: fork makes the parent's pages read only and tells no other processor.",
    witness:
      "sanitizer: store through a translation that the tables no longer grant; data: a child's word changes",
  },
];
