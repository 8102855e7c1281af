// Attention laid over pictures, and the selection that follows from it: what every page shares.
const iava = (() => {
  "use strict";
  // matplotlib's inferno; and one that is dark where nothing changes, blue and orange for every kind of eye.
  const HEAT = ["#000004", "#160b39", "#420a68", "#6a176e", "#932667", "#bc3754", "#dd513a", "#f37819", "#fca50a", "#f6d746", "#fcffa4"];
  const CHANGE = ["#8cc8ff", "#4a94e6", "#24539a", "#101218", "#8a4a0c", "#e08a1e", "#ffcb6b"];
  const EDGE = "#ffb53c", DARK = "rgba(16, 18, 24, ";
  // Attention has a few sinks that would darken everything else: scales end at this quantile.
  const CLIP = 0.98;

  const floats = text => new Float32Array(Uint8Array.from(atob(text), letter => letter.charCodeAt(0)).buffer);
  const rectangles = text => {
    const edges = floats(text);
    return Array.from({ length: edges.length / 4 }, (_, n) => edges.subarray(4 * n, 4 * n + 4));
  };

  /** A reading as Python packed it, with its arrays unpacked. */
  function unpacked(reading) {
    const looks = reading.looks;
    return {
      ...reading,
      maps: reading.maps.map(map => ({ ...map, general: floats(map.general), query: floats(map.query) })),
      boxes: reading.boxes && rectangles(reading.boxes),
      looks: looks && { general: floats(looks.general), query: floats(looks.query), boxes: rectangles(looks.boxes) },
    };
  }

  /** Each number's place when the largest comes first; of equal ones, the earlier. */
  function ranks(numbers) {
    const rank = new Uint32Array(numbers.length);
    [...numbers.keys()].sort((a, b) => numbers[b] - numbers[a] || a - b).forEach((n, place) => { rank[n] = place; });
    return rank;
  }

  /** The three criteria of iava.select_irrelevant, in its own single precision. */
  function select(map, most, lam, rounding) {
    const single = Math.fround;
    const fall = map.general.map((attention, n) => attention - map.query[n]);
    const rank = ranks(fall);
    const threshold = single(single(map.mean) + single(single(lam) * single(map.std)));
    const falls = Array.from(fall, (by, n) => by > single(single(rounding) * map.general[n]));
    const among = Array.from(rank, place => place < most);
    const high = Array.from(map.general, attention => attention > threshold);
    const selected = falls.map((yes, n) => yes && among[n] && high[n]);
    return { fall, rank, threshold, falls, among, high, selected };
  }

  /** Which tokens the method selected: (N) bool. */
  function answered(reading) {
    const kept = new Array(reading.tokens).fill(false);
    reading.selected.forEach(n => { kept[n] = true; });
    return kept;
  }

  /** What a Q-Former's queries look at together, each with a weight: (P). */
  function projected(weights, looks, patches) {
    const total = new Float32Array(patches);
    weights.forEach((weight, n) => {
      for (let p = 0; weight && p < patches; p++) total[p] += weight * looks[n * patches + p];
    });
    return total;
  }

  /** What is to be painted, in which rectangles, and the value at which the scale ends. */
  function layer(reading, map, what, selected) {
    const { boxes, looks } = reading;
    const rects = looks ? looks.boxes : boxes;
    const on = (weights, at) => (looks ? projected(weights, at, rects.length) : weights);
    const general = on(map.general, looks?.general), query = on(map.query, looks?.query);
    const fall = general.map((attention, n) => attention - query[n]);
    if (what === "drop") return { rects, values: fall, top: quantile(fall.map(Math.abs), quantile(general) / 100), stops: CHANGE, both: true };
    if (looks && (what === "selected" || what === "negative")) {
      const values = projected(selected.map(Number), looks.query, rects.length);
      return { rects, values, top: quantile(values), stops: HEAT };
    }
    return { rects, values: what === "query" ? query : general, top: quantile([...general, ...query]), stops: HEAT };
  }

  /** Where a scale ends; of changes not below a hundredth of what changes, or rounding would look like attention. */
  function quantile(values, least = 1e-9) {
    const sorted = Float64Array.from(values).sort();
    const place = CLIP * (sorted.length - 1), below = Math.floor(place);
    const above = Math.min(below + 1, sorted.length - 1);
    return Math.max(sorted[below] + (place - below) * (sorted[above] - sorted[below]), least);
  }

  function colour(stops, share) {
    const place = Math.min(Math.max(share, 0), 1) * (stops.length - 1), below = Math.min(Math.floor(place), stops.length - 2);
    const part = (hex, k) => parseInt(hex.slice(1 + 2 * k, 3 + 2 * k), 16);
    return [0, 1, 2].map(k => Math.round(part(stops[below], k) + (place - below) * (part(stops[below + 1], k) - part(stops[below], k))));
  }

  /**
   * Paints over a picture, on a canvas that lies on it.
   * what: picture, general, query, drop, selected or negative; map: which attention; sheet: which of the reading's
   * sheets; selected: which tokens, by default as answered; token: one to be outlined, or a query whose look is shown.
   */
  function paint(canvas, reading, { what, map = 0, sheet = 0, opacity = 1, selected = null, token = null }) {
    const density = window.devicePixelRatio || 1;
    const width = Math.round(canvas.clientWidth * density), height = Math.round(canvas.clientHeight * density);
    if (!width || !height) return;
    [canvas.width, canvas.height] = [width, height];
    const pen = canvas.getContext("2d");
    if (!reading || !(reading.boxes || reading.looks)) return;
    const kept = selected || answered(reading);
    const shown = reading.looks ? reading.looks.boxes.map((_, p) => p) : reading.sheets[sheet];
    const rects = reading.looks ? reading.looks.boxes : reading.boxes;
    const pixels = n => {
      const [x0, y0, x1, y1] = rects[n];
      const [left, top] = [Math.round(x0 * width), Math.round(y0 * height)];
      return [left, top, Math.round(x1 * width) - left, Math.round(y1 * height) - top];
    };
    const fill = (n, style) => { pen.fillStyle = style; pen.fillRect(...pixels(n)); };
    const edge = (n, style, line, inset) => {
      const [x, y, w, h] = pixels(n);
      pen.strokeStyle = style;
      pen.lineWidth = line * density;
      if (w && h) pen.strokeRect(x + inset * density, y + inset * density, w - 2 * inset * density, h - 2 * inset * density);
    };
    const look = reading.looks && token !== null;
    if (look) {
      const size = rects.length, values = reading.looks.query.subarray(token * size, (token + 1) * size);
      heat(shown, n => values[n] / quantile(values), HEAT, fill, opacity);
    } else if (what === "selected" && !reading.looks) {
      shown.filter(n => !kept[n]).forEach(n => fill(n, `${DARK}${0.66 * opacity})`));
      shown.filter(n => kept[n]).forEach(n => edge(n, EDGE, 2, 1));
    } else if (what === "negative" && !reading.looks) {
      const masked = { zeros: "#000", pixels: "#808080" }[reading.negative] || hatched(pen, density, reading.negative === "hide" ? 0.86 : 1);
      pen.globalAlpha = opacity;
      shown.filter(n => !kept[n]).forEach(n => fill(n, masked));
      pen.globalAlpha = 1;
    } else if (what !== "picture") {
      const { values, top, stops, both } = layer(reading, reading.maps[map], what, kept);
      heat(shown, n => (both ? 0.5 + values[n] / top / 2 : values[n] / top), stops, fill, opacity, both);
    }
    if (what !== "picture") unseen(pen, rects, width, height, density);
    if (token !== null && !reading.looks && reading.sheets[sheet].includes(token)) {
      edge(token, "#000", 4, 0);
      edge(token, "#fff", 2, 0);
    }
  }

  function heat(shown, level, stops, fill, opacity, both) {
    for (const n of shown) {
      const share = Math.min(Math.max(level(n), 0), 1), strength = both ? Math.abs(2 * share - 1) : share;
      fill(n, `rgba(${colour(stops, share).join()}, ${opacity * (0.3 + 0.58 * strength)})`);
    }
  }

  /** Covers what no token looks at: cut off before the model saw it. */
  function unseen(pen, rects, width, height, density) {
    const ends = [0, 1, 2, 3].map(k => rects.map(rect => rect[k]).reduce((a, b) => (k < 2 ? Math.min(a, b) : Math.max(a, b))));
    const [x0, y0, x1, y1] = ends.map((end, k) => Math.round(end * (k % 2 ? height : width)));
    pen.fillStyle = hatched(pen, density, 0.8);
    pen.fillRect(0, 0, width, y0);
    pen.fillRect(0, y1, width, height - y1);
    pen.fillRect(0, y0, x0, y1 - y0);
    pen.fillRect(x1, y0, width - x1, y1 - y0);
  }

  function hatched(pen, density, alpha) {
    const tile = document.createElement("canvas"), side = Math.round(8 * density);
    tile.width = tile.height = side;
    const brush = tile.getContext("2d");
    brush.fillStyle = `rgba(52, 55, 62, ${alpha})`;
    brush.fillRect(0, 0, side, side);
    brush.strokeStyle = `rgba(92, 96, 106, ${alpha})`;
    brush.lineWidth = density * 1.5;
    for (const shift of [-side, 0, side]) {
      brush.beginPath();
      brush.moveTo(shift, side);
      brush.lineTo(shift + side, 0);
      brush.stroke();
    }
    return pen.createPattern(tile, "repeat");
  }

  return { unpacked, ranks, select, layer, colour, paint };
})();
