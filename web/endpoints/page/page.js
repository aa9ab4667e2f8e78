// The status page: requests /status once a second and shows it.
//
// The index is a string, and digits are text, so that both are exact. The counts of a process since it
// began are turned into rates here; with another process they start at 0.

import { ask, current, endsOf, lookUp, NO_ANSWER, Problem, step } from "./asking.js";
import { Chart, KEPT_MS } from "./charts.js";
import { $, fact, show, showDigits } from "./elements.js";
import { about, bytes, clock, date, duration, NOTHING, plural, sentence, span, whole } from "./format.js";
import { Highest, isSameProcess, nameOf, Nodes, Samples } from "./seen.js";

const POLL_MS = 1_000;
const RECENT_MS = 10_000;
/** Samples of a node that are further apart are not joined by a line. */
const APART_MS = 3_500;
/** An index that was not confirmed for this long is shown as stale. */
const STALE_MS = 3_000;

const highest = new Highest();
const nodes = new Nodes();
const samples = new Samples();
const takeovers = [];
const silences = [];
let latest = null;
/** When the first request was sent that has no answer yet. */
let silentSince = null;
/** The part of the number that is shown. */
let known = null;
/** When its index was last confirmed. */
let confirmed = null;

/** The growth of a counter, which `read` returns, between two samples: with another process it starts at 0. */
function grown(from, to, read) {
  const value = read(to.status);
  if (value === null) return null;
  return isSameProcess(from.status, to.status) ? value - (read(from.status) ?? 0) : value;
}

const rate = (read) => (window) => (window ? grown(window.from, window.to, read) / window.seconds : null);

/** Steps per second, from the index, whichever process made them. */
function stepRate(window) {
  if (!window || window.from.index === null || window.to.index === null) return null;
  const steps = window.to.index - window.from.index;
  return steps < 0n ? null : Number(steps) / window.seconds;
}

/** The mean of the observations of a histogram. */
const mean = (name) => (window) => {
  if (!window) return null;
  const count = grown(window.from, window.to, (status) => counted(status[name]));
  return count ? grown(window.from, window.to, (status) => status[name]?.sum ?? null) / count : null;
};

const sum = (counts) => Object.values(counts).reduce((total, each) => total + each, 0);
const counted = (histogram) => histogram && sum(histogram.counts);

/** The bound of the bucket with the 99th percentile of a histogram; null if it is past all bounds. */
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
  ["Answers per second", line("steps", stepRate, about), line("reads", rate((s) => s.reads), about)],
  ["Duration of a step", line("commit", mean("commit_seconds"), duration), line("latency", mean("batch_wait_seconds"), duration, latency)],
  ["Steps per commit", line("steps in a batch", mean("batch_steps"), about)],
  ["Connections", line("open", last((s) => s.connections), about, (window) => ofLimit(window?.to.status ?? latest))],
  ["Memory", line("resident", last((s) => s.memory_bytes), bytes, (window) => bytes((window?.to.status ?? latest).memory_bytes))],
  ["Length of the number", line("digits", (window) => window?.to.digits ?? null, about, () => (known ? whole(known.digits) : NOTHING))],
].map(([title, ...lines]) => new Chart($("charts"), title, lines));

// The number.

/** Show the number at an index that was read from the store, unless a higher one is known. */
function showNumber(index, ends, at = performance.now()) {
  if (!highest.take(index, at)) return;
  confirmed = at;
  known = ends;
  show("index", whole(highest.index));
  show("size", plural(ends.digits, "digit"));
  showDigits($("number"), ends);
  $("modulo").hidden = latest?.store.integers !== "uint64" || highest.index <= 93n;
}

async function next() {
  const waiting = () => show("message", "No answer yet. Requesting the same step again…");
  const { index, digits } = await step(highest.index, waiting);
  showNumber(index, endsOf(digits));
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

/** The problem in the message, and when it was shown. */
let failed = null;

for (const [id, act] of Object.entries({ next, copy, download })) {
  let busy = false;
  $(id).addEventListener("click", async () => {
    if (busy) return;
    busy = true;
    try {
      show("message", await act());
      failed = null;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      show("message", error.message);
      failed = { problem: error, at: performance.now() };
    } finally {
      $("message").classList.toggle("bad", failed !== null);
      busy = false;
    }
  });
}

/** Remove the message of a problem that is over: the request sent at `asked` has been answered. */
function recover(before, status, asked) {
  if (failed === null || asked < failed.at) return;
  const { problem } = failed;
  const usable = problem.status === 503 && before?.healthy === false && status.healthy;
  if (problem.status !== null && !usable) return;
  // The message of a step that is still to be repeated stays, but is no alarm.
  if (usable || problem.message === NO_ANSWER) show("message", "");
  $("message").classList.remove("bad");
  failed = null;
}

let lookups = 0;

$("lookup").addEventListener("submit", async (event) => {
  event.preventDefault();
  const own = (lookups += 1);
  const text = $("wanted").value.replace(/[\s,_.'’]/g, "").replace(/^0+(?=\d)/, "");
  $("looked").hidden = true;
  let bad = true;
  try {
    if (!/^\d+$/.test(text)) throw new Problem("The index must be a whole number, 0 or greater.");
    show("found", `Computing F(${whole(BigInt(text))})…`);
    const ends = await lookUp(text);
    if (own !== lookups) return;
    const modulo = latest?.store.integers === "uint64" && BigInt(text) > 93n ? ", modulo 2^64" : "";
    show("found", `F(${whole(BigInt(text))}) has ${plural(ends.digits, "digit")}${modulo}.`);
    showDigits($("looked"), ends);
    $("looked").hidden = false;
    bad = false;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (own === lookups) show("found", error.message);
  } finally {
    if (own === lookups) $("found").classList.toggle("bad", bad);
  }
});

// The rest of the page.

/** As in fibcore/appliance/takeover_history.py. */
const ENDINGS = {
  stopped: "was stopped",
  failed: "exited because a commit failed",
  hung: "hung and was ended by the watchdog",
  killed: "was killed or crashed",
};
const DURABILITY = {
  full: "no acknowledged step is lost, not even in a power cut",
  normal: "a power cut may lose the last steps",
  off: "a power cut may lose steps or the whole database",
};

/** A clause on how the process that answers took over; null if it did not. */
function takeoverOf({ takeovers, process }) {
  const own = takeovers.at !== null && takeovers.at >= process.began;
  return own ? `took over: the previous server ${ENDINGS[takeovers.after]}; the standby served ${duration(takeovers.seconds)} later` : null;
}

function showEvents() {
  const written = takeovers.map((event) => {
    const how = takeoverOf(event.status) ?? "serves: the server was restarted";
    const waited = `this page waited ${duration(event.waited / 1000)}`;
    const at = event.node && ` at ${event.node}`;
    return `${date(event.time)} – Process ${event.status.process.pid}${at} ${how}; ${waited}.`;
  });
  const items = $("events").children;
  while (items.length > written.length) items[0].remove();
  while (items.length < written.length) $("events").append(document.createElement("li"));
  written.forEach((each, at) => {
    if (items[at].textContent !== each) items[at].textContent = each;
  });
}

const node = (at) => ({ name, status, at: seen }) => {
  const health = status.healthy ? "healthy" : "unavailable";
  const age = at - seen < APART_MS * nodes.met.length ? "" : `, last seen ${span((at - seen) / 1_000)} ago`;
  return `${sentence(name)}: process ${status.process.pid}, ${health}, serving for ${span(status.process.uptime)}${age}`;
};

function showFacts(at) {
  const { now, process, standby, takeovers: taken, store, backup_copy: copy, shed_requests: shed } = latest;
  const shared = store.sequence !== null;
  show("who", shared ? "Nodes" : "Server");
  if (shared) fact("server", `${plural(new Set(nodes.met.map(({ name }) => name)).size, "node")} in the last 5 minutes`, ...nodes.met.map(node(at)));
  else fact("server", `Serving for ${span(process.uptime)}`, `process ${process.pid}`, `since ${date(process.began * 1_000)}`);
  const there = {
    true: ["Ready", "takes over when the server ends"],
    false: ["None", "a takeover takes as long as a start"],
    null: ["Unknown"],
  };
  // All nodes of a shared store step: none stands by, and none takes over.
  for (const id of ["standby", "takeovers"]) $(id).parentElement.hidden = shared;
  $("server").parentElement.classList.toggle("wide", shared);
  fact("standby", ...there[standby]);
  const why = taken.at && `last ${span(now - taken.at)} ago: the previous server ${ENDINGS[taken.after]}; the standby served ${duration(taken.seconds)} later`;
  fact("takeovers", whole(taken.number), why || "since the database was created");
  if (shared) {
    fact("store", `${store.kind}, sequence ${store.sequence}`, store.warnings.join(" "));
    fact("backup", "None here", "back up the shared store itself");
  } else {
    fact("store", `${store.kind}, ${store.synchronous}`, DURABILITY[store.synchronous]);
    fact("backup", copy ? `${span(now - copy.at)} old` : "None yet", copy ? `made ${date(copy.at * 1_000)}` : "");
  }
  const by = Object.entries(shed).filter(([, count]) => count).map(([bound, count]) => `${bound.replace("_", " ")} ${whole(count)}`);
  fact(
    "away",
    `${whole(sum(latest.rejected_requests))} rejected, ${whole(latest.unavailable)} unavailable`,
    by.length ? `by limit: ${by.join(", ")}` : "4xx and 503 since the process began; none because of a limit",
  );
  show("version", `fibcore ${latest.version}`);
}

/** Show that all is healthy, or which node is not, and why. */
function showHealth(at) {
  const serving = nodes.serving(at);
  const unavailable = serving.filter(({ status }) => !status.healthy);
  if (unavailable.length === 0) showState("good", "Healthy");
  else if (unavailable.length === serving.length) showState("bad", "Unavailable", latest.reason);
  else {
    const which = unavailable.map(({ name, status }) => `${sentence(name)}: ${status.reason}`).join(" ");
    showState("warn", "Degraded", `${unavailable.length} of ${serving.length} processes unavailable. ${which}`);
  }
}

/** Show values that are not confirmed as stale, with their age. */
function showAge(now) {
  const stale = silentSince !== null || (confirmed !== null && now - confirmed > STALE_MS);
  document.body.classList.toggle("stale", stale);
  $("age").hidden = !stale || confirmed === null;
  if (stale && confirmed !== null) show("age", `Last known ${span((now - confirmed) / 1_000)} ago`);
}

function showState(kind, word, banner = "") {
  show("state", word);
  $("state").className = `pill ${kind}`;
  $("state").hidden = false;
  $("banner").hidden = !banner;
  $("banner").classList.toggle("bad", kind === "bad");
  show("banner", banner);
  document.title = kind === "good" ? "fibcore" : `${word} – fibcore`;
}

function drawCharts(now) {
  const { each, recent } = samples.windows(nodes.charted?.id, RECENT_MS);
  const serving = nodes.serving(now).length;
  const apart = APART_MS * Math.max(1, serving);
  const whose = nodes.met.length > 1 ? `, for ${nodes.charted.name}, process ${nodes.charted.status.process.pid}` : "";
  show("charted", `Averages over the last 10 seconds; charts of the last minutes${whose}`);
  const marks = takeovers.map((event) => event.at);
  const quiet = silentSince === null ? silences : [...silences, [silentSince, now]];
  for (const chart of charts) chart.draw(recent, each, marks, quiet, now, apart);
}

function take(status, number, asked) {
  const at = performance.now();
  const [before, began] = [latest, silentSince ?? asked];
  latest = status;
  const { id, replaced } = nodes.take(status, at);
  if (replaced) {
    takeovers.push({ at, time: Date.now(), waited: at - began, status, node: nameOf(status) });
  }
  if (silentSince !== null) silences.push([silentSince, at]);
  silentSince = null;
  recover(before, status, asked);
  if (number) showNumber(number.index, number.ends, at);
  else if (!known) show("first", "unknown");
  samples.take({ id, at, status, index: number && highest.index, digits: number && known.digits });
  while (takeovers[0]?.at < at - KEPT_MS) takeovers.shift();
  while (silences[0]?.[1] < at - KEPT_MS) silences.shift();
  showHealth(at);
  showAge(at);
  showFacts(at);
  showEvents();
  drawCharts(at);
}

function miss(problem, asked) {
  const now = performance.now();
  silentSince ??= asked;
  // The text stays the same while it lasts: screen readers announce each change.
  const since = clock(Date.now() - (now - silentSince));
  const what = problem.status ? `The server returned ${problem.message}, since ${since}.` : `Can't reach the server since ${since}.`;
  const values = latest ? "Retrying every second; the values below are the last known." : "Retrying every second.";
  showState("warn", "No answer", `${what} ${values}`);
  showAge(now);
  if (latest) drawCharts(now);
}

/** The index, which was read from the store, and the ends of its number; null if it is unknown. */
const numberOf = ({ index, digits, first, last }) => (index === null ? null : { index, ends: { digits, first, last } });

let timer = null;
let asking = false;

async function poll() {
  timer = null;
  if (document.hidden || asking) return;
  asking = true;
  const asked = performance.now();
  try {
    const answer = await ask("status");
    const status = await answer.json();
    take(status, numberOf(status), asked);
  } catch (error) {
    miss(error, asked);
    if (!(error instanceof Problem)) throw error;
  } finally {
    asking = false;
    timer = setTimeout(poll, Math.max(0, asked + POLL_MS - performance.now()));
  }
}

document.addEventListener("visibilitychange", () => {
  // A hidden page requests nothing.
  if (!document.hidden && timer === null) poll();
});

for (const id of ["live", "state"]) $(id).hidden = false;
poll();
