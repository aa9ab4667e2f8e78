// What the page has seen: the index, the nodes that answered, and their counts.
//
// Behind a load balancer another node may answer each time, and at a node of a shared store either of
// its two processes. Counts are compared with earlier ones of the same server: a process, or one that
// took its place. The index that a node shows was read from the store, but may
// be some seconds old: the highest one counts.

import { KEPT_MS } from "./charts.js";

/** How long all answers must be lower before the page takes it that a person has lowered the index. */
const LOWERED_MS = 5_000;
/** A server that has not answered for this long no longer counts as serving. */
export const SERVING_MS = 15_000;

/** The highest index seen: a late answer, or one from a node that is behind, does not change it. */
export class Highest {
  /** A BigInt, or null. */
  index = null;
  #lowerSince = null;

  /** Take an index (a string) that was received at `at`; return whether it is to be shown. */
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

/** The name of the node with this status; "" if the store is not shared. */
export function nameOf({ process, store }) {
  if (store.sequence === null) return "";
  return process.node ? `node ${process.node}` : `process ${process.pid}`;
}

/** The servers, each with the name of its node, its last status, and when that was received. */
export class Nodes {
  #all = new Map();
  #charted = null;
  #number = 0;

  /**
   * Take a status; return the server, and the status of the process whose place its process took, or null.
   *
   * Those of a shared store serve side by side, so a process takes the place of one that has not
   * answered since it began.
   */
  take(status, at) {
    const name = nameOf(status);
    const own = [...this.#all.values()].filter((each) => each.name === name);
    const before =
      own.find((each) => isSameProcess(each.status, status)) ??
      own.find((each) => status.store.sequence === null || each.status.now <= status.process.began);
    const id = before?.id ?? (this.#number += 1);
    this.#all.set(id, { id, name, status, at });
    for (const each of this.#all.values()) if (at - each.at > KEPT_MS) this.#all.delete(each.id);
    if (at - (this.charted?.at ?? -Infinity) > SERVING_MS) this.#charted = id;
    return { id, replaced: before && !isSameProcess(before.status, status) ? before.status : null };
  }

  /** The servers that answered in the last minutes. */
  get met() {
    return [...this.#all.values()].sort((one, other) => one.name.localeCompare(other.name));
  }

  serving(at) {
    return this.met.filter((each) => at - each.at <= SERVING_MS);
  }

  /** The server whose counts are drawn: the same one while it answers. */
  get charted() {
    return this.#all.get(this.#charted) ?? null;
  }
}

/**
 * Each status with `id`, that of its server; `at`, when it was received, in milliseconds of the page's
 * clock; and the index and the digits of the number at that time, if known.
 */
export class Samples {
  #all = [];

  take(sample) {
    this.#all.push(sample);
    while (this.#all[0].at < sample.at - KEPT_MS) this.#all.shift();
  }

  /** Pairs of successive samples of this server, and the pair that spans the last `milliseconds`, or null. */
  windows(id, milliseconds) {
    const own = this.#all.filter((sample) => sample.id === id);
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
