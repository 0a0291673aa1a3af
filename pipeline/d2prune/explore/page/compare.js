// Two selections side by side: two runs, or one run at two fractions.

import { gallery } from "./cards.js";
import { get, newest } from "./client.js";
import { at, count, fail, make, number, percent, samples, statusText, tableRow } from "./dom.js";
import { budgetText, dateText, describeRun, listRuns, runText, specText } from "./runs.js";
import { address } from "./state.js";

const ROWS = 12;
const begin = newest();
const form = at("sides");

export async function showCompare(run, parameters) {
  const isNewest = begin();
  const message = at("compare-status");
  try {
    const runs = await listRuns();
    if (!isNewest()) return;
    const sides = chooseSides(run, runs, parameters);
    fillForm(runs, sides);
    message.className = "hint";
    message.textContent = "\u00a0";
    const query = new URLSearchParams({ run: run.run, ...sides });
    const found = await get("/api/compare", query);
    if (!isNewest()) return;
    const described = Object.fromEntries(runs.map((one) => [one.name, one]));
    at("comparison").replaceChildren(
      shares(found, sides), numbers(found, described), ...await galleries(found, sides));
    if (!isNewest()) return;
    const gaps = await get("/api/coverage", query).catch(() => ({ a: null, b: null }));
    if (isNewest()) ["a", "b"].forEach((side) => { at(`gap-${side}`).textContent = number(gaps[side], 4); });
  } catch (error) {
    if (isNewest()) fail(message, error);
  }
}

// By default the run is compared with the one before it, or with half as many of its own samples.
function chooseSides(run, runs, parameters) {
  const a = parameters.get("a") || run.run;
  const place = runs.findIndex((one) => one.name === run.run);
  const other = runs[place + 1] || runs[place - 1];
  const half = `${run.run}@${Math.round(500 * run.fraction) / 1000 || 0.001}`;
  return { a: full(a, run.run), b: full(parameters.get("b") || (other ? other.name : half), run.run) };
}

// `@0.3` means a fraction of the run that is shown.
function full(spec, run) {
  return spec.startsWith("@") ? run + spec : spec;
}

function fillForm(runs, sides) {
  for (const side of ["a", "b"]) {
    const [name, fraction] = sides[side].split("@");
    const select = form.elements[side];
    select.replaceChildren(...runs.map((one) => make("option", { value: one.name, text: runText(one) })));
    const isMeant = (one) => [one.fingerprint, ...one.ids].some((id) => id.startsWith(name));
    select.value = runs.find(isMeant)?.name || "";
    form.elements[`${side}-fraction`].value = fraction === undefined ? "" : Math.round(1e5 * fraction) / 1e3;
  }
}

function sideAddress() {
  const spec = (side) => {
    const share = Number(form.elements[`${side}-fraction`].value);
    return form.elements[side].value + (share > 0 && share <= 100 ? `@${Math.round(1e3 * share) / 1e5}` : "");
  };
  return { a: spec("a"), b: spec("b") };
}

// A list of one set, in the pool of the run of side A or B.
function listAddress(found, sides, among, side) {
  return address("", { run: found[side].run, ...sides, among });
}

function shares(found, sides) {
  const parts = [
    ["only-a", "Only A keeps", found.a.only, "a"], ["both", "Both keep", found.both, "a"],
    ["only-b", "Only B keeps", found.b.only, "b"], ["neither", "Neither keeps", found.neither, "a"],
  ];
  const total = Math.max(1, found.a.only + found.both + found.b.only);
  const bar = make("div", { class: "bar", "aria-hidden": "true" });
  const list = make("dl", { class: "numbers" });
  for (const [among, label, size, side] of parts) {
    if (size === null) continue;
    if (among !== "neither") {
      const piece = make("span", { class: among });
      piece.style.width = percent(size / total, 2);
      bar.append(piece);
    }
    const value = size ? make("a", { href: listAddress(found, sides, among, side), text: count(size) }) : "0";
    const cell = make("dd", { id: `count-${among}` });
    cell.append(value);
    list.append(make("div", { class: among }, make("dt", { text: label }), cell));
  }
  return make("div", { class: "panel" }, bar, list);
}

function numbers(found, described) {
  const rows = [
    ["Samples kept", (one) => count(one.kept)],
    ["Fraction of the pool", (one) => percent(one.fraction, 1)],
    [`Mean ${found.a.score_name} of the kept`, (one) => number(one.mean_score, 4)],
    ["Threshold", (one) => number(one.threshold, 4)],
    ["Samples in the pool", (one) => count(one.samples)],
  ];
  const body = make("tbody");
  for (const [label, show] of rows) body.append(tableRow(label, show(found.a), show(found.b)));
  body.append(tableRow(`Mean ${found.a.score_name} of what it alone keeps`, number(found.mean_only_a, 4),
    number(found.mean_only_b, 4)));
  body.append(tableRow("Coverage gap (random sample)", make("span", { id: "gap-a", text: "…" }),
    make("span", { id: "gap-b", text: "…" })));
  const [a, b] = [described[found.a.run], described[found.b.run]];
  if (a && b) {
    const parameters = [
      ["Date (UTC)", (one) => dateText(one.finished)], ["Input", (one) => one.input || "–"],
      ["Budget of the run", budgetText], ["k", (one) => String(one.n_neighbors ?? "–")],
      ["Gamma, forward pass", (one) => one.gammas[0]], ["Gamma, reverse pass", (one) => one.gammas[1]],
      ["Score", (one) => one.score], ["Method", (one) => one.method],
      ["Drops duplicates", (one) => (one.dedup ? "yes" : "no")],
    ];
    for (const [label, show] of parameters) {
      const line = tableRow(label, show(a), show(b));
      if (show(a) !== show(b)) line.className = "differs";
      body.append(line);
    }
  }
  const heads = [["A", found.a], ["B", found.b]].map(([name, one]) =>
    make("th", { scope: "col", text: `${name}: ${specText(one.spec)}` }));
  const hint = "Lower coverage gaps are better: the mean distance from any sample to the nearest kept one. "
    + "Parameters that differ are in bold.";
  const head = make("thead", {}, make("tr", {}, make("td"), ...heads));
  const table = make("table", { class: "sides" }, head, body);
  return make("div", {},
    make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Numbers" }, table),
    make("p", { class: "hint", text: hint }));
}

async function galleries(found, sides) {
  const pieces = ["a", "b"].map(async (side) => {
    const { only, run: name, elsewhere } = found[side];
    const [own, other] = side === "a" ? ["A", "B"] : ["B", "A"];
    const parameters = new URLSearchParams({ run: name, ...sides, among: `only-${side}` });
    const head = make("h3", { text: `Only ${own} keeps (${count(only)})` });
    if (!only) return [head, make("p", { class: "hint", text: "Nothing." })];
    const run = await describeRun(name);
    const rows = await get("/api/samples", new URLSearchParams([...parameters, ["limit", ROWS]]));
    const why = Object.entries(elsewhere).map(([reason, size]) => `${statusText(reason)} (${count(size)})`);
    return [head, why.length ? make("p", { class: "hint", text: `In ${other}: ${why.join(", ")}.` }) : null,
      gallery(rows.rows, run, parameters),
      make("p", {}, make("a", { href: address("", parameters), text: `All ${samples(only)}` }))];
  });
  return (await Promise.all(pieces)).flat().filter((piece) => piece !== null);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  location.hash = address("compare", sideAddress());
});
for (const name of ["a", "b", "a-fraction", "b-fraction"]) {
  form.elements[name].addEventListener("change", () => form.requestSubmit());
}
at("swap").addEventListener("click", () => {
  const { a, b } = sideAddress();
  location.hash = address("compare", { a: b, b: a });
});
