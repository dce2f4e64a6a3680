/**
 * Command lines: declared as data, parsed strictly, explained when wrong.
 *
 * Room: `lab/cli/`; imports nothing. A mistake is a {@link UsageError} whose message names the nearest valid spelling.
 *
 * @module
 */

/** What is wrong with a command line. The process ends with status 2. */
export class UsageError extends Error {
  override name = "UsageError";
}

/** One option. */
export interface OptionSpec<T> {
  /** What the value is called in the help; a flag has none. */
  readonly value?: string;
  readonly help: string;
  /** May be given several times; the values come as a list. */
  readonly many?: boolean;
  /**
   * Turns the text into the value.
   *
   * @throws {UsageError} when the text is not one.
   */
  readonly parse: (text: string) => T;
}

/** Options by name, without the dashes. */
export type OptionSpecs = Readonly<Record<string, OptionSpec<unknown>>>;

/** The values that a table of options gives. */
export type OptionValues<S extends OptionSpecs> = {
  -readonly [K in keyof S]?: S[K] extends { many: true } ? ReturnType<S[K]["parse"]>[]
    : ReturnType<S[K]["parse"]>;
};

/** A parsed command line. */
export interface ParsedArguments<S extends OptionSpecs> {
  readonly options: OptionValues<S>;
  /** What is not an option, in order. */
  readonly positional: readonly string[];
  /** What stood behind `--`. */
  readonly rest: readonly string[];
}

/**
 * Parses a command line.
 *
 * @throws {UsageError} when an option is unknown, lacks its value, or has a bad one.
 */
export function parseArguments<S extends OptionSpecs>(specs: S, args: readonly string[]): ParsedArguments<S> {
  const options: Record<string, unknown> = {};
  const positional: string[] = [];
  let rest: readonly string[] = [];
  for (let i = 0; i < args.length; i++) {
    const argument = args[i]!;
    if (argument === "--") {
      rest = args.slice(i + 1);
      break;
    }
    if (!argument.startsWith("-") || argument === "-") {
      positional.push(argument);
      continue;
    }
    const [name, attached] = splitOption(argument === "-h" ? "--help" : argument);
    const spec = Object.hasOwn(specs, name) ? specs[name] : undefined;
    if (spec === undefined || !(argument.startsWith("--") || argument === "-h")) {
      throw new UsageError(
        `Unknown option "${argument.split("=")[0]}"${didYouMean(name, Object.keys(specs), "--")}`,
      );
    }
    let text = "";
    if (spec.value === undefined) {
      if (attached !== undefined) throw new UsageError(`Option "--${name}" takes no value`);
    } else {
      text = attached ?? args[++i] ?? missing(name, spec.value);
    }
    store(options, name, spec, text);
  }
  return { options: options as OptionValues<S>, positional, rest };
}

function splitOption(argument: string): [name: string, value: string | undefined] {
  const bare = argument.replace(/^--?/, "");
  const at = bare.indexOf("=");
  return at < 0 ? [bare, undefined] : [bare.slice(0, at), bare.slice(at + 1)];
}

function missing(name: string, value: string): never {
  throw new UsageError(`Option "--${name}" needs a value: ${value}`);
}

function store(
  options: Record<string, unknown>,
  name: string,
  spec: OptionSpec<unknown>,
  text: string,
): void {
  let value: unknown;
  try {
    value = spec.parse(text);
  } catch (error) {
    if (error instanceof UsageError) throw new UsageError(`Option "--${name}": ${error.message}`);
    throw error;
  }
  if (spec.many) {
    const list = options[name] as unknown[] | undefined;
    if (list === undefined) options[name] = [value];
    else list.push(value);
    return;
  }
  if (Object.hasOwn(options, name)) throw new UsageError(`Option "--${name}" is given twice`);
  options[name] = value;
}

// ---- kinds of value

/** An option without a value. */
export function flag(help: string): OptionSpec<true> {
  return { help, parse: () => true };
}

/** Any text. */
export function text(value: string, help: string): OptionSpec<string> {
  return { value, help, parse: (text) => text };
}

/** Any text, as often as wanted. */
export function texts(value: string, help: string): OptionSpec<string> & { many: true } {
  return { value, help, many: true, parse: (text) => text };
}

/** One of some words. */
export function choice<const T extends string>(words: readonly T[], help: string): OptionSpec<T> {
  return {
    value: words.join("|"),
    help,
    parse: (text) => {
      const found = words.find((word) => word === text);
      if (found === undefined) {
        throw new UsageError(`"${text}" is none of ${words.join(", ")}${didYouMean(text, words, "")}`);
      }
      return found;
    },
  };
}

/** A whole number in a range. */
export function integer(value: string, help: string, low: number, high: number): OptionSpec<number> {
  return {
    value,
    help,
    parse: (text) => {
      const number = parseInteger(text);
      if (number === undefined) throw new UsageError(`"${text}" is not a whole number`);
      if (number < low || number > high) throw new UsageError(`${text} is not between ${low} and ${high}`);
      return number;
    },
  };
}

/** A decimal or 0x number, with `_` between digits and k, M, G for thousands if wanted; undefined if it is none. */
export function parseInteger(text: string): number | undefined {
  const match = /^(0x[0-9a-f]+|[0-9]+(?:\.[0-9]+)?)([kMG]?)$/i.exec(text.replaceAll("_", ""));
  if (match === null) return undefined;
  const factor = { "": 1, k: 1e3, m: 1e6, g: 1e9 }[match[2]!.toLowerCase()] ?? 1;
  const number = Number(match[1]) * factor;
  return Number.isSafeInteger(number) ? number : undefined;
}

/** Bytes of memory: a number of MiB, or with K, M, G. */
export function parseMemory(text: string): number {
  const match = /^([0-9]+)(K|M|G)?(?:i?B)?$/i.exec(text);
  if (match === null) throw new UsageError(`"${text}" is not a size such as 256M or 3G`);
  const unit = { K: 1024, M: 1024 ** 2, G: 1024 ** 3 }[(match[2] ?? "M").toUpperCase()]!;
  return Number(match[1]) * unit;
}

// ---- help and suggestions

/** The help of a table of options. */
export function describeOptions(specs: OptionSpecs): string {
  const rows = Object.entries(specs).map(([name, { value, help }]) =>
    [`  --${name}${value === undefined ? "" : " " + value}`, help] as const
  );
  const width = Math.min(36, Math.max(...rows.map(([left]) => left.length)) + 2);
  return rows.map(([left, help]) =>
    left.length >= width ? `${left}\n${" ".repeat(width)}${help}` : left.padEnd(width) + help
  ).join("\n");
}

/** `: did you mean "…"?` when one of the words is near, else a list or nothing. */
export function didYouMean(word: string, words: readonly string[], dashes: string): string {
  const near = nearest(word, words);
  return near === undefined ? "" : `: did you mean "${dashes}${near}"?`;
}

/** The word that takes the fewest changes, if they are few enough to have been a slip. */
export function nearest(word: string, words: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Infinity;
  for (const candidate of words) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best !== undefined && bestDistance <= Math.max(2, Math.floor(best.length / 3)) ? best : undefined;
}

/** Insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b`. */
function editDistance(a: string, b: string): number {
  const rows = Array.from({ length: a.length + 1 }, (_, i) => [i]);
  for (let j = 0; j <= b.length; j++) rows[0]![j] = j;
  for (let i = 1; i <= a.length; i++) {
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      let cost = Math.min(rows[i - 1]![j]! + 1, rows[i]![j - 1]! + 1, rows[i - 1]![j - 1]! + same);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        cost = Math.min(cost, rows[i - 2]![j - 2]! + 1);
      }
      rows[i]![j] = cost;
    }
  }
  return rows[a.length]![b.length]!;
}

/** A command line as one would type it in a shell. */
export function shellQuote(words: readonly string[]): string {
  return words.map((word) => /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`)
    .join(" ");
}
