// What the page asks the server for. A step is made once: its answer may be lost, and then it is asked
// for again with the same key (Idempotency-Key) until it is known what became of it.

export const NO_ANSWER = "No answer came.";
const PATIENCE_MS = 5_000;
/** Computing a number that nobody has asked for lately takes longer. */
const NUMBER_PATIENCE_MS = 60_000;
/** Digits that are kept of each end of a long number; as in /status. */
const SHOWN = 60;
/** How long a step is asked for again at a click. */
const AGAIN_MS = 60_000;
const FIRST_WAIT_MS = 100;
const LONGEST_WAIT_MS = 2_000;
/** A proxy's answers, or of a server that does not know what became of the request. */
const UNKNOWN = [500, 502, 504];

/** An answer that says what to do, for a person. */
export class Problem extends Error {
  /** `status` and `key` are the answer's, if there is one; `key` says what is wrong with the key. */
  constructor(message, status = null, key = null) {
    super(message);
    this.status = status;
    this.key = key;
  }
}

export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS), ...options });
  } catch {
    throw new Problem(NO_ANSWER);
  }
  if (answer.ok || answer.status === 304) return answer;
  const problem = await answer.json().catch(() => ({}));
  throw new Problem(`${answer.status}: ${problem.detail ?? answer.statusText}`, answer.status, problem.key);
}

/** The index and the digits of an answer. */
async function numberAt(path, options = {}) {
  const answer = await ask(path, { ...options, headers: { Accept: "text/plain", ...options.headers } });
  const digits = await answer.text().catch(() => {
    throw new Problem(NO_ANSWER);
  });
  return { index: /^"(\d+)/.exec(answer.headers.get("ETag"))[1], digits };
}

export const current = () => numberAt("current", { signal: null });

/** What is shown of a number: how many digits it has, and the first and the last of them. */
export function endsOf(digits) {
  const cut = Math.max(SHOWN, digits.length - SHOWN);
  return { digits: digits.length, first: digits.slice(0, SHOWN), last: digits.slice(cut) };
}

/** The last number that `committed` returned, and its tag. */
let seen = { tag: '""' };

/** The index that the store returns now, which other nodes step too, and the ends of its number. */
export async function committed() {
  const answer = await ask("current", { headers: { Accept: "text/plain", "If-None-Match": seen.tag } });
  if (answer.status === 304) return seen;
  const tag = answer.headers.get("ETag");
  const digits = await answer.text().catch(() => {
    throw new Problem(NO_ANSWER);
  });
  seen = { tag, index: /^"(\d+)/.exec(tag)[1], ends: endsOf(digits) };
  return seen;
}

/** The ends of F(`index`). It is read in pieces: no more than its ends is kept. */
export async function lookUp(index) {
  const signal = AbortSignal.timeout(NUMBER_PATIENCE_MS);
  const answer = await ask(`numbers/${index}`, { cache: "default", headers: { Accept: "text/plain" }, signal });
  const found = { digits: 0, first: "", last: "" };
  const ascii = new TextDecoder();
  const pieces = answer.body.getReader();
  for (;;) {
    const { value, done } = await pieces.read().catch(() => {
      throw new Problem(NO_ANSWER);
    });
    if (done) break;
    found.digits += value.length;
    if (found.first.length < SHOWN) found.first += ascii.decode(value.subarray(0, SHOWN - found.first.length));
    found.last = (found.last + ascii.decode(value.subarray(-SHOWN))).slice(-SHOWN);
  }
  const apart = Math.min(SHOWN, Math.max(0, found.digits - SHOWN));
  found.last = found.last.slice(found.last.length - apart);
  return found;
}

/** The key of a step that nobody knows the outcome of: the next click asks for that one again. */
let unsettled = null;

/** A key for one step: an index that the sequence had reached before it, and 128 random bits. */
function newKey(index) {
  const random = crypto.getRandomValues(new Uint8Array(16));
  return `${index}:${Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/** Step. `index` is where the sequence was last seen; `waiting` is called where it takes longer. */
export async function step(index, waiting) {
  const key = unsettled ?? newKey(index ?? (await current()).index);
  const request = { method: "POST", headers: { "Idempotency-Key": `"${key}"` } };
  const end = performance.now() + AGAIN_MS;
  for (let wait = FIRST_WAIT_MS; ; wait = Math.min(2 * wait, LONGEST_WAIT_MS)) {
    try {
      const number = await numberAt("next", request);
      unsettled = null;
      return number;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (error.status === null || UNKNOWN.includes(error.status) || error.key === "outstanding") unsettled = key;
      else if (error.status === 409) unsettled = null;
      if (unsettled === null) throw error;
    }
    if (performance.now() + wait > end) {
      throw new Problem("No answer came. The next click asks for the same step again: it is made once.");
    }
    waiting();
    await new Promise((done) => setTimeout(done, wait * (0.5 + Math.random() / 2)));
  }
}
