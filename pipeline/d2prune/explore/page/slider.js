// The preview of another fraction. Its fraction is in the address of the list.

import { gallery } from "./cards.js";
import { get, newest } from "./client.js";
import { at, count, fail, make, number, percent, samples } from "./dom.js";
import { address, changed, parse, replace } from "./state.js";

const begin = newest();
const REST_MS = 40;
let run = null;

function ownFraction() {
  return Math.round(run.fraction * 1000) / 10;
}

// Show a run, at the fraction of the address.
export function showSlider(shown, parameters) {
  const slider = at("fraction");
  const isOther = run !== shown;
  run = shown;
  at("preview-score-name").textContent = `Mean ${run.score}`;
  slider.max = Math.ceil(run.max_fraction * 1000) / 10;
  slider.disabled = false;
  const fraction = Number(parameters.get("fraction"));
  const wanted = fraction > 0 && fraction <= 1 ? Math.round(fraction * 1000) / 10 : ownFraction();
  if (!isOther && Number(slider.value) === wanted) return;
  slider.value = wanted;
  if (wanted !== ownFraction()) {
    showPreview();
    return;
  }
  begin();
  at("fraction-value").textContent = percent(run.fraction, 1);
  at("preview-size").textContent = count(run.kept);
  at("preview-score").textContent = number(run.mean_score);
  showThreshold(run.threshold, run.thresholds);
  at("preview-added").textContent = at("preview-removed").textContent = "0";
  showHint("Move the slider to see which samples another fraction would add or remove.");
  at("preview-rows").replaceChildren();
}

// Each group has its own threshold.
function showThreshold(lowest, groups) {
  at("preview-threshold-name").textContent = groups.total ? "Lowest threshold" : "Threshold";
  at("preview-threshold").textContent = number(lowest);
  const shown = groups.rows.length < groups.total ? `${count(groups.rows.length)} of ` : "";
  at("thresholds").hidden = !groups.total;
  at("thresholds").querySelector("summary").textContent = `Thresholds of ${shown}${count(groups.total)} groups`;
  at("thresholds").querySelector("tbody").replaceChildren(...groups.rows.map((group) => make("tr", {},
    make("th", { scope: "row" }, make("bdi", { text: group.name || "(none)" })),
    make("td", { class: "n", text: `${count(group.kept)} of ${count(group.ranked)}` }),
    make("td", { class: "n", text: number(group.threshold) }))));
}

function showHint(text) {
  at("preview-hint").className = "hint";
  at("preview-hint").textContent = text;
}

// A list of the samples that the fraction adds or removes, closest to the threshold first.
function listAddress(fraction, among) {
  const order = among === "only-a" ? "up" : "";
  return address("", { run: run.run, b: `@${fraction}`, among, order, fraction });
}

async function showPreview() {
  const fraction = Math.round(Number(at("fraction").value) * 10) / 1000;
  at("fraction-value").textContent = percent(fraction, 1);
  const isNewest = begin();
  // Wait until the slider rests: only its last position needs an answer.
  await new Promise((resume) => setTimeout(resume, REST_MS));
  if (!isNewest()) return;
  try {
    const preview = await get("/api/preview", new URLSearchParams({ run: run.run, fraction }));
    if (!isNewest()) return;
    at("preview-size").textContent = count(preview.size);
    at("preview-score").textContent = number(preview.mean_score);
    showThreshold(preview.threshold, preview.thresholds);
    at("preview-added").textContent = count(preview.added.total);
    at("preview-removed").textContent = count(preview.removed.total);
    const hint = preview.added.total || preview.removed.total
      ? "Compared with this run; samples closest to the threshold first."
      : "The same samples as this run keeps.";
    showHint(preview.limited
      ? "No more samples are ranked: the others were cut off or dropped as duplicates." : hint);
    at("preview-rows").replaceChildren(...sides(preview, fraction));
  } catch (error) {
    fail(at("preview-hint"), error);
  }
}

function sides(preview, fraction) {
  const found = [];
  const both = [["Added", preview.added, "only-b"], ["Removed", preview.removed, "only-a"]];
  for (const [title, side, among] of both) {
    if (!side.total) continue;
    const list = listAddress(fraction, among);
    found.push(make("h3", { text: `${title} (${count(side.total)})` }),
      gallery(side.rows, run, parse(list).parameters));
    if (side.total > side.rows.length) {
      found.push(make("p", {}, make("a", { href: list, text: `All ${samples(side.total)}` })));
    }
  }
  return found;
}

at("fraction").addEventListener("input", () => {
  const { parameters } = parse();
  const own = Number(at("fraction").value) === ownFraction();
  const fraction = own ? null : Math.round(Number(at("fraction").value) * 10) / 1000;
  replace(address("", changed(parameters, { fraction })));
  showPreview();
});
