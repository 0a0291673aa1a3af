// Search by meaning: the mode of the search box, what it lacks, and lists of the most similar samples.

import { get, newest } from "./client.js";
import { at, count, make, samples } from "./dom.js";
import { address, changed, sampleAddress } from "./state.js";

const ALIKE = "More like this, on a sample's page, needs no model.";
const form = at("query");
const begin = newest();

export function isByMeaning(parameters) {
  return parameters.has("like") || (parameters.get("mode") === "meaning" && !!parameters.get("q")?.trim());
}

// Show the mode of the address; a list by meaning has its own order.
export function showMode(run, parameters) {
  const byMeaning = parameters.get("mode") === "meaning";
  form.elements.mode.value = byMeaning ? "meaning" : "words";
  at("q-name").textContent = byMeaning ? "Describe the images to find"
    : "Search captions for all words, or uids and keys";
  const ordered = isByMeaning(parameters);
  form.elements.sort.disabled = form.elements.order.disabled = ordered;
  form.elements.sort.options[0].hidden = !ordered;
  if (ordered) {
    form.elements.sort.value = "similarity";
    form.elements.order.value = "down";
  }
  at("alike").hidden = true;
  showNeeds(run, parameters);
}

// What the mode lacks, or that the model is being loaded. `failed`: the list reports why.
export async function showNeeds(run, parameters, failed = false) {
  const isNewest = begin();
  const hint = at("mode-hint");
  hint.hidden = true;
  if (parameters.get("mode") !== "meaning") return;
  const lacks = await get("/api/meaning", new URLSearchParams({ run: run.run })).catch(() => null);
  if (!lacks || !isNewest()) return;
  const searches = isByMeaning(parameters) && !parameters.has("like");
  hint.textContent = searches ? describeSearch(lacks, failed) : describeMode(lacks);
  hint.hidden = !hint.textContent;
}

function describeMode({ index, text, loaded }) {
  if (index) return index;
  if (text) return `${text}. ${ALIKE}`;
  return loaded ? "" : "The first search loads the model, which takes seconds.";
}

function describeSearch({ index, text, loaded }, failed) {
  if (text) return ALIKE;
  if (index || loaded || failed) return "";
  return "Loading the model, which takes seconds. Everything else works meanwhile.";
}

// The answer has arrived, so the model is loaded.
export function showAlike(found, parameters) {
  if (isByMeaning(parameters)) {
    begin();
    at("mode-hint").hidden = true;
  }
  at("alike").hidden = !found.like;
  if (!found.like) return;
  const { position, uid } = found.like;
  const everything = address("", changed(parameters, { like: null, start: null }));
  at("alike").replaceChildren(make("strong", { text: "Samples most like " }),
    make("a", { href: sampleAddress(parameters, position, uid) }, make("bdi", { text: uid })), ". ",
    make("a", { href: everything, text: "Show all samples" }));
}

export function countText(found) {
  if (found.nearest === undefined) return samples(found.total);
  const nearest = `${count(found.nearest)} most similar samples`;
  if (found.total === found.nearest) return `The ${nearest}, most similar first`;
  return `Filters leave ${count(found.total)} of the ${nearest}`;
}

for (const choice of form.elements.mode) choice.addEventListener("change", () => form.requestSubmit());
