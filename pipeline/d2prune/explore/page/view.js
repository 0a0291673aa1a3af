// Records -> DOM. Text goes in as textContent only; nothing here makes HTML from a string.

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

// A score below the offset's zero was raised to it, and is not stored as it was.
function score(value, clamped, digits = 3) {
  return (clamped ? "≤ " : "") + number(value, digits);
}

export function count(value) {
  return value.toLocaleString("en");
}

// Controls and marks that turn text around or hide are shown as what they are; each text is an island of its own.
export function caption(text) {
  return make("bdi", { text: text || "(no caption)", dir: "auto" });
}

export function picture(position, size, text) {
  const frame = make("div", { class: size === "large" ? "large" : "frame" });
  const image = make("img", {
    src: `/picture/${size}/${position}`,
    alt: text ? `Captioned: ${text.slice(0, 80)}` : "No caption",
    loading: size === "large" ? "eager" : "lazy",
    decoding: "async",
  });
  image.addEventListener("error", () => image.replaceWith(make("span", { class: "none", text: "no picture" })));
  frame.append(image);
  return frame;
}

const BECAME = { kept: "kept", "below-budget": "dropped: below budget", "cut-off": "dropped: cut off" };

export function became(row) {
  return make("span", { class: `became ${row.kept ? "kept" : "dropped"}`, text: BECAME[row.reason] || row.reason });
}

export function card(row, scoreName) {
  const scores = make("dl", { class: "scores" });
  for (const [name, value] of [[scoreName, score(row.score, row.clamped)], ["forward", number(row.forward)], ["selection", number(row.selection)]]) {
    scores.append(make("dt", { text: name }), make("dd", { text: value }));
  }
  const link = make("a", { class: "card", href: `#/sample/${row.position}` },
    picture(row.position, "small", row.caption),
    make("div", { class: "caption" }, caption(row.caption)), became(row), scores);
  return make("li", {}, link);
}

// A long caption scrolls in its own box, which the keyboard must be able to reach.
function words(text) {
  const scrolls = (text || "").length > 300;
  return make("p", { class: "words", tabindex: scrolls && "0", role: scrolls && "region", "aria-label": scrolls && "Caption" }, caption(text));
}

function row(label, value, note) {
  const head = make("th", { scope: "row" });
  head.append(label, ...(note ? [make("br"), make("small", { text: note })] : []));
  return make("tr", {}, head, make("td", { class: "n", text: value }));
}

function sum(told, scoreName, offset) {
  const raised = told.neighbours.reduce((total, n) => total + n.raised, 0);
  const lowered = told.neighbours.reduce((total, n) => total + n.lowered, 0);
  const above = told.neighbours.filter((n) => n.lowered > 0).length;
  const own = told.sample.difficulty;
  if (told.method !== "d2") {
    return make("table", { class: "sum" }, make("tbody", {}, row(scoreName, score(own - offset, own === 0, 4)),
      row(`selection score by ${told.method}`, number(told.sample.selection_score, 4))));
  }
  const body = make("tbody", {},
    row(`${scoreName} + offset`, number(own, 4), own === 0 ? `${score(own - offset, true, 4)}, raised to 0 with ${number(offset, 4)}` : `${number(own - offset, 4)} + ${number(offset, 4)}`),
    row(`+ support of ${told.neighbours.length} ${told.neighbours.length === 1 ? "neighbour" : "neighbours"}`, number(raised, 4)),
    row(`− taken by ${above} of them, picked before it`, number(lowered, 4)),
    row("= selection score", number(told.sample.selection_score, 4),
      told.threshold === null ? null : `the lowest that was kept has ${number(told.threshold, 4)}`));
  return make("table", { class: "sum" }, body);
}

function facts(told, cluster) {
  const s = told.sample;
  const rows = [
    ["uid", make("code", { text: s.uid })],
    ["Shard, key", make("code", { text: `${s.shard}, ${s.key}` })],
    ["Tar", told.url === null ? "–" : make("code", { text: told.url })],
    ["Bytes", s.size ? `${count(s.size)} from ${count(s.offset)}, ${s.width} × ${s.height} px` : "–"],
    ["Rank", told.rank === null ? "none: cut off" : `${count(told.rank)} of ${count(told.ranked)}`],
  ];
  if (told.kept_from !== null) rows.push(["Kept from", `a fraction of ${(Math.ceil(told.kept_from * 1e4) / 100).toFixed(2)} % on`]);
  if (cluster) rows.push(["Cluster", make("a", { href: `#/?cluster=${told.cluster}`, text: cluster })]);
  for (const name of told.fields) rows.push([name, s[name] === null ? "–" : String(s[name])]);
  const body = make("tbody");
  for (const [label, value] of rows) body.append(make("tr", {}, make("th", { scope: "row", text: label }), make("td", {}, value)));
  return make("table", { class: "facts" }, body);
}

function neighbours(told) {
  const head = make("tr", {}, make("td"), make("th", { scope: "col", text: "Neighbour" }));
  for (const text of ["Distance", "Cosine", "Selection", "Gave it", "Took from it", "Lost to it"]) {
    head.append(make("th", { scope: "col", class: "n", text }));
  }
  const body = make("tbody");
  for (const n of told.neighbours) {
    const name = make("th", { scope: "row" },
      make("a", { href: `#/sample/${n.position}` }, make("span", { class: "caption" }, caption(n.caption))), became(n), " ",
      n.position === told.suppressed_by ? make("span", { class: "mark", text: "suppressed it most" }) : null,
      told.suppressed.includes(n.position) ? make("span", { class: "mark", text: "suppressed by it" }) : null);
    const line = make("tr", {}, make("td", {}, picture(n.position, "small", n.caption)), name);
    for (const [value, digits] of [[n.distance, 4], [n.cosine, 3], [n.selection_score, 4], [n.raised, 4], [n.lowered, 4], [n.lowers, 4]]) {
      line.append(make("td", { class: "n", text: number(value, digits) }));
    }
    body.append(line);
  }
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Neighbours, nearest first" },
    make("table", { class: "neighbours" }, make("thead", {}, head), body));
}

export function sample(told, cluster) {
  const kept = told.sample.kept;
  const title = make("h2", { tabindex: "-1", text: `Sample ${told.sample.uid.slice(0, 40)}` });
  const page = make("div", {},
    make("p", {}, make("a", { href: "#/", id: "back", text: "← All samples" })), title,
    make("div", { class: "top" }, picture(told.position, "large", told.sample.caption),
      make("div", {},
        words(told.sample.caption),
        make("p", { class: `why ${kept ? "kept" : "dropped"}`, text: told.why }),
        told.rank === null ? null : sum(told, told.score_name, told.offset),
        told.reconciled || told.rank === null ? null : make("p", { class: "error", text: "The sum differs from the stored score: graph and scores are not of one run." }))),
    make("h3", { text: "Where it is" }), facts(told, cluster));
  if (told.neighbours.length) page.append(make("h3", { text: `Neighbours (${told.neighbours.length}), nearest first` }), neighbours(told));
  return page;
}
