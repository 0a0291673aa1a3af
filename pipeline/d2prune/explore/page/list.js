// The list of samples: search, filters, pages and export.

import { card } from "./cards.js";
import { exportUrl, get, newest } from "./client.js";
import { at, count, fail, make, percent, showPages, statusText } from "./dom.js";
import { countText, showAlike, showMode, showNeeds } from "./meaning.js";
import { listClusters, specText } from "./runs.js";
import { showSlider } from "./slider.js";
import { address, changed, listOf, parse } from "./state.js";

const PAGE_SIZE = 48;
// A status that changes at every page would flicker.
const SLOW_MS = 250;
const CHOICES = ["reason", "cluster", "sort", "order"];
// What a reader of a new run asks first.
const SHORTCUTS = {
  "best-dropped": { reason: "below-budget", sort: "score" },
  "most-suppressed": { reason: "below-budget", sort: "suppression" },
  "weakest-kept": { reason: "kept", sort: "score", order: "up" },
};
const form = at("query");
const begin = newest();
let shownRun = null;

export async function showList(run, parameters) {
  if (run !== shownRun) showControls(run);
  showSlider(run, parameters);
  fillForm(parameters);
  showMode(run, parameters);
  showSubset(parameters);
  const list = listOf(parameters);
  for (const file of ["samples.parquet", "subset.npy"]) at(`export-${file}`).href = exportUrl(file, list);
  const start = Math.max(0, Number.parseInt(parameters.get("start") || "0", 10) || 0);
  const isNewest = begin();
  at("cards").setAttribute("aria-busy", "true");
  const slow = setTimeout(() => isNewest() && showStatus("Searching…"), SLOW_MS);
  try {
    const found = await get("/api/samples", changed(list, { start, limit: PAGE_SIZE }));
    clearTimeout(slow);
    if (!isNewest()) return;
    at("cards").replaceChildren(...found.rows.map((row) => card(row, run, parameters)));
    showAlike(found, parameters);
    showStatus(found.total ? countText(found) : "No samples match. Use fewer words or relax the filters.");
    at("export").hidden = !found.total;
    showPages(at("pages"), start, found.rows.length, found.total, PAGE_SIZE, (first) => {
      location.hash = address("", changed(parameters, { start: first || null }));
      at("samples-h").scrollIntoView();
    });
  } catch (error) {
    clearTimeout(slow);
    if (!isNewest()) return;
    fail(at("status"), error);
    showNeeds(run, parameters, true);
    // What is left of the list before has nothing to do with this address.
    at("cards").replaceChildren();
    at("export").hidden = at("pages").hidden = true;
  }
  at("cards").removeAttribute("aria-busy");
}

function showStatus(text) {
  at("status").className = "hint";
  at("status").textContent = text;
}

function fillForm(parameters) {
  for (const name of ["q", "reason", "low", "high"]) form.elements[name].value = parameters.get(name) || "";
  if (!form.elements.cluster.disabled) form.elements.cluster.value = parameters.get("cluster") || "";
  form.elements.sort.value = parameters.get("sort") || "selection";
  form.elements.order.value = parameters.get("order") || "down";
}

const AMONG = {
  "only-a": (a, b) => `Kept by ${a}, but not by ${b}`,
  "only-b": (a, b) => `Kept by ${b}, but not by ${a}`,
  both: (a, b) => `Kept by both ${a} and ${b}`,
  neither: (a, b) => `Kept by neither ${a} nor ${b}`,
};

// The set of a comparison, and the outline, that the list is limited to.
function showSubset(parameters) {
  const describe = AMONG[parameters.get("among")];
  const outline = parameters.get("outline");
  at("subset").hidden = !describe && !outline;
  if (at("subset").hidden) return;
  const run = parameters.get("run");
  const inside = [make("strong", { text: "Inside an outline on the map. " }),
    make("a", { href: address("map", { run, outline }), text: "Map" }), " "];
  const [a, b] = [parameters.get("a") || "", parameters.get("b") || ""];
  const everything = changed(parameters,
    { a: null, b: null, among: null, outline: null, start: null, order: null });
  const compared = describe ? [make("strong", { text: `${describe(specText(a), specText(b))}. ` }),
    make("a", { href: address("compare", { run, a, b }), text: "Compare" }), " "] : [];
  at("subset").replaceChildren(...(outline ? inside : []), ...compared,
    make("a", { href: address("", everything), text: "Show all samples" }));
}

function showControls(run) {
  shownRun = run;
  at("low-name").textContent = `Lowest ${run.score}`;
  at("high-name").textContent = `Highest ${run.score}`;
  form.elements.sort.querySelector("[value=score]").textContent = run.score;
  at("reason").replaceChildren(make("option", { value: "", text: "any" }),
    ...Object.entries(run.reasons).map(([reason, total]) =>
      make("option", { value: reason, text: `${statusText(reason)} (${count(total)})` })));
  for (const [name, list] of Object.entries(SHORTCUTS)) at(name).href = address("", { run: run.run, ...list });
  showClusters(run);
}

async function showClusters(run) {
  const select = at("cluster");
  select.disabled = true;
  select.replaceChildren(make("option", { value: "", text: "loading…" }));
  try {
    const found = await listClusters(run.run);
    if (run !== shownRun) return;
    const options = found.clusters.map((row) => make("option", {
      value: row.number, text: `${row.name} (${count(row.samples)}, ${percent(row.kept / row.samples)} kept)`,
    }));
    const any = options.length ? "any" : "none (too few samples)";
    select.replaceChildren(make("option", { value: "", text: any }), ...options);
    select.disabled = !options.length;
    select.value = parse().parameters.get("cluster") || "";
    at("cluster-name").textContent = found.complete ? "Cluster" : "Cluster (random sample only)";
  } catch (error) {
    select.options[0].textContent = "not available";
    select.title = String(error.message || error);
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const { parameters } = parse();
  // What the form does not hold: the run, the set of a comparison, the slider. A disabled control holds
  // nothing either: the cluster of the address stays until clusters are loaded.
  const fields = ["mode", "q", "low", "high", ...CHOICES].filter((name) => !form.elements[name].disabled);
  const values = Object.fromEntries(fields.map((name) => [name, form.elements[name].value]));
  const isDefault = { mode: "words", sort: "selection", order: "down" };
  for (const [name, value] of Object.entries(isDefault)) if (values[name] === value) values[name] = null;
  // A description takes the place of the sample or image to be like; words filter its list.
  if (values.mode && values.q.trim()) values.like = values.image = null;
  const hash = address("", changed(parameters, { ...values, start: null }));
  if (location.hash === hash) showList(shownRun, parse().parameters);
  else location.hash = hash;
});
for (const name of CHOICES) form.elements[name].addEventListener("change", () => form.requestSubmit());
