// One card a feature, and what it is made of.

const KINDS = { top: "strongest", quantile: "over its range", silent: "silent" };
const SHOWN = 3;

// In running text the space before a word is a space; tokens of nothing but whitespace keep marks.
const running = (text) => text.replace(/^·(?=[^·↵⇥])/, " ");
const whereabouts = (place) => (/^-?\d+$/.test(place) ? `position ${place.replace("-", "−")}` : place);

function tokenSpan(context, at) {
  const level = context.levels[at] ?? 0;
  const kind = at === context.peak ? "token peak" : "token";
  const style = level ? `--heat:${(Math.abs(level) / 99).toFixed(2)}` : null;
  const words = running(report.words[context.words[at]]);
  return element("span", { class: level < 0 ? `${kind} cold` : kind, style }, words);
}

function contextLine(context, around = Infinity) {
  const text = element("span", { class: "text" }), n = context.words.length;
  const first = Math.max(0, (context.peak ?? 0) - around), last = Math.min(n, (context.peak ?? 0) + around + 1);
  if (context.cut[0] || first > 0) text.append("… ");
  for (let at = first; at < last; at++) text.append(tokenSpan(context, at), document.createElement("wbr"));
  if (context.cut[1] || last < n) text.append(" …");
  if (context.source) text.append(element("span", { class: "source" }, context.source));
  const value = context.kind === "silent" ? "silent" : number(context.value, 2);
  return element("p", { class: "context" }, element("span", { class: "value" }, value), text);
}

function contextBlock(card) {
  const block = element("div", { class: "contexts" });
  block.append(...card.contexts.slice(0, SHOWN).map((context) => contextLine(context)));
  const rest = card.contexts.slice(SHOWN);
  if (!rest.length) return block;
  const shown = card.contexts.length;
  const all = card.n_contexts > shown ? ` (${shown} of ${card.n_contexts} are in this page)` : "";
  const more = element("details", {}, element("summary", {}, `${rest.length} more contexts${all}`));
  more.addEventListener("toggle", () => {
    if (more.childElementCount > 1) return;
    let kind = null;
    for (const context of rest) {
      if (context.kind !== kind) more.append(element("h4", {}, KINDS[context.kind] ?? context.kind));
      kind = context.kind;
      more.append(contextLine(context));
    }
  });
  block.append(more);
  return block;
}

function histogram(hist) {
  const width = 150, height = 44, most = Math.max(...hist.counts), n = hist.counts.length;
  const low = number(hist.edges[0], 2), high = number(hist.edges[n], 2);
  const total = hist.counts.reduce((sum, count) => sum + count, 0);
  const image = drawn("svg", {
    class: "histogram", viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `Histogram of ${total} activations from ${low} to ${high}`,
  });
  hist.counts.forEach((count, i) => {
    const h = (count / most) * height;
    image.append(drawn("rect", { x: (i * width) / n, y: height - h, width: Math.max(1, width / n - 1), height: h }));
  });
  return element("figure", { class: "activations" }, image,
    element("figcaption", {}, element("span", {}, low), element("span", {}, "activation"), element("span", {}, high)));
}

function judged(measure) {
  if (!measure) return "";
  if (measure.value === null) return element("span", { class: "muted", title: measure.why }, measure.why ?? "–");
  return element("span", { title: `${measure.n[0]} with, ${measure.n[1]} without` }, number(measure.value, 2));
}

function qualityTable(quality) {
  const judges = ["rule", "llm"].filter((judge) => quality.some((row) => row[judge]));
  const names = { rule: "rule", llm: "model" };
  const head = element("tr", {}, element("th", { scope: "col" }, "Quality"),
    ...judges.map((judge) => element("th", { scope: "col", class: "num" }, `by ${names[judge]}`)));
  const rows = quality.map((row) => element("tr", {}, element("th", { scope: "row" }, row.name),
    ...judges.map((judge) => element("td", { class: "num" }, judged(row[judge])))));
  return element("table", { class: "quality" }, element("thead", {}, head), element("tbody", {}, ...rows));
}

function tokenList(title, tokens) {
  if (!tokens.length) return null;
  const items = tokens.map(([word, effect]) =>
    element("li", { title: `logit ${signed(effect)} per unit of activation` }, report.words[word]));
  return element("div", { class: "tokens" }, element("h4", {}, title), element("ul", {}, ...items));
}

function linkList([title, links]) {
  const items = links.map(([key, weight]) =>
    element("li", {}, element("a", { href: `#${key}`, title: byKey.get(key).label }, key), ` ${title === "fires with" ? share(weight) : signed(weight)}`));
  return element("div", { class: "links" }, element("h4", {}, title), element("ul", {}, ...items));
}

function facts(card) {
  const rows = [
    ["effect", signed(card.effect)],
    ["|effect|", number(card.size)],
    ["first order", card.first_order === null || card.first_order === card.effect ? null : signed(card.first_order)],
    ["score", number(card.score)],
    ["direct", card.direct === null ? null : signed(card.direct)],
    ["stability", card.stability === null ? null : share(card.stability)],
    ["label F1", card.f1 === null ? null : number(card.f1, 2)],
    ["density", card.density === null ? null : `${(100 * card.density).toPrecision(2)}%`],
    ["fires in", card.n_texts],
  ].filter(([, value]) => value !== null && value !== undefined);
  return element("dl", { class: "facts" },
    ...rows.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, String(value)))));
}

function buildCard(card, { pinned = false } = {}) {
  const at = report.curves.unit === "node" ? "at" : "mostly at";
  const title = element("h3", {}, element("span", { class: "key" }, card.key), ` ${at} ${card.places.map(whereabouts).join(", ")}`);
  const pin = element("button", { type: "button", class: "pin", "aria-pressed": String(isPinned(card.key)), "data-key": card.key,
    "aria-label": `Pin ${card.key} beside the graph` }, pinned ? "Unpin" : "Pin");
  pin.addEventListener("click", () => togglePin(card.key));
  const by = card.explainer && card.explainer !== "rules" ? ` — ${card.explainer}` : "";
  return element("article", { class: "card", tabindex: "-1", "data-key": card.key, "aria-label": `Feature ${card.key}` },
    element("header", {}, element("span", { class: "rank" }, String(card.rank + 1)), title, pin),
    element("p", { class: "label" }, card.label, by ? element("span", { class: "muted" }, by) : null),
    facts(card),
    card.hist || card.quality.length
      ? element("div", { class: "measured" }, card.quality.length ? qualityTable(card.quality) : null, card.hist ? histogram(card.hist) : null)
      : null,
    contextBlock(card),
    element("div", { class: "lists" }, tokenList("raises", card.up), tokenList("lowers", card.down), ...card.links.map(linkList)));
}
