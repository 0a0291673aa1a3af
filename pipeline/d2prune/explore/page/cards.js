// Galleries of samples, and the arrow keys that move among them.

import { imageUrl } from "./client.js";
import { caption, make, number, status } from "./dom.js";
import { sampleAddress } from "./state.js";

// Difficulty is max(score + offset, 0): where it is 0, only an upper bound of the score is known.
export function score(value, clamped, digits = 3) {
  return (clamped ? "≤ " : "") + number(value, digits);
}

export function image(run, position, size, text) {
  const element = make("img", {
    src: imageUrl(run.run, size, position),
    alt: text ? `Image with the caption: ${text.slice(0, 80)}` : "Image without a caption",
    loading: size === "small" ? "lazy" : "eager",
    decoding: "async",
  });
  element.addEventListener("error", () => {
    element.replaceWith(make("span", { class: "none", text: "no image" }));
  });
  return make("div", { class: size === "small" ? "frame" : "large" }, element);
}

// `parameters` describe the list that the sample is shown in.
export function card(row, run, parameters) {
  const scores = make("dl", { class: "scores" });
  const values = [
    [run.score, score(row.score, row.clamped)],
    ["forward", number(row.forward)],
    ["selection", number(row.selection)],
  ];
  if (row.similarity !== undefined) values.unshift(["similarity", number(row.similarity)]);
  for (const [name, value] of values) {
    scores.append(make("dt", { text: name, title: name }), make("dd", { text: value }));
  }
  const link = make("a", { class: "card", href: sampleAddress(parameters, row.position, row.uid) },
    run.has_images ? image(run, row.position, "small", row.caption) : null,
    make("div", { class: "caption" }, caption(row.caption)), status(row, run), scores);
  return make("li", {}, link);
}

export function gallery(rows, run, parameters) {
  return make("ul", { class: "cards" }, ...rows.map((row) => card(row, run, parameters)));
}

// How many cards further an arrow key leads.
function stepOf(key, cards) {
  const top = cards[0].offsetTop;
  const wrapped = cards.findIndex((one) => one.offsetTop > top);
  const columns = wrapped < 0 ? cards.length : wrapped;
  return { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key] || 0;
}

export function hasModifier(event) {
  return event.altKey || event.ctrlKey || event.metaKey || event.shiftKey;
}

document.addEventListener("keydown", (event) => {
  const current = document.activeElement;
  if (!current.classList.contains("card") || hasModifier(event) || !event.key.startsWith("Arrow")) return;
  const cards = [...current.closest(".cards").querySelectorAll(".card")];
  const next = cards[cards.indexOf(current) + stepOf(event.key, cards)];
  if (!next) return;
  event.preventDefault();
  next.focus();
});
