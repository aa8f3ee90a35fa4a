// Curves and heat maps by plotly, each drawn when it comes near; and the start of the page.

const CONFIG = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] };
const PAPER = 640; // pixels between the margins of A4
const SMALLEST_CLUSTER = 3;
let printing = false;
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;");

function layout(more) {
  const axis = { gridcolor: colour("line"), zerolinecolor: colour("line"), linecolor: colour("line"), automargin: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 52, r: 12, t: 8, b: 44 },
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("text") },
    hoverlabel: { bgcolor: colour("raised"), bordercolor: colour("line"), font: { color: colour("text") } },
    ...more, xaxis: { ...axis, ...more.xaxis }, yaxis: { ...axis, ...more.yaxis },
  };
}

function curveTraces(figure) {
  const { selectors, selector, k, here } = report.curves;
  const traces = Object.entries(selectors).map(([name, points], i) => {
    const used = points.filter((point) => typeof point[figure] === "number");
    const spans = used.map((point) => point.intervals?.[figure]);
    const own = name === selector;
    return {
      name: plain(name), x: used.map((point) => point.budget), y: used.map((point) => point[figure]), mode: "lines+markers",
      line: { color: own ? colour("accent") : colour(`series-${i % 6}`), width: own ? 3 : 1.5, dash: own ? "solid" : ["solid", "dot", "dash", "dashdot"][i % 4] },
      marker: { size: own ? 7 : 5 },
      error_y: spans.some(Boolean) ? {
        type: "data", symmetric: false, thickness: 1,
        array: spans.map((span, j) => (span ? span[1] - used[j][figure] : 0)),
        arrayminus: spans.map((span, j) => (span ? used[j][figure] - span[0] : 0)),
      } : undefined,
    };
  });
  const { value, interval } = here[figure];
  if (typeof value !== "number") return traces;
  return [...traces, {
    name: "this circuit", x: [k], y: [value], mode: "markers", marker: { size: 11, symbol: "diamond", color: colour("text") },
    error_y: interval ? { type: "data", symmetric: false, array: [interval[1] - value], arrayminus: [value - interval[0]], color: colour("text") } : undefined,
  }];
}

function drawCurves() {
  const figure = document.querySelector("#curve-figure input:checked").value;
  const traces = curveTraces(figure);
  const budgets = [...new Set(traces.flatMap((trace) => trace.x))].sort((a, b) => a - b);
  const apart = $("curves").clientWidth < 600 ? 1.6 : 1.2;
  const ticks = budgets.reduce((kept, budget) => (budget > apart * (kept.at(-1) ?? 0) ? [...kept, budget] : kept), []);
  Plotly.react("curves", traces, layout({
    height: 380, width: printing ? PAPER : undefined, hovermode: "x unified", legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    xaxis: { type: "log", title: { text: `${report.curves.unit}s kept (K)` }, tickvals: ticks, ticktext: ticks.map(String) },
    yaxis: { title: { text: figure.replace("_", " ").replace("kl", "KL (nats)") }, type: figure === "mean_kl" ? "log" : "linear" },
  }), CONFIG);
}

function fillCurveTable() {
  const selectors = Object.entries(report.curves.selectors);
  const budgets = [...new Set(selectors.flatMap(([, points]) => points.map((point) => point.budget)))].sort((a, b) => a - b);
  const head = element("tr", {}, element("th", { scope: "col", class: "num" }, "K"),
    ...selectors.map(([name]) => element("th", { scope: "col", class: "num" }, name)));
  const rows = budgets.map((budget) => element("tr", {}, element("th", { scope: "row", class: "num" }, String(budget)),
    ...selectors.map(([, points]) => element("td", { class: "num" }, number(points.find((point) => point.budget === budget)?.fidelity)))));
  $("curve-table").append(element("caption", {}, "Fidelity by selector and budget"), element("thead", {}, head), element("tbody", {}, ...rows));
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
  const square = squares[box.dataset.square], n = features.length, few = n <= 60;
  square.rows ??= unpacked(square, n);
  const axis = { type: "category", showgrid: false, zeroline: false, showticklabels: few, tickfont: { size: 9 }, dtick: 1, ticks: "" };
  Plotly.react(box, [{
    type: "heatmap", z: square.rows, x: features, y: features, zmin: -square.limit, zmax: square.limit, hoverongaps: false,
    colorscale: [[0, colour("down")], [0.5, colour("zero")], [1, colour("up")]],
    colorbar: { thickness: 10, outlinewidth: 0, tickfont: { size: 11 } },
    hovertemplate: "%{x} and %{y}: %{z:.4f}<extra></extra>",
  }], layout({
    height: printing ? 0.9 * PAPER : box.clientHeight, width: printing ? PAPER : undefined, margin: { l: 20, r: 8, t: 8, b: 20 }, shapes: clusterFrames(starts, n),
    xaxis: { ...axis, tickangle: -90, constrain: "domain" }, yaxis: { ...axis, autorange: "reversed", scaleanchor: "x", constrain: "domain" },
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
