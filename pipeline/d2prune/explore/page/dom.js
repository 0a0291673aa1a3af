// Builds DOM elements. Text is set as textContent only; no string is ever parsed as HTML.

export const at = (id) => document.getElementById(id);

export function make(name, options = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(options)) {
    if (key === "text") element.textContent = value;
    else if (key === "class") element.className = value;
    else if (value !== false && value !== null) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

export function number(value, digits = 3) {
  return value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−");
}

export function percent(share, digits = 0) {
  return `${(100 * share).toFixed(digits)}%`;
}

export function count(value) {
  return value.toLocaleString("en");
}

export function samples(value) {
  return `${count(value)} ${value === 1 ? "sample" : "samples"}`;
}

// <bdi> isolates each caption, so that direction marks in it do not affect the text around it.
export function caption(text) {
  return make("bdi", { text: text || "(no caption)", dir: "auto" });
}

export function fail(element, error) {
  element.className = "error";
  element.textContent = String(error.message || error);
}

const STATUS = {
  kept: "kept",
  "below-budget": "dropped: below budget",
  "cut-off": "dropped: cut off",
  duplicate: "dropped: duplicate",
  "near-duplicate": "dropped: near-duplicate",
};

export function statusText(reason) {
  return STATUS[reason] || reason;
}

// `run` where the row has scores: they say why a sample is below the budget.
export function status(row, run = null) {
  const isSuppressed = run && row.reason === "below-budget" && run.suppressed_from !== null
    && row.forward >= run.suppressed_from;
  const text = isSuppressed ? "dropped: suppressed" : statusText(row.reason);
  return make("span", { class: `status ${row.kept ? "kept" : "dropped"}`, text });
}

export function tableRow(label, ...cells) {
  const head = make("th", { scope: "row" });
  head.append(label);
  return make("tr", {}, head, ...cells.map((cell) => {
    const data = make("td");
    data.append(cell);
    return data;
  }));
}

// The buttons below a list. `turn` gets the first row of the page to show.
export function showPages(nav, start, shown, total, size, turn) {
  const [previous, text, next] = nav.children;
  nav.hidden = false;
  text.textContent = total ? `${count(start + 1)} to ${count(start + shown)} of ${count(total)}` : "\u00a0";
  previous.disabled = start === 0;
  next.disabled = start + size >= total;
  previous.onclick = () => turn(Math.max(0, start - size));
  next.onclick = () => turn(start + size);
}
