// Curves and heat maps by plotly, each drawn when it comes near; and the start of the page.

const CONFIG = {
  displaylogo: false,
  responsive: true,
  modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
};
const PAPER = 640; // pixels between the margins of A4
const LABEL = 10.5; // pixels of a heat map's side that a feature with its name asks for
const SMALLEST_CLUSTER = 3;
const N_SERIES = 6; // colours of the style sheet
const DASHES = ["solid", "dot", "dash", "dashdot"];
let printing = false;
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;");

function layout(more) {
  const line = colour("line"), text = colour("text");
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 52, r: 12, t: 8, b: 44 },
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: text },
    hoverlabel: { bgcolor: colour("raised"), bordercolor: line, font: { color: text } },
    ...more,
    xaxis: { ...axis, ...more.xaxis },
    yaxis: { ...axis, ...more.yaxis },
  };
}

// Error bars of values with their intervals; none where none has one.
function errorBars(values, intervals, more = {}) {
  if (!intervals.some(Boolean)) return undefined;
  const above = (interval, i) => (interval ? interval[1] - values[i] : 0);
  const below = (interval, i) => (interval ? values[i] - interval[0] : 0);
  const array = intervals.map(above), arrayminus = intervals.map(below);
  return { type: "data", symmetric: false, array, arrayminus, ...more };
}

function curveTrace([name, points], i, figure) {
  const used = points.filter((point) => typeof point[figure] === "number");
  const y = used.map((point) => point[figure]);
  const own = name === report.curves.selector;
  const dash = own ? "solid" : DASHES[i % DASHES.length];
  return {
    name: plain(name),
    x: used.map((point) => point.budget),
    y,
    mode: "lines+markers",
    line: { color: colour(own ? "accent" : `series-${i % N_SERIES}`), width: own ? 3 : 1.5, dash },
    marker: { size: own ? 7 : 5 },
    error_y: errorBars(y, used.map((point) => point.intervals?.[figure]), { thickness: 1 }),
  };
}

function curveTraces(figure) {
  const { selectors, k, here } = report.curves;
  const traces = Object.entries(selectors).map((entry, i) => curveTrace(entry, i, figure));
  const { value, interval } = here[figure];
  if (typeof value !== "number") return traces;
  const color = colour("text");
  const marker = { size: 11, symbol: "diamond", color };
  const error_y = errorBars([value], [interval], { color });
  return [...traces, { name: "this circuit", x: [k], y: [value], mode: "markers", marker, error_y }];
}

const ascending = (values) => [...new Set(values)].sort((a, b) => a - b);

function drawCurves() {
  const figure = document.querySelector("#curve-figure input:checked").value;
  const traces = curveTraces(figure);
  const apart = $("curves").clientWidth < 600 ? 1.6 : 1.2;
  const ticks = [];
  for (const budget of ascending(traces.flatMap((trace) => trace.x))) {
    if (budget > apart * (ticks.at(-1) ?? 0)) ticks.push(budget);
  }
  const x = { text: `${report.curves.unit}s kept (K)` };
  const y = { text: { mean_kl: "mean KL (nats)" }[figure] ?? figure };
  Plotly.react("curves", traces, layout({
    height: 380,
    width: printing ? PAPER : undefined,
    hovermode: "x unified",
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    xaxis: { type: "log", title: x, tickvals: ticks, ticktext: ticks.map(String) },
    yaxis: { title: y, type: figure === "mean_kl" ? "log" : "linear" },
  }), CONFIG);
}

function fillCurveTable() {
  const selectors = Object.entries(report.curves.selectors);
  const budgets = ascending(selectors.flatMap(([, points]) => points.map((one) => one.budget)));
  const fidelity = (points, budget) => points.find((one) => one.budget === budget)?.fidelity;
  const rows = budgets.map((budget) => [
    String(budget),
    ...selectors.map(([, points]) => number(fidelity(points, budget))),
  ]);
  $("curve-table").append(
    element("caption", {}, "Fidelity by selector and budget"),
    ...numberRows(["K", ...selectors.map(([name]) => name)], rows),
  );
}

function unpacked(square, n) {
  const bytes = Uint8Array.from(atob(square.data), (character) => character.charCodeAt(0));
  const levels = new DataView(bytes.buffer);
  return Array.from({ length: n }, (_, i) => Float32Array.from({ length: n }, (_, j) => {
    const level = levels.getInt16(2 * (i * n + j), true);
    return level === -32768 ? NaN : level * square.step;
  }));
}

function clusterFrames(starts, n) {
  const line = { color: colour("text"), width: 1 };
  return starts
    .map((start, i) => [start - 0.5, (starts[i + 1] ?? n) - 0.5])
    .filter(([start, end]) => end - start >= SMALLEST_CLUSTER && end - start < n)
    .map(([start, end]) => ({ type: "rect", line, x0: start, x1: end, y0: start, y1: end }));
}

function drawSquare(box) {
  const { features, starts, squares } = report.heat;
  const square = squares[box.dataset.square], n = features.length;
  const height = printing ? 0.9 * PAPER : box.clientHeight, few = n <= height / LABEL;
  square.rows ??= unpacked(square, n);
  const axis = {
    type: "category", showgrid: false, zeroline: false, dtick: 1, ticks: "",
    showticklabels: few, tickfont: { size: 9 }, constrain: "domain",
  };
  const trace = {
    type: "heatmap", z: square.rows, x: features, y: features, hoverongaps: false,
    zmin: -square.limit, zmax: square.limit,
    colorscale: [[0, colour("down")], [0.5, colour("zero")], [1, colour("up")]],
    colorbar: { thickness: 10, outlinewidth: 0, tickfont: { size: 11 } },
    hovertemplate: "%{x} and %{y}: %{z:.4f}<extra></extra>",
  };
  Plotly.react(box, [trace], layout({
    height,
    width: printing ? PAPER : undefined,
    margin: { l: 20, r: 8, t: 8, b: 20 },
    shapes: clusterFrames(starts, n),
    xaxis: { ...axis, tickangle: -90 },
    yaxis: { ...axis, autorange: "reversed", scaleanchor: "x" },
  }), CONFIG);
  if (box.dataset.listening) return;
  box.dataset.listening = "yes";
  box.on("plotly_click", ({ points: [one] }) => { location.hash = one.y; });
}

const waiting = new Map();
const watcher = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (isIntersecting) drawNow(target);
  }
}, { rootMargin: "300px" });

// Plotly is most of this page. It is run when the first figure needs it, after the page is there.
function startPlotly() {
  if (window.Plotly) return;
  document.body.append(element("script", {}, $("plotly").textContent));
}

function drawNow(box) {
  watcher.unobserve(box);
  startPlotly();
  waiting.get(box)();
  box.dataset.drawn = "yes";
}

function drawLater(box, draw) {
  waiting.set(box, draw);
  watcher.observe(box);
  themeChanged.push(() => box.dataset.drawn && draw());
}

drawGraph();
applyFilter();
if (Object.keys(report.curves.selectors).length) {
  fillCurveTable();
  drawLater($("curves"), drawCurves);
  $("curve-figure").addEventListener("change", drawCurves);
}
for (const box of document.querySelectorAll("[data-square]")) drawLater(box, () => drawSquare(box));

// Paper is light and narrow, and has no scrolling: all is drawn, and drawn again afterwards.
function printed(theme, on) {
  printing = on;
  setTheme(theme);
  for (const box of waiting.keys()) if (!box.dataset.drawn) drawNow(box);
}

addEventListener("beforeprint", () => {
  const before = document.documentElement.dataset.theme;
  addEventListener("afterprint", () => printed(before, false), { once: true });
  printed("light", true);
});
showTheme();
if (location.hash) showHash();
