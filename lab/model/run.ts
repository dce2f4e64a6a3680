/**
 * One run of the model test: operations on a booted kernel, compared with the model after each batch.
 *
 * Room: `lab/model/`; imports the kernel, the agents and the model.
 *
 * @module
 */
import { Machine } from "../../hw/machine.ts";
import { MemoryDisk } from "../../hw/dev/virtio_blk.ts";
import type { Exec } from "../../hw/gates.ts";
import { Random } from "../../hw/random.ts";
import type { TlbChoice } from "../../hw/tlb.ts";
import { bootKernel } from "../../kernel/boot.ts";
import type { Cx } from "../../kernel/context.ts";
import { PINTERLOCKED, tsleep, tsleepInterlock, wakeup } from "../../kernel/lwkt/sleep.ts";
import type { Kernel } from "../../kernel/kernel.ts";
import { checkInvariants } from "../../kernel/pmap/invariants.ts";
import { newProcess } from "../../kernel/proc/init.ts";
import { guestArchive } from "../guest/archive.ts";
import { type GuestKind, vkernelWords } from "../guest/kinds.ts";
import { type Findings, GuestWatch } from "../guest/watch.ts";
import { machineLeaks, type MachineUse, machineUse } from "../kernel_use.ts";
import { Agent, agentLoop, Agents, type Outcome, prepareFirst } from "./agent.ts";
import { Generator, touches } from "./generate.ts";
import { type Expected, type Op, SPACE_PAGES, VmModel } from "./vm_model.ts";

/** RAM of the machine beside a vkernel's. */
const HOST_MEMORY = 24 << 20;
/** Files of the test. */
const FILES = 2;

/** How a run is made. */
export interface ModelOptions {
  readonly seed: number;
  /** Operations. */
  readonly count: number;
  /** Processors; so many operations go on at once at most. */
  readonly cpus: number;
  readonly tlb: TlbChoice;
  /** Compare every use of a cached translation with the tables. */
  readonly sanitizer: boolean;
  /** Bytes of RAM. */
  readonly memory: number;
  /** Historical bugs that are on. */
  readonly bugs: readonly string[];
  /** The operations, instead of random ones: for shrinking. One batch each. */
  readonly script?: readonly (readonly Op[])[];
  /** Invariants are checked after every so many batches. */
  readonly checkEvery: number;
  /** The kernel of the test is a vkernel of this kind, with this memory and so many processors, on a host kernel without bugs. */
  readonly guest?: GuestKind;
}

/** What came of it. */
export interface ModelResult {
  /** Operations carried out. */
  readonly done: number;
  /** What was wrong first, if anything. */
  readonly failure: string | undefined;
  /** The kernel's counters at the end. */
  readonly counters: Readonly<Record<string, number>>;
  /** All batches, as `script` takes them. */
  readonly script: readonly (readonly Op[])[];
}

/** Runs. */
export function runModel(options: ModelOptions): ModelResult {
  const script: Op[][] = [];
  let done = 0;
  let failure: string | undefined;
  const fail = (text: string) => {
    failure ??= text;
  };
  const { guest } = options;
  const machine = new Machine({
    memory: guest === undefined ? options.memory : options.memory + HOST_MEMORY,
    cpus: options.cpus,
    tlb: options.tlb,
    sanitizer: options.sanitizer,
    seed: options.seed,
    // The kernel's code is few steps and all that matters happens between two of them.
    quantum: [1, 24],
    gates: true,
    disk: new MemoryDisk(new Uint8Array(64 << 20)),
  });
  machine.sanitizer?.on((use) =>
    fail(
      `the sanitizer saw a stale translation used: ${use.access} of 0x${
        use.linear.toString(16)
      } on cpu${use.cpu}`,
    )
  );

  const random = new Random(options.seed);
  const model = new VmModel(FILES);
  const generator = new Generator(random, model);

  const drive = function* (cx: Cx, all: Agents): Exec<void> {
    for (let batches = 0; failure === undefined; batches++) {
      const batch = options.script === undefined
        ? done >= options.count ? undefined : draw(options, model, generator, random)
        : options.script[batches]?.filter((op) => model.applies(op));
      if (batch === undefined) break;
      script.push([...batch]);
      const expected = batch.map((op) => model.apply(op));
      for (const op of batch) {
        const agent = all.agents.get(op.p)!;
        agent.outcome = undefined;
        agent.op = op;
        wakeup(cx, agent);
      }
      // The processes are on other processors, or get this one when the driver sleeps.
      const pending = () => batch.some((op) => all.agents.get(op.p)!.outcome === undefined);
      while (pending()) {
        tsleepInterlock(cx, all.done);
        if (!pending()) break;
        yield* tsleep(cx, all.done, PINTERLOCKED, "model", 100 * 60);
      }
      batch.forEach((op, i) => compare(model, op, expected[i]!, all.agents.get(op.p)!.outcome!, fail));
      for (const op of batch) if (op.kind === "exit") all.agents.delete(op.p);
      done += batch.length;
      if (batches % options.checkEvery === 0) {
        const wrong = guest === undefined ? checkInvariants(cx) : yield* lookAround(cx, watch);
        if (wrong.length > 0) fail(`invariant: ${wrong[0]}`);
      }
    }
    if (failure === undefined) yield* everyPage(cx, all, model, fail);
  };

  const all = new Agents(FILES);
  const body = function* (cx: Cx): Exec<void> {
    const first = new Agent();
    all.agents.set(0, first);
    yield* newProcess(
      cx,
      "model",
      function* (inner: Cx) {
        yield* prepareFirst(inner, all);
        yield* agentLoop(inner, all, first);
      },
      undefined,
    );
    yield* drive(cx, all);
  };
  const common = { verbose: false, faultReports: false };
  const tested = { ...common, bugs: options.bugs, body };
  const watch = new GuestWatch(machine);
  let kernel: Kernel;
  if (guest === undefined) kernel = bootKernel(machine, { ...tested, archives: [] });
  else {
    let clean: MachineUse | undefined;
    const command = vkernelWords({ kind: guest, memory: options.memory, cpus: options.cpus });
    kernel = watch.host = bootKernel(machine, {
      ...common,
      archives: [guestArchive()],
      // The first leaves what a first one leaves: files, folders.
      commands: [command, command],
      guest: watch.hooks(() => ({ ...tested, ...(clean === undefined ? { body: nothing } : {}) })),
      onCommandEnd(host, status) {
        if (status !== 0) fail(`the vkernel ended with status ${status}`);
        if (clean === undefined) clean = machineUse(machine, host);
        else for (const leak of machineLeaks(clean, machineUse(machine, host))) fail(`on the host: ${leak}`);
      },
    });
    kernel.vmMap.vkernelEnable = true;
  }
  const stop = machine.run();
  if (stop.reason === "panic") {
    fail(`panic: ${stop.error instanceof Error ? stop.error.message : stop.error}`);
  } else if (stop.reason !== "poweroff") fail(`the machine stopped by ${stop.reason}`);
  kernel = watch.guests[1]?.k ?? kernel;
  if (guest === "vpte" && failure === undefined && watch.compared === 0) fail("nothing was compared");
  return { done, failure, counters: { ...kernel.vmmeter }, script };
}

/** The body of a kernel that starts and ends. */
function* nothing(): Exec<void> {}

/** What is wrong with host and guests, and still is a moment later. */
function* lookAround(cx: Cx, watch: GuestWatch): Exec<string[]> {
  let found: Findings = watch.look();
  for (let times = 0; times < 3 && found.size > 0; times++) {
    yield* tsleep(cx, watch, 0, "look", 1);
    const again = watch.look();
    found = new Map([...found].filter(([name]) => again.has(name)));
  }
  return [...found.values()];
}

/** A batch of operations that do not get into each other's way. */
function draw(options: ModelOptions, model: VmModel, generator: Generator, random: Random): Op[] {
  const batch: Op[] = [];
  const read = new Set<unknown>(), written = new Set<unknown>();
  const wanted = 1 + random.next() % options.cpus;
  for (let tries = 0; batch.length === 0 || (batch.length < wanted && tries < 8); tries++) {
    const op = generator.draw();
    if (op === undefined) continue;
    const { reads, writes } = touches(model, op);
    const clash = writes.some((key) => read.has(key) || written.has(key)) ||
      reads.some((key) => written.has(key));
    if (clash) continue;
    reads.forEach((key) => read.add(key));
    writes.forEach((key) => written.add(key));
    batch.push(op);
  }
  return batch;
}

function compare(
  model: VmModel,
  op: Op,
  expected: Expected,
  outcome: Outcome,
  fail: (text: string) => void,
): void {
  const wrong = () =>
    fail(
      `${JSON.stringify(op)}: the model says ${JSON.stringify(expected)}, the kernel ${
        JSON.stringify(outcome)
      }`,
    );
  switch (expected.kind) {
    case "any":
      if (outcome.kind === "value") model.observe(op, outcome.value);
      return;
    case "value":
      if (outcome.kind !== "value" || !expected.values.includes(outcome.value)) wrong();
      else model.observe(op, outcome.value);
      return;
    default:
      if (outcome.kind !== expected.kind) wrong();
  }
}

/** At the end: every page of every process, once more. */
function* everyPage(cx: Cx, all: Agents, model: VmModel, fail: (text: string) => void): Exec<void> {
  for (const [p, agent] of all.agents) {
    for (let page = 0; page < SPACE_PAGES; page++) {
      const op: Op = { kind: "read", p, page };
      const expected = model.apply(op);
      agent.outcome = undefined;
      agent.op = op;
      wakeup(cx, agent);
      while (agent.outcome === undefined) {
        tsleepInterlock(cx, all.done);
        if (agent.outcome !== undefined) break;
        yield* tsleep(cx, all.done, PINTERLOCKED, "model", 100 * 60);
      }
      compare(model, op, expected, agent.outcome, fail);
    }
  }
}

/** The shortest script that still fails which dropping batches and operations finds. */
export function shrink(
  options: ModelOptions,
  failing: readonly (readonly Op[])[],
): readonly (readonly Op[])[] {
  let script = failing;
  const fails = (candidate: readonly (readonly Op[])[]) =>
    runModel({ ...options, script: candidate }).failure !== undefined;
  for (let size = Math.ceil(script.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let at = 0; at < script.length;) {
      const candidate = [...script.slice(0, at), ...script.slice(at + size)];
      if (fails(candidate)) script = candidate;
      else at += size;
    }
  }
  return script;
}
