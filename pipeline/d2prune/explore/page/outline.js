// Outlines on the map: closed lines with whole coordinates from 0 to 65535, [x, y, x, y, ...].

export const SIDE = 65535;
const MAX_CORNERS = 100;

// Which points are inside, by the even-odd rule. The server does the same in whole numbers
// (`pool_map.contains`): both must agree on every point.
export function inside(outline, places) {
  const found = new Uint8Array(places.length / 2);
  const corners = Int32Array.from([...outline, outline[0], outline[1]]);
  for (let i = 0; i < found.length; i += 1) {
    const x = places[2 * i];
    const y = places[2 * i + 1];
    for (let corner = 0; corner < outline.length; corner += 2) {
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
