/**
 * What `--explain` adds to a trace event: why. For a page fault and an EPT violation or misconfiguration the walk, both dimensions side by
 * side and each entry decoded; for a VMX instruction that failed, a VM entry that was refused and a VM exit the manual's terms. Only looks.
 *
 * Room: `lab/cli/`; imports hw's explanations.
 *
 * @module
 */
import { describeWalk, explainWalk } from "../../hw/explain_walk.ts";
import type { Machine } from "../../hw/machine.ts";
import { PF } from "../../hw/paging.ts";
import type { TraceEvent } from "../../hw/trace.ts";
import { describeBrokenRule, explainEntry, explainExit, explainFailure } from "../../hw/vmx/explain.ts";

/** The explanation as lines; undefined for events that have none. */
export function explainEvent(machine: Machine, event: TraceEvent): readonly string[] | undefined {
  const cpu = machine.cpus[event.cpu]!;
  switch (event.kind) {
    case "fault": {
      const { errorCode, linear } = event;
      return describeWalk(explainWalk(cpu, linear, {
        write: (errorCode & PF.W) !== 0,
        user: (errorCode & PF.U) !== 0,
        fetch: (errorCode & PF.I) !== 0,
      }));
    }
    case "ept": {
      if (event.linear === undefined) return undefined;
      const fetch = (event.qualification & 4) !== 0;
      return describeWalk(explainWalk(cpu, event.linear, { fetch, write: (event.qualification & 2) !== 0 }));
    }
    case "vmx":
      if (event.what === "entry") return undefined;
      if (event.what === "exit") return explainExit(cpu).split("\n");
      if (event.what === "fail") return explainFailure(cpu).split("\n");
      return explainEntry(cpu).slice(0, 1).flatMap((broken) => describeBrokenRule(broken).split("\n"));
    default:
      return undefined;
  }
}
