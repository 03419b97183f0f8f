// Words for numbers and times.
//
// Times are told by the server's clock (its Date header), so that a laptop with a wrong clock does
// not tell nonsense. Elements that say how long ago something was are kept right by `tick`.

import { h } from "./dom.js";

const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
const BYTES = ["B", "kB", "MB", "GB", "TB", "PB"];

let clockOffsetMs = 0;

// Takes the server's clock from an answer's Date header, where it has one.
export function setClock(date) {
  clockOffsetMs = Date.parse(date) - Date.now() || 0;
}

export function secondsSince(time) {
  return Math.max(0, (Date.now() + clockOffsetMs - Date.parse(time)) / 1000);
}

// "5 min ago", and the moment itself on hover.
export function ago(time) {
  return h("time", { datetime: time, "data-words": "ago", title: moment(time) }, agoWords(time));
}

// "5 min", for "no answer for …".
export function span(time) {
  return h("time", { datetime: time, "data-words": "span", title: moment(time) }, spanWords(time));
}

const agoWords = (time) => secondsSince(time) < 1 ? "just now" : `${spanWords(time)} ago`;
const spanWords = (time) => duration(secondsSince(time));

// Brings every relative time of the document up to now.
export function tick() {
  for (const element of document.querySelectorAll("time[data-words]")) {
    const words = element.dataset.words === "ago" ? agoWords : spanWords;
    const text = words(element.dateTime);
    if (element.textContent !== text) element.textContent = text;
  }
}

export function moment(time) {
  return new Date(time).toLocaleString();
}

export function duration(seconds) {
  const [unit, length] = UNITS.find(([, length]) => seconds >= length) ?? UNITS.at(-1);
  return `${number(Math.floor(seconds / length))} ${unit}`;
}

export function bytes(count) {
  let unit = 0;
  for (; count >= 999.5 && unit < BYTES.length - 1; unit += 1) count /= 1000;
  return `${unit ? count.toPrecision(3) : count} ${BYTES[unit]}`;
}

export function number(count) {
  return count.toLocaleString("en");
}

export function plural(count, word) {
  return `${number(count)} ${word}${count === 1 ? "" : "s"}`;
}

// Versions are 64-bit integers, of which JavaScript's numbers hold 53 bits; larger ones stay text.
export function parse(text) {
  return /[:[,\s]\d{16}/.test(text) ? JSON.parse(text, keepLargeNumbers) : JSON.parse(text);
}

function keepLargeNumbers(key, value, context) {
  const lost = Number.isInteger(value) && !Number.isSafeInteger(value);
  return lost && context ? context.source : value;
}

export function sortVersions(versions) {
  return [...new Set(versions)].sort((a, b) => (BigInt(a) < BigInt(b) ? -1 : 1));
}
