// One sample: its image, how its score came about, its neighbours, and the way through its list.

import { hasModifier, image, score } from "./cards.js";
import { get, imageUrl, newest } from "./client.js";
import { at, caption, count, fail, make, number, percent, status } from "./dom.js";
import { listClusters } from "./runs.js";
import { address, changed, listOf, sampleAddress } from "./state.js";

const begin = newest();

export async function showSample(run, id, parameters) {
  const isNewest = begin();
  const list = changed(parameters, { at: null });
  const request = new URLSearchParams({ run: run.run, at: parameters.get("at") || "" });
  const back = make("a", { href: address("", list), id: "back", text: "← All samples" });
  try {
    const explanation = await get(`/api/sample/${encodeURIComponent(id)}`, request);
    if (!isNewest()) return;
    at("sample").replaceChildren(samplePage(explanation, run, list, back));
    at("sample").dataset.position = explanation.position;
    showCluster(explanation, run, isNewest);
    showPlace(explanation.position, list, isNewest);
  } catch (error) {
    if (!isNewest()) return;
    const message = make("p");
    fail(message, error);
    at("sample").replaceChildren(make("p", {}, back), message);
  }
  window.scrollTo(0, 0);
  at("sample").querySelector("h2")?.focus();
}

// The samples before and after this one in the list.
async function showPlace(position, list, isNewest) {
  const found = await get("/api/around", changed(listOf(list), { at: position })).catch(() => null);
  if (!found || !isNewest() || found.place === null) return;
  at("place").textContent = `${count(found.place + 1)} of ${count(found.total)}`;
  for (const side of ["previous", "next"]) {
    if (found[side]) at(side).href = sampleAddress(list, found[side].position, found[side].uid);
  }
}

async function showCluster(explanation, run, isNewest) {
  if (explanation.cluster === null) return;
  const found = await listClusters(run.run).catch(() => null);
  const cluster = found?.clusters.find((row) => row.number === explanation.cluster);
  if (!cluster || !isNewest()) return;
  const href = address("", { run: run.run, cluster: cluster.number });
  at("cluster-of").replaceChildren(make("a", { href, text: cluster.name }));
}

document.addEventListener("keydown", (event) => {
  const id = { ArrowLeft: "previous", ArrowRight: "next" }[event.key];
  const busy = event.target.closest("input, select, textarea, .scroll, .caption-box, .card");
  if (at("sample").hidden || !id || hasModifier(event) || busy) return;
  const link = at(id);
  if (!link?.href) return;
  event.preventDefault();
  link.click();
});

// A long caption scrolls in its own box; tabindex lets the keyboard reach it.
function captionBox(text) {
  const scrolls = (text || "").length > 300;
  const focusable = scrolls ? { tabindex: "0", role: "region", "aria-label": "Caption" } : {};
  return make("p", { class: "caption-box", ...focusable }, caption(text));
}

function scoreRow(label, value, note) {
  const head = make("th", { scope: "row" });
  head.append(label, ...(note ? [make("br"), make("small", { text: note })] : []));
  return make("tr", {}, head, make("td", { class: "n", text: value }));
}

function neighbourCount(total) {
  return `${total} ${total === 1 ? "neighbour" : "neighbours"}`;
}

function scoreTable(explanation) {
  const { score_name: scoreName, offset, gammas } = explanation;
  const support = explanation.neighbours.reduce((total, n) => total + n.support_received, 0);
  const suppression = explanation.neighbours.reduce((total, n) => total + n.suppression_received, 0);
  const suppressors = explanation.neighbours.filter((n) => n.suppression_received > 0).length;
  const { difficulty, selection_score: selection } = explanation.sample;
  const clamped = difficulty === 0;
  const own = score(difficulty - offset, clamped, 4);
  if (explanation.method !== "d2") {
    return make("table", { class: "score" }, make("tbody", {}, scoreRow(scoreName, own),
      scoreRow(`selection score by ${explanation.method}`, number(selection, 4))));
  }
  const sum = `${own} + ${number(offset, 4)}${clamped ? "; negative sums count as 0" : ""}`;
  const body = make("tbody", {},
    scoreRow(`${scoreName} + offset`, number(difficulty, 4), sum),
    scoreRow(`+ support received from ${neighbourCount(explanation.neighbours.length)}`,
      number(support, 4), `gamma ${gammas[0]}`),
    scoreRow(`− suppression received from ${neighbourCount(suppressors)} picked earlier`,
      number(suppression, 4), `gamma ${gammas[1]}`),
    scoreRow("= selection score", number(selection, 4),
      explanation.threshold === null ? null : `threshold ${number(explanation.threshold, 4)}`));
  return make("table", { class: "score" }, body);
}

function facts(explanation, run, list) {
  const { sample: s, rank, kept_from: keptFrom } = explanation;
  const url = explanation.url === null ? "–" : make("code", { text: explanation.url });
  const link = (position, uid) => make("a", { href: sampleAddress(list, position, uid), text: uid });
  const rows = [
    ["uid", make("code", { text: s.uid })],
    ["Shard", make("code", { text: s.shard })],
    ["Key", make("code", { text: s.key })],
    [run.has_images ? "Tar" : "Table", url],
    ...(run.has_images ? [
      ["Image size", s.size ? `${s.width} × ${s.height} px` : "–"],
      ["Bytes in tar", s.size ? `${count(s.size)} at offset ${count(s.offset)}` : "–"],
    ] : []),
    ["Rank", rank === null
      ? "none; dropped before the ranking"
      : `${count(rank)} of ${count(explanation.ranked)}`],
  ];
  const others = explanation.same_uid.filter((position) => position !== explanation.position).slice(0, 50);
  if (others.length) {
    const links = others.map((position) => {
      const href = sampleAddress(list, position, s.uid);
      return make("div", {}, make("a", { href, text: `position ${count(position)}` }));
    });
    rows.splice(1, 0, ["Same uid", make("div", {}, ...links)]);
  }
  if (explanation.keeper !== null) rows.push(["Kept instead", link(explanation.keeper, s.suppressed_by)]);
  if (explanation.duplicates.length) {
    const links = explanation.duplicates.slice(0, 50).map(([position, uid, reason]) =>
      make("div", {}, link(position, uid), ` ${reason}`));
    const more = explanation.duplicates.length - links.length;
    rows.push([`Dropped for it (${explanation.duplicates.length})`,
      make("div", {}, ...links, more ? `and ${more} more` : null)]);
  }
  // Rounded up, so that the fraction shown keeps the sample.
  if (keptFrom !== null) {
    rows.push(["Kept from", `a fraction of ${percent(Math.ceil(keptFrom * 1e4) / 1e4, 2)} upwards`]);
  }
  if (explanation.cluster !== null) {
    rows.push(["Cluster", make("span", { id: "cluster-of", text: "\u00a0" })]);
  }
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

function neighbourTable(explanation, run, list) {
  const mark = (text) => make("span", { class: "mark", text });
  const head = make("tr", {},
    run.has_images ? make("td") : null, make("th", { scope: "col", text: "Neighbour" }));
  for (const [text] of COLUMNS) head.append(make("th", { scope: "col", class: "n", text }));
  const body = make("tbody");
  for (const n of explanation.neighbours) {
    const name = make("th", { scope: "row" },
      make("a", { href: sampleAddress(list, n.position, n.uid) },
        make("span", { class: "caption" }, caption(n.caption))),
      status(n), " ",
      n.position === explanation.suppressed_by ? mark("strongest suppressor") : null,
      explanation.suppressed.includes(n.position) ? mark("suppressed by this sample") : null);
    const cells = COLUMNS.map(([text, field, digits]) =>
      make("td", { class: "n", "data-label": text, text: number(n[field], digits) }));
    const shown = run.has_images ? make("td", {}, image(run, n.position, "small", n.caption)) : null;
    body.append(make("tr", {}, shown, name, ...cells));
  }
  const label = "Neighbours, nearest first";
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label },
    make("table", { class: "neighbours" }, make("thead", {}, head), body));
}

// The image, as a link to itself in full size.
function largeImage(explanation, run) {
  const frame = image(run, explanation.position, "large", explanation.sample.caption);
  const link = make("a", {
    href: imageUrl(run.run, "full", explanation.position),
    target: "_blank",
    rel: "noopener",
    title: "Full size",
  });
  link.append(...frame.childNodes);
  frame.append(link);
  return frame;
}

function mismatch() {
  const text = "The sum differs from the stored selection score: graph and scores are from different runs.";
  return make("p", { class: "error", text });
}

function samplePage(explanation, run, list, back) {
  const { kept, caption: text } = explanation.sample;
  const ranked = explanation.rank !== null;
  const page = make("div", {},
    make("nav", { class: "walk", "aria-label": "Samples of the list" }, back,
      make("a", { id: "alike-link", href: address("", { run: run.run, like: explanation.position }),
        text: "More like this" }),
      make("a", { id: "previous", text: "← Previous" }), make("span", { id: "place", text: "\u00a0" }),
      make("a", { id: "next", text: "Next →" })),
    make("h2", { tabindex: "-1", text: `Sample ${explanation.sample.uid}` }),
    make("div", { class: run.has_images ? "top" : "" },
      run.has_images ? largeImage(explanation, run) : null,
      make("div", {},
        captionBox(text),
        make("p", { class: `outcome ${kept ? "kept" : "dropped"}`, text: explanation.outcome }),
        ranked ? scoreTable(explanation) : null,
        ranked && !explanation.reconciled ? mismatch() : null)),
    make("h3", { text: "Details" }), facts(explanation, run, list));
  const size = explanation.neighbours.length;
  if (size) {
    const hint = "Support and suppression are what this sample received from, or sent to, each neighbour.";
    page.append(make("h3", { text: `Neighbours (${size}), nearest first` }),
      make("p", { class: "hint", text: hint }), neighbourTable(explanation, run, list));
  }
  return page;
}
