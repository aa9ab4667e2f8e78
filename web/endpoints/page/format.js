// How values are written. An index is a string or a BigInt: JavaScript's numbers are exact only up to
// 2^53.

const grouped = new Intl.NumberFormat("en");
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export const NOTHING = "–";

/** A whole number, with its digits in groups. */
export const whole = (value) => grouped.format(value);

/** A number, rounded: 12,345 or 0.4. */
export function about(value) {
  if (value === null) return NOTHING;
  return Math.abs(value) < 100 ? tenths.format(value) : grouped.format(Math.round(value));
}

/** A duration in seconds, rounded, with a suitable unit. */
export function duration(seconds) {
  if (seconds === null) return NOTHING;
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${Number((seconds * 1000).toPrecision(2))} ms`;
  return `${tenths.format(seconds)} s`;
}

/** A duration in its two largest units. */
export function span(seconds) {
  const units = [["d", 86_400], ["h", 3_600], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, size]) => seconds >= size);
  if (first === -1) return "0 s";
  let left = Math.floor(seconds);
  return units
    .slice(first, first + 2)
    .map(([name, size]) => {
      const count = Math.floor(left / size);
      left -= count * size;
      return count ? `${whole(count)} ${name}` : "";
    })
    .filter(Boolean)
    .join(" ");
}

/** A size in bytes. */
export function bytes(value) {
  for (const [name, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (value >= size) return `${about(value / size)} ${name}`;
  }
  return `${whole(value)} B`;
}

const zones = new Intl.DateTimeFormat("en-GB", { timeZoneName: "short" });
const zone = (moment) => zones.formatToParts(moment).find(({ type }) => type === "timeZoneName").value;

/** The time of day, with its zone, of a moment in milliseconds since 1970. */
export const clock = (moment) => `${new Date(moment).toLocaleTimeString("en-GB")} ${zone(moment)}`;

/** The day and time, with its zone, of a moment in milliseconds since 1970. */
export const date = (moment) => `${new Date(moment).toLocaleString("sv-SE")}\u00a0${zone(moment)}`;

/** How often something happened. */
export const times = (count) => ["never", "once", "twice"][count] ?? `${whole(count)} times`;

/** The text with a capital letter. */
export const sentence = (text) => text[0].toUpperCase() + text.slice(1);

export const plural = (count, one, many = `${one}s`) => `${whole(count)} ${count === 1 ? one : many}`;
