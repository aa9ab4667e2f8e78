// The page's requests. A step is made once: if its answer is lost, it is requested again with the same
// key (Idempotency-Key) until its outcome is known.

export const NO_ANSWER = "The server did not answer.";
const FOREIGN = "The reply is not from fibcore: a proxy may have answered, for example with a page to log in.";
/** The ETag of a number as text, which has its index. A proxy that compresses it makes it weak. */
const TAG = /^(?:W\/)?"(\d+)(?:-uint64)?-text"$/;
const PATIENCE_MS = 5_000;
/** Computing a number that nobody has requested lately takes longer. */
const NUMBER_PATIENCE_MS = 60_000;
/** Digits shown of each end of a long number, as in /status. */
const SHOWN = 60;
/** How long a click repeats the request for a step. */
const AGAIN_MS = 60_000;
const FIRST_WAIT_MS = 100;
const LONGEST_WAIT_MS = 2_000;
/** Answers of a proxy, or of a server, that does not know the outcome of the request. */
const UNKNOWN = [500, 502, 504];

/** A failed request, with a message for a person. */
export class Problem extends Error {
  /** `status` and `key` are those of the answer, if there is one; `key` tells what is wrong with the key. */
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

/** The server's answer with a number, and its index. A 200 without its ETag is another's, and proves nothing. */
async function askNumber(path, options = {}) {
  const answer = await ask(path, { ...options, headers: { Accept: "text/plain", ...options.headers } });
  const tag = TAG.exec(answer.headers.get("ETag"));
  if (tag === null) throw new Problem(FOREIGN);
  return { answer, index: tag[1] };
}

/** The index and the digits of an answer. */
async function numberAt(path, options) {
  const { answer, index } = await askNumber(path, options);
  const digits = await answer.text().catch(() => {
    throw new Problem(NO_ANSWER);
  });
  return { index, digits };
}

export const current = () => numberAt("current", { signal: null });

/** The part of a number that is shown: the count of its digits, and the first and last of them. */
export function endsOf(digits) {
  const cut = Math.max(SHOWN, digits.length - SHOWN);
  return { digits: digits.length, first: digits.slice(0, SHOWN), last: digits.slice(cut) };
}

/** The ends of F(`index`). It is read in pieces, of which only its ends are kept. */
export async function lookUp(index) {
  const signal = AbortSignal.timeout(NUMBER_PATIENCE_MS);
  const { answer } = await askNumber(`numbers/${index}`, { cache: "default", signal });
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

/** The key of a step whose outcome is unknown: the next click requests that step again. */
let unsettled = null;

/** A key for one step: an index that the sequence has reached, and 128 random bits. */
function newKey(index) {
  const random = crypto.getRandomValues(new Uint8Array(16));
  return `${index}:${Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/** Step. `index` is the last known index; `waiting` is called each time the request is repeated. */
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
      if (performance.now() + wait > end) {
        throw new Problem(`${error.message} The next click requests the same step again, and it is made only once.`);
      }
    }
    waiting();
    await new Promise((done) => setTimeout(done, wait * (0.5 + Math.random() / 2)));
  }
}
