// Builds DOM elements from records. Text is set as textContent only; no string is ever parsed as HTML.

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

// Difficulty is max(score + offset, 0): where it is 0, only an upper bound of the score is known.
function score(value, clamped, digits = 3) {
  return (clamped ? "≤ " : "") + number(value, digits);
}

export function count(value) {
  return value.toLocaleString("en");
}

// <bdi> isolates each caption, so that direction marks in it do not affect the text around it.
export function caption(text) {
  return make("bdi", { text: text || "(no caption)", dir: "auto" });
}

export function image(position, size, text) {
  const frame = make("div", { class: size === "large" ? "large" : "frame" });
  const element = make("img", {
    src: `/image/${size}/${position}`,
    alt: text ? `Image with the caption: ${text.slice(0, 80)}` : "Image without a caption",
    loading: size === "large" ? "eager" : "lazy",
    decoding: "async",
  });
  element.addEventListener("error", () => element.replaceWith(make("span", { class: "none", text: "no image" })));
  frame.append(element);
  return frame;
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

function status(row) {
  return make("span", { class: `status ${row.kept ? "kept" : "dropped"}`, text: statusText(row.reason) });
}

export function card(row, scoreName) {
  const scores = make("dl", { class: "scores" });
  const values = [
    [scoreName, score(row.score, row.clamped)],
    ["forward", number(row.forward)],
    ["selection", number(row.selection)],
  ];
  for (const [name, value] of values) {
    scores.append(make("dt", { text: name }), make("dd", { text: value }));
  }
  const link = make("a", { class: "card", href: `#/sample/${row.position}` },
    image(row.position, "small", row.caption),
    make("div", { class: "caption" }, caption(row.caption)), status(row), scores);
  return make("li", {}, link);
}

// A long caption scrolls in its own box; tabindex lets the keyboard reach it.
function captionBox(text) {
  const scrolls = (text || "").length > 300;
  const focusable = scrolls ? { tabindex: "0", role: "region", "aria-label": "Caption" } : {};
  return make("p", { class: "caption-box", ...focusable }, caption(text));
}

function row(label, value, note) {
  const head = make("th", { scope: "row" });
  head.append(label, ...(note ? [make("br"), make("small", { text: note })] : []));
  return make("tr", {}, head, make("td", { class: "n", text: value }));
}

function neighbourCount(number) {
  return `${number} ${number === 1 ? "neighbour" : "neighbours"}`;
}

function scoreTable(explanation, scoreName, offset) {
  const support = explanation.neighbours.reduce((total, n) => total + n.support_received, 0);
  const suppression = explanation.neighbours.reduce((total, n) => total + n.suppression_received, 0);
  const suppressors = explanation.neighbours.filter((n) => n.suppression_received > 0).length;
  const { difficulty, selection_score: selection } = explanation.sample;
  const clamped = difficulty === 0;
  const own = score(difficulty - offset, clamped, 4);
  if (explanation.method !== "d2") {
    return make("table", { class: "score" }, make("tbody", {}, row(scoreName, own),
      row(`selection score by ${explanation.method}`, number(selection, 4))));
  }
  const sum = `${own} + ${number(offset, 4)}${clamped ? "; negative sums count as 0" : ""}`;
  const body = make("tbody", {},
    row(`${scoreName} + offset`, number(difficulty, 4), sum),
    row(`+ support received from ${neighbourCount(explanation.neighbours.length)}`, number(support, 4),
      `gamma ${explanation.gammas[0]}`),
    row(`− suppression received from ${neighbourCount(suppressors)} picked earlier`, number(suppression, 4),
      `gamma ${explanation.gammas[1]}`),
    row("= selection score", number(selection, 4),
      explanation.threshold === null ? null : `threshold ${number(explanation.threshold, 4)}`));
  return make("table", { class: "score" }, body);
}

function facts(explanation, cluster) {
  const { sample: s, rank, kept_from: keptFrom } = explanation;
  const rows = [
    ["uid", make("code", { text: s.uid })],
    ["Shard", make("code", { text: s.shard })],
    ["Key", make("code", { text: s.key })],
    ["Tar", explanation.url === null ? "–" : make("code", { text: explanation.url })],
    ["Image size", s.size ? `${s.width} × ${s.height} px` : "–"],
    ["Bytes in tar", s.size ? `${count(s.size)} at offset ${count(s.offset)}` : "–"],
    ["Rank", rank === null
      ? "none; dropped before the ranking"
      : `${count(rank)} of ${count(explanation.ranked)}`],
  ];
  if (explanation.keeper !== null) {
    rows.push(["Kept instead", make("a", { href: `#/sample/${explanation.keeper}`, text: s.suppressed_by })]);
  }
  if (explanation.duplicates.length) {
    const links = explanation.duplicates.slice(0, 50).map(([position, uid, reason]) =>
      make("div", {}, make("a", { href: `#/sample/${position}`, text: uid }), ` ${reason}`));
    const more = explanation.duplicates.length - links.length;
    const list = make("div", {}, ...links, more ? `and ${more} more` : null);
    rows.push([`Dropped for it (${explanation.duplicates.length})`, list]);
  }
  // Rounded up, so that the fraction shown keeps the sample.
  if (keptFrom !== null) rows.push(["Kept from", `a fraction of ${percent(Math.ceil(keptFrom * 1e4) / 1e4, 2)} upwards`]);
  if (cluster) rows.push(["Cluster", make("a", { href: `#/?cluster=${explanation.cluster}`, text: cluster })]);
  for (const name of explanation.fields) rows.push([name, s[name] === null ? "–" : String(s[name])]);
  const body = make("tbody");
  for (const [label, value] of rows) {
    body.append(make("tr", {}, make("th", { scope: "row", text: label }), make("td", {}, value)));
  }
  return make("table", { class: "facts" }, body);
}

// Column heading, field of a neighbour, digits. Support and suppression are those of the explained sample.
const COLUMNS = [
  ["Distance", "distance", 4],
  ["Cosine", "cosine", 3],
  ["Selection score", "selection_score", 4],
  ["Support received", "support_received", 4],
  ["Suppression received", "suppression_received", 4],
  ["Suppression sent", "suppression_sent", 4],
];

function neighbours(explanation) {
  const head = make("tr", {}, make("td"), make("th", { scope: "col", text: "Neighbour" }));
  for (const [text] of COLUMNS) head.append(make("th", { scope: "col", class: "n", text }));
  const body = make("tbody");
  for (const n of explanation.neighbours) {
    const name = make("th", { scope: "row" },
      make("a", { href: `#/sample/${n.position}` }, make("span", { class: "caption" }, caption(n.caption))),
      status(n), " ",
      n.position === explanation.suppressed_by ? make("span", { class: "mark", text: "strongest suppressor" }) : null,
      explanation.suppressed.includes(n.position) ? make("span", { class: "mark", text: "suppressed by this sample" }) : null);
    const cells = COLUMNS.map(([, field, digits]) => make("td", { class: "n", text: number(n[field], digits) }));
    body.append(make("tr", {}, make("td", {}, image(n.position, "small", n.caption)), name, ...cells));
  }
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Neighbours, nearest first" },
    make("table", { class: "neighbours" }, make("thead", {}, head), body));
}

function mismatch() {
  const text = "The sum differs from the stored selection score: graph and scores are from different runs.";
  return make("p", { class: "error", text });
}

export function samplePage(explanation, cluster) {
  const { kept, caption: text } = explanation.sample;
  const ranked = explanation.rank !== null;
  const title = make("h2", { tabindex: "-1", text: `Sample ${explanation.sample.uid.slice(0, 40)}` });
  const page = make("div", {},
    make("p", {}, make("a", { href: "#/", id: "back", text: "← All samples" })), title,
    make("div", { class: "top" }, image(explanation.position, "large", text),
      make("div", {},
        captionBox(text),
        make("p", { class: `outcome ${kept ? "kept" : "dropped"}`, text: explanation.outcome }),
        ranked ? scoreTable(explanation, explanation.score_name, explanation.offset) : null,
        ranked && !explanation.reconciled ? mismatch() : null)),
    make("h3", { text: "Details" }), facts(explanation, cluster));
  const size = explanation.neighbours.length;
  if (size) {
    page.append(
      make("h3", { text: `Neighbours (${size}), nearest first` }),
      make("p", { class: "hint", text: "Support and suppression are what this sample received from, or sent to, each neighbour." }),
      neighbours(explanation));
  }
  return page;
}
