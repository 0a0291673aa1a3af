// The map of the pool: points that can be coloured, moved, zoomed, outlined, listed and opened.

import { hasModifier, image } from "./cards.js";
import { exportUrl, get, newest } from "./client.js";
import { classify, legend, paint } from "./colours.js";
import { at, caption, count, fail, make, number, percent, samples, statusText } from "./dom.js";
import { fromText, inside, limit, SIDE, simplify, toText } from "./outline.js";
import { fit, openCanvas } from "./points.js";
import { listClusters } from "./runs.js";
import { address, changed, parse, replace, sampleAddress } from "./state.js";

const POLL_MS = 400;
const REST_MS = 150;
const REACH = 12;
const MAX_ZOOM = 400;
const begin = newest();
const beginTip = newest();
const [canvas, lines] = [at("points"), at("lines")];
const read = new Map();
let drawer = null;
let shown = null;
let view = { centre: [SIDE / 2, SIDE / 2], zoom: 1 };
let only = null;
let lasso = null;

export async function showMap(run, parameters) {
  const isLatest = begin();
  // Nor may the map change the address of a view that was opened meanwhile.
  const isNewest = () => isLatest() && !at("map").hidden;
  try {
    const points = await readPoints(run, isNewest);
    if (!points || !isNewest()) return;
    const { clusters } = await listClusters(run.run);
    if (!isNewest()) return;
    if (shown?.run !== run) {
      only = null;
      if (shown?.points !== points) view = { centre: [SIDE / 2, SIDE / 2], zoom: 1 };
    }
    shown = { run, points, clusters, picked: null, outline: [] };
    at("map-body").hidden = false;
    drawer = drawer || openCanvas(canvas);
    canvas.dataset.renderer = drawer.renderer;
    at("no-webgl").hidden = drawer.renderer === "webgl";
    drawer.setPlaces(points.places);
    at("colour").querySelector("[value=score]").textContent = run.score;
    at("colour").value = parameters.get("colour") || "kept";
    if (!at("colour").value) at("colour").value = "kept";
    pick(fromText(parameters.get("outline")));
    const share = points.size < run.samples ? `a random sample of ${count(points.size)} of ` : "all ";
    at("map-status").className = "hint";
    at("map-status").textContent = `The map shows ${share}${samples(run.samples)}. `
      + "Samples that are near each other are alike; distances between groups mean little.";
  } catch (error) {
    if (isNewest()) fail(at("map-status"), error);
  }
  at("map-progress").hidden = true;
}

// The points of a run; waits until the server has computed them.
async function readPoints(run, isNewest) {
  if (read.has(run.run)) return read.get(run.run);
  at("map-body").hidden = true;
  at("map-status").className = "hint";
  const query = new URLSearchParams({ run: run.run });
  let found;
  while ((found = await get("/api/map", query)).state === "working") {
    if (!isNewest()) return null;
    at("map-progress").hidden = false;
    at("map-progress").value = found.done;
    const step = found.step ? `: ${found.step}, ${percent(found.done)}` : "";
    at("map-status").textContent = `The map is computed once${step}`;
    await new Promise((resume) => setTimeout(resume, POLL_MS));
  }
  if (found.state === "failed") throw new Error(found.error);
  const answer = await fetch(`/api/map/points?${query}`);
  if (!answer.ok) throw new Error((await answer.json()).error);
  const points = unpack(await answer.arrayBuffer(), found.points, found.reasons);
  // One at a time: a map takes megabytes.
  read.clear();
  read.set(run.run, points);
  return points;
}

// See `pool_map.pack_points`.
function unpack(bytes, size, reasons) {
  let start = 0;
  const take = (kind) => {
    const column = new kind(bytes, start, size);
    start += column.byteLength;
    return column;
  };
  const position = take(Float64Array);
  const score = take(Float32Array);
  const [x, y] = [take(Uint16Array), take(Uint16Array)];
  const cluster = take(Int16Array);
  const [reason, kept] = [take(Uint8Array), take(Uint8Array)];
  const places = new Uint16Array(2 * size);
  for (let i = 0; i < size; i += 1) places.set([x[i], y[i]], 2 * i);
  return { size, reasons, position, score, places, cluster, reason, kept };
}

// What a change of colours, of the legend or of the outline shows.
function repaint() {
  const { points, clusters, run, picked } = shown;
  const classes = classify(at("colour").value, points, clusters, run.score);
  drawer.setColours(paint(classes, only, picked));
  at("legend").replaceChildren(...legend(classes).map(({ index, rgb, text }) => {
    const swatch = make("span", { class: "swatch" });
    swatch.style.background = `rgb(${rgb.join(" ")})`;
    const button = make("button", { type: "button", "aria-pressed": String(only === index) }, swatch,
      make("bdi", { text }));
    button.addEventListener("click", () => {
      only = only === index ? null : index;
      repaint();
      [...at("legend").querySelectorAll("button")].find((one) => one.textContent === text)?.focus();
    });
    return make("li", {}, button);
  }));
  draw();
}

// Pixels of a unit, size of a point, and conversions between pixels and coordinates.
function geometry() {
  const { clientWidth: width, clientHeight: height } = canvas;
  const scale = (0.94 * Math.min(width, height) * view.zoom) / SIDE;
  const size = Math.min(18, Math.max(2.6, 230 / Math.sqrt(shown.points.size)) * Math.sqrt(view.zoom));
  return {
    scale, size, width, height, centre: view.centre,
    toX: (x) => width / 2 + (x - view.centre[0]) * scale,
    toY: (y) => height / 2 - (y - view.centre[1]) * scale,
    fromPixel: (x, y) => [
      view.centre[0] + (x - width / 2) / scale,
      view.centre[1] - (y - height / 2) / scale,
    ],
  };
}

function draw() {
  const g = geometry();
  drawer.draw(g);
  fit(lines);
  const context = lines.getContext("2d");
  context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
  context.clearRect(0, 0, g.width, g.height);
  const outline = lasso ? lasso.flat() : shown.outline;
  if (outline.length) {
    context.beginPath();
    for (let i = 0; i < outline.length; i += 2) context.lineTo(g.toX(outline[i]), g.toY(outline[i + 1]));
    if (!lasso) context.closePath();
    context.strokeStyle = getComputedStyle(document.body).color;
    context.lineWidth = 1.5;
    context.setLineDash([5, 3]);
    context.stroke();
  }
  const { size, places } = shown.points;
  const [left, top] = g.fromPixel(0, 0);
  const [right, bottom] = g.fromPixel(g.width, g.height);
  let total = 0;
  for (let i = 0; i < size; i += 1) {
    const x = places[2 * i];
    const y = places[2 * i + 1];
    total += x >= left && x <= right && y >= bottom && y <= top;
  }
  // Corners on the points' own grid, and one beyond the last point of it.
  const [l, b] = [left, bottom].map((value) => limit(Math.ceil(value)));
  const [r, t] = [right, top].map((value) => limit(Math.floor(value) + 1));
  at("in-view").textContent = `List the ${samples(total)} in view`;
  at("in-view").href = address("", { run: shown.run.run, outline: toText([l, b, r, b, r, t, l, t]) });
}

function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
  const before = geometry().fromPixel(x, y);
  view.zoom = Math.max(1, Math.min(MAX_ZOOM, view.zoom * factor));
  const after = geometry().fromPixel(x, y);
  move(before[0] - after[0], before[1] - after[1]);
}

function move(dx, dy) {
  view.centre = [limit(view.centre[0] + dx), limit(view.centre[1] + dy)];
  hideTip();
  draw();
}

function reset() {
  view = { centre: [SIDE / 2, SIDE / 2], zoom: 1 };
  move(0, 0);
}

// Shows what an outline contains; none: clears it.
function pick(outline) {
  const { run, points } = shown;
  shown.outline = outline;
  shown.picked = outline.length ? inside(outline, points.places) : null;
  const text = outline.length ? toText(outline) : null;
  at("picked").hidden = !text;
  if (text) {
    const total = shown.picked.reduce((sum, one) => sum + one, 0);
    const kept = shown.picked.reduce((sum, one, i) => sum + one * points.kept[i], 0);
    at("picked-count").textContent = `${samples(total)} inside the outline, ${count(kept)} kept`;
    const list = new URLSearchParams({ run: run.run, outline: text });
    at("picked-list").href = address("", list);
    for (const file of ["samples.parquet", "subset.npy"]) at(`picked-${file}`).href = exportUrl(file, list);
  }
  replace(address("map", changed(parse().parameters, { outline: text })));
  repaint();
}

// Index of the point at a pixel of the canvas; -1: none.
function find(x, y) {
  const g = geometry();
  const [px, py] = g.fromPixel(x, y);
  const { places, size } = shown.points;
  let [best, nearest] = [(REACH / g.scale) ** 2, -1];
  for (let i = 0; i < size; i += 1) {
    const distance = (places[2 * i] - px) ** 2 + (places[2 * i + 1] - py) ** 2;
    if (distance < best) [best, nearest] = [distance, i];
  }
  return nearest;
}

function hideTip() {
  beginTip();
  at("tip").hidden = true;
  at("tip").dataset.position = "";
}

async function showTip(i, x, y) {
  const { run, points } = shown;
  const position = points.position[i];
  if (at("tip").dataset.position === String(position)) return;
  const isNewest = beginTip();
  const status = statusText(points.reasons[points.reason[i]]);
  const words = make("div", { class: "caption", text: "\u00a0" });
  at("tip").replaceChildren(...[run.has_images ? image(run, position, "small", "") : null, words,
    make("div", { class: `status ${points.kept[i] ? "kept" : "dropped"}`, text: status }),
    make("div", { class: "scores", text: `${run.score} ${number(points.score[i])}` })].filter(Boolean));
  at("tip").dataset.position = position;
  at("tip").hidden = false;
  const { clientWidth: width, clientHeight: height } = canvas;
  at("tip").style.left = `${Math.max(0, x + 190 > width ? x - 196 : x + 14)}px`;
  at("tip").style.top = `${Math.max(0, Math.min(y, height - at("tip").offsetHeight - 4))}px`;
  await new Promise((resume) => setTimeout(resume, REST_MS));
  if (!isNewest()) return;
  const query = new URLSearchParams({ run: run.run });
  const found = await get(`/api/sample/${position}`, query).catch(() => null);
  if (found && isNewest()) words.replaceChildren(caption(found.sample.caption));
}

function open(i) {
  const position = String(shown.points.position[i]);
  location.hash = sampleAddress(new URLSearchParams({ run: shown.run.run }), position, position);
}

const pointers = new Map();
let moved = false;
const spot = (event) => [event.offsetX, event.offsetY];

canvas.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, spot(event));
  moved = false;
  hideTip();
  const draws = at("lasso").getAttribute("aria-pressed") === "true" || event.shiftKey;
  lasso = draws && pointers.size === 1 ? [geometry().fromPixel(...spot(event))] : null;
});
canvas.addEventListener("pointermove", (event) => {
  const [x, y] = spot(event);
  const before = pointers.get(event.pointerId);
  if (!before) {
    const i = find(x, y);
    canvas.classList.toggle("on-point", i >= 0);
    if (i < 0) hideTip();
    else showTip(i, x, y);
    return;
  }
  const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
  if (Math.hypot(x - before[0], y - before[1]) < 3 && !moved) return;
  moved = true;
  pointers.set(event.pointerId, [x, y]);
  if (other) {
    const spread = (one) => Math.hypot(one[0] - other[0], one[1] - other[1]) || 1;
    zoom(spread([x, y]) / spread(before), (x + other[0]) / 2, (y + other[1]) / 2);
  } else if (lasso) {
    lasso.push(geometry().fromPixel(x, y));
    draw();
  } else {
    const { scale } = geometry();
    move((before[0] - x) / scale, (y - before[1]) / scale);
  }
});
canvas.addEventListener("pointerup", (event) => {
  if (!pointers.delete(event.pointerId)) return;
  const drawn = lasso;
  lasso = null;
  if (drawn && moved) {
    const outline = simplify(drawn);
    pick(outline.length >= 6 ? outline : []);
  } else if (!moved) {
    const i = find(...spot(event));
    if (i >= 0) open(i);
  }
});
canvas.addEventListener("pointercancel", (event) => {
  pointers.delete(event.pointerId);
  lasso = null;
});
canvas.addEventListener("pointerleave", hideTip);
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY / 400), ...spot(event));
}, { passive: false });
canvas.addEventListener("keydown", (event) => {
  const step = 0.15 * Math.min(canvas.clientWidth, canvas.clientHeight) / geometry().scale;
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
  const zooms = { "+": 1.5, "=": 1.5, "-": 1 / 1.5 };
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  if (moves[event.key] && !hasModifier(event)) move(...moves[event.key]);
  else if (zooms[event.key]) zoom(zooms[event.key]);
  else if (event.key === "0") reset();
  else if (event.key === "Enter") at("in-view").click();
  else if (event.key === "Escape") pick([]);
  else return;
  event.preventDefault();
});

at("zoom-in").addEventListener("click", () => zoom(1.5));
at("zoom-out").addEventListener("click", () => zoom(1 / 1.5));
at("whole").addEventListener("click", reset);
at("clear").addEventListener("click", () => {
  pick([]);
  canvas.focus();
});
at("lasso").addEventListener("click", () => {
  const pressed = at("lasso").getAttribute("aria-pressed") !== "true";
  at("lasso").setAttribute("aria-pressed", String(pressed));
  canvas.classList.toggle("drawing", pressed);
});
at("colour").addEventListener("change", () => {
  only = null;
  const way = at("colour").value;
  replace(address("map", changed(parse().parameters, { colour: way === "kept" ? null : way })));
  repaint();
});
const isShown = () => shown && drawer && !at("map").hidden && !at("map-body").hidden;
new ResizeObserver(() => isShown() && draw()).observe(canvas);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => isShown() && repaint());
