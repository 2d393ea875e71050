/* Distributions of all participants. Values come as 16-bit steps by column; percentiles come ready, since the page may
 * hold only a part of very many scans. */

const SVG = "http://www.w3.org/2000/svg";
const OUTLYING = 3.5;
const MOST_MARKS = 40;
const LOW = 1, QUARTER = 5, MEDIAN = 10, THREE_QUARTERS = 15, HIGH = 19, TOP = 20, SPREAD = 21;
const PARTICIPANT = 0, KIND = 1, VISIT = 2, INTRACRANIAL = 3, SCAN = 4, ANCHOR = 5;
const UNITS = { share: "% of intracranial", ml: "mL" };

function draw(parent, name, attributes) {
  const node = document.createElementNS(SVG, name);
  Object.entries(attributes).forEach(([key, value]) => node.setAttribute(key, value));
  parent.append(node);
  return node;
}

const short = (value) => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3));

class Page {
  constructor(data, scale, steps) {
    Object.assign(this, { data, scale, steps });
    this.kind = 0;
    this.measure = data.entries.some((entry) => entry[INTRACRANIAL]) ? "share" : "ml";
    this.found = "";
    this.members = data.kinds.map((_, kind) => data.entries.map((_, at) => at).filter((at) => data.entries[at][KIND] === kind));
  }

  statistics(column) {
    const kind = this.data.kinds[this.kind];
    return this.data.statistics[kind][this.measure][column];
  }

  /* A scan's value in the chosen measure; NaN where it was not measured. */
  value(column, at) {
    const step = this.steps[column * this.data.entries.length + at];
    if (!step) return NaN;
    const ml = (step - 1) * this.scale[column];
    return this.measure === "ml" ? ml : 100 * ml / (this.data.entries[at][INTRACRANIAL] || NaN);
  }

  schemes() {
    const measured = this.data.columns.filter((_, column) => this.statistics(column));
    return [...new Set(measured.map((column) => column[0]))];
  }

  columns() {
    return this.data.columns.map((_, column) => column)
      .filter((column) => this.data.columns[column][0] === this.scheme && this.statistics(column));
  }

  address(at) {
    const entry = this.data.entries[at];
    return `${encodeURIComponent(entry[PARTICIPANT])}.html#${encodeURIComponent(entry[ANCHOR])}`;
  }

  describe(at, column) {
    const entry = this.data.entries[at];
    return `${entry[SCAN]}\n${this.data.columns[column][2]}: ${short(this.value(column, at))} ${this.unit()}`;
  }

  show() {
    if (!this.schemes().length) this.measure = this.measure === "ml" ? "share" : "ml";
    if (!this.schemes().includes(this.scheme)) this.scheme = this.schemes()[0];
    if (!this.columns().includes(this.column)) this.column = this.columns()[0];
    const pick = (key) => (value) => { this[key] = value; this.show(); };
    choice("choose-kind", this.data.kinds.map((kind, at) => [kind, at]), this.kind, pick("kind"));
    choice("choose-scheme", this.schemes().map((scheme) => [scheme, scheme]), this.scheme, pick("scheme"));
    choice("choose-measure", this.measures().map((key) => [UNITS[key], key]), this.measure, pick("measure"));
    element("unit").textContent = "Median";
    this.showStrips();
    this.showDetail();
  }

  unit() {
    return this.data.counted.includes(this.scheme) ? "lesions" : UNITS[this.measure];
  }

  measures() {
    const kind = this.data.statistics[this.data.kinds[this.kind]];
    return ["share", "ml"].filter((key) => kind[key].some(Boolean));
  }

  showStrips() {
    const rows = this.columns().map((column) => {
      const row = document.createElement("tr");
      const [, , title, color] = this.data.columns[column];
      const name = row.insertCell();
      const swatch = document.createElement("i");
      swatch.style.background = color;
      name.append(swatch, title);
      this.strip(row.insertCell(), column, color);
      const median = row.insertCell();
      median.className = "number";
      median.textContent = short(this.statistics(column)[MEDIAN]);
      row.setAttribute("aria-selected", String(column === this.column));
      row.addEventListener("click", () => { this.column = column; this.show(); });
      return row;
    });
    const list = element("strips").tBodies[0];
    const scrolled = list.closest(".list").scrollTop;
    list.replaceChildren(...rows);
    list.closest(".list").scrollTop = scrolled;
  }

  /* A box plot with the scans that stand out as points. */
  strip(cell, column, color) {
    const values = this.statistics(column);
    const svg = draw(cell, "svg", { viewBox: "0 0 240 20", preserveAspectRatio: "none" });
    const x = (value) => 4 + 232 * (value - values[0]) / ((values[TOP] - values[0]) || 1);
    draw(svg, "line", { x1: x(values[LOW]), x2: x(values[HIGH]), y1: 10, y2: 10, stroke: "#5b6875" });
    draw(svg, "rect", { x: x(values[QUARTER]), y: 5, height: 10, width: Math.max(1, x(values[THREE_QUARTERS]) - x(values[QUARTER])),
      fill: color, "fill-opacity": 0.75, stroke: "#17212b", "stroke-width": 0.5 });
    draw(svg, "line", { x1: x(values[MEDIAN]), x2: x(values[MEDIAN]), y1: 3, y2: 17, stroke: "#17212b", "stroke-width": 2 });
    this.marks(column).forEach(([at, isFound]) => {
      const link = draw(svg, "a", { href: this.address(at) });
      const mark = draw(link, "ellipse", { cx: x(this.value(column, at)), cy: 10, rx: isFound ? 4 : 2.5, ry: isFound ? 5 : 3,
        fill: isFound ? "#ffb000" : "#b3261e", stroke: isFound ? "#17212b" : "none" });
      draw(mark, "title", {}).textContent = this.describe(at, column);
    });
  }

  /* The participant searched for, and the scans farthest out. */
  marks(column) {
    const values = this.statistics(column);
    const far = (at) => Math.abs(this.value(column, at) - values[MEDIAN]) / (values[SPREAD] || Infinity);
    const members = this.members[this.kind];
    const out = members.length < 8 ? [] : members.map((at) => [at, far(at)]).filter(([, z]) => z > OUTLYING)
      .sort((a, b) => b[1] - a[1]).slice(0, MOST_MARKS).map(([at]) => [at, false]);
    const found = members.filter((at) => this.isFound(at) && !Number.isNaN(this.value(column, at))).map((at) => [at, true]);
    return [...out, ...found];
  }

  isFound(at) {
    return this.found !== "" && this.data.entries[at][PARTICIPANT] === this.found;
  }

  showDetail() {
    const values = this.statistics(this.column);
    element("detail-title").textContent = `${this.data.columns[this.column][2]}, ${this.data.kinds[this.kind]}`;
    element("detail-range").textContent = `median ${short(values[MEDIAN])}, 5th to 95th percentile ${short(values[LOW])} to ${short(values[HIGH])} ${this.unit()}`;
    this.plot = new Plot(element("detail"), this);
    this.plot.draw();
  }
}

/* The chosen structure over visits. */
class Plot {
  constructor(canvas, page) {
    const scale = window.devicePixelRatio || 1;
    Object.assign(this, { canvas, page, width: canvas.clientWidth, height: canvas.clientHeight });
    canvas.width = this.width * scale;
    canvas.height = this.height * scale;
    this.pen = canvas.getContext("2d");
    this.pen.scale(scale, scale);
    this.members = page.members[page.kind].filter((at) => !Number.isNaN(page.value(page.column, at)));
    this.values = page.statistics(page.column);
    this.visits = 1 + this.members.reduce((most, at) => Math.max(most, page.data.entries[at][VISIT]), 0);
    this.points = this.members.map((at) => ({ at, x: this.x(at), y: this.y(page.value(page.column, at)) }));
  }

  /* Points of one visit are spread a little, always in the same way. */
  x(at) {
    const visit = this.page.data.entries[at][VISIT];
    const jitter = ((at * 2654435761) % 1000) / 1000 - 0.5;
    const room = (this.width - 76) / this.visits;
    return 60 + room * (visit + 0.5 + jitter * (this.visits > 1 ? 0.25 : 0.7));
  }

  y(value) {
    const [low, high] = [this.values[0], this.values[TOP]];
    const margin = (high - low || Math.abs(high) || 1) * 0.06;
    return this.height - 34 - (this.height - 48) * (value - low + margin) / (high - low + 2 * margin);
  }

  draw() {
    this.pen.clearRect(0, 0, this.width, this.height);
    this.pen.font = "12px system-ui, sans-serif";
    this.bands();
    this.axes();
    this.lines();
    this.dots();
  }

  bands() {
    [[LOW, HIGH, "#eef3f7"], [QUARTER, THREE_QUARTERS, "#dce7ef"]].forEach(([from, to, color]) => {
      this.pen.fillStyle = color;
      this.pen.fillRect(60, this.y(this.values[to]), this.width - 76, this.y(this.values[from]) - this.y(this.values[to]));
    });
    this.pen.strokeStyle = "#8fa3b3";
    this.pen.strokeRect(60, this.y(this.values[MEDIAN]), this.width - 76, 0);
  }

  axes() {
    const pen = this.pen;
    pen.fillStyle = "#5b6875";
    pen.textAlign = "right";
    const [low, high] = [this.values[0], this.values[TOP]];
    [0, 0.25, 0.5, 0.75, 1].forEach((part) => {
      const value = low + part * (high - low);
      pen.fillText(short(value), 54, this.y(value) + 4);
    });
    pen.textAlign = "center";
    const most = Math.ceil(this.visits / 12);
    for (let visit = 0; visit < this.visits; visit += most) {
      pen.fillText(`visit ${visit + 1}`, 60 + (this.width - 76) * (visit + 0.5) / this.visits, this.height - 12);
    }
  }

  lines() {
    const paths = new Map();
    this.points.forEach((point) => {
      const who = this.page.data.entries[point.at][PARTICIPANT];
      paths.set(who, [...(paths.get(who) || []), point]);
    });
    paths.forEach((points, who) => {
      points.sort((a, b) => this.page.data.entries[a.at][VISIT] - this.page.data.entries[b.at][VISIT]);
      this.pen.strokeStyle = who === this.page.found ? "#17212b" : `rgba(11, 110, 153, ${paths.size > 500 ? 0.08 : 0.3})`;
      this.pen.lineWidth = who === this.page.found ? 2 : 1;
      this.pen.beginPath();
      points.forEach(({ x, y }) => this.pen.lineTo(x, y));
      this.pen.stroke();
    });
  }

  dots() {
    const many = this.points.length > 2000;
    const far = (at) => Math.abs(this.page.value(this.page.column, at) - this.values[MEDIAN]) / (this.values[SPREAD] || Infinity);
    this.points.forEach(({ at, x, y }) => {
      const found = this.page.isFound(at);
      const out = this.members.length >= 8 && far(at) > OUTLYING;
      this.pen.fillStyle = found ? "#ffb000" : out ? "#b3261e" : many ? "rgba(11, 110, 153, .35)" : "rgba(11, 110, 153, .75)";
      this.pen.beginPath();
      this.pen.arc(x, y, found ? 5.5 : many && !out ? 2 : 3.2, 0, 7);
      this.pen.fill();
    });
  }

  nearest(event) {
    const box = this.canvas.getBoundingClientRect();
    const distance = ({ x, y }) => Math.hypot(x - event.clientX + box.left, y - event.clientY + box.top);
    const best = this.points.reduce((a, b) => (a && distance(a) <= distance(b) ? a : b), null);
    return best && distance(best) < 10 ? best : null;
  }
}

function listen(page) {
  const canvas = element("detail"), tip = element("tip");
  canvas.addEventListener("mousemove", (event) => {
    const point = page.plot.nearest(event);
    canvas.classList.toggle("over", Boolean(point));
    tip.hidden = !point;
    if (!point) return;
    tip.textContent = page.describe(point.at, page.column);
    tip.style.left = `${Math.min(event.clientX + 14, window.innerWidth - 330)}px`;
    tip.style.top = `${event.clientY + 14}px`;
  });
  canvas.addEventListener("mouseleave", () => { tip.hidden = true; });
  canvas.addEventListener("click", (event) => {
    const point = page.plot.nearest(event);
    if (point) window.location.href = page.address(point.at);
  });
  const names = [...new Set(page.data.entries.map((entry) => entry[PARTICIPANT]))];
  element("participants").replaceChildren(...names.slice(0, 5000).map((name) => new Option(name)));
  element("search").addEventListener("input", (event) => {
    const wanted = event.target.value.trim();
    page.found = names.find((name) => name === wanted || name === `sub-${wanted}`) || "";
    page.show();
  });
  window.addEventListener("resize", () => page.showDetail());
}

async function start() {
  const data = JSON.parse(element("data").textContent);
  const page = new Page(data, JSON.parse(element("scale").textContent), new Uint16Array(await unpack("matrix")));
  listen(page);
  page.show();
  window.page = page;
  document.body.dataset.state = "ready";
}

start();
