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
  const peak = context.peak ?? 0;
  const first = Math.max(0, peak - around), last = Math.min(n, peak + around + 1);
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
    const bar = { x: (i * width) / n, y: height - h, width: Math.max(1, width / n - 1), height: h };
    image.append(drawn("rect", bar));
  });
  const axis = [low, "activation", high].map((text) => element("span", {}, text));
  return element("figure", { class: "activations" }, image, element("figcaption", {}, ...axis));
}

function judged(measure) {
  if (!measure) return "";
  if (measure.value === null) return element("span", { class: "muted" }, measure.why ?? "–");
  const title = `${measure.n[0]} with, ${measure.n[1]} without`;
  return element("span", { title }, number(measure.value, 2));
}

function qualityTable(quality) {
  const judges = ["rule", "llm"].filter((judge) => quality.some((row) => row[judge]));
  const names = { rule: "by rule", llm: "by model" };
  const head = ["Quality", ...judges.map((judge) => names[judge])];
  const rows = quality.map((row) => [row.name, ...judges.map((judge) => judged(row[judge]))]);
  return element("table", { class: "quality" }, ...numberRows(head, rows));
}

function tokenList(title, tokens) {
  if (!tokens.length) return null;
  const items = tokens.map(([word, effect]) =>
    element("li", { title: `logit ${signed(effect)} per unit of activation` }, report.words[word]));
  return element("div", { class: "tokens" }, element("h4", {}, title), element("ul", {}, ...items));
}

function linkList([title, links]) {
  const told = title === "fires with" ? share : signed;
  const items = links.map(([key, weight]) => {
    const link = element("a", { href: `#${key}`, title: byKey.get(key).label }, key);
    return element("li", {}, link, ` ${told(weight)}`);
  });
  return element("div", { class: "links" }, element("h4", {}, title), element("ul", {}, ...items));
}

function facts(card) {
  const known = (value, text) => (value === null || value === undefined ? null : text(value));
  const rows = [
    ["effect", signed(card.effect)],
    ["|effect|", number(card.size)],
    ["first order", card.first_order === card.effect ? null : known(card.first_order, signed)],
    ["score", number(card.score)],
    ["direct", known(card.direct, signed)],
    ["stability", known(card.stability, share)],
    ["label fit", known(card.fit, (value) => number(value, 2))],
    ["density", known(card.density, (value) => `${(100 * value).toPrecision(2)}%`)],
    ["fires in", known(card.n_texts, (n) => `${n} ${n === 1 ? report.text : `${report.text}s`}`)],
  ].filter(([, text]) => text !== null);
  const pair = ([name, text]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, text));
  return element("dl", { class: "facts" }, ...rows.map(pair));
}

function cardHeader(card, pinned) {
  const at = report.curves.unit === "node" ? "at" : "mostly at";
  const places = card.places.map(whereabouts).join(", ");
  const pin = element(
    "button",
    {
      type: "button",
      class: "pin",
      "data-key": card.key,
      "aria-pressed": String(isPinned(card.key)),
      "aria-label": `${pinned ? "Unpin" : "Pin"} ${card.key}`,
    },
    pinned ? "Unpin" : "Pin",
  );
  pin.addEventListener("click", () => togglePin(card.key));
  const key = element("span", { class: "key" }, card.key);
  const rank = element("span", { class: "rank" }, String(card.rank + 1));
  return element("header", {}, rank, element("h3", {}, key, ` ${at} ${places}`), pin);
}

function buildCard(card, { pinned = false } = {}) {
  const by = card.explainer && card.explainer !== "rules" ? ` — ${card.explainer}` : "";
  const quality = card.quality.length ? qualityTable(card.quality) : null;
  const activations = card.hist ? histogram(card.hist) : null;
  const measured = quality || activations;
  return element(
    "article",
    { class: "card", tabindex: "-1", "data-key": card.key, "aria-label": `Feature ${card.key}` },
    cardHeader(card, pinned),
    element("p", { class: "label" }, card.label, element("span", { class: "muted" }, by)),
    facts(card),
    measured && element("div", { class: "measured" }, quality, activations),
    contextBlock(card),
    element(
      "div",
      { class: "lists" },
      tokenList("raises", card.up),
      tokenList("lowers", card.down),
      ...card.links.map(linkList),
    ),
  );
}
