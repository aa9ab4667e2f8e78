// What the page has seen: where the sequence is, the nodes that answered, and what they counted.
//
// Behind a load balancer another node may answer each time. What a process has counted is compared
// with what the same node counted before; where the sequence is, only the store knows.

import { KEPT_MS } from "./charts.js";

/** How long all answers must be lower before the sequence is taken to have been lowered by a person. */
const LOWERED_MS = 5_000;
/** A node that has not answered for as long is no longer counted as serving. */
export const SERVING_MS = 15_000;

/** The highest index that was seen: a late answer, or one of a node that is behind, moves nothing. */
export class Highest {
  /** A BigInt, or null. */
  index = null;
  #lowerSince = null;

  /** Take an index (a string) that was read from the store at `at`; tell whether it is to be shown. */
  take(text, at) {
    const index = BigInt(text);
    if (this.index !== null && index < this.index) {
      this.#lowerSince ??= at;
      if (at - this.#lowerSince < LOWERED_MS) return false;
    }
    this.#lowerSince = null;
    this.index = index;
    return true;
  }
}

export const isSameProcess = (one, other) =>
  one.process.pid === other.process.pid && one.process.began === other.process.began;

/** The name of the node that gave this status; "" with a store that only one server has. */
const nameOf = ({ process, store }) => (store.sequence === null ? "" : process.node ?? `process ${process.pid}`);

/** The nodes by name: the last status of each, and when it came. */
export class Nodes {
  #all = new Map();
  #charted = null;

  /** Take a status; return the one before it of the same node, or null. */
  take(status, at) {
    const name = nameOf(status);
    const before = this.#all.get(name)?.status ?? null;
    this.#all.set(name, { name, status, at });
    for (const node of this.#all.values()) if (at - node.at > KEPT_MS) this.#all.delete(node.name);
    if (at - (this.#all.get(this.#charted)?.at ?? -Infinity) > SERVING_MS) this.#charted = name;
    return before;
  }

  /** Those that were met in the last minutes. */
  get met() {
    return [...this.#all.values()].sort((one, other) => (one.name < other.name ? -1 : 1));
  }

  serving(at) {
    return this.met.filter((node) => at - node.at <= SERVING_MS);
  }

  /** The node whose counts are drawn: the same one as long as it answers. */
  get charted() {
    return this.#charted;
  }
}

/**
 * Each status with `at`, when it came, in milliseconds of the page's clock, and the index and the
 * digits of the number then, where they were known.
 */
export class Samples {
  #all = [];

  take(sample) {
    this.#all.push({ ...sample, node: nameOf(sample.status) });
    while (this.#all[0].at < sample.at - KEPT_MS) this.#all.shift();
  }

  /** Pairs of neighbours of this node, and the pair that spans the last `milliseconds`, or null. */
  windows(node, milliseconds) {
    const own = this.#all.filter((sample) => sample.node === node);
    const last = own.at(-1);
    const first = own.findLast((sample) => last.at - sample.at >= milliseconds) ?? own[0];
    const each = own.slice(1).map((to, before) => pair(own[before], to)).filter(Boolean);
    return { each, recent: last ? pair(first, last) : null };
  }
}

function pair(from, to) {
  const seconds = to.status.now - from.status.now;
  return seconds > 0 ? { at: to.at, from, to, seconds } : null;
}
