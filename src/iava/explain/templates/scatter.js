// The scatter plot of all tokens with the three selection criteria.
const { drawScatter, nearestDot } = (() => {
  "use strict";
  const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  /**
   * Draws a token as a dot at its general attention (x) and its drop under the question (y), with the three criteria
   * as numbered lines. Returns the pixels of the dots.
   */
  function drawScatter(canvas, map, selection, { topI, token }) {
    const density = window.devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width) return [];
    [canvas.width, canvas.height] = [width * density, height * density];
    const context = canvas.getContext("2d");
    context.scale(density, density);
    const [ink, muted, line, pick, card] = ["--ink", "--muted", "--line", "--pick", "--card"].map(css);
    const [left, right, top, bottom] = [8, width - 10, 8, height - 26];
    const highestGeneral = Math.max(...map.general, 1e-9), [lowest, highest] = [Math.min(0, ...selection.drop), Math.max(...selection.drop, 1e-9)];
    // Square-root axes separate the many small values.
    const root = value => Math.sign(value) * Math.sqrt(Math.abs(value));
    const x = value => left + (root(Math.max(value, 0)) / root(1.06 * highestGeneral)) * (right - left);
    const y = value => bottom - ((root(value) - root(1.2 * lowest)) / (root(1.12 * highest) - root(1.2 * lowest))) * (bottom - top);
    const sorted = [...selection.drop].sort((a, b) => b - a), least = sorted[topI - 1], threshold = Math.max(selection.threshold, 0);
    const floor = y(Math.max(least, 0));
    context.fillStyle = pick;
    context.globalAlpha = 0.14;
    context.fillRect(x(threshold), top, right - x(threshold), floor - top);
    context.globalAlpha = 1;
    context.strokeStyle = line;
    context.strokeRect(left, top, right - left, bottom - top);
    const rule = (x0, y0, x1, y1, dash) => {
      context.beginPath();
      context.moveTo(x0, y0);
      context.lineTo(x1, y1);
      context.setLineDash(dash);
      context.strokeStyle = muted;
      context.stroke();
      context.setLineDash([]);
    };
    const text = (words, a, b, align) => { context.textAlign = align; context.fillText(words, a, b); };
    context.fillStyle = muted;
    context.font = `600 11px ${css("--sans")}`;
    rule(left, y(0), right, y(0), []);
    text("1", right - 5, Math.min(y(0) + 13, bottom - 5), "right");
    rule(left, y(least), right, y(least), [5, 4]);
    text("2", right - 5, y(least) - 5, "right");
    if (x(threshold) < right) {
      rule(x(threshold), top, x(threshold), bottom, [2, 3]);
      text("3", x(threshold) + 5, bottom - 5, "left");
    }
    context.font = `11px ${css("--sans")}`;
    text("general attention →", right, height - 8, "right");
    text("square-root axes", left, height - 8, "left");
    text("drop ↑", left + 6, top + 14, "left");
    const dots = Array.from(map.general, (value, n) => [x(value), y(selection.drop[n])]);
    const dot = (n, radius, style, stroke) => {
      context.beginPath();
      context.arc(dots[n][0], dots[n][1], radius, 0, 7);
      context.fillStyle = style;
      context.strokeStyle = stroke;
      context.lineWidth = 1;
      if (style) context.fill();
      context.stroke();
    };
    dots.forEach((_, n) => selection.selected[n] || dot(n, 2.2, null, muted));
    dots.forEach((_, n) => selection.selected[n] && dot(n, 3.6, pick, card));
    if (token !== null) dot(token, 6.5, selection.selected[token] ? pick : null, ink);
    return dots;
  }

  /** The token whose dot is nearest to a pixel, at most 14 pixels away. */
  function nearestDot(dots, x, y) {
    let best = null, least = 14 * 14;
    dots.forEach(([dotX, dotY], n) => {
      const distance = (dotX - x) ** 2 + (dotY - y) ** 2;
      if (distance < least) [best, least] = [n, distance];
    });
    return best;
  }

  return { drawScatter, nearestDot };
})();
