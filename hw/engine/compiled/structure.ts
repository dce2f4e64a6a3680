/**
 * From a flow graph to nested loops: which blocks are heads of loops, and in what order and nesting blocks are written.
 *
 * Room: `hw/engine/compiled/`; imports nothing. A loop with one head is a wasm loop whose back edges are branches; one with several
 * (entered in the middle, by a return for instance) begins with a switch over its heads. Everything else is forward branches.
 *
 * @module
 */

/** A strongly connected part of the graph, in the order in which parts are written. */
export interface Part {
  /** Nodes that the part is entered at; one alone when it is no loop, or a loop with one head. */
  readonly heads: readonly number[];
  readonly isLoop: boolean;
  /** All its nodes. */
  readonly nodes: readonly number[];
  /** What is in the loop, back edges left out; empty for a single node. */
  readonly inner: readonly Part[];
}

/**
 * Structures the graph.
 *
 * @param successors By node.
 * @param entries Nodes that are entered from elsewhere.
 */
export function structure(successors: readonly (readonly number[])[], entries: ReadonlySet<number>): Part[] {
  const all = successors.map((_s, i) => i);
  return order(all, new Set(), successors, entries, [...entries]);
}

function order(
  nodes: readonly number[],
  cut: ReadonlySet<number>,
  successors: readonly (readonly number[])[],
  entries: ReadonlySet<number>,
  roots: readonly number[],
): Part[] {
  const within = new Set(nodes);
  const next = (n: number) => successors[n]!.filter((s) => within.has(s) && !cut.has(s));
  const parts = components(nodes, roots, next);
  const predecessors = new Map<number, number[]>();
  for (const n of nodes) {
    for (const s of next(n)) {
      const list = predecessors.get(s);
      if (list) list.push(n);
      else predecessors.set(s, [n]);
    }
  }
  return parts.map((part) => {
    const isLoop = part.length > 1 || next(part[0]!).includes(part[0]!);
    if (!isLoop) return { heads: part, isLoop, nodes: part, inner: [] };
    const inPart = new Set(part);
    let heads = part.filter((n) =>
      (entries.has(n) && !cut.has(n)) || (predecessors.get(n) ?? []).some((p) => !inPart.has(p))
    );
    // Reached by nobody: any node will do.
    if (heads.length === 0) heads = [part[0]!];
    const innerCut = new Set(cut);
    for (const h of heads) innerCut.add(h);
    return { heads, isLoop, nodes: part, inner: order(part, innerCut, successors, entries, heads) };
  });
}

/** Strongly connected components in topological order (Tarjan's algorithm, without recursion). */
function components(
  nodes: readonly number[],
  roots: readonly number[],
  next: (n: number) => readonly number[],
): number[][] {
  const index = new Map<number, number>(), low = new Map<number, number>();
  const onStack = new Set<number>();
  const stack: number[] = [];
  const out: number[][] = [];
  const visit = (root: number) => {
    const frames: { n: number; succ: readonly number[]; i: number }[] = [];
    const push = (n: number) => {
      index.set(n, index.size);
      low.set(n, index.get(n)!);
      stack.push(n);
      onStack.add(n);
      frames.push({ n, succ: next(n), i: 0 });
    };
    push(root);
    while (frames.length > 0) {
      const frame = frames[frames.length - 1]!;
      if (frame.i < frame.succ.length) {
        const s = frame.succ[frame.i++]!;
        if (!index.has(s)) push(s);
        else if (onStack.has(s)) low.set(frame.n, Math.min(low.get(frame.n)!, index.get(s)!));
        continue;
      }
      frames.pop();
      const parent = frames[frames.length - 1];
      if (parent) low.set(parent.n, Math.min(low.get(parent.n)!, low.get(frame.n)!));
      if (low.get(frame.n) !== index.get(frame.n)) continue;
      const part: number[] = [];
      for (;;) {
        const n = stack.pop()!;
        onStack.delete(n);
        part.push(n);
        if (n === frame.n) break;
      }
      out.push(part.reverse());
    }
  };
  for (const root of roots) if (!index.has(root)) visit(root);
  for (const n of nodes) if (!index.has(n)) visit(n);
  return out.reverse();
}

/** All nodes that are heads of loops. */
export function headsOf(parts: readonly Part[]): Set<number> {
  const out = new Set<number>();
  const walk = (list: readonly Part[]) => {
    for (const part of list) {
      if (!part.isLoop) continue;
      for (const h of part.heads) out.add(h);
      walk(part.inner);
    }
  };
  walk(parts);
  return out;
}
