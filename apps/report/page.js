"use strict";
const tabs = () => Array.from(document.querySelectorAll('[role="tab"]'));
const drawn = new Map();

function colours() {
  const style = getComputedStyle(document.documentElement);
  return name => style.getPropertyValue(name).trim();
}

function themed(layout) {
  const colour = colours(), changed = {"font.color": colour("--text"), "hoverlabel.bgcolor": colour("--panel"),
    "hoverlabel.font.color": colour("--text"), "hoverlabel.bordercolor": colour("--line")};
  for (const name of Object.keys(layout).filter(name => /^[xy]axis\d*$/.test(name))) {
    changed[name + ".gridcolor"] = colour("--line");
    changed[name + ".linecolor"] = colour("--line");
  }
  return changed;
}

// Heat maps bring their numbers alone, as base64: what is coloured is the logarithm of them.
function logarithms({dtype, bdata, shape}) {
  const bytes = Uint8Array.from(atob(bdata), one => one.charCodeAt(0));
  const numbers = new {i4: Int32Array, f8: Float64Array}[dtype](bytes.buffer), width = Number(shape.split(",")[1]);
  const row = at => Array.from(numbers.subarray(at * width, (at + 1) * width), one => one > 0 ? Math.log10(one) : null);
  return Array.from({length: numbers.length / width}, (_, at) => row(at));
}

function draw(panel) {
  const place = panel.querySelector(".figure");
  if (!place || drawn.has(panel.id)) return drawn.get(panel.id);
  const figure = JSON.parse(document.getElementById(panel.id + "-figure").textContent);
  const options = {responsive: true, displaylogo: false, scrollZoom: false,
    toImageButtonOptions: {format: "svg", filename: panel.id}};
  for (const trace of figure.data) if (trace.type === "heatmap") trace.z = logarithms(trace.customdata);
  figure.layout.font = {family: getComputedStyle(document.body).fontFamily, size: 13, color: colours()("--text")};
  const done = Plotly.newPlot(place, figure.data, figure.layout, options)
    .then(() => Plotly.relayout(place, themed(place.layout))).then(() => panel.id);
  drawn.set(panel.id, done);
  return done;
}

function show(tab) {
  for (const one of tabs()) {
    const chosen = one === tab;
    one.setAttribute("aria-selected", String(chosen));
    one.tabIndex = chosen ? 0 : -1;
    document.getElementById(one.getAttribute("aria-controls")).hidden = !chosen;
  }
  return draw(document.getElementById(tab.getAttribute("aria-controls")));
}

function choose(tab) {
  history.replaceState(null, "", "#" + tab.getAttribute("aria-controls"));
  return show(tab);
}

function onKey(event) {
  const all = tabs(), at = all.indexOf(document.activeElement);
  const next = {ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1}[event.key];
  if (at < 0 || next === undefined) return;
  event.preventDefault();
  const tab = all[(next + all.length) % all.length];
  tab.focus();
  choose(tab);
}

function restyle() {
  for (const id of drawn.keys()) {
    const place = document.getElementById(id).querySelector(".figure");
    if (place.layout) Plotly.relayout(place, themed(place.layout));
  }
}

function switchTheme() {
  const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = root.dataset.theme || (dark ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
  restyle();
}

function beforePrint() {
  document.documentElement.dataset.before = document.documentElement.dataset.theme || "";
  document.documentElement.dataset.theme = "light";
  restyle();
  for (const panel of document.querySelectorAll(".panel")) { panel.hidden = false; draw(panel); }
}

function afterPrint() {
  const root = document.documentElement;
  if (root.dataset.before) root.dataset.theme = root.dataset.before; else delete root.dataset.theme;
  restyle();
  show(tabs().find(tab => tab.getAttribute("aria-selected") === "true"));
}

function start() {
  for (const tab of tabs()) tab.addEventListener("click", () => choose(tab));
  document.querySelector('[role="tablist"]').addEventListener("keydown", onKey);
  document.getElementById("theme").addEventListener("click", switchTheme);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);
  addEventListener("beforeprint", beforePrint);
  addEventListener("afterprint", afterPrint);
  const asked = tabs().find(tab => "#" + tab.getAttribute("aria-controls") === location.hash);
  show(asked || tabs()[0]);
}
