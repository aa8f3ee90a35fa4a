// What the other scripts share: the data, making elements (text only, never markup), the theme.

const report = JSON.parse(document.getElementById("data").textContent);
const byKey = new Map(report.cards.map((card) => [card.key, card]));
const $ = (id) => document.getElementById(id);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

function drawn(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Head and body of a table whose first column names the rows; the others hold numbers.
function numberRows(head, rows) {
  const name = (text, i) => element("th", { scope: "col", class: i > 0 && "num" }, text);
  const cell = (content, i) =>
    i > 0 ? element("td", { class: "num" }, content) : element("th", { scope: "row" }, content);
  return [
    element("thead", {}, element("tr", {}, ...head.map(name))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map(cell)))),
  ];
}

const number = (value, digits = 3) =>
  value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−");
const signed = (value, digits = 3) => (value > 0 ? "+" : "") + number(value, digits);
const share = (value) => (value === null ? "–" : `${Math.round(100 * value)}%`);

const themeChanged = [];
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const root = document.documentElement;
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches);

function showTheme() {
  $("theme").textContent = isDark() ? "Light" : "Dark";
  $("theme").setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`);
  for (const tell of themeChanged) tell();
}

// "light", "dark", or undefined for what the system prefers.
function setTheme(theme) {
  if (theme) root.dataset.theme = theme;
  else delete root.dataset.theme;
  showTheme();
}

$("theme").addEventListener("click", () => setTheme(isDark() ? "light" : "dark"));
prefersDark.addEventListener("change", showTheme);

// A colour of the style sheet as the theme has it now, for plotly.
function colour(name) {
  const probe = $("tip");
  probe.style.color = `var(--${name})`;
  const found = getComputedStyle(probe).color;
  probe.style.color = "";
  return found;
}
