// The charts: lines over the last minutes, with a mark where another process took over, and a band
// where there was no answer.

import { plural, sentence, times } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const HEIGHT = 80;

export const KEPT_MS = 300_000;
/** The spans of a chart, in minutes: the first one that all samples fit in is used. */
const MINUTES = [1, 2, 5];

function element(parent, name, properties = {}) {
  const made = document.createElement(name);
  Object.assign(made, properties);
  parent.append(made);
  return made;
}

/** The next larger of 1, 2, 5, 10, 20, ... */
function ceiling(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10, 20].map((each) => each * power).find((each) => each > value);
}

/**
 * A card with up to two lines, and their names and values above them.
 *
 * Each of `lines` has a `name`, and functions: `now` returns the text that is shown, for the window of
 * the last seconds; `each` the value that is drawn, or null, for a window of a second; and `write` the
 * text of such a value.
 */
export class Chart {
  constructor(parent, title, lines) {
    this.title = title;
    this.lines = lines;
    const card = element(parent, "article", { className: "card" });
    element(card, "h3", { textContent: title });
    const values = element(card, "div", { className: "values" });
    lines.forEach((line, at) => {
      const value = element(values, "p", { className: ["one", "two"][at] });
      line.value = element(value, "span");
      line.label = element(value, "small");
    });
    const figure = element(card, "figure");
    this.most = element(figure, "span", { className: "most", ariaHidden: "true" });
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.svg.setAttribute("preserveAspectRatio", "none");
    this.svg.setAttribute("role", "img");
    figure.append(this.svg);
    const caption = element(figure, "figcaption", { ariaHidden: "true" });
    this.start = element(caption, "span");
    element(caption, "span", { textContent: "now" });
    this.silent = this.#path("silent");
    this.#path("grid").setAttribute("d", `M0 ${HEIGHT}H${WIDTH}M0 ${HEIGHT / 2}H${WIDTH}M0 0H${WIDTH}`);
    for (const [at, line] of lines.entries()) line.path = this.#path(["one", "two"][at]);
    this.events = this.#path("event");
  }

  #path(name) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("class", name);
    this.svg.append(path);
    return path;
  }

  /**
   * Draw `points`, the moments of `takeovers`, and the `silences`: pairs of moments. Points further
   * apart than `apart` milliseconds are not joined, as while the page was hidden.
   */
  draw(recent, points, takeovers, silences, now, apart) {
    const oldest = now - Math.min(now, ...points.map(({ at }) => at));
    const minutes = MINUTES.find((each) => oldest <= each * 60_000) ?? MINUTES.at(-1);
    this.start.textContent = `${minutes} min ago`;
    const x = (at) => (WIDTH * Math.max(0, 1 - (now - at) / (minutes * 60_000))).toFixed(1);
    const drawn = this.lines.map((line) => points.map((point) => [point.at, line.each(point)]));
    const largest = drawn.map((line) => Math.max(0, ...line.map(([, value]) => value ?? 0)));
    const top = ceiling(Math.max(...largest));
    const few = points.length < 2;
    const empty = drawn.flat().every(([, value]) => value === null);
    this.most.textContent = few ? "collecting…" : empty ? "no data yet" : this.lines[0].write(top);
    const descriptions = this.lines.map((line, number) => {
      let d = "";
      let before = null;
      for (const [at, value] of drawn[number]) {
        if (value === null) {
          before = null;
          continue;
        }
        const y = (HEIGHT * (1 - value / top)).toFixed(1);
        const joined = before !== null && at - before < apart;
        d += joined ? `L${x(at)} ${y}` : `M${x(at)} ${y}h1`;
        before = at;
      }
      line.path.setAttribute("d", d);
      const [value, label = line.name] = [line.now(recent)].flat();
      line.value.textContent = value;
      line.label.textContent = label;
      if (few) return `${label}: ${value}, collecting.`;
      if (drawn[number].every(([, each]) => each === null)) return `${label}: no data yet.`;
      return `${label}: ${value}, at most ${line.write(largest[number])}.`;
    });
    this.events.setAttribute("d", takeovers.map((at) => `M${x(at)} ${HEIGHT}V0`).join(""));
    this.silent.setAttribute(
      "d",
      silences.map(([from, to]) => `M${x(from)} 0H${x(to)}V${HEIGHT}H${x(from)}Z`).join(""),
    );
    const taken = takeovers.length ? ` Taken over ${times(takeovers.length)}.` : "";
    const alternative = `${this.title} in the last ${plural(minutes, "minute")}. ${descriptions.map(sentence).join(" ")}${taken}`;
    this.svg.setAttribute("aria-label", alternative);
  }
}
