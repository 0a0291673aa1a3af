// The samples that were not embedded, and why.

import { exportUrl, get, newest } from "./client.js";
import { at, count, fail, make, samples, showPages } from "./dom.js";
import { address, changed, parse } from "./state.js";

const PAGE_SIZE = 100;
const form = at("rejected-query");
const begin = newest();

export async function showRejected(run, parameters) {
  const isNewest = begin();
  form.elements.q.value = parameters.get("q") || "";
  const start = Math.max(0, Number.parseInt(parameters.get("start") || "0", 10) || 0);
  at("rejected-export").href = exportUrl("rejected.parquet", parameters);
  try {
    const found = await get("/api/rejected", changed(parameters, { start, limit: PAGE_SIZE }));
    if (!isNewest()) return;
    showReasons(found.reasons, parameters.get("reason") || "");
    at("rejected-status").className = "hint";
    at("rejected-status").textContent = found.total ? samples(found.total) : "No samples.";
    at("rejected-rows").replaceChildren(...found.rows.map((row) => make("tr", {},
      make("th", { scope: "row" }, make("bdi", { text: row.key || "(no key)" }),
        make("br"), make("small", {}, make("bdi", { text: row.shard }))),
      make("td", {}, make("strong", { text: row.reason }), make("br"), make("small", { text: row.meaning })),
      make("td", {}, make("bdi", { text: row.detail || "–" })))));
    showPages(at("rejected-pages"), start, found.rows.length, found.total, PAGE_SIZE, (first) => {
      location.hash = address("rejected", changed(parameters, { start: first || null }));
    });
  } catch (error) {
    if (isNewest()) fail(at("rejected-status"), error);
  }
}

function showReasons(reasons, chosen) {
  const select = form.elements.reason;
  const kind = (row) => (row.filtered ? "filtered" : "rejected");
  select.replaceChildren(make("option", { value: "", text: "any" }), ...reasons.map((row) => make("option", {
    value: row.reason, text: `${kind(row)}: ${row.reason.replace(/^filtered-/, "")} (${count(row.samples)})`,
  })));
  select.value = chosen;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const values = { q: form.elements.q.value, reason: form.elements.reason.value, start: null };
  location.hash = address("rejected", changed(parse().parameters, values));
});
form.elements.reason.addEventListener("change", () => form.requestSubmit());
