// What the page asks the server for. A step is made once: its answer may be lost, and then it is asked
// for again with the same key (Idempotency-Key) until it is known what became of it.

const PATIENCE_MS = 5_000;
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
    throw new Problem("No answer came.");
  }
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  throw new Problem(`${answer.status}: ${problem.detail ?? answer.statusText}`, answer.status, problem.key);
}

/** The index and the digits of an answer. */
async function numberAt(path, options = {}) {
  const answer = await ask(path, { ...options, headers: { Accept: "text/plain", ...options.headers } });
  const digits = await answer.text().catch(() => {
    throw new Problem("No answer came.");
  });
  return { index: /^"(\d+)/.exec(answer.headers.get("ETag"))[1], digits };
}

export const current = () => numberAt("current", { signal: null });

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
