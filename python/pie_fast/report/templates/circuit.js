// The graph of the circuit: hover shows contexts, click or Enter pins a feature's card beside it.

const MARGIN = { left: 40, right: 14, top: 10, bottom: 34 };
const AROUND = 7; // tokens of a context on each side of its peak, where a node is pointed at
const SIGNS = ["down", "both", "up"];
const graph = report.graph;
const pins = [];
const nodes = [];
const isPinned = (key) => pins.includes(key);
let current = 0;

function place(x, y) {
  return [x + MARGIN.left, y + MARGIN.top];
}

function edgePath([from, to]) {
  const [x0, y0] = place(graph.nodes[from].x, graph.nodes[from].y);
  const [x1, y1] = place(graph.nodes[to].x, graph.nodes[to].y);
  const bend = (y1 - y0) / 2;
  return `M${x0},${y0}C${x0},${y0 + bend} ${x1},${y1 - bend} ${x1},${y1}`;
}

function drawEdges(layer) {
  const strongest = Math.abs(graph.edges[0]?.[2] ?? 1);
  return graph.edges.map((edge, rank) => {
    const path = drawn("path", {
      d: edgePath(edge),
      class: `edge${edge[2] < 0 ? " lowers" : ""}${rank < graph.drawn ? "" : " faint"}`,
      "stroke-width": (0.6 + 3 * Math.abs(edge[2]) / strongest).toFixed(2),
    });
    layer.append(path);
    return { from: edge[0], to: edge[1], path };
  });
}

function drawNode(node, i) {
  const [x, y] = place(node.x, node.y);
  const card = byKey.get(node.key);
  const circle = drawn("circle", {
    cx: x, cy: y, r: node.r, class: `node ${SIGNS[node.sign + 1]}`, role: "button",
    tabindex: i === 0 ? "0" : "-1", "aria-pressed": "false",
    "aria-label": `${node.key} at ${whereabouts(node.place)}, effect ${signed(node.effect)}: ${card.label}`,
  });
  circle.addEventListener("pointerenter", (event) => event.pointerType === "touch" || point(i));
  circle.addEventListener("pointerleave", unpoint);
  circle.addEventListener("focus", () => {
    if (circle.matches(":focus-visible")) point(i); // not of a tap or a click
    move(i);
  });
  circle.addEventListener("blur", unpoint);
  circle.addEventListener("click", () => (togglePin(node.key), unpoint()));
  return circle;
}

function drawGraph() {
  const width = graph.width + MARGIN.left + MARGIN.right;
  const height = graph.height + MARGIN.top + MARGIN.bottom;
  const image = $("graph");
  image.setAttribute("viewBox", `0 0 ${width} ${height}`);
  image.style.minWidth = `${width}px`;
  image.style.maxWidth = `${1.5 * width}px`;
  const names = drawn("g", { class: "names" }); // of layers: they stay when the graph is scrolled
  graph.rows.forEach((row, i) => {
    const y = row.start + MARGIN.top;
    const band = { class: "band", x: 0, y: y - 6, width, height: row.extent + 12 };
    if (i % 2 === 0) image.append(drawn("rect", band));
    names.append(drawn("text", { x: 6, y: y + row.extent / 2 + 4 }, row.name));
  });
  const long = graph.columns.some((column) => column.name.length * 7 > column.extent + 8);
  graph.columns.forEach((column) => {
    const x = column.start + column.extent / 2 + MARGIN.left, y = height - MARGIN.bottom + 20;
    image.append(drawn("text", { x, y, "text-anchor": "middle", class: long ? "long" : "" }, column.name.replace(/^-/, "−")));
  });
  const layer = drawn("g", { "aria-hidden": "true" });
  image.append(layer);
  graph.lines = drawEdges(layer);
  graph.nodes.forEach((node, i) => nodes.push(drawNode(node, i)));
  image.append(...nodes, names);
  $("graph-scroll").addEventListener("scroll", (event) => {
    const scale = image.clientWidth / width;
    names.setAttribute("transform", `translate(${event.target.scrollLeft / scale} 0)`);
  });
}

function point(i) {
  const key = graph.nodes[i].key;
  for (const { from, to, path } of graph.lines) {
    const near = graph.nodes[from].key === key || graph.nodes[to].key === key;
    path.classList.toggle("near", near);
  }
  $("graph").classList.add("pointing");
  showTip(i);
}

function unpoint() {
  $("graph").classList.remove("pointing");
  $("tip").hidden = true;
}

function showTip(i) {
  const node = graph.nodes[i], card = byKey.get(node.key), tip = $("tip");
  const stability = card.stability === null ? "" : `, stability ${share(card.stability)}`;
  tip.replaceChildren(
    element("strong", {}, `${card.key} at ${whereabouts(node.place)}`),
    element("span", {}, ` effect ${signed(node.effect)}${stability}`),
    element("p", {}, card.label),
    ...card.contexts.slice(0, 3).map((context) => contextLine(context, AROUND)));
  tip.hidden = false;
  const box = nodes[i].getBoundingClientRect(), size = tip.getBoundingClientRect();
  const below = box.bottom + 8 + size.height < innerHeight;
  tip.style.top = `${Math.max(4, below ? box.bottom + 8 : box.top - 8 - size.height)}px`;
  tip.style.left = `${Math.max(4, Math.min(box.left, innerWidth - size.width - 8))}px`;
}

function togglePin(key) {
  if (isPinned(key)) pins.splice(pins.indexOf(key), 1);
  else pins.unshift(key);
  const cards = pins.map((pin) => buildCard(byKey.get(pin), { pinned: true }));
  const none = element("p", { class: "muted" }, "Nothing is pinned.");
  $("pins").replaceChildren(...(pins.length ? cards : [none]));
  graph.nodes.forEach((node, i) => nodes[i].setAttribute("aria-pressed", String(isPinned(node.key))));
  for (const { from, to, path } of graph.lines) {
    path.classList.toggle("pinned", isPinned(graph.nodes[from].key) || isPinned(graph.nodes[to].key));
  }
  for (const button of document.querySelectorAll("#cards .pin")) {
    button.setAttribute("aria-pressed", String(isPinned(button.dataset.key)));
  }
}

// One node takes part in the tab order; arrows go to the nearest one in their direction.
function move(i) {
  nodes[current].setAttribute("tabindex", "-1");
  nodes[i].setAttribute("tabindex", "0");
  current = i;
}

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function nearest([dx, dy]) {
  const here = graph.nodes[current];
  let best = current, least = Infinity;
  graph.nodes.forEach((node, i) => {
    const along = (node.x - here.x) * dx + (node.y - here.y) * dy;
    const across = Math.abs((node.x - here.x) * dy) + Math.abs((node.y - here.y) * dx);
    if (along > 0.5 && along + 3 * across < least) [best, least] = [i, along + 3 * across];
  });
  return best;
}

$("graph").addEventListener("keydown", (event) => {
  if (event.key in STEPS) nodes[nearest(STEPS[event.key])].focus();
  else if (event.key === "Enter" || event.key === " ") togglePin(graph.nodes[current].key);
  else if (event.key === "Escape") unpoint();
  else return;
  event.preventDefault();
});

// The tip stays beside the node that the keyboard is at, which may scroll the page to reach it.
function scrolled() {
  if (!document.activeElement.matches(".node:focus-visible")) unpoint();
  else if (!$("tip").hidden) showTip(current);
}

addEventListener("scroll", scrolled, { capture: true, passive: true });
filterChanged.push((keys) =>
  graph.nodes.forEach((node, i) => nodes[i].classList.toggle("out", !keys.has(node.key))));
