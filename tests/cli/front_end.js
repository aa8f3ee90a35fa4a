// What circuit-tracer's pages need beyond the d3 5 of Debian's node-d3: listeners called as d3 6 and
// later call them, and the helpers of d3-jetpack that the pages use. For tests only.
(() => {
  const methods = d3.selection.prototype;

  // listener(event, datum)
  const { on } = methods;
  methods.on = function (types, listener, ...rest) {
    if (arguments.length < 2) return on.call(this, types);
    const called =
      listener && function (datum) { return listener.call(this, d3.event, datum); };
    return on.call(this, types, called, ...rest);
  };
  const { drag } = d3;
  d3.drag = () => {
    const made = drag();
    const dragOn = made.on;
    made.on = function (types, listener) {
      if (arguments.length < 2) return dragOn.call(made, types);
      // inside a drag, d3.event is the drag's own event
      dragOn.call(made, types, function (_, datum) {
        return listener.call(this, d3.event, datum);
      });
      return made;
    };
    return made;
  };
  d3.pointer = (event, node) => d3.clientPoint(node || event.currentTarget, event);

  // "div.some.classes#id"
  const described = (name) => {
    const [tag, ...parts] = name.split(/(?=[.#])/);
    const of = (mark) => parts.filter((p) => p[0] === mark).map((p) => p.slice(1));
    return { tag, classes: of(".").join(" "), id: of("#")[0] };
  };
  const { append, insert } = methods;
  const adding = (original) => function (name, ...rest) {
    if (typeof name === "function") return original.call(this, name, ...rest);
    const { tag, classes, id } = described(name);
    const added = original.call(this, tag, ...rest);
    if (classes) added.attr("class", classes);
    if (id) added.attr("id", id);
    return added;
  };
  methods.append = adding(append);
  methods.insert = adding(insert);
  methods.appendMany = function (name, data) {
    return this.selectAll(null).data(data).enter().append(name);
  };
  methods.selectAppend = function (name) {
    this.filter(function () { return !this.querySelector(name); }).append(name);
    return this.select(name);
  };
  methods.parent = function () {
    return this.select(function () { return this.parentNode; });
  };

  const hyphened = (name) => name.replace(/([a-z])([A-Z])/g, "$1-$2").toLowerCase();
  const LENGTH = /^(top|left|bottom|right|(m(ax|in)-)?(width|height)|font-size|(margin|padding).*)$/;
  const each = (set) => function (name, value) {
    const given = typeof name === "object" ? name : { [name]: value };
    for (const [key, one] of Object.entries(given)) set(this, key, one);
    return this;
  };
  methods.at = each((of, key, value) => of.attr(key === "viewBox" ? key : hyphened(key), value));
  methods.st = each((of, key, value) => {
    const name = hyphened(key);
    const unit = (v) => (typeof v === "number" && LENGTH.test(name) ? `${v}px` : v);
    of.style(name, typeof value === "function"
      ? function (...args) { return unit(value.apply(this, args)); }
      : unit(value));
  });
  methods.translate = function (to, axis) {
    const place = function (...args) {
      const xy = typeof to === "function" ? to.apply(this, args) : to;
      return axis === 0 ? [xy, 0] : axis === 1 ? [0, xy] : xy;
    };
    const drawn = Boolean(this.node()?.getBBox);
    const text = function (...args) {
      const [x, y] = place.apply(this, args);
      return drawn ? `translate(${x},${y})` : `translate(${x}px,${y}px)`;
    };
    return drawn ? this.attr("transform", text) : this.style("transform", text);
  };
  d3.transition.prototype.translate = methods.translate;
  d3.transition.prototype.at = methods.at;
  d3.transition.prototype.st = methods.st;

  d3.nestBy = (items, key) =>
    [...d3.group(items, key)].map(([name, group]) => Object.assign(group, { key: name }));
  d3.clamp = (low, value, high) => Math.max(low, Math.min(value, high));

  // a chart: layers of svg ("s"), canvas ("c") and div ("d") inside margins, with scales and axes
  d3.conventions = (c) => {
    c.margin = { top: 20, right: 20, bottom: 20, left: 20, ...c.margin };
    const node = c.sel.node();
    c.width = c.width || node.offsetWidth - c.margin.left - c.margin.right;
    c.height = c.height || node.offsetHeight - c.margin.top - c.margin.bottom;
    c.totalWidth = c.width + c.margin.left + c.margin.right;
    c.totalHeight = c.height + c.margin.top + c.margin.bottom;
    c.sel.st({ position: "relative", width: c.totalWidth, height: c.totalHeight });
    c.x = d3.scaleLinear().range([0, c.width]);
    c.y = d3.scaleLinear().range([c.height, 0]);
    c.xAxis = d3.axisBottom().scale(c.x);
    c.yAxis = d3.axisLeft().scale(c.y);
    const size = { width: c.totalWidth, height: c.totalHeight };
    const { left, top } = c.margin;
    const layer = {
      s: () => c.sel.append("svg").at(size).st({ position: "absolute" })
        .append("g").attr("transform", `translate(${left},${top})`),
      c: () => {
        const drawn = c.sel.append("canvas").at(size).st({ position: "absolute" });
        const context = drawn.node().getContext("2d");
        context.translate(left, top);
        return context;
      },
      d: () => c.sel.append("div")
        .st({ position: "absolute", left, top, width: c.width, height: c.height }),
    };
    const kinds = [...(c.layers || "s")];
    c.layers = kinds.map((kind) => layer[kind]());
    c.svg = c.layers[kinds.indexOf("s")];
    c.drawAxis = (svg = c.svg) => {
      svg.append("g.x.axis").translate([0, c.height]).call(c.xAxis);
      svg.append("g.y.axis").call(c.yAxis);
    };
    return c;
  };
})();
