/**
 * What the bench's command lines share.
 *
 * Room: `bench/`; imports the lab's command line.
 *
 * @module
 */
import { didYouMean, type OptionSpec, UsageError } from "../lab/cli/args.ts";

/** A list of some of these words; with `none`, that word alone is the empty list. */
export function listOf<const T extends string>(
  words: readonly T[],
  none: boolean,
  help: string,
): OptionSpec<T[]> {
  return {
    value: "NAME,…",
    help,
    parse: (given) => {
      if (none && given === "none") return [];
      return given.split(",").map((word) => {
        const found = words.find((known) => known === word);
        if (found === undefined) {
          const all = `there are ${words.join(", ")}`;
          throw new UsageError(`"${word}" is none of them${didYouMean(word, words, "") || `: ${all}`}`);
        }
        return found;
      });
    },
  };
}

/** Three significant digits, without an exponent. */
export function number(value: number): string {
  if (value >= 100 || value === 0) return value.toFixed(0);
  return value >= 10 ? value.toFixed(1) : value >= 0.995 ? value.toFixed(2) : value.toPrecision(2);
}
