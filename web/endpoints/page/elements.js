// Writes texts into the page. A text that has not changed is left alone, so that a selection in it stays.

import { plural } from "./format.js";

export const $ = (id) => document.getElementById(id);

export function show(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

/** Show the ends of a number, and how many digits are between them. */
export function showDigits(element, { digits, first, last }) {
  const parts = { first, last, between: `${plural(digits - first.length - last.length, "digit")} between` };
  for (const [name, text] of Object.entries(parts)) {
    const part = element.querySelector(`.${name}`);
    if (part.textContent !== text) part.textContent = text;
  }
  element.querySelector(".between").hidden = digits === first.length + last.length;
  element.classList.toggle("short", digits <= 20);
}

/** Show a fact: its value, and lines of detail. */
export function fact(id, value, ...more) {
  const all = [value, ...more.filter(Boolean)];
  if ($(id).textContent === all.join("")) return;
  const small = more.filter(Boolean).map((text) => {
    const element = document.createElement("small");
    element.textContent = text;
    return element;
  });
  $(id).replaceChildren(value, ...small);
}
