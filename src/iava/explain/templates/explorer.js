(() => {
  "use strict";
  const page = JSON.parse(document.getElementById("data").textContent);
  const questions = page.questions.map(asked => ({ ...asked, reading: asked.reading && iava.unpacked(asked.reading) }));
  const at = id => document.getElementById(id);
  const state = { question: 0, what: "general", map: 0, sheet: 0, opacity: 1, most: 1, lam: 0, token: null, pinned: false, answer: 0, step: 0 };
  let asked, reading, found;  // the question, what was read for it, and what the criteria find

  /** An element with its attributes and children; strings become text. */
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value === true) element.setAttribute(name, "");
      else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
    }
    element.append(...children.filter(child => child !== null));
    return element;
  }

  const percent = share => {
    const value = 100 * share;
    return `${Math.abs(value) >= 0.01 || value === 0 ? value.toFixed(Math.abs(value) < 10 ? 3 : 2) : value.toPrecision(2)} %`;
  };
  const signed = (value, text) => (value > 0 ? "+" : value < 0 ? "−" : "") + text(Math.abs(value));
  const visible = text => text.trim() || "␣";
  const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // ---- the question ----

  function showQuestion(number) {
    Object.assign(state, { question: number, map: 0, sheet: 0, token: null, pinned: false, step: 0 });
    asked = questions[number];
    reading = asked.reading;
    state.answer = Math.max(asked.answers.length - 1, 0);
    if (reading) Object.assign(state, { most: reading.top_i, lam: reading.lam });
    at("question").textContent = asked.question;
    document.querySelectorAll("#questions button").forEach((button, n) => button.setAttribute("aria-pressed", n === number));
    at("answers").replaceChildren(...asked.answers.map(answerRow));
    at("lab").classList.toggle("blind", !reading);
    at("no-attention").hidden = Boolean(reading);
    if (reading) prepare();
    else draw();
    showWords();
  }

  function answerRow(answer) {
    return make("div", { class: "answer" },
      make("b", { class: "method" }, answer.method),
      make("span", { class: "text" }, ...words(answer.words)),
      make("span", { class: "muted number", title: "wall-clock time of this answer, as asked here: no benchmark" }, `${answer.seconds.toFixed(2)} s`));
  }

  function words(list) {
    if (!list.length) return [make("span", { class: "muted" }, "(nothing)")];
    return list.flatMap(([word, differs], n) => [n ? " " : "", differs ? make("mark", {}, word) : word]);
  }

  // ---- where it looks ----

  const CAPTIONS = {
    picture: () => "The picture as it was given.",
    general: () => `Attention of the last prompt token under “${reading.instruction}”`,
    query: () => `Attention of the last prompt token under “${asked.question}”`,
    drop: () => "General minus question: orange lost attention, blue gained.",
    selected: count => `${count} of ${reading.tokens} tokens meet all three criteria: much attention in general, less for the question.`,
    negative: count => {
      const masked = {
        zeros: "the other tokens' embeddings are set to zero (black)",
        drop: "the other tokens are taken out of the sequence (hatched)",
        hide: "what follows the image may not attend to the other tokens (hatched)",
        pixels: "the other patches are painted over in the processor's mean colour (grey)",
      }[reading.negative];
      if (!count) return "What the second branch sees: no token meets all three criteria, so it answers from the text alone.";
      return `What the second branch sees: ${count} tokens; ${masked}.${reading.looks ? " Drawn is what the queries that stay look at." : ""}`;
    },
  };

  function prepare() {
    const layers = reading.maps.length - 1;
    Object.assign(at("layer"), { max: layers, value: 0 });
    Object.assign(at("most"), { max: reading.tokens, value: state.most });
    Object.assign(at("lam"), { value: state.lam });
    Object.assign(at("number"), { max: reading.tokens - 1, value: "" });
    at("layer-control").hidden = !layers;
    const areas = reading.sheets.map(sheet => Math.max(...sheet.map(n => area(reading.boxes[n]))));
    at("sheets").hidden = reading.sheets.length < 2;
    at("sheet-choice").replaceChildren(...reading.sheets.map((sheet, n) => choice("sheet", n, areas.length === 2 ? (areas[n] === Math.max(...areas) ? "overview" : "tiles") : `part ${n + 1}`, n === 0)));
    at("unplaced").hidden = Boolean(reading.boxes);
    at("unplaced").textContent = reading.looks
      ? "This model's image tokens are the queries of a Q-Former: each looks at the whole picture. The maps show what the queries look at, weighted by their attention; choose a query to see its own look."
      : reading.boxes ? "" : "Where this model's image tokens lie in the picture is not known: their numbers are below.";
    at("strip").replaceChildren(...(reading.boxes ? [] : Array.from({ length: reading.tokens }, (_, n) =>
      make("button", { type: "button", "aria-label": `token ${n}`, onclick: () => point(state.pinned && state.token === n ? null : n, true), onmouseenter: () => state.pinned || point(n), onmouseleave: () => state.pinned || point(null) }))));
    update();
  }

  const area = ([x0, y0, x1, y1]) => (x1 - x0) * (y1 - y0);

  function choice(name, value, label, checked) {
    return make("label", {}, make("input", { type: "radio", name, value, checked }), make("span", {}, label));
  }

  /** Everything that depends on the attention shown, the criteria, or the token pointed at. */
  function update() {
    const map = reading.maps[state.map];
    found = iava.select(map, state.most, state.lam, reading.rounding);
    const count = list => list.filter(Boolean).length;
    const all = count(found.selected);
    at("n-falls").textContent = count(found.falls);
    at("n-among").textContent = count(found.among);
    at("n-high").textContent = count(found.high);
    at("n-all").textContent = all;
    at("of-all").textContent = `of ${reading.tokens} tokens selected (${(100 * all / reading.tokens).toFixed(1)} %)`;
    at("most-value").textContent = state.most;
    at("most-share").textContent = `${(100 * state.most / reading.tokens).toFixed(1)} % of all`;
    at("lam-value").textContent = signed(state.lam, value => value.toFixed(2));
    at("threshold").textContent = `above ${percent(found.threshold)}`;
    const name = state.map ? `layer ${state.map - 1}` : reading.layers === "all" ? "mean of all layers" : `mean of layers ${reading.layers.join(", ")}`;
    at("layer-value").textContent = name;
    at("layer").setAttribute("aria-valuetext", name);
    const same = !state.map && state.most === reading.top_i && state.lam === reading.lam;
    const flags = [`--top-i ${state.most}`, `--lam ${state.lam}`, ...(state.map ? [`--layers ${state.map - 1}`] : [])].join(" ");
    at("as-answered").hidden = !same;
    at("not-answered").hidden = same;
    at("flags").textContent = flags;
    draw();
  }

  function draw() {
    document.querySelectorAll("#what input").forEach(input => { input.checked = input.value === state.what; });
    if (!reading) return;
    const map = reading.maps[state.map];
    iava.paint(at("overlay"), reading, { ...state, selected: found.selected });
    legend(map);
    at("caption").textContent = CAPTIONS[state.what](found.selected.filter(Boolean).length) + attended(map);
    strip(map);
    scatter(map);
    readout(map);
  }

  function attended(map) {
    if (state.what !== "general" && state.what !== "query") return "";
    return `: ${(100 * map[state.what].reduce((a, b) => a + b, 0)).toFixed(0)} % of it goes to the image.`;
  }

  function legend(map) {
    const heat = ["general", "query", "drop"].includes(state.what) && (reading.boxes || reading.looks);
    at("legend").hidden = !heat;
    if (!heat) return;
    const { top, stops, both } = iava.layer(reading, map, state.what, found.selected);
    at("ramp").style.background = `linear-gradient(90deg, ${stops.join()})`;
    at("low").textContent = both ? `gained ${percent(top)}` : "0";
    at("high").textContent = both ? `lost ${percent(top)}` : `${percent(top)} or more`;
  }

  function strip(map) {
    if (reading.boxes) return;
    const fall = state.what === "drop", numbers = fall ? found.fall : state.what === "query" ? map.query : map.general;
    const top = Math.max(...numbers.map(Math.abs), 1e-9);
    const stops = iava.layer(reading, map, fall ? "drop" : "general", found.selected).stops;
    [...at("strip").children].forEach((cell, n) => {
      cell.style.background = `rgb(${iava.colour(stops, fall ? 0.5 + numbers[n] / top / 2 : numbers[n] / top).join()})`;
      cell.classList.toggle("kept", found.selected[n]);
      cell.setAttribute("aria-pressed", state.token === n);
    });
  }

  // ---- one token ----

  /** Points at a token, or at none; `pin` keeps it until another is chosen. */
  function point(token, pin = false) {
    state.token = token;
    state.pinned = pin && token !== null;
    at("number").value = token === null ? "" : token;
    if (token !== null && reading.boxes && !reading.sheets[state.sheet].includes(token)) chooseSheet(reading.sheets.findIndex(sheet => sheet.includes(token)));
    draw();
  }

  function readout(map) {
    const n = state.token;
    at("token-hint").hidden = n !== null;
    at("token-marks").hidden = n === null;
    at("token-head").textContent = n === null ? "most of all" : "rank";
    at("unpin").hidden = !state.pinned;
    if (n === null) return extremes(map);
    const place = (numbers, rank) => `${rank[n] + 1} of ${numbers.length}`;
    const rows = [
      ["general", percent(map.general[n]), place(map.general, iava.ranks(map.general))],
      ["question", percent(map.query[n]), place(map.query, iava.ranks(map.query))],
      ["drop", signed(found.fall[n], percent), place(found.fall, found.rank)],
    ];
    at("token-rows").replaceChildren(...rows.map(([name, value, rank]) =>
      make("tr", {}, make("th", { scope: "row" }, name), make("td", { class: "n" }, value), make("td", { class: "n" }, rank))));
    const z = map.std > 0 ? (map.general[n] - map.mean) / map.std : 0;
    const mark = (yes, text) => make("li", { class: yes ? "yes" : "no" }, make("b", {}, yes ? "✓ " : "✗ "), text);
    at("token-marks").replaceChildren(
      mark(found.falls[n], found.falls[n] ? "attention falls" : "attention does not fall"),
      mark(found.among[n], `its fall ranks ${found.rank[n] + 1}; i lets in ${state.most}`),
      mark(found.high[n], `${signed(z, value => value.toFixed(2))} standard deviations from the mean, must exceed ${signed(state.lam, value => value.toFixed(2))}`),
      make("li", { class: "verdict" }, found.selected[n] ? "Selected: the second branch keeps it." : "Not selected."));
  }

  /** While no token is pointed at: those that stand out. */
  function extremes(map) {
    const row = (name, numbers, text) => {
      const n = numbers.indexOf(Math.max(...numbers));
      return make("tr", {}, make("th", { scope: "row" }, name), make("td", { class: "n" }, text(numbers[n])),
        make("td", { class: "n" }, make("button", { type: "button", class: "link", onclick: () => point(n, true) }, `token ${n}`)));
    };
    at("token-rows").replaceChildren(row("general", map.general, percent), row("question", map.query, percent), row("drop", found.fall, value => signed(value, percent)));
  }

  /** The token under a point, given in shares of the picture. */
  function tokenAt(x, y) {
    if (!reading || !reading.boxes) return null;
    const there = reading.sheets[state.sheet].find(n => {
      const [x0, y0, x1, y1] = reading.boxes[n];
      return x >= x0 && x < x1 && y >= y0 && y < y1;
    });
    return there === undefined ? null : there;
  }

  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  /** The next token in a direction: the nearest of those that lie there. */
  function neighbour([dx, dy]) {
    if (!reading.boxes) return Math.min(Math.max((state.token ?? 0) + dx + dy, 0), reading.tokens - 1);
    const centre = n => [(reading.boxes[n][0] + reading.boxes[n][2]) / 2, (reading.boxes[n][1] + reading.boxes[n][3]) / 2];
    const places = reading.sheets[state.sheet].filter(n => area(reading.boxes[n]) > 0);
    if (state.token === null) return places[0];
    const [x, y] = centre(state.token);
    let best = state.token, least = Infinity;
    for (const n of places) {
      const [along, aside] = [(centre(n)[0] - x) * dx + (centre(n)[1] - y) * dy, Math.abs((centre(n)[0] - x) * dy) + Math.abs((centre(n)[1] - y) * dx)];
      if (along > 1e-6 && along + 4 * aside < least) [best, least] = [n, along + 4 * aside];
    }
    return best;
  }

  // ---- the criteria as lines in a plane ----

  let dots = [];

  function scatter(map) {
    const canvas = at("plane"), density = window.devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width) return;
    [canvas.width, canvas.height] = [width * density, height * density];
    const pen = canvas.getContext("2d");
    pen.scale(density, density);
    const [ink, muted, line, pick, card] = ["--ink", "--muted", "--line", "--pick", "--card"].map(css);
    const [left, right, top, bottom] = [8, width - 10, 8, height - 26];
    const most = Math.max(...map.general, 1e-9), [lowest, highest] = [Math.min(0, ...found.fall), Math.max(...found.fall, 1e-9)];
    // Square roots keep the many small values apart from the few large ones.
    const root = value => Math.sign(value) * Math.sqrt(Math.abs(value));
    const x = value => left + (root(Math.max(value, 0)) / root(1.06 * most)) * (right - left);
    const y = value => bottom - ((root(value) - root(1.2 * lowest)) / (root(1.12 * highest) - root(1.2 * lowest))) * (bottom - top);
    const falls = [...found.fall].sort((a, b) => b - a), least = falls[state.most - 1], high = Math.max(found.threshold, 0);
    const floor = y(Math.max(least, 0));
    pen.fillStyle = pick;
    pen.globalAlpha = 0.14;
    pen.fillRect(x(high), top, right - x(high), floor - top);
    pen.globalAlpha = 1;
    pen.strokeStyle = line;
    pen.strokeRect(left, top, right - left, bottom - top);
    const rule = (x0, y0, x1, y1, dash) => {
      pen.beginPath();
      pen.moveTo(x0, y0);
      pen.lineTo(x1, y1);
      pen.setLineDash(dash);
      pen.strokeStyle = muted;
      pen.stroke();
      pen.setLineDash([]);
    };
    const text = (words, a, b, align) => { pen.textAlign = align; pen.fillText(words, a, b); };
    pen.fillStyle = muted;
    pen.font = `600 11px ${css("--sans")}`;
    rule(left, y(0), right, y(0), []);
    text("1", right - 5, Math.min(y(0) + 13, bottom - 5), "right");
    rule(left, y(least), right, y(least), [5, 4]);
    text("2", right - 5, y(least) - 5, "right");
    if (x(high) < right) {
      rule(x(high), top, x(high), bottom, [2, 3]);
      text("3", x(high) + 5, bottom - 5, "left");
    }
    pen.font = `11px ${css("--sans")}`;
    text("attention, general →", right, height - 8, "right");
    text("square-root axes", left, height - 8, "left");
    text("drop ↑", left + 6, top + 14, "left");
    dots = Array.from(map.general, (value, n) => [x(value), y(found.fall[n])]);
    const dot = (n, radius, style, stroke) => {
      pen.beginPath();
      pen.arc(dots[n][0], dots[n][1], radius, 0, 7);
      pen.fillStyle = style;
      pen.strokeStyle = stroke;
      pen.lineWidth = 1;
      if (style) pen.fill();
      pen.stroke();
    };
    dots.forEach((_, n) => found.selected[n] || dot(n, 2.2, null, muted));
    dots.forEach((_, n) => found.selected[n] && dot(n, 3.6, pick, card));
    if (state.token !== null) dot(state.token, 6.5, found.selected[state.token] ? pick : null, ink);
  }

  function nearestDot(x, y) {
    let best = null, least = 14 * 14;
    dots.forEach(([a, b], n) => {
      const distance = (a - x) ** 2 + (b - y) ** 2;
      if (distance < least) [best, least] = [n, distance];
    });
    return best;
  }

  // ---- how it chose its words ----

  const TITLES = { full: "with the whole image", negative: "second branch", combined: "after the contrast" };

  function showWords() {
    const answer = asked.answers[state.answer], steps = answer ? answer.steps : [];
    at("methods").replaceChildren(...asked.answers.map((one, n) => choice("method", n, one.method, n === state.answer)));
    state.step = Math.min(state.step, Math.max(steps.length - 1, 0));
    at("steps").replaceChildren(...steps.map((step, n) => make("button", { type: "button", "aria-pressed": n === state.step, onclick: () => { state.step = n; showWords(); at("steps").children[n].focus(); } },
      make("span", {}, visible(step.token)), make("i", { style: `width:${(100 * (step.probability ?? 0)).toFixed(1)}%` }))));
    const step = steps[state.step];
    at("branches").replaceChildren(...(step ? Object.keys(TITLES).filter(kind => step[kind]).map(kind => branch(step, kind)) : []));
  }

  function branch(step, kind) {
    // A short list after the contrast is all that was plausible.
    const plausible = step.combined.length < step.full.length ? new Set(step.combined.map(one => one.id)) : null;
    const title = kind === "combined" && !step.negative ? "as weighed" : TITLES[kind];
    return make("div", { class: "branch" }, make("h3", {}, title), ...step[kind].map(one => {
      const out = kind === "full" && plausible && !plausible.has(one.id);
      return make("div", { class: `candidate${one.id === step.chosen ? " taken" : ""}${out ? " out" : ""}`, "data-id": one.id, title: out ? "ruled out: implausible with the whole image" : null, onmouseenter: () => same(one.id, true), onmouseleave: () => same(one.id, false) },
        make("code", {}, visible(one.text)), make("span", { class: "track" }, make("i", { style: `width:${(100 * one.probability).toFixed(2)}%` })),
        make("span", { class: "number" }, one.probability < 0.0005 ? "< 0.1 %" : `${(100 * one.probability).toFixed(1)} %`));
    }));
  }

  function same(id, on) {
    document.querySelectorAll(`.candidate[data-id="${id}"]`).forEach(row => row.classList.toggle("same", on));
  }

  // ---- what the reader does ----

  function chooseSheet(number) {
    state.sheet = number;
    document.querySelectorAll("#sheet-choice input").forEach((input, n) => { input.checked = n === number; });
    draw();
  }

  at("what").addEventListener("change", event => { state.what = event.target.value; draw(); });
  at("sheet-choice").addEventListener("change", event => chooseSheet(Number(event.target.value)));
  at("methods").addEventListener("change", event => {
    state.answer = Number(event.target.value);
    showWords();
    document.querySelectorAll("#methods input")[state.answer].focus();
  });
  at("opacity").addEventListener("input", event => {
    state.opacity = event.target.value / 100;
    at("opacity-value").textContent = `${event.target.value} %`;
    draw();
  });
  at("layer").addEventListener("input", event => { state.map = Number(event.target.value); update(); });
  at("most").addEventListener("input", event => { state.most = Number(event.target.value); update(); });
  at("lam").addEventListener("input", event => { state.lam = Number(event.target.value); update(); });
  at("reset").addEventListener("click", () => { Object.assign(state, { map: 0, most: reading.top_i, lam: reading.lam }); Object.assign(at("layer"), { value: 0 }); Object.assign(at("most"), { value: state.most }); Object.assign(at("lam"), { value: state.lam }); update(); });
  at("number").addEventListener("input", event => {
    const wanted = event.target.value === "" ? null : Math.round(Number(event.target.value));
    if (wanted === null || (wanted >= 0 && wanted < reading.tokens)) point(wanted, true);
  });
  at("unpin").addEventListener("click", () => point(null));

  const stage = at("stage");
  const under = event => {
    const frame = at("overlay").getBoundingClientRect();
    return tokenAt((event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height);
  };
  stage.addEventListener("pointermove", event => { if (event.pointerType === "mouse" && reading && !state.pinned) { const token = under(event); if (token !== state.token) point(token); } });
  stage.addEventListener("pointerleave", () => { if (reading && !state.pinned && state.token !== null) point(null); });
  stage.addEventListener("click", event => { if (reading) { const token = under(event); point(state.pinned && token === state.token ? null : token, true); } });
  stage.addEventListener("keydown", event => {
    if (!reading) return;
    if (event.key === "Escape") point(null);
    if (!(event.key in STEPS)) return;
    event.preventDefault();
    point(neighbour(STEPS[event.key]), true);
  });
  const plane = at("plane");
  const near = event => { const frame = plane.getBoundingClientRect(); return nearestDot(event.clientX - frame.left, event.clientY - frame.top); };
  plane.addEventListener("pointermove", event => { if (event.pointerType === "mouse" && reading && !state.pinned) { const token = near(event); if (token !== state.token) point(token); } });
  plane.addEventListener("pointerleave", () => { if (reading && !state.pinned && state.token !== null) point(null); });
  plane.addEventListener("click", event => { if (reading) { const token = near(event); point(state.pinned && token === state.token ? null : token, true); } });

  new ResizeObserver(() => draw()).observe(stage);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());

  if (questions.length > 1) {
    at("questions").append(...questions.map((one, n) => make("button", { type: "button", onclick: () => showQuestion(n) }, one.question)));
  } else at("questions").hidden = true;
  showQuestion(0);
})();
