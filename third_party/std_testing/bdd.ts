/**
 * `@std/testing/bdd` where JSR cannot be reached: `describe` and `it` over `Deno.test`, its steps and its hooks.
 *
 * A `describe` at the top is one test, what stands inside are its steps.
 *
 * @module
 */

type Body = (t: Deno.TestContext) => void | Promise<void>;
type Hook = () => void | Promise<void>;
type Step = { kind: "it"; name: string; fn: Body; options: CaseOptions } | { kind: "suite"; suite: Suite };

/** Options of a suite or case; those of `Deno.test` that make sense for both. */
export type CaseOptions = Partial<
  Pick<Deno.TestDefinition, "ignore" | "only" | "permissions" | "sanitizeOps" | "sanitizeResources">
>;

interface Suite {
  readonly name: string;
  readonly options: CaseOptions;
  readonly parent: Suite | undefined;
  readonly steps: Step[];
  readonly beforeAll: Hook[];
  readonly afterAll: Hook[];
  readonly beforeEach: Hook[];
  readonly afterEach: Hook[];
}

let current: Suite | undefined;

async function runHooks(hooks: readonly Hook[]): Promise<void> {
  for (const hook of hooks) await hook();
}

async function aroundEach(suite: Suite | undefined, body: () => void | Promise<void>): Promise<void> {
  const line: Suite[] = [];
  for (let s = suite; s; s = s.parent) line.unshift(s);
  for (const s of line) await runHooks(s.beforeEach);
  try {
    await body();
  } finally {
    for (const s of line.reverse()) await runHooks(s.afterEach);
  }
}

async function runSuite(t: Deno.TestContext, suite: Suite): Promise<void> {
  await runHooks(suite.beforeAll);
  try {
    for (const step of suite.steps) {
      if (step.kind === "suite") {
        const inner = step.suite;
        await t.step({ ...stepOptions(inner.options), name: inner.name, fn: (u) => runSuite(u, inner) });
      } else {
        const { name, fn, options } = step;
        await t.step({ ...stepOptions(options), name, fn: (u) => aroundEach(suite, () => fn(u)) });
      }
    }
  } finally {
    await runHooks(suite.afterAll);
  }
}

/** A step has no `only` and no permissions of its own. */
function stepOptions({ only: _only, permissions: _permissions, ...rest }: CaseOptions): CaseOptions {
  return rest;
}

function split<F>(second: CaseOptions | F, third: F | undefined): [CaseOptions, F] {
  if (third !== undefined) return [second as CaseOptions, third];
  return [{}, second as F];
}

function declareSuite(name: string, options: CaseOptions, fn: () => void): void {
  const suite: Suite = {
    name,
    options,
    parent: current,
    steps: [],
    beforeAll: [],
    afterAll: [],
    beforeEach: [],
    afterEach: [],
  };
  const outer = current;
  current = suite;
  try {
    fn();
  } finally {
    current = outer;
  }
  if (outer) outer.steps.push({ kind: "suite", suite });
  else Deno.test({ ...options, name, fn: (t) => runSuite(t, suite) });
}

function declareCase(name: string, options: CaseOptions, fn: Body): void {
  if (current) current.steps.push({ kind: "it", name, fn, options });
  else Deno.test({ ...options, name, fn });
}

/** Declares a group of cases. */
export interface Describe {
  (name: string, fn: () => void): void;
  (name: string, options: CaseOptions, fn: () => void): void;
  /** A group that is ignored. */
  ignore(name: string, fn: () => void): void;
  skip(name: string, fn: () => void): void;
  /** The only group to run. */
  only(name: string, fn: () => void): void;
}

/** Declares a case. */
export interface It {
  (name: string, fn: Body): void;
  (name: string, options: CaseOptions, fn: Body): void;
  /** A case that is ignored. */
  ignore(name: string, fn: Body): void;
  skip(name: string, fn: Body): void;
  /** The only case to run. */
  only(name: string, fn: Body): void;
}

/** Declares a group of cases. */
export const describe: Describe = Object.assign(
  (name: string, second: CaseOptions | (() => void), third?: () => void) => {
    const [options, fn] = split(second, third);
    declareSuite(name, options, fn);
  },
  {
    ignore: (name: string, fn: () => void) => declareSuite(name, { ignore: true }, fn),
    skip: (name: string, fn: () => void) => declareSuite(name, { ignore: true }, fn),
    only: (name: string, fn: () => void) => declareSuite(name, { only: true }, fn),
  },
);

/** Declares a case. */
export const it: It = Object.assign(
  (name: string, second: CaseOptions | Body, third?: Body) => {
    const [options, fn] = split(second, third);
    declareCase(name, options, fn);
  },
  {
    ignore: (name: string, fn: Body) => declareCase(name, { ignore: true }, fn),
    skip: (name: string, fn: Body) => declareCase(name, { ignore: true }, fn),
    only: (name: string, fn: Body) => declareCase(name, { only: true }, fn),
  },
);

/** Another name for {@link it}. */
export const test: It = it;

/** Runs before the first case of the group (of the file, outside any group). */
export function beforeAll(fn: Hook): void {
  if (current) current.beforeAll.push(fn);
  else Deno.test.beforeAll(fn);
}

/** Another name for {@link beforeAll}. */
export const before: typeof beforeAll = beforeAll;

/** Runs after the last case of the group (of the file, outside any group). */
export function afterAll(fn: Hook): void {
  if (current) current.afterAll.push(fn);
  else Deno.test.afterAll(fn);
}

/** Another name for {@link afterAll}. */
export const after: typeof afterAll = afterAll;

/** Runs before each case of the group and of the groups inside. */
export function beforeEach(fn: Hook): void {
  if (current) current.beforeEach.push(fn);
  else Deno.test.beforeEach(fn);
}

/** Runs after each case of the group and of the groups inside. */
export function afterEach(fn: Hook): void {
  if (current) current.afterEach.push(fn);
  else Deno.test.afterEach(fn);
}
