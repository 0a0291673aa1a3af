// The explorer. Its state is in the address (#/?q=… and #/sample/N), so Back, Forward and bookmarks work.

import { card, count, make, number, percent, samplePage, statusText } from "./view.js";

const PAGE_SIZE = 48;
const at = (id) => document.getElementById(id);
const form = at("query");
let run = null;
let lastList = "#/";
// Numbers of the latest requests: an answer to an earlier one is dropped.
let latest = 0;
let latestPreview = 0;
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
  parameters.set("limit", PAGE_SIZE);
  const own = ++latest;
  at("cards").setAttribute("aria-busy", "true");
  try {
    const found = await get(`/api/samples?${parameters}`);
    if (own !== latest) return;
    at("cards").replaceChildren(...found.rows.map((row) => card(row, run.score)));
    at("status").className = "hint";
    at("status").textContent = found.total
      ? `${count(found.total)} ${found.total === 1 ? "sample" : "samples"}`
      : "No samples match. Shorten the search text or relax the filters.";
    at("page").textContent = found.total
      ? `${count(start + 1)} to ${count(start + found.rows.length)} of ${count(found.total)}`
      : "\u00a0";
    at("previous").disabled = start === 0;
    at("next").disabled = start + PAGE_SIZE >= found.total;
  } catch (error) {
    if (own === latest) fail(at("status"), error);
  }
  at("cards").removeAttribute("aria-busy");
}

function fail(element, error) {
  element.className = "error";
  element.textContent = String(error.message || error);
}

function turnPage(step) {
  const parameters = query();
  parameters.set("start", Math.max(0, Number(parameters.get("start") || 0) + step * PAGE_SIZE));
  location.hash = `#/?${parameters}`;
  at("samples-h").scrollIntoView();
}

async function showSample(position) {
  const own = ++latest;
  try {
    const explanation = await get(`/api/sample/${position}`);
    if (own !== latest) return;
    at("sample").replaceChildren(samplePage(explanation, clusters?.get(explanation.cluster)));
    at("sample").querySelector("#back").href = lastList;
  } catch (error) {
    if (own !== latest) return;
    const message = make("p");
    fail(message, error);
    at("sample").replaceChildren(make("p", {}, make("a", { href: "#/", text: "← All samples" })), message);
  }
  at("sample").dataset.position = position;
  window.scrollTo(0, 0);
  at("sample").querySelector("h2")?.focus();
}

async function showPreview() {
  const fraction = Number(at("fraction").value) / 100;
  at("fraction-value").textContent = percent(fraction, 1);
  const own = ++latestPreview;
  // Wait until the slider rests: only its last position needs an answer.
  await new Promise((resume) => setTimeout(resume, 40));
  if (own !== latestPreview) return;
  try {
    const preview = await get(`/api/preview?fraction=${fraction}`);
    if (own !== latestPreview) return;
    at("preview-size").textContent = count(preview.size);
    at("preview-score").textContent = number(preview.mean_score);
    at("preview-threshold").textContent = number(preview.threshold);
    at("preview-added").textContent = count(preview.added.total);
    at("preview-removed").textContent = count(preview.removed.total);
    at("preview-hint").className = "hint";
    at("preview-hint").textContent = preview.limited
      ? "No more samples are ranked: the others were cut off or dropped as duplicates."
      : preview.added.total || preview.removed.total ? "Compared with this run; samples closest to the threshold first."
        : "This is the run's own fraction. Move the slider to see which samples another one would add or remove.";
    const rows = [];
    for (const [title, side] of [["Added", preview.added], ["Removed", preview.removed]]) {
      if (!side.total) continue;
      rows.push(make("h3", { text: `${title} (${count(side.total)})` }));
      rows.push(make("ul", { class: "cards" }, ...side.rows.map((row) => card(row, run.score))));
    }
    at("preview-rows").replaceChildren(...rows);
  } catch (error) {
    fail(at("preview-hint"), error);
  }
}

async function showClusters() {
  const select = at("cluster");
  try {
    const found = await get("/api/clusters");
    clusters = new Map(found.clusters.map((row) => [row.number, row.name]));
    const options = found.clusters.map((row) => make("option", {
      value: row.number, text: `${row.name} (${count(row.samples)}, ${percent(row.kept / row.samples)} kept)`,
    }));
    select.replaceChildren(make("option", { value: "", text: options.length ? "any" : "none (too few samples)" }), ...options);
    select.disabled = !options.length;
    select.value = query().get("cluster") || "";
    if (!found.complete) at("cluster-name").textContent = "Cluster (random sample only)";
  } catch (error) {
    select.options[0].textContent = "not available";
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
  // A disabled control is not part of the form: keep the cluster of the address until clusters are loaded.
  if (!clusters && query().get("cluster")) parameters.set("cluster", query().get("cluster"));
  const hash = `#/?${parameters}`;
  if (location.hash === hash) showList();
  else location.hash = hash;
});
for (const name of ["reason", "cluster", "sort", "order"]) {
  form.elements[name].addEventListener("change", () => form.requestSubmit());
}
at("previous").addEventListener("click", () => turnPage(-1));
at("next").addEventListener("click", () => turnPage(1));
at("fraction").addEventListener("input", showPreview);
document.querySelector(".skip").addEventListener("click", (event) => {
  // Following the link would change the address, which is the state; only move the focus.
  event.preventDefault();
  at("content").focus();
});

try {
  run = await get("/api/run");
  at("location").textContent = `d2prune explore: ${run.work_dir}, selection ${run.run.slice(0, 12)}`;
  at("title").textContent = `${count(run.kept)} of ${count(run.samples)} samples kept`;
  at("preview-score-name").textContent = `Mean ${run.score}`;
  at("low-name").textContent = `Lowest ${run.score}`;
  at("high-name").textContent = `Highest ${run.score}`;
  form.elements.sort.querySelector("[value=score]").textContent = run.score;
  for (const [reason, total] of Object.entries(run.reasons)) {
    at("reason").append(make("option", { value: reason, text: `${statusText(reason)} (${count(total)})` }));
  }
  at("fraction").max = Math.ceil(run.max_fraction * 1000) / 10;
  at("fraction").value = Math.round(run.fraction * 1000) / 10;
  at("fraction").disabled = false;
  at("fraction-value").textContent = percent(run.fraction, 1);
  at("preview-size").textContent = count(run.kept);
  at("preview-score").textContent = number(run.mean_score);
  at("preview-threshold").textContent = number(run.threshold);
  at("preview-added").textContent = at("preview-removed").textContent = "0";
  window.addEventListener("hashchange", route);
  route();
  showClusters();
} catch (error) {
  fail(at("status"), error);
  at("title").textContent = "Cannot read the run";
}
