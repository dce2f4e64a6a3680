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
  /**
   * Nodes that the part is entered at, the one that most back edges go to first; one alone when it is no loop. Where a loop has several,
   * its start is a switch over them.
   */
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
    const inside = (n: number) => (predecessors.get(n) ?? []).filter((p) => inPart.has(p)).length;
    const byBackEdges = (a: number, b: number) => inside(b) - inside(a) || a - b;
    const entered = part.filter((n) => entries.has(n) && !cut.has(n));
    // Where the loop is closed: edges to these go back to its start. An entry further in is only one more case of the switch there.
    let closing = part.filter((n) => (predecessors.get(n) ?? []).some((p) => !inPart.has(p)));
    if (closing.length === 0) {
      closing = (entered.length > 0 ? entered : part).toSorted(byBackEdges).slice(0, 1);
    }
    const innerCut = new Set(cut);
    for (const h of closing) innerCut.add(h);
    const heads = [...new Set([...closing.toSorted(byBackEdges), ...entered])];
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

/** By node in a loop: the first head of the innermost one. */
export function loopHeads(parts: readonly Part[]): Map<number, number> {
  const out = new Map<number, number>();
  const walk = (list: readonly Part[], head: number) => {
    for (const part of list) {
      if (part.isLoop) walk(part.inner, part.heads[0]!);
      else if (head >= 0) out.set(part.nodes[0]!, head);
    }
  };
  walk(parts, -1);
  return out;
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
