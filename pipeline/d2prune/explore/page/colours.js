// Colours of the map's points, for colour-blind readers too, and their legend.

import { count, number, statusText } from "./dom.js";

// Okabe and Ito's colours, then Tol's muted ones.
const CLUSTERS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999933", "#882255",
  "#44aa99", "#aa4499", "#6b7fd7", "#b8860b"];
const REASONS = { kept: "--kept", "below-budget": "--dropped", "cut-off": "#cc79a7", duplicate: "#009e73",
  "near-duplicate": "#999933" };
const OTHER = "#8a8f96";
// Cividis without its ends, which are too faint on white or on black.
const RAMP = ["#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#d9c556"];
const RAMP_DARK = ["#3f62a8", "#5b7096", "#727f92", "#8a8d8f", "#a39d8a", "#bcae80", "#d8c46c", "#fee838"];
const [STRONG, FAINT] = [215, 16];

const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;

function toRgb(colour) {
  const name = colour.startsWith("--")
    ? getComputedStyle(document.documentElement).getPropertyValue(colour).trim() : colour;
  return [1, 3, 5].map((start) => Number.parseInt(name.slice(start, start + 2), 16));
}

// The classes of points for a way to colour them: a name and colour each, and the class of each point.
export function classify(way, points, clusterNames, scoreName) {
  if (way === "score") return classifyScores(points, scoreName);
  if (way === "cluster") {
    const names = new Map(clusterNames.map((row) => [row.number, row.name]));
    const numbers = [...names.keys()].sort((a, b) => a - b);
    const classes = numbers.map((n) => ({ name: names.get(n), colour: CLUSTERS[n % CLUSTERS.length] }));
    const at = new Map(numbers.map((n, index) => [n, index]));
    classes.push({ name: "no cluster", colour: OTHER });
    return { classes, of: Array.from(points.cluster, (n) => at.get(n) ?? numbers.length) };
  }
  if (way === "reason") {
    const classes = points.reasons.map((name) =>
      ({ name: statusText(name), colour: REASONS[name] || OTHER }));
    return { classes, of: points.reason };
  }
  return {
    classes: [{ name: "dropped", colour: "--dropped" }, { name: "kept", colour: "--kept" }], of: points.kept,
  };
}

function classifyScores(points, scoreName) {
  const sorted = Float32Array.from(points.score).sort();
  const at = (share) => sorted[Math.floor(share * (sorted.length - 1))] || 0;
  // Outliers would leave one colour for all others.
  const [low, high] = [at(0.02), at(0.98)];
  const ramp = isDark() ? RAMP_DARK : RAMP;
  const step = (high - low) / ramp.length || 1;
  const of = Uint8Array.from(points.score, (score) =>
    Math.max(0, Math.min(ramp.length - 1, Math.floor((score - low) / step))));
  const classes = ramp.map((colour, index) => {
    const from = number(low + index * step);
    const to = number(low + (index + 1) * step);
    const last = ramp.length - 1;
    const range = index === 0 ? `below ${to}` : index === last ? `from ${from}` : `${from} to ${to}`;
    return { name: `${scoreName} ${range}`, colour };
  });
  return { classes, of };
}

// The bytes of all points. `only`: the class to show, the others are faint; null: all.
export function paint({ classes, of }, only, isPicked) {
  const rgb = classes.map(({ colour }) => toRgb(colour));
  const bytes = new Uint8Array(4 * of.length);
  for (let i = 0; i < of.length; i += 1) {
    const shown = (only === null || of[i] === only) && (!isPicked || isPicked[i]);
    bytes.set(rgb[of[i]], 4 * i);
    bytes[4 * i + 3] = shown ? STRONG : FAINT;
  }
  return bytes;
}

// Class, colour and text of each entry; classes without points are left out.
export function legend({ classes, of }) {
  const totals = new Array(classes.length).fill(0);
  for (const one of of) totals[one] += 1;
  return classes
    .map(({ name, colour }, index) => {
      return { index, rgb: toRgb(colour), text: `${name} (${count(totals[index])})` };
    })
    .filter(({ index }) => totals[index]);
}
