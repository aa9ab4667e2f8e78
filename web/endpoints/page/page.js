// The status page: asks for /status once a second and shows it.
//
// Where the sequence stands comes as a string, and digits as text, so that all of it is exact. What a
// process has counted since it began is turned into rates here, and starts anew with another process.

import { ask, current, Problem, step } from "./asking.js";
import { Chart, KEPT_MS } from "./charts.js";
import { about, bytes, clock, date, duration, NOTHING, plural, span, whole } from "./words.js";

const POLL_MS = 1_000;
const RECENT_MS = 10_000;
/** What is shown of each end of a long number; as in /status. */
const SHOWN = 60;

const $ = (id) => document.getElementById(id);

function show(id, text) {
  // A text that stays is left alone, with what is selected of it.
  if ($(id).textContent !== text) $(id).textContent = text;
}

// What was seen: each answer of /status with `at`, when it came, in milliseconds of the page's clock.

const points = [];
const takeovers = [];
const silences = [];
let latest = null;
/** When the first question was asked that has no answer yet. */
let silentSince = null;

/** What became of `read`, a number that only grows, between two points: it falls with the process. */
function grown(from, to, read) {
  const value = read(to.status);
  if (value === null) return null;
  return isSameProcess(from.status, to.status) ? value - (read(from.status) ?? 0) : value;
}

const isSameProcess = (one, other) =>
  one.process.pid === other.process.pid && one.process.began === other.process.began;

/** The window from the point before the last `milliseconds` to the last point; null without two. */
function windowOf(milliseconds, last = points.length - 1) {
  let first = last;
  while (first > 0 && points[last].at - points[first].at < milliseconds) first -= 1;
  if (first < 0 || first === last) return null;
  const [from, to] = [points[first], points[last]];
  const seconds = to.status.now - from.status.now;
  return seconds > 0 ? { at: to.at, from, to, seconds } : null;
}

const rate = (read) => (window) => (window ? grown(window.from, window.to, read) / window.seconds : null);

/** Steps are told by the index, which says it across processes. */
function stepRate(window) {
  if (!window || window.from.status.index === null || window.to.status.index === null) return null;
  const steps = BigInt(window.to.status.index) - BigInt(window.from.status.index);
  return steps < 0n ? null : Number(steps) / window.seconds;
}

/** The mean of what a histogram took in. */
const mean = (name) => (window) => {
  if (!window) return null;
  const count = grown(window.from, window.to, (status) => counted(status[name]));
  return count ? grown(window.from, window.to, (status) => status[name]?.sum ?? null) / count : null;
};

const sum = (counts) => Object.values(counts).reduce((total, each) => total + each, 0);
const counted = (histogram) => histogram && sum(histogram.counts);

/** Within what 99 of 100 were that a histogram took in: the bound of a bucket; null if past all. */
function within(name, window) {
  const { bounds } = window.to.status[name];
  const counts = bounds.map((_, at) => grown(window.from, window.to, (s) => s[name]?.counts[at] ?? 0));
  const all = grown(window.from, window.to, (status) => counted(status[name]) ?? 0);
  let below = 0;
  return bounds.find((_, at) => (below += counts[at]) >= 0.99 * all) ?? null;
}

function latency(window) {
  const value = mean("batch_wait_seconds")(window);
  if (value === null) return NOTHING;
  const bound = within("batch_wait_seconds", window);
  return [duration(value), bound === null ? "latency" : `latency, 99 % ≤ ${duration(bound)}`];
}

const line = (name, each, write, now = (window) => write(each(window))) => ({ name, each, write, now });
const last = (read) => (window) => (window ? read(window.to.status) : null);
const ofLimit = ({ connections, limit }) => [whole(connections), `of ${whole(limit.connections)} connections`];

const charts = [
  ["Answers a second", line("steps", stepRate, about), line("reads", rate((s) => s.reads), about)],
  ["How long steps take", line("commit", mean("commit_seconds"), duration), line("latency", mean("batch_wait_seconds"), duration, latency)],
  ["Steps that share a commit", line("steps in a batch", mean("batch_steps"), about)],
  ["Connections", line("open", last((s) => s.connections), about, () => ofLimit(latest))],
  ["Memory", line("resident", last((s) => s.memory_bytes), bytes, () => bytes(latest.memory_bytes))],
  ["Length of the number", line("digits", last((s) => s.digits), about, () => whole(latest.digits ?? 0))],
].map(([title, ...lines]) => new Chart($("charts"), title, lines));

// The number.

/** Where the sequence stands, as it is shown. */
let shown = null;

function showNumber(index, digits, first, rest, integers) {
  // An answer may have been overtaken by that to a step.
  shown = index;
  show("index", whole(BigInt(index)));
  show("place", index);
  show("size", ` · ${plural(digits, "digit")}`);
  show("first", first);
  show("last", rest);
  $("number").classList.toggle("short", digits <= 20);
  const between = digits - first.length - rest.length;
  $("between").hidden = between === 0;
  show("between", `${plural(between, "digit")} between`);
  $("modulo").hidden = integers !== "uint64" || BigInt(index) <= 93n;
}

async function next() {
  const waiting = () => show("message", "No answer yet. The same step is asked for again…");
  const { index, digits } = await step(shown, waiting);
  const cut = Math.max(SHOWN, digits.length - SHOWN);
  showNumber(index, digits.length, digits.slice(0, SHOWN), digits.slice(cut), latest?.store.integers);
  return `Stepped to F(${whole(BigInt(index))}).`;
}

async function copy() {
  const { index, digits } = await current();
  try {
    await navigator.clipboard.writeText(digits);
  } catch {
    // Browsers have no clipboard on plain HTTP from elsewhere.
    const area = document.createElement("textarea");
    area.value = digits;
    area.readOnly = true;
    $("copy").after(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    $("copy").focus();
    if (!copied) throw new Problem("The browser does not let this page copy. Download it instead.");
  }
  return `Copied ${plural(digits.length, "digit")}: F(${whole(BigInt(index))}).`;
}

async function download() {
  const { index, digits } = await current();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([digits], { type: "text/plain" }));
  link.download = `fibonacci-${index}.txt`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  return `Saved ${plural(digits.length, "digit")} as ${link.download}.`;
}

for (const [id, act] of Object.entries({ next, copy, download })) {
  let busy = false;
  $(id).addEventListener("click", async () => {
    if (busy) return;
    busy = true;
    try {
      show("message", await act());
      $("message").classList.remove("bad");
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      show("message", error.message);
      $("message").classList.add("bad");
    } finally {
      busy = false;
    }
  });
}

// All else.

const AFTER = {
  stopped: "the server before was told to stop",
  failed: "a commit of the server before had failed",
  hung: "the watchdog had ended the server before, which hung",
  killed: "the server before was killed or had crashed",
};
const DURABILITY = {
  full: "no answered step is lost, not even in a power cut",
  normal: "a power cut loses the last steps",
  off: "a power cut loses steps, and may lose the database",
};

/** Whether the process that answers took over from another, and what is known of that. */
function takeoverOf({ takeovers, process }) {
  const own = takeovers.at !== null && takeovers.at >= process.began;
  return own ? `${AFTER[takeovers.after]}; the standby served ${duration(takeovers.seconds)} later` : null;
}

function showEvents() {
  const written = takeovers.map((event) => {
    if (isSameProcess(event.status, latest)) event.status = latest;
    const why = takeoverOf(event.status) ?? "the server was started anew";
    const waited = `this page waited ${duration(event.waited / 1000)}`;
    return `${clock(event.time)} Process ${event.status.process.pid} serves: ${why}; ${waited}.`;
  });
  const items = $("events").children;
  while (items.length > written.length) items[0].remove();
  while (items.length < written.length) $("events").append(document.createElement("li"));
  written.forEach((each, at) => {
    if (items[at].textContent !== each) items[at].textContent = each;
  });
}

function fact(id, value, more = "") {
  const small = document.createElement("small");
  small.textContent = more;
  if ($(id).textContent !== value + more) $(id).replaceChildren(value, small);
}

function showFacts() {
  const { now, process, standby, takeovers: taken, store, backup_copy: copy, shed_requests: shed } = latest;
  const shared = store.sequence !== null;
  fact("server", `Serving for ${span(process.uptime)}`, `process ${process.pid}, since ${date(process.began)}`);
  const there = {
    true: ["Ready", "takes over when the server ends"],
    false: ["None", "a takeover lasts as long as a start"],
    null: [shared ? "Not needed" : "Not known", shared ? "other servers of the store step as well" : ""],
  };
  fact("standby", ...there[standby]);
  const why = taken.at && `${span(now - taken.at)} ago: ${AFTER[taken.after]}, and the standby served ${duration(taken.seconds)} later`;
  fact("takeovers", whole(taken.number), why ? `the last ${why}` : "since the database was made");
  if (shared) {
    fact("store", `${store.kind}, sequence ${store.sequence}`, store.warnings.join(" "));
    fact("backup", "The store's own", "a shared store is backed up where it is");
  } else {
    fact("store", `${store.kind}, ${store.synchronous}`, DURABILITY[store.synchronous]);
    fact("backup", copy ? `${span(now - copy.at)} old` : "None yet", copy ? `made ${date(copy.at)}` : "");
  }
  const by = Object.entries(shed).filter(([, count]) => count).map(([bound, count]) => `${bound.replace("_", " ")} ${whole(count)}`);
  fact(
    "away",
    `${whole(sum(latest.rejected_requests))} rejected, ${whole(latest.unavailable)} unavailable`,
    by.length ? `shed at a limit: ${by.join(", ")}` : "4xx and 503, since the process began; none because of a limit",
  );
  show("version", `fibcore ${latest.version}`);
}

function showState(kind, word, banner = "") {
  show("state", word);
  $("state").className = `pill ${kind}`;
  $("banner").hidden = !banner;
  $("banner").classList.toggle("bad", kind === "bad");
  show("banner", banner);
  document.title = kind === "good" ? "fibcore" : `${word} – fibcore`;
}

function drawCharts(now) {
  const seconds = points.map((_, at) => windowOf(1, at)).filter(Boolean);
  const marks = takeovers.map((event) => event.at);
  const quiet = silentSince === null ? silences : [...silences, [silentSince, now]];
  for (const chart of charts) chart.draw(windowOf(RECENT_MS), seconds, marks, quiet, now);
}

function take(status, asked) {
  const at = performance.now();
  const before = latest;
  latest = status;
  const began = silentSince ?? asked;
  if (before && !isSameProcess(before, status)) {
    takeovers.push({ at, time: Date.now(), waited: at - began, status });
  }
  if (silentSince !== null) silences.push([silentSince, at]);
  silentSince = null;
  points.push({ at, status });
  while (points[0].at < at - KEPT_MS) points.shift();
  while (takeovers[0]?.at < at - KEPT_MS) takeovers.shift();
  while (silences[0]?.[1] < at - KEPT_MS) silences.shift();
  const overtaken = before && isSameProcess(before, status) && shown !== null && status.index !== null && BigInt(status.index) < BigInt(shown);
  if (status.index !== null && !overtaken) {
    showNumber(status.index, status.digits, status.first, status.last, status.store.integers);
  }
  if (status.healthy) showState("good", "Healthy");
  else showState("bad", "Unavailable", status.reason);
  showFacts();
  showEvents();
  drawCharts(at);
}

function miss(problem, asked) {
  const now = performance.now();
  silentSince ??= asked;
  // The same as long as it lasts: a reader of screens says each change.
  const since = clock(Date.now() - (now - silentSince));
  const silence = `${problem.message} It has been so since ${since}, and is asked again each second; what is shown is the last that is known.`;
  showState("warn", "No answer", silence);
  if (latest) drawCharts(now);
}

let timer = null;
let asking = false;

async function poll() {
  timer = null;
  if (document.hidden || asking) return;
  asking = true;
  const asked = performance.now();
  try {
    const answer = await ask("status");
    take(await answer.json(), asked);
  } catch (error) {
    miss(error, asked);
    if (!(error instanceof Problem)) throw error;
  } finally {
    asking = false;
    timer = setTimeout(poll, Math.max(0, asked + POLL_MS - performance.now()));
  }
}

document.addEventListener("visibilitychange", () => {
  // Who doesn't look doesn't ask.
  if (!document.hidden && timer === null) poll();
});

poll();
