// Paints attention over images and computes the selection that follows from it. Shared by all pages.
const iava = (() => {
  "use strict";
  // matplotlib's inferno, and a diverging map with a dark middle that colour-blind readers can tell apart.
  const HEAT = ["#000004", "#160b39", "#420a68", "#6a176e", "#932667", "#bc3754", "#dd513a", "#f37819", "#fca50a", "#f6d746", "#fcffa4"];
  const CHANGE = ["#8cc8ff", "#4a94e6", "#24539a", "#101218", "#8a4a0c", "#e08a1e", "#ffcb6b"];
  const OUTLINE = "#ffb53c", SHADE = "rgba(16, 18, 24, ";
  // Attention sinks would darken everything else, so colour scales end at this quantile.
  const QUANTILE = 0.98;

  const floats = text => new Float32Array(Uint8Array.from(atob(text), letter => letter.charCodeAt(0)).buffer);
  const rectangles = text => {
    const edges = floats(text);
    return Array.from({ length: edges.length / 4 }, (_, n) => edges.subarray(4 * n, 4 * n + 4));
  };

  /** The attention data of iava.reporting.overlay with its arrays decoded. */
  function decoded(attention) {
    const cross = attention.cross_attention;
    return {
      ...attention,
      maps: attention.maps.map(map => ({ ...map, general: floats(map.general), query: floats(map.query) })),
      boxes: attention.boxes && rectangles(attention.boxes),
      cross_attention: cross && { general: floats(cross.general), query: floats(cross.query), boxes: rectangles(cross.boxes) },
    };
  }

  /** The rank of each number, 0 for the largest. Of equal numbers the earlier one ranks first. */
  function ranks(numbers) {
    const rank = new Uint32Array(numbers.length);
    [...numbers.keys()].sort((a, b) => numbers[b] - numbers[a] || a - b).forEach((n, place) => { rank[n] = place; });
    return rank;
  }

  /** The three criteria of iava.select_irrelevant, in single precision like the original. */
  function select(map, topI, lam, rounding) {
    const single = Math.fround;
    const drop = map.general.map((attention, n) => attention - map.query[n]);
    const rank = ranks(drop);
    const threshold = single(single(map.mean) + single(single(lam) * single(map.std)));
    const drops = Array.from(drop, (by, n) => by > single(single(rounding) * map.general[n]));
    const inTopI = Array.from(rank, place => place < topI);
    const aboveThreshold = Array.from(map.general, attention => attention > threshold);
    const selected = drops.map((yes, n) => yes && inTopI[n] && aboveThreshold[n]);
    return { drop, rank, threshold, drops, inTopI, aboveThreshold, selected };
  }

  /** The tokens that the method selected, as N booleans. */
  function selectedByMethod(attention) {
    const selected = new Array(attention.tokens).fill(false);
    attention.selected.forEach(n => { selected[n] = true; });
    return selected;
  }

  /** Weights of Q-Former queries as weights of the P patches that the queries attend to. */
  function patchWeights(weights, crossAttention, patches) {
    const total = new Float32Array(patches);
    weights.forEach((weight, n) => {
      for (let p = 0; weight && p < patches; p++) total[p] += weight * crossAttention[n * patches + p];
    });
    return total;
  }

  /** The values to paint, their rectangles, and the value at which the colour scale ends. */
  function heatMap(attention, map, overlay, selected) {
    const { boxes, cross_attention: cross } = attention;
    const rects = cross ? cross.boxes : boxes;
    const onPatches = (weights, crossAttention) => (cross ? patchWeights(weights, crossAttention, rects.length) : weights);
    const general = onPatches(map.general, cross?.general), query = onPatches(map.query, cross?.query);
    const drop = general.map((value, n) => value - query[n]);
    if (overlay === "drop") return { rects, values: drop, top: scaleEnd(drop.map(Math.abs), scaleEnd(general) / 100), stops: CHANGE, diverging: true };
    if (cross && (overlay === "selected" || overlay === "negative")) {
      const values = patchWeights(selected.map(Number), cross.query, rects.length);
      return { rects, values, top: scaleEnd(values), stops: HEAT };
    }
    return { rects, values: overlay === "query" ? query : general, top: scaleEnd([...general, ...query]), stops: HEAT };
  }

  /** The end of a colour scale. `least` keeps rounding errors from looking like attention. */
  function scaleEnd(values, least = 1e-9) {
    const sorted = Float64Array.from(values).sort();
    const place = QUANTILE * (sorted.length - 1), below = Math.floor(place);
    const above = Math.min(below + 1, sorted.length - 1);
    return Math.max(sorted[below] + (place - below) * (sorted[above] - sorted[below]), least);
  }

  /** The red, green and blue of a position from 0 to 1 on a colour map. */
  function colour(stops, position) {
    const place = Math.min(Math.max(position, 0), 1) * (stops.length - 1), below = Math.min(Math.floor(place), stops.length - 2);
    const channel = (hex, k) => parseInt(hex.slice(1 + 2 * k, 3 + 2 * k), 16);
    return [0, 1, 2].map(k => Math.round(channel(stops[below], k) + (place - below) * (channel(stops[below + 1], k) - channel(stops[below], k))));
  }

  /**
   * Paints a canvas that lies over an image.
   * overlay: picture, general, query, drop, selected or negative. map: index of the attention map. view: index of the
   * view whose tokens are painted. selected: N booleans, by default those of the method. token: the token to outline,
   * or the Q-Former query whose cross-attention is painted.
   */
  function paint(canvas, attention, { overlay, map = 0, view = 0, opacity = 1, selected = null, token = null }) {
    const density = window.devicePixelRatio || 1;
    const width = Math.round(canvas.clientWidth * density), height = Math.round(canvas.clientHeight * density);
    if (!width || !height) return;
    [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d");
    if (!attention || !(attention.boxes || attention.cross_attention)) return;
    const kept = selected || selectedByMethod(attention), cross = attention.cross_attention;
    const shown = cross ? cross.boxes.map((_, p) => p) : attention.views[view];
    const rects = cross ? cross.boxes : attention.boxes;
    const pixels = n => {
      const [x0, y0, x1, y1] = rects[n];
      const [left, top] = [Math.round(x0 * width), Math.round(y0 * height)];
      return [left, top, Math.round(x1 * width) - left, Math.round(y1 * height) - top];
    };
    const fill = (n, style) => { context.fillStyle = style; context.fillRect(...pixels(n)); };
    const outline = (n, style, line, inset) => {
      const [x, y, w, h] = pixels(n);
      context.strokeStyle = style;
      context.lineWidth = line * density;
      if (w && h) context.strokeRect(x + inset * density, y + inset * density, w - 2 * inset * density, h - 2 * inset * density);
    };
    if (cross && token !== null) {
      const patches = rects.length, values = cross.query.subarray(token * patches, (token + 1) * patches);
      const top = scaleEnd(values);
      paintHeat(shown, n => values[n] / top, HEAT, fill, opacity);
    } else if (overlay === "selected" && !cross) {
      shown.filter(n => !kept[n]).forEach(n => fill(n, `${SHADE}${0.66 * opacity})`));
      shown.filter(n => kept[n]).forEach(n => outline(n, OUTLINE, 2, 1));
    } else if (overlay === "negative" && !cross) {
      const mask = { zeros: "#000", pixels: "#808080" }[attention.negative] || hatching(context, density, attention.negative === "hide" ? 0.86 : 1);
      context.globalAlpha = opacity;
      shown.filter(n => !kept[n]).forEach(n => fill(n, mask));
      context.globalAlpha = 1;
    } else if (overlay !== "picture") {
      const { values, top, stops, diverging } = heatMap(attention, attention.maps[map], overlay, kept);
      paintHeat(shown, n => (diverging ? 0.5 + values[n] / top / 2 : values[n] / top), stops, fill, opacity, diverging);
    }
    if (overlay !== "picture") hatchMargins(context, rects, width, height, density);
    if (token !== null && !cross && attention.views[view].includes(token)) {
      outline(token, "#000", 4, 0);
      outline(token, "#fff", 2, 0);
    }
  }

  function paintHeat(shown, level, stops, fill, opacity, diverging) {
    for (const n of shown) {
      const position = Math.min(Math.max(level(n), 0), 1), strength = diverging ? Math.abs(2 * position - 1) : position;
      fill(n, `rgba(${colour(stops, position).join()}, ${opacity * (0.3 + 0.58 * strength)})`);
    }
  }

  /** Hatches the margins of the image that no token covers because the processor cropped them. */
  function hatchMargins(context, rects, width, height, density) {
    const ends = [0, 1, 2, 3].map(k => rects.map(rect => rect[k]).reduce((a, b) => (k < 2 ? Math.min(a, b) : Math.max(a, b))));
    const [x0, y0, x1, y1] = ends.map((end, k) => Math.round(end * (k % 2 ? height : width)));
    context.fillStyle = hatching(context, density, 0.8);
    context.fillRect(0, 0, width, y0);
    context.fillRect(0, y1, width, height - y1);
    context.fillRect(0, y0, x0, y1 - y0);
    context.fillRect(x1, y0, width - x1, y1 - y0);
  }

  function hatching(context, density, alpha) {
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
    return context.createPattern(tile, "repeat");
  }

  return { decoded, ranks, select, heatMap, colour, paint };
})();
