// Outlines on the map: closed lines with whole coordinates from 0 to 65535, [x, y, x, y, ...].

export const SIDE = 65535;
const MAX_CORNERS = 100;
const BAND_BITS = 8;

// Which points are inside, by the even-odd rule. The server does the same in whole numbers
// (`pool_map.contains`): both must agree on every point.
export function inside(outline, places) {
  const found = new Uint8Array(places.length / 2);
  const corners = Int32Array.from([...outline, outline[0], outline[1]]);
  const edges = edgesByBand(corners);
  for (let i = 0; i < found.length; i += 1) {
    const x = places[2 * i];
    const y = places[2 * i + 1];
    for (const corner of edges[y >> BAND_BITS]) {
      const ay = corners[corner + 1];
      const by = corners[corner + 3];
      if (ay > y === by > y) continue;
      const ax = corners[corner];
      const side = (corners[corner + 2] - ax) * (y - ay) - (x - ax) * (by - ay);
      if (by > ay ? side > 0 : side < 0) found[i] ^= 1;
    }
  }
  return found;
}

// The first corners of the edges in each horizontal band, since most edges are at other heights than a point.
function edgesByBand(corners) {
  const edges = Array.from({ length: (SIDE >> BAND_BITS) + 1 }, () => []);
  for (let corner = 0; corner + 2 < corners.length; corner += 2) {
    const heights = [corners[corner + 1], corners[corner + 3]];
    const last = Math.max(...heights) >> BAND_BITS;
    for (let band = Math.min(...heights) >> BAND_BITS; band <= last; band += 1) edges[band].push(corner);
  }
  return edges;
}

export function limit(value) {
  return Math.max(0, Math.min(SIDE, Math.round(value)));
}

// An outline short enough for an address: corners that are closest to the one before are left out.
export function simplify(points) {
  for (let gap = 0; ; gap = 2 * gap || 32) {
    const kept = [];
    for (const [x, y] of points) {
      const end = kept.length;
      if (!end || Math.hypot(x - kept[end - 2], y - kept[end - 1]) > gap) kept.push(limit(x), limit(y));
    }
    if (kept.length <= 2 * MAX_CORNERS) return kept;
  }
}

export function toText(outline) {
  return outline.join(",");
}

// Empty if the text is no outline.
export function fromText(text) {
  const numbers = (text || "").split(",").map(Number);
  const valid = numbers.length >= 6 && numbers.length % 2 === 0 && numbers.length <= 400;
  return valid && numbers.every((n) => Number.isInteger(n) && n >= 0 && n <= SIDE) ? numbers : [];
}
