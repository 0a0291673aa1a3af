// The runs of the work_dir: their names, how they differ, and the switcher in the header.

import { get } from "./client.js";
import { at, count, make, percent } from "./dom.js";
import { address, parse } from "./state.js";

const descriptions = new Map();
const clusters = new Map();
let listed = null;

// The description of a run; an empty name means the one that the server was started with.
export async function describeRun(name) {
  if (!descriptions.has(name)) {
    const found = await get("/api/run", new URLSearchParams({ run: name }));
    descriptions.set(name, found);
    descriptions.set(found.run, found);
  }
  return descriptions.get(name);
}

export function listRuns() {
  listed = listed || get("/api/runs").then((found) => found.runs.filter((run) => !run.error));
  return listed;
}

// Cluster number -> name, and whether all samples are in one; the first request takes a while.
export function listClusters(run) {
  if (!clusters.has(run)) {
    const found = get("/api/clusters", new URLSearchParams({ run }));
    found.catch(() => clusters.delete(run));
    clusters.set(run, found);
  }
  return clusters.get(run);
}

export function dateText(seconds) {
  return new Date(1000 * seconds).toISOString().slice(0, 16).replace("T", " ");
}

export function budgetText(run) {
  if (!run.budget) return `${count(run.kept)} kept`;
  const { what, value } = run.budget;
  if (what === "fraction") return percent(value, Number.isInteger(Math.round(1e6 * value) / 1e4) ? 0 : 2);
  return what === "size" ? `${count(value)} samples` : `score from ${value}`;
}

// Both gammas, or the one that both passes have: as configured, so 4/median rather than its value.
function gammaText(gammas) {
  const configured = gammas.map((text) => text.match(/\((.+)\)/)?.[1] || text);
  return [...new Set(configured)].join(" and ");
}

export function runText(run) {
  const method = run.method === "d2" ? `gamma ${gammaText(run.gammas)}` : run.method;
  return `${run.name}: ${dateText(run.finished)}, ${budgetText(run)}, k ${run.n_neighbors}, ${method}`;
}

export function specText(spec) {
  const [run, fraction] = spec.split("@");
  const share = fraction === undefined ? "" : `a fraction of ${percent(Number(fraction), 1)}`;
  if (!run) return share || "this run";
  return share ? `run ${run} at ${share}` : `run ${run}`;
}

export async function showSwitcher(run) {
  const select = at("run");
  try {
    const runs = await listRuns();
    select.replaceChildren(...runs.map((one) => make("option", { value: one.name, text: runText(one) })));
    select.value = run.run;
    const own = runs.find((one) => one.name === run.run);
    // One line, or the page would move when it arrives.
    at("input").textContent = own?.input ? `Input: ${own.input}` : "\u00a0";
    at("input").title = own?.input || "";
  } catch (error) {
    select.title = String(error.message || error);
  }
}

at("run").addEventListener("change", () => {
  const { view, parameters } = parse();
  const run = at("run").value;
  // Clusters and scores of one run mean nothing in another; words and the order do.
  const kept = Object.fromEntries(["mode", "q", "sort", "order"].map((name) => [name, parameters.get(name)]));
  location.hash = ["rejected", "map"].includes(view) ? address(view, { run }) : address("", { run, ...kept });
});
