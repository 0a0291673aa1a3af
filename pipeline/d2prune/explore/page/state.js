// The state of the page is its address, so Back, Forward and bookmarks work:
//   #/?run=…&q=…&sort=…          a list of samples
//   #/?mode=meaning&q=…          the samples that a text describes best (like=POSITION: most like a sample;
//                                image=NAME: most like an image that was sent to the server)
//   #/sample/UID?run=…&at=…&q=…  one sample (at: its position), and the list it was opened from
//   #/compare?a=…&b=…            two selections: RUN, RUN@FRACTION or @FRACTION
//   #/map?run=…&colour=…         the map (outline: the samples inside it, in a list too)
//   #/rejected?run=…             samples that were not embedded

const LIST = [
  "run", "mode", "q", "like", "image", "reason", "cluster", "low", "high", "a", "b", "among", "outline",
  "sort", "order",
];

export function parse(hash = location.hash) {
  const [path, ...rest] = hash.replace(/^#\/?/, "").split("?");
  const [view, id] = path.split("/");
  let name = id || "";
  try {
    name = decodeURIComponent(name);
  } catch {
    // Not an encoded address; shown unchanged.
  }
  return { view, id: name, parameters: new URLSearchParams(rest.join("?")) };
}

// Empty values are left out.
export function address(view, values) {
  const parameters = new URLSearchParams();
  const pairs = values instanceof URLSearchParams ? values : Object.entries(values);
  for (const [name, value] of pairs) {
    if (value !== "" && value !== null && value !== undefined) parameters.set(name, value);
  }
  return `#/${view}?${parameters}`;
}

// What decides which samples a list shows, and in which order.
export function listOf(parameters) {
  const found = new URLSearchParams();
  for (const name of LIST) if (parameters.get(name)) found.set(name, parameters.get(name));
  return found;
}

export function changed(parameters, values) {
  const next = new URLSearchParams(parameters);
  for (const [name, value] of Object.entries(values)) {
    if (value === null || value === "") next.delete(name);
    else next.set(name, value);
  }
  return next;
}

export function sampleAddress(parameters, position, uid) {
  return address(`sample/${encodeURIComponent(uid)}`, changed(parameters, { at: position }));
}

// Change the address without a new entry in the history, and without a new view.
export function replace(hash) {
  history.replaceState(null, "", hash);
}
