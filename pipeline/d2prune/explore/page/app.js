// The explorer: state lives in the address (#/?q=… and #/sample/N), so Back, Forward and bookmarks work.

import { card, count, make, number, sample } from "./view.js";

const LIMIT = 48;
const at = (id) => document.getElementById(id);
const form = at("query");
let about = null;
let lastList = "#/";
let asked = 0;
let cutAsked = 0;
let clusters = null;

async function get(path) {
  const response = await fetch(path);
  const value = await response.json();
  if (!response.ok) throw new Error(value.error || response.statusText);
  return value;
}

function query() {
  const [, text] = location.hash.split("?");
  return new URLSearchParams(text || "");
}

async function showList() {
  const parameters = query();
  for (const name of ["q", "reason", "low", "high"]) form.elements[name].value = parameters.get(name) || "";
  if (clusters) form.elements.cluster.value = parameters.get("cluster") || "";
  form.elements.sort.value = parameters.get("sort") || "selection";
  form.elements.order.value = parameters.get("order") || "down";
  const start = Math.max(0, Number.parseInt(parameters.get("start") || "0", 10) || 0);
  parameters.set("start", start);
  parameters.set("limit", LIMIT);
  const mine = ++asked;
  at("cards").setAttribute("aria-busy", "true");
  try {
    const found = await get(`/api/samples?${parameters}`);
    if (mine !== asked) return;
    at("cards").replaceChildren(...found.rows.map((row) => card(row, about.score)));
    at("status").className = "hint";
    at("status").textContent = found.total ? `${count(found.total)} samples` : "No sample fits. Shorten the text or widen the limits.";
    at("page").textContent = found.total ? `${count(start + 1)} to ${count(start + found.rows.length)}` : "\u00a0";
    at("before").disabled = start === 0;
    at("after").disabled = start + LIMIT >= found.total;
  } catch (error) {
    if (mine === asked) fail(at("status"), error);
  }
  at("cards").removeAttribute("aria-busy");
}

function fail(element, error) {
  element.className = "error";
  element.textContent = String(error.message || error);
}

function turn(step) {
  const parameters = query();
  parameters.set("start", Math.max(0, Number(parameters.get("start") || 0) + step * LIMIT));
  location.hash = `#/?${parameters}`;
  at("samples-h").scrollIntoView();
}

async function showSample(position) {
  const mine = ++asked;
  try {
    const told = await get(`/api/sample/${position}`);
    if (mine !== asked) return;
    at("sample").replaceChildren(sample(told, clusters?.get(told.cluster)));
    at("sample").querySelector("#back").href = lastList;
  } catch (error) {
    if (mine !== asked) return;
    const line = make("p");
    fail(line, error);
    at("sample").replaceChildren(make("p", {}, make("a", { href: "#/", text: "← All samples" })), line);
  }
  at("sample").dataset.position = position;
  window.scrollTo(0, 0);
  at("sample").querySelector("h2")?.focus();
}

async function showCut() {
  const percent = Number(at("fraction").value);
  at("fraction-value").textContent = `${percent.toFixed(1)} %`;
  const mine = ++cutAsked;
  // One request at a time: the answer to a place the slider has left is not wanted.
  await new Promise((resume) => setTimeout(resume, 40));
  if (mine !== cutAsked) return;
  try {
    const cut = await get(`/api/cut?fraction=${percent / 100}`);
    if (mine !== cutAsked) return;
    at("cut-size").textContent = count(cut.size);
    at("cut-score").textContent = number(cut.mean_score);
    at("cut-threshold").textContent = number(cut.threshold);
    at("cut-enters").textContent = count(cut.enters.total);
    at("cut-leaves").textContent = count(cut.leaves.total);
    at("cut-hint").className = "hint";
    at("cut-hint").textContent = cut.limited
      ? "No more are ranked: the cut-off removed the others before the graph was built."
      : cut.enters.total || cut.leaves.total ? "Against the run as it was made; those nearest to the line come first."
        : "This is the run as it was made. Move the slider to see who would enter and who would leave.";
    const rows = [];
    for (const [title, side] of [["Would enter", cut.enters], ["Would leave", cut.leaves]]) {
      if (!side.total) continue;
      rows.push(make("h3", { text: `${title} (${count(side.total)})` }));
      rows.push(make("ul", { class: "cards" }, ...side.rows.map((row) => card(row, about.score))));
    }
    at("cut-rows").replaceChildren(...rows);
  } catch (error) {
    fail(at("cut-hint"), error);
  }
}

async function showClusters() {
  const select = at("cluster");
  try {
    const found = await get("/api/clusters");
    clusters = new Map(found.clusters.map((row) => [row.number, row.name]));
    const options = found.clusters.map((row) => make("option", {
      value: row.number, text: `${row.name} (${count(row.samples)}, ${Math.round((100 * row.kept) / row.samples)} % kept)`,
    }));
    select.replaceChildren(make("option", { value: "", text: options.length ? "any" : "none: too few samples" }), ...options);
    select.disabled = !options.length;
    select.value = query().get("cluster") || "";
    if (!found.whole) at("cluster-name").textContent = "Cluster, within the report's sample";
  } catch (error) {
    select.options[0].textContent = "cannot be read";
    select.title = String(error.message || error);
  }
}

function route() {
  const found = location.hash.match(/^#\/sample\/(\d+)$/);
  at("list").hidden = Boolean(found);
  at("sample").hidden = !found;
  document.title = found ? `Sample ${found[1]} – d2prune explore` : "d2prune explore";
  if (found) showSample(found[1]);
  else {
    lastList = location.hash || "#/";
    showList();
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const parameters = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value) parameters.set(name, value);
  // Not sent while it is disabled: what the address says holds until the clusters are there.
  if (!clusters && query().get("cluster")) parameters.set("cluster", query().get("cluster"));
  const hash = `#/?${parameters}`;
  if (location.hash === hash) showList();
  else location.hash = hash;
});
for (const name of ["reason", "cluster", "sort", "order"]) form.elements[name].addEventListener("change", () => form.requestSubmit());
at("before").addEventListener("click", () => turn(-1));
at("after").addEventListener("click", () => turn(1));
at("fraction").addEventListener("input", showCut);
document.querySelector(".skip").addEventListener("click", (event) => {
  // The address belongs to the pages; only the focus moves.
  event.preventDefault();
  at("content").focus();
});

try {
  about = await get("/api/run");
  at("place").textContent = `d2prune explore: ${about.work_dir}, selection ${about.run.slice(0, 12)}`;
  at("title").textContent = `${count(about.kept)} of ${count(about.samples)} samples kept`;
  at("cut-score-name").textContent = `Mean ${about.score}`;
  at("low-name").textContent = `${about.score} from`;
  form.elements.sort.querySelector("[value=score]").textContent = about.score;
  for (const [reason, number] of Object.entries(about.reasons)) {
    at("reason").append(make("option", { value: reason, text: `${reason} (${count(number)})` }));
  }
  at("fraction").max = Math.ceil(about.most * 1000) / 10;
  at("fraction").value = Math.round(about.fraction * 1000) / 10;
  at("fraction").disabled = false;
  at("fraction-value").textContent = `${(about.fraction * 100).toFixed(1)} %`;
  at("cut-size").textContent = count(about.kept);
  at("cut-score").textContent = number(about.mean_score);
  at("cut-threshold").textContent = number(about.threshold);
  at("cut-enters").textContent = at("cut-leaves").textContent = "0";
  window.addEventListener("hashchange", route);
  route();
  showClusters();
} catch (error) {
  fail(at("status"), error);
  at("title").textContent = "The run cannot be read";
}
