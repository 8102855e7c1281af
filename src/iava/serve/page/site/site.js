"use strict";

const SCENES = 8;
const LARGEST = 12e6; // bytes of a file; base64 makes it a third larger
const $ = (id) => document.getElementById(id);
let picture = null; // data URI
let picking = Promise.resolve(); // until the picture is there
let model = "";
let methods = [];

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function say(text) { $("message").textContent = text; }

async function call(path, body) {
  const headers = $("key").value ? { Authorization: `Bearer ${$("key").value}` } : {};
  if (body) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
  const found = await answer.json();
  if (answer.status === 401) $("locked").hidden = false;
  if (!answer.ok) throw new Error(found.error.message);
  return found;
}

function show(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => { picture = $("picture").src = reader.result; resolve(); };
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

async function pick(button, number) {
  for (const other of $("scenes").children) other.setAttribute("aria-pressed", other === button);
  await show(await (await fetch(`site/scenes/${number}`)).blob());
}

function scenes() {
  for (let number = 0; number < SCENES; number += 1) {
    const image = element("img", { src: `site/scenes/${number}`, alt: `Picture ${number + 1}`, loading: "lazy" });
    const button = element("button", { type: "button" }, image);
    button.onclick = () => { picking = pick(button, number); };
    $("scenes").append(button);
  }
  picking = pick($("scenes").children[0], 0);
}

function written(value) { return typeof value === "string" ? value : JSON.stringify(value); }

function read(text) {
  try { return JSON.parse(text); } catch { return text; }
}

function prose(text) { return text.replaceAll("`", ""); }

function methodBox(method, chosen) {
  const box = element("input", { type: "checkbox", checked: chosen, ariaLabel: method.name });
  const line = element("label", {}, box, ` ${method.name} `, element("small", { textContent: prose(method.summary) }));
  const made = element("div", { className: "method" }, line);
  const fields = new Map();
  if (Object.keys(method.settings).length) {
    const details = element("details", {}, element("summary", { textContent: "settings" }));
    for (const [name, { default: value, description }] of Object.entries(method.settings)) {
      const field = element("input", { type: "text", value: written(value), name: `${method.name}.${name}` });
      field.setAttribute("aria-label", `${method.name} ${name}`);
      fields.set(name, [field, written(value)]);
      details.append(element("div", { className: "setting" }, name, field, element("small", { textContent: prose(description) })));
    }
    made.append(details);
  }
  $("methods").append(made);
  const changed = () => Object.fromEntries(
    [...fields].filter(([, [field, value]]) => field.value !== value).map(([name, [field]]) => [name, read(field.value)]),
  );
  return { name: method.name, isChosen: () => box.checked, settings: changed };
}

async function load() {
  const [served, listed] = await Promise.all([call("v1/models"), call("v1/methods")]);
  model = served.data[0].id;
  $("model").textContent = `Model: ${model}`;
  $("methods").replaceChildren();
  const isChosen = (method) => ["greedy", listed.default].includes(method.name);
  const chosenFirst = listed.data.toSorted((one, other) => isChosen(other) - isChosen(one));
  methods = chosenFirst.map((method) => methodBox(method, isChosen(method)));
}

function table(questions, chosen, answers) {
  const head = element("tr", {}, element("th", { textContent: "Question" }));
  for (const { name } of chosen) head.append(element("th", { textContent: name }));
  const rows = questions.map((question, number) => {
    const row = element("tr", {}, element("td", { textContent: question }));
    const texts = answers.slice(number * chosen.length, (number + 1) * chosen.length).map((answer) => answer.text);
    for (const text of texts) {
      row.append(element("td", { textContent: text, className: text === texts[0] ? "" : "differs" }));
    }
    return row;
  });
  $("answers").replaceChildren(head, ...rows);
}

function grow() {
  const inside = $("page").contentDocument;
  const fit = () => { $("page").style.height = `${inside.documentElement.scrollHeight + 2}px`; };
  new ResizeObserver(fit).observe(inside.body);
}

async function ask() {
  await picking;
  if (!methods.length) await load();
  const questions = $("questions").value.split("\n").map((line) => line.trim()).filter(Boolean);
  const chosen = methods.filter((method) => method.isChosen());
  if (!picture) throw new Error("There is no picture: pick or upload one.");
  if (!questions.length) throw new Error("There is no question: ask something, such as 'Is there a dog in the image?'");
  if (!chosen.length) throw new Error("No method is chosen: choose at least one.");
  const compared = await call("v1/compare", {
    image: picture,
    questions,
    methods: Object.fromEntries(chosen.map((method) => [method.name, method.settings()])),
    max_tokens: Number($("longest").value),
    seed: 42,
  });
  table(questions, chosen, compared.answers);
  const path = compared.page.slice(1);
  $("page").onload = grow;
  $("page").src = $("open").href = $("keep").href = path;
  $("result").hidden = false;
}

$("upload").onchange = () => {
  const [file] = $("upload").files;
  if (!file) return;
  if (file.size > LARGEST) return say(`The picture has more than ${LARGEST / 1e6} MB: upload a smaller one.`);
  for (const button of $("scenes").children) button.setAttribute("aria-pressed", false);
  say("");
  picking = show(file);
};

$("form").onsubmit = async (event) => {
  event.preventDefault();
  $("ask").disabled = true;
  say("Asking …");
  try {
    await ask();
    say("");
  } catch (error) {
    say(error.message);
  } finally {
    $("ask").disabled = false;
  }
};

$("key").onchange = () => load().then(() => say(""), (error) => say(error.message));
scenes();
load().catch((error) => say(error.message));
