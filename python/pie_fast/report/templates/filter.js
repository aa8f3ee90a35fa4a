// Search, filters and order. Cards come a few at a time: 800 at once would take seconds.

const CHUNK = 24;
let matching = report.cards;
let nRendered = 0;
const filterChanged = [];

function haystack(card) {
  card.haystack ??= [
    card.key, card.label,
    ...[...card.up, ...card.down].map(([word]) => report.words[word]),
    ...card.contexts.filter((one) => one.peak !== null).map((one) => report.words[one.words[one.peak]]),
  ].join("\n").toLowerCase();
  return card.haystack;
}

function applyFilter() {
  const wanted = $("search").value.trim().toLowerCase().replaceAll(" ", "·");
  const text = $("search").value.trim().toLowerCase();
  const layer = $("layer").value;
  const stability = Number($("stability")?.value ?? 0) / 100;
  const order = $("order").value;
  const ascending = order === "rank" || order === "layer";
  const value = (card) => card[order] ?? -Infinity;
  matching = report.cards
    .filter((card) => (layer === "" || card.layer === Number(layer))
      && (stability === 0 || (card.stability ?? 0) >= stability - 1e-9)
      && (haystack(card).includes(text) || haystack(card).includes(wanted)))
    .sort((a, b) => (ascending ? value(a) - value(b) : value(b) - value(a)) || a.rank - b.rank);
  const found = `${matching.length} of ${report.cards.length} features`;
  $("count").textContent = matching.length ? found : `No feature matches (of ${report.cards.length})`;
  $("cards").replaceChildren();
  nRendered = 0;
  renderMore();
  for (const tell of filterChanged) tell(new Set(matching.map((card) => card.key)));
}

function renderMore(upTo = nRendered + CHUNK) {
  const next = matching.slice(nRendered, upTo).map((card) => buildCard(card));
  $("cards").append(...next);
  nRendered += next.length;
  const left = matching.length - nRendered;
  $("more").hidden = left === 0;
  $("more").textContent = `Show ${Math.min(CHUNK, left)} more of ${left}`;
  return next;
}

function resetFilter() {
  $("filter").reset();
  applyFilter();
}

function showCard(key) {
  if (!byKey.has(key)) return;
  if (!matching.includes(byKey.get(key))) resetFilter();
  renderMore(Math.max(nRendered, matching.indexOf(byKey.get(key)) + 1));
  const card = $("cards").querySelector(`[data-key="${CSS.escape(key)}"]`);
  card.scrollIntoView({ block: "start" });
  card.focus({ preventScroll: true });
}

const showHash = () => showCard(decodeURIComponent(location.hash.slice(1)));
addEventListener("hashchange", showHash);
document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#L"]');
  if (link && link.getAttribute("href") === location.hash) showHash();
});
$("filter").addEventListener("input", applyFilter);
$("filter").addEventListener("submit", (event) => event.preventDefault());
$("show-all").addEventListener("click", resetFilter);
$("more").addEventListener("click", () => renderMore()[0]?.focus({ preventScroll: true }));
addEventListener("beforeprint", () => renderMore(matching.length));
