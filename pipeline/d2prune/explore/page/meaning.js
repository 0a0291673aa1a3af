// Search by meaning: the mode of the search box, what it lacks, images to search for, and lists of the most
// similar samples.

import { get, newest, sendImage } from "./client.js";
import { at, count, fail, make, samples } from "./dom.js";
import { address, changed, parse, sampleAddress } from "./state.js";

const ALIKE = "More like this, on a sample's page, needs no model.";
const form = at("query");
const begin = newest();
const beginImage = newest();
const TEXT_FIELDS = "input[type=search], input[type=number]";
const MAX_IMAGE_BYTES = 20 * 2 ** 20;
// Name of an image for the server -> name of its file.
const files = new Map();

export function isByMeaning(parameters) {
  return parameters.has("like") || parameters.has("image") || (parameters.get("mode") === "meaning" && !!parameters.get("q")?.trim());
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
  const searches = isByMeaning(parameters) && !parameters.has("like") && !parameters.has("image");
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
  at("alike").hidden = !found.like && !found.image;
  if (at("alike").hidden) return;
  const everything = address("", changed(parameters, { like: null, image: null, start: null }));
  const target = found.like
    ? make("a", { href: sampleAddress(parameters, found.like.position, found.like.uid) },
      make("bdi", { text: found.like.uid }))
    : make("bdi", { text: files.get(found.image) || "your image" });
  at("alike").replaceChildren(make("strong", { text: "Samples most like " }), target, ". ",
    make("a", { href: everything, text: "Show all samples" }));
}

export function countText(found) {
  if (found.nearest === undefined) return samples(found.total);
  const nearest = `${count(found.nearest)} most similar samples`;
  if (found.total === found.nearest) return `The ${nearest}, most similar first`;
  return `Filters leave ${count(found.total)} of the ${nearest}`;
}

for (const choice of form.elements.mode) choice.addEventListener("change", () => form.requestSubmit());

// Search for an image that was chosen, dropped or pasted; the server keeps its embedding only.
async function searchFor(file) {
  const isNewest = beginImage();
  const { parameters } = parse();
  at("status").className = "hint";
  at("status").textContent = `Searching for ${file.name}. The first search loads the model, which takes seconds.`;
  at("status").scrollIntoView({ block: "nearest" });
  try {
    if (file.size > MAX_IMAGE_BYTES) throw new Error(`${file.name} has more than 20 MiB.`);
    const image = await sendImage(parameters.get("run") || "", file);
    if (!isNewest()) return;
    files.set(image, file.name);
    const none = { mode: null, q: null, like: null, sort: null, order: null, start: null };
    location.hash = address("", changed(parameters, { ...none, image }));
  } catch (error) {
    if (isNewest()) fail(at("status"), error);
  }
}

at("image").addEventListener("click", () => at("image-file").click());
at("image-file").addEventListener("change", () => {
  const [file] = at("image-file").files;
  if (file) searchFor(file);
  // The same file can be chosen again.
  at("image-file").value = "";
});
const isList = () => !at("list").hidden;
for (const name of ["dragover", "drop"]) {
  document.addEventListener(name, (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    // Else the browser would leave the page for the file.
    event.preventDefault();
    const [file] = event.dataTransfer.files;
    if (name === "drop" && file && isList()) searchFor(file);
  });
}
document.addEventListener("paste", (event) => {
  const { files: [file], types } = event.clipboardData;
  // Office puts an image of copied text beside it.
  const isText = types.includes("text/plain") || event.target.closest?.(TEXT_FIELDS);
  if (file && !isText && isList()) searchFor(file);
});
