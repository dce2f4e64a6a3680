/**
 * Red-black tree (`sys/sys/tree.h`): an ordered set of things by a number of theirs, with O(log n) everything.
 *
 * Room: `kernel/libkern/`; imports nothing. Used by pmap (pv entries by pindex), vm_map (entries by start), vm_object (pages by
 * pindex), swap (blocks by index).
 *
 * Walking a tree while it changes is allowed: {@link RbTree.next} and {@link RbTree.scan} look for the next key each time and keep no
 * pointer into the tree. A key may change while its item is in the tree as long as the order of the items stays the same (what
 * `vm_map_clip_start` does).
 *
 * Rules that hold after every operation ({@link RbTree.check} recomputes them):
 *
 * 1. An in-order walk meets strictly ascending keys.
 * 2. The root is black; a red node has no red child.
 * 3. Every path from the root to a missing child passes the same number of black nodes.
 * 4. A node's parent link names the node whose child it is; `size` is the number of nodes.
 *
 * @module
 */

interface Node<T> {
  item: T;
  red: boolean;
  parent: Node<T> | undefined;
  left: Node<T> | undefined;
  right: Node<T> | undefined;
}

/** An ordered set of `T`, each found by the key that `keyOf` reads from it. */
export class RbTree<T, K extends number | bigint = number> {
  readonly #keyOf: (item: T) => K;
  #root: Node<T> | undefined;
  #size = 0;

  /** @param keyOf Reads an item's key; two items with one key cannot both be in the tree. */
  constructor(keyOf: (item: T) => K) {
    this.#keyOf = keyOf;
  }

  /** Number of items. */
  get size(): number {
    return this.#size;
  }

  /** Puts an item in (`RB_INSERT`). Gives the item that already has its key, and then changes nothing; else undefined. */
  insert(item: T): T | undefined {
    const key = this.#keyOf(item);
    let parent: Node<T> | undefined;
    let at = this.#root;
    let below = false;
    while (at !== undefined) {
      const here = this.#keyOf(at.item);
      if (key === here) return at.item;
      parent = at;
      below = key < here;
      at = below ? at.left : at.right;
    }
    const node: Node<T> = { item, red: true, parent, left: undefined, right: undefined };
    if (parent === undefined) this.#root = node;
    else if (below) parent.left = node;
    else parent.right = node;
    this.#size++;
    this.#insertColor(node);
    return undefined;
  }

  /** Takes out the item itself (`RB_REMOVE`). Gives whether it was in. */
  remove(item: T): boolean {
    const node = this.#node(this.#keyOf(item));
    if (node === undefined || node.item !== item) return false;
    this.#removeNode(node);
    return true;
  }

  /** Takes out the item with this key, and gives it. */
  removeKey(key: K): T | undefined {
    const node = this.#node(key);
    if (node === undefined) return undefined;
    const { item } = node;
    this.#removeNode(node);
    return item;
  }

  /** The item with this key (`RB_LOOKUP`). */
  find(key: K): T | undefined {
    return this.#node(key)?.item;
  }

  /** The item with the least key ≥ `key` (`RB_NFIND`). */
  lookupGE(key: K): T | undefined {
    let best: Node<T> | undefined;
    let at = this.#root;
    while (at !== undefined) {
      const here = this.#keyOf(at.item);
      if (here === key) return at.item;
      if (here > key) {
        best = at;
        at = at.left;
      } else at = at.right;
    }
    return best?.item;
  }

  /** The item with the greatest key ≤ `key`. */
  lookupLE(key: K): T | undefined {
    let best: Node<T> | undefined;
    let at = this.#root;
    while (at !== undefined) {
      const here = this.#keyOf(at.item);
      if (here === key) return at.item;
      if (here < key) {
        best = at;
        at = at.right;
      } else at = at.left;
    }
    return best?.item;
  }

  /** The item with the least key > `key`. */
  lookupGT(key: K): T | undefined {
    let best: Node<T> | undefined;
    let at = this.#root;
    while (at !== undefined) {
      if (this.#keyOf(at.item) > key) {
        best = at;
        at = at.left;
      } else at = at.right;
    }
    return best?.item;
  }

  /** The item with the greatest key < `key`. */
  lookupLT(key: K): T | undefined {
    let best: Node<T> | undefined;
    let at = this.#root;
    while (at !== undefined) {
      if (this.#keyOf(at.item) < key) {
        best = at;
        at = at.right;
      } else at = at.left;
    }
    return best?.item;
  }

  /** The first item (`RB_MIN`). */
  min(): T | undefined {
    let at = this.#root;
    while (at?.left !== undefined) at = at.left;
    return at?.item;
  }

  /** The last item (`RB_MAX`). */
  max(): T | undefined {
    let at = this.#root;
    while (at?.right !== undefined) at = at.right;
    return at?.item;
  }

  /** The item after `item`, by its key (`RB_NEXT`); `item` itself need no longer be in the tree. */
  next(item: T): T | undefined {
    return this.lookupGT(this.#keyOf(item));
  }

  /** The item before `item`, by its key (`RB_PREV`). */
  prev(item: T): T | undefined {
    return this.lookupLT(this.#keyOf(item));
  }

  /** Walks the items whose keys are in `[from, to]`, ascending (`RB_SCAN`). Items may come and go meanwhile. */
  *scan(from: K, to: K): Generator<T, void, void> {
    let item = this.lookupGE(from);
    while (item !== undefined) {
      const key = this.#keyOf(item);
      if (key > to) return;
      yield item;
      item = this.lookupGT(key);
    }
  }

  /** All items, ascending; the same rules as {@link scan}. */
  *[Symbol.iterator](): Generator<T, void, void> {
    let item = this.min();
    while (item !== undefined) {
      const key = this.#keyOf(item);
      yield item;
      item = this.lookupGT(key);
    }
  }

  /** The rules in this file's header that do not hold, in words; empty when all is well. */
  check(): string[] {
    const wrong: string[] = [];
    let count = 0;
    let last: K | undefined;
    const visit = (node: Node<T> | undefined, parent: Node<T> | undefined): number => {
      if (node === undefined) return 1;
      count++;
      if (node.parent !== parent) wrong.push("a node's parent link is wrong");
      if (node.red && (node.left?.red || node.right?.red)) wrong.push("a red node has a red child");
      const left = visit(node.left, node);
      const key = this.#keyOf(node.item);
      if (last !== undefined && !(last < key)) wrong.push(`keys do not ascend: ${last} before ${key}`);
      last = key;
      const right = visit(node.right, node);
      if (left !== right) wrong.push(`black heights ${left} and ${right} differ below key ${key}`);
      return left + (node.red ? 0 : 1);
    };
    if (this.#root?.red) wrong.push("the root is red");
    visit(this.#root, undefined);
    if (count !== this.#size) wrong.push(`${count} nodes, but size says ${this.#size}`);
    return wrong;
  }

  #node(key: K): Node<T> | undefined {
    let at = this.#root;
    while (at !== undefined) {
      const here = this.#keyOf(at.item);
      if (here === key) return at;
      at = key < here ? at.left : at.right;
    }
    return undefined;
  }

  /** Puts `by` where `node` is below its parent. */
  #replace(node: Node<T>, by: Node<T> | undefined): void {
    const { parent } = node;
    if (parent === undefined) this.#root = by;
    else if (parent.left === node) parent.left = by;
    else parent.right = by;
    if (by !== undefined) by.parent = parent;
  }

  #rotateLeft(node: Node<T>): void {
    const up = node.right!;
    node.right = up.left;
    if (up.left !== undefined) up.left.parent = node;
    this.#replace(node, up);
    up.left = node;
    node.parent = up;
  }

  #rotateRight(node: Node<T>): void {
    const up = node.left!;
    node.left = up.right;
    if (up.right !== undefined) up.right.parent = node;
    this.#replace(node, up);
    up.right = node;
    node.parent = up;
  }

  #insertColor(node: Node<T>): void {
    let parent = node.parent;
    while (parent?.red) {
      // A red parent is not the root, so it has a parent.
      const grand = parent.parent!;
      const parentLeft = grand.left === parent;
      const uncle = parentLeft ? grand.right : grand.left;
      if (uncle?.red) {
        parent.red = uncle.red = false;
        grand.red = true;
        node = grand;
        parent = node.parent;
        continue;
      }
      if (parentLeft) {
        if (parent.right === node) {
          this.#rotateLeft(parent);
          parent = node;
        }
        parent.red = false;
        grand.red = true;
        this.#rotateRight(grand);
      } else {
        if (parent.left === node) {
          this.#rotateRight(parent);
          parent = node;
        }
        parent.red = false;
        grand.red = true;
        this.#rotateLeft(grand);
      }
      break;
    }
    this.#root!.red = false;
  }

  #removeNode(node: Node<T>): void {
    this.#size--;
    if (node.left !== undefined && node.right !== undefined) {
      // Its successor has at most one child: let that one's item stand here and take that node out.
      let successor = node.right;
      while (successor.left !== undefined) successor = successor.left;
      node.item = successor.item;
      node = successor;
    }
    const child = node.left ?? node.right;
    const { parent, red } = node;
    const wasLeft = parent?.left === node;
    this.#replace(node, child);
    if (red) return;
    if (child?.red) child.red = false;
    else if (parent !== undefined) this.#removeColor(parent, wasLeft);
  }

  /** The subtree on one side of `parent` is one black node short. */
  #removeColor(parent: Node<T>, shortLeft: boolean): void {
    for (;;) {
      // The other side has a black node more than this one, so the sibling exists; so do the nephews where they are red.
      let sibling = (shortLeft ? parent.right : parent.left)!;
      if (sibling.red) {
        sibling.red = false;
        parent.red = true;
        if (shortLeft) this.#rotateLeft(parent);
        else this.#rotateRight(parent);
        sibling = (shortLeft ? parent.right : parent.left)!;
      }
      const near = shortLeft ? sibling.left : sibling.right;
      const far = shortLeft ? sibling.right : sibling.left;
      if (!near?.red && !far?.red) {
        sibling.red = true;
        if (parent.red) {
          parent.red = false;
          return;
        }
        const up: Node<T> | undefined = parent.parent;
        if (up === undefined) return;
        shortLeft = up.left === parent;
        parent = up;
        continue;
      }
      if (!far?.red) {
        near!.red = false;
        sibling.red = true;
        if (shortLeft) this.#rotateRight(sibling);
        else this.#rotateLeft(sibling);
        sibling = (shortLeft ? parent.right : parent.left)!;
      }
      sibling.red = parent.red;
      parent.red = false;
      const nephew = (shortLeft ? sibling.right : sibling.left)!;
      nephew.red = false;
      if (shortLeft) this.#rotateLeft(parent);
      else this.#rotateRight(parent);
      return;
    }
  }
}
