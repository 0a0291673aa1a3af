// The explorer: shows the view that the address names.

import { showCompare } from "./compare.js";
import { at, count, fail } from "./dom.js";
import { showList } from "./list.js";
import { showMap } from "./map.js";
import { showRejected } from "./rejected.js";
import { describeRun, showSwitcher } from "./runs.js";
import { showSample } from "./sample.js";
import { address, changed, parse, replace } from "./state.js";

// View of the address -> the element that it is shown in, its title, and what shows it.
const VIEWS = {
  "": {
    element: "list", title: () => "Samples", show: (run, { parameters }) => showList(run, parameters),
  },
  sample: {
    element: "sample", title: ({ id }) => `Sample ${id}`,
    show: (run, { id, parameters }) => showSample(run, id, parameters),
  },
  compare: {
    element: "compare", title: () => "Compare", show: (run, { parameters }) => showCompare(run, parameters),
  },
  map: { element: "map", title: () => "Map", show: (run, { parameters }) => showMap(run, parameters) },
  rejected: {
    element: "rejected", title: () => "Rejected samples",
    show: (run, { parameters }) => showRejected(run, parameters),
  },
};
let shownRun = null;

async function route() {
  const found = parse();
  const name = found.view in VIEWS ? found.view : "";
  const view = VIEWS[name];
  try {
    const run = await describeRun(found.parameters.get("run") || "");
    // A bookmark must show this run even when a newer one is complete.
    if (found.parameters.get("run") !== run.run) {
      found.parameters = changed(found.parameters, { run: run.run });
      replace(address(found.id ? `${name}/${encodeURIComponent(found.id)}` : name, found.parameters));
    }
    if (run !== shownRun) showHeader(run);
    for (const { element } of Object.values(VIEWS)) at(element).hidden = element !== view.element;
    document.title = `${view.title(found)} – d2prune explore`;
    for (const link of document.querySelectorAll("header nav a")) {
      if (parse(link.hash).view === name) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    at("failure").hidden = true;
    view.show(run, found);
  } catch (error) {
    at("failure").hidden = false;
    fail(at("failure"), error);
    if (!shownRun) at("title").textContent = "Cannot read the run";
  }
}

function showHeader(run) {
  shownRun = run;
  at("location").textContent = `d2prune explore: ${run.work_dir}`;
  at("title").textContent = `${count(run.kept)} of ${count(run.samples)} samples kept`;
  at("title").href = at("to-list").href = address("", { run: run.run });
  at("to-compare").href = address("compare", { run: run.run });
  at("to-map").href = address("map", { run: run.run });
  at("to-rejected").href = address("rejected", { run: run.run });
  at("to-rejected").textContent = `Rejected (${count(run.rejected + run.filtered)})`;
  showSwitcher(run);
}

document.querySelector(".skip").addEventListener("click", (event) => {
  // Following the link would change the address, which is the state; only move the focus.
  event.preventDefault();
  at("content").focus();
});
window.addEventListener("hashchange", route);
route();
