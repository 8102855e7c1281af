(() => {
  "use strict";
  const page = JSON.parse(document.getElementById("data").textContent);
  const questions = page.questions.map(one => ({ ...one, attention: one.attention && iava.decoded(one.attention) }));
  const byId = id => document.getElementById(id);
  const state = { question: 0, overlay: "general", map: 0, view: 0, opacity: 1, topI: 1, lam: 0, token: null, pinned: false, answer: 0, step: 0 };
  let question, attention, selection;  // the current question, its attention data, and the result of the criteria
  let dots = [];  // the pixel of each token in the scatter plot

  /** An element with attributes and children. Strings become text. */
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

  // ---- question and answers ----

  function showQuestion(number) {
    Object.assign(state, { question: number, map: 0, view: 0, token: null, pinned: false, step: 0 });
    question = questions[number];
    attention = question.attention;
    state.answer = Math.max(question.answers.length - 1, 0);
    if (attention) Object.assign(state, { topI: attention.top_i, lam: attention.lam });
    byId("question").textContent = question.question;
    document.querySelectorAll("#questions button").forEach((button, n) => button.setAttribute("aria-pressed", n === number));
    byId("answers").replaceChildren(...question.answers.map(answerRow));
    byId("lab").classList.toggle("no-attention", !attention);
    byId("no-attention").hidden = Boolean(attention);
    if (attention) prepare();
    else draw();
    showSteps();
  }

  function answerRow(answer) {
    return make("div", { class: "answer" },
      make("b", { class: "method" }, answer.method),
      make("span", { class: "text" }, ...words(answer.words)),
      make("span", { class: "muted number", title: "wall-clock time of this answer; not a benchmark" }, `${answer.seconds.toFixed(2)} s`));
  }

  function words(list) {
    if (!list.length) return [make("span", { class: "muted" }, "(empty)")];
    return list.flatMap(([word, differs], n) => [n ? " " : "", differs ? make("mark", {}, word) : word]);
  }

  // ---- attention ----

  const CAPTIONS = {
    picture: () => "The image as given to the model.",
    general: () => `Attention of the last prompt token under “${attention.instruction}”`,
    query: () => `Attention of the last prompt token under “${question.question}”`,
    drop: () => "General minus question attention. Orange: lower under the question. Blue: higher.",
    selected: count => `${count} of ${attention.tokens} tokens meet all three criteria: high general attention, lower attention under the question.`,
    negative: count => {
      const mask = {
        zeros: "the embeddings of all other tokens are zero (black)",
        drop: "all other tokens are removed from the sequence (hatched)",
        hide: "all other tokens are masked for the tokens after the image (hatched)",
        pixels: "all other patches have the processor's mean colour (grey)",
      }[attention.negative];
      if (!count) return "Input of the contrast branch: no token meets all three criteria, so the branch sees the text only.";
      return `Input of the contrast branch: ${count} tokens; ${mask}.${attention.cross_attention ? " The map shows the cross-attention of the selected queries." : ""}`;
    },
  };

  function prepare() {
    const layers = attention.maps.length - 1;
    Object.assign(byId("layer"), { max: layers, value: 0 });
    Object.assign(byId("top-i"), { max: attention.tokens, value: state.topI });
    Object.assign(byId("lam"), { value: state.lam });
    Object.assign(byId("number"), { max: attention.tokens - 1, value: "" });
    byId("layer-control").hidden = !layers;
    const areas = attention.views.map(view => Math.max(...view.map(n => area(attention.boxes[n]))));
    byId("views").hidden = attention.views.length < 2;
    byId("view-choice").replaceChildren(...attention.views.map((_, n) => choice("view", n, areas.length === 2 ? (areas[n] === Math.max(...areas) ? "overview" : "tiles") : `part ${n + 1}`, n === 0)));
    byId("unlocated").hidden = Boolean(attention.boxes);
    byId("unlocated").textContent = attention.cross_attention
      ? "The image tokens of this model are Q-Former queries, which attend to the whole image. The maps show their cross-attention, weighted by the attention to each query. Select a query to see its own cross-attention."
      : attention.boxes ? "" : "The positions of this model's image tokens in the image are unknown. The tokens are listed below.";
    byId("strip").replaceChildren(...(attention.boxes ? [] : Array.from({ length: attention.tokens }, (_, n) =>
      make("button", { type: "button", "aria-label": `token ${n}`, onclick: () => setToken(state.pinned && state.token === n ? null : n, true), onmouseenter: () => state.pinned || setToken(n), onmouseleave: () => state.pinned || setToken(null) }))));
    update();
  }

  const area = ([x0, y0, x1, y1]) => (x1 - x0) * (y1 - y0);

  function choice(name, value, label, checked) {
    return make("label", {}, make("input", { type: "radio", name, value, checked }), make("span", {}, label));
  }

  /** Updates everything that depends on the attention map, the criteria, or the current token. */
  function update() {
    const map = attention.maps[state.map];
    selection = iava.select(map, state.topI, state.lam, attention.rounding);
    const count = list => list.filter(Boolean).length;
    const selected = count(selection.selected);
    byId("n-drops").textContent = count(selection.drops);
    byId("n-in-top-i").textContent = count(selection.inTopI);
    byId("n-above-threshold").textContent = count(selection.aboveThreshold);
    byId("n-selected").textContent = selected;
    byId("of-all").textContent = `of ${attention.tokens} tokens selected (${(100 * selected / attention.tokens).toFixed(1)} %)`;
    byId("top-i-value").textContent = state.topI;
    byId("top-i-share").textContent = `${(100 * state.topI / attention.tokens).toFixed(1)} % of all tokens`;
    byId("lam-value").textContent = signed(state.lam, value => value.toFixed(2));
    byId("threshold").textContent = `above ${percent(selection.threshold)}`;
    const name = state.map ? `layer ${state.map - 1}` : attention.layers === "all" ? "mean of all layers" : `mean of layers ${attention.layers.join(", ")}`;
    byId("layer-value").textContent = name;
    byId("layer").setAttribute("aria-valuetext", name);
    const asAnswered = !state.map && state.topI === attention.top_i && state.lam === attention.lam;
    const flags = [`--top-i ${state.topI}`, `--lam ${state.lam}`, ...(state.map ? [`--layers ${state.map - 1}`] : [])].join(" ");
    byId("as-answered").hidden = !asAnswered;
    byId("not-answered").hidden = asAnswered;
    byId("flags").textContent = flags;
    draw();
  }

  function draw() {
    document.querySelectorAll("#overlays input").forEach(input => { input.checked = input.value === state.overlay; });
    if (!attention) return;
    const map = attention.maps[state.map];
    iava.paint(byId("overlay"), attention, { ...state, selected: selection.selected });
    legend(map);
    byId("caption").textContent = CAPTIONS[state.overlay](selection.selected.filter(Boolean).length) + imageAttention(map);
    strip(map);
    dots = drawScatter(byId("scatter"), map, selection, state);
    showToken(map);
  }

  function imageAttention(map) {
    if (state.overlay !== "general" && state.overlay !== "query") return "";
    return `: ${(100 * map[state.overlay].reduce((a, b) => a + b, 0)).toFixed(0)} % of it goes to image tokens.`;
  }

  function legend(map) {
    const heat = ["general", "query", "drop"].includes(state.overlay) && (attention.boxes || attention.cross_attention);
    byId("legend").hidden = !heat;
    if (!heat) return;
    const { top, stops, diverging } = iava.heatMap(attention, map, state.overlay, selection.selected);
    byId("ramp").style.background = `linear-gradient(90deg, ${stops.join()})`;
    byId("low").textContent = diverging ? `higher by ${percent(top)}` : "0";
    byId("high").textContent = diverging ? `lower by ${percent(top)}` : `${percent(top)} or more`;
  }

  function strip(map) {
    if (attention.boxes) return;
    const drop = state.overlay === "drop", numbers = drop ? selection.drop : state.overlay === "query" ? map.query : map.general;
    const top = Math.max(...numbers.map(Math.abs), 1e-9);
    const stops = iava.heatMap(attention, map, drop ? "drop" : "general", selection.selected).stops;
    [...byId("strip").children].forEach((cell, n) => {
      cell.style.background = `rgb(${iava.colour(stops, drop ? 0.5 + numbers[n] / top / 2 : numbers[n] / top).join()})`;
      cell.classList.toggle("selected", selection.selected[n]);
      cell.setAttribute("aria-pressed", state.token === n);
    });
  }

  // ---- one token ----

  /** Makes a token the current one, or none. `pin` keeps it until another token is chosen. */
  function setToken(token, pin = false) {
    state.token = token;
    state.pinned = pin && token !== null;
    byId("number").value = token === null ? "" : token;
    if (token !== null && attention.boxes && !attention.views[state.view].includes(token)) chooseView(attention.views.findIndex(view => view.includes(token)));
    draw();
  }

  function showToken(map) {
    const n = state.token;
    byId("token-hint").hidden = n !== null;
    byId("token-marks").hidden = n === null;
    byId("token-head").textContent = n === null ? "largest" : "rank";
    byId("unpin").hidden = !state.pinned;
    if (n === null) return showLargest(map);
    const place = (numbers, rank) => `${rank[n] + 1} of ${numbers.length}`;
    const rows = [
      ["general", percent(map.general[n]), place(map.general, iava.ranks(map.general))],
      ["question", percent(map.query[n]), place(map.query, iava.ranks(map.query))],
      ["drop", signed(selection.drop[n], percent), place(selection.drop, selection.rank)],
    ];
    byId("token-rows").replaceChildren(...rows.map(([name, value, rank]) =>
      make("tr", {}, make("th", { scope: "row" }, name), make("td", { class: "n" }, value), make("td", { class: "n" }, rank))));
    const z = map.std > 0 ? (map.general[n] - map.mean) / map.std : 0;
    const mark = (yes, text) => make("li", { class: yes ? "yes" : "no" }, make("b", {}, yes ? "✓ " : "✗ "), text);
    byId("token-marks").replaceChildren(
      mark(selection.drops[n], selection.drops[n] ? "attention drops" : "attention does not drop"),
      mark(selection.inTopI[n], `drop ranks ${selection.rank[n] + 1}; i allows ${state.topI}`),
      mark(selection.aboveThreshold[n], `${signed(z, value => value.toFixed(2))} standard deviations from the mean; must exceed ${signed(state.lam, value => value.toFixed(2))}`),
      make("li", { class: "verdict" }, selection.selected[n] ? "Selected: the contrast branch sees this token." : "Not selected."));
  }

  /** Shows the tokens with the largest values while no token is the current one. */
  function showLargest(map) {
    const row = (name, numbers, text) => {
      const n = numbers.indexOf(Math.max(...numbers));
      return make("tr", {}, make("th", { scope: "row" }, name), make("td", { class: "n" }, text(numbers[n])),
        make("td", { class: "n" }, make("button", { type: "button", class: "link", onclick: () => setToken(n, true) }, `token ${n}`)));
    };
    byId("token-rows").replaceChildren(row("general", map.general, percent), row("question", map.query, percent), row("drop", selection.drop, value => signed(value, percent)));
  }

  /** The token at a point, whose coordinates are fractions of the image. */
  function tokenAt(x, y) {
    if (!attention || !attention.boxes) return null;
    const token = attention.views[state.view].find(n => {
      const [x0, y0, x1, y1] = attention.boxes[n];
      return x >= x0 && x < x1 && y >= y0 && y < y1;
    });
    return token === undefined ? null : token;
  }

  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  /** The nearest token in a direction. */
  function neighbour([dx, dy]) {
    if (!attention.boxes) return Math.min(Math.max((state.token ?? 0) + dx + dy, 0), attention.tokens - 1);
    const centre = n => [(attention.boxes[n][0] + attention.boxes[n][2]) / 2, (attention.boxes[n][1] + attention.boxes[n][3]) / 2];
    const candidates = attention.views[state.view].filter(n => area(attention.boxes[n]) > 0);
    if (state.token === null) return candidates[0];
    const [x, y] = centre(state.token);
    let best = state.token, least = Infinity;
    for (const n of candidates) {
      const [along, across] = [(centre(n)[0] - x) * dx + (centre(n)[1] - y) * dy, Math.abs((centre(n)[0] - x) * dy) + Math.abs((centre(n)[1] - y) * dx)];
      if (along > 1e-6 && along + 4 * across < least) [best, least] = [n, along + 4 * across];
    }
    return best;
  }

  // ---- decoding steps ----

  const TITLES = { full: "main branch", negative: "contrast branch", combined: "combined" };

  function showSteps() {
    const answer = question.answers[state.answer], steps = answer ? answer.steps : [];
    byId("methods").replaceChildren(...question.answers.map((one, n) => choice("method", n, one.method, n === state.answer)));
    state.step = Math.min(state.step, Math.max(steps.length - 1, 0));
    byId("steps").replaceChildren(...steps.map((step, n) => make("button", { type: "button", "aria-pressed": n === state.step, onclick: () => { state.step = n; showSteps(); byId("steps").children[n].focus(); } },
      make("span", {}, visible(step.token)), make("i", { style: `width:${(100 * (step.probability ?? 0)).toFixed(1)}%` }))));
    const step = steps[state.step];
    byId("branches").replaceChildren(...(step ? Object.keys(TITLES).filter(kind => step[kind]).map(kind => branch(step, kind)) : []));
  }

  function branch(step, kind) {
    // If the combined list is shorter, it holds all plausible tokens.
    const plausible = step.combined.length < step.full.length ? new Set(step.combined.map(one => one.id)) : null;
    return make("div", { class: "branch" }, make("h3", {}, TITLES[kind]), ...step[kind].map(one => {
      const excluded = kind === "full" && plausible && !plausible.has(one.id);
      return make("div", { class: `candidate${one.id === step.chosen ? " chosen" : ""}${excluded ? " excluded" : ""}`, "data-id": one.id, title: excluded ? "excluded by the plausibility constraint" : null, onmouseenter: () => highlight(one.id, true), onmouseleave: () => highlight(one.id, false) },
        make("code", {}, visible(one.text)), make("span", { class: "track" }, make("i", { style: `width:${(100 * one.probability).toFixed(2)}%` })),
        make("span", { class: "number" }, one.probability < 0.0005 ? "< 0.1 %" : `${(100 * one.probability).toFixed(1)} %`));
    }));
  }

  function highlight(id, on) {
    document.querySelectorAll(`.candidate[data-id="${id}"]`).forEach(row => row.classList.toggle("same", on));
  }

  // ---- events ----

  function chooseView(number) {
    state.view = number;
    document.querySelectorAll("#view-choice input").forEach((input, n) => { input.checked = n === number; });
    draw();
  }

  byId("overlays").addEventListener("change", event => { state.overlay = event.target.value; draw(); });
  byId("view-choice").addEventListener("change", event => chooseView(Number(event.target.value)));
  byId("methods").addEventListener("change", event => {
    state.answer = Number(event.target.value);
    showSteps();
    document.querySelectorAll("#methods input")[state.answer].focus();
  });
  byId("opacity").addEventListener("input", event => {
    state.opacity = event.target.value / 100;
    byId("opacity-value").textContent = `${event.target.value} %`;
    draw();
  });
  byId("layer").addEventListener("input", event => { state.map = Number(event.target.value); update(); });
  byId("top-i").addEventListener("input", event => { state.topI = Number(event.target.value); update(); });
  byId("lam").addEventListener("input", event => { state.lam = Number(event.target.value); update(); });
  byId("reset").addEventListener("click", () => { Object.assign(state, { map: 0, topI: attention.top_i, lam: attention.lam }); Object.assign(byId("layer"), { value: 0 }); Object.assign(byId("top-i"), { value: state.topI }); Object.assign(byId("lam"), { value: state.lam }); update(); });
  byId("number").addEventListener("input", event => {
    const wanted = event.target.value === "" ? null : Math.round(Number(event.target.value));
    if (wanted === null || (wanted >= 0 && wanted < attention.tokens)) setToken(wanted, true);
  });
  byId("unpin").addEventListener("click", () => setToken(null));

  /** Hovering over an element shows the token under the pointer. A click pins or releases it. */
  function choosesTokens(element, tokenUnder) {
    element.addEventListener("pointermove", event => {
      if (event.pointerType !== "mouse" || !attention || state.pinned) return;
      const token = tokenUnder(event);
      if (token !== state.token) setToken(token);
    });
    element.addEventListener("pointerleave", () => { if (attention && !state.pinned && state.token !== null) setToken(null); });
    element.addEventListener("click", event => {
      if (!attention) return;
      const token = tokenUnder(event);
      setToken(state.pinned && token === state.token ? null : token, true);
    });
  }

  const stage = byId("stage"), scatter = byId("scatter");
  choosesTokens(stage, event => {
    const frame = byId("overlay").getBoundingClientRect();
    return tokenAt((event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height);
  });
  choosesTokens(scatter, event => {
    const frame = scatter.getBoundingClientRect();
    return nearestDot(dots, event.clientX - frame.left, event.clientY - frame.top);
  });
  stage.addEventListener("keydown", event => {
    if (!attention) return;
    if (event.key === "Escape") setToken(null);
    if (!(event.key in STEPS)) return;
    event.preventDefault();
    setToken(neighbour(STEPS[event.key]), true);
  });

  new ResizeObserver(() => draw()).observe(stage);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());

  if (questions.length > 1) {
    byId("questions").append(...questions.map((one, n) => make("button", { type: "button", onclick: () => showQuestion(n) }, one.question)));
  } else byId("questions").hidden = true;
  showQuestion(0);
})();
