// The status page. Names of rooms, servers and customers are chosen by strangers: they only ever
// become text nodes and attribute values, never markup.

const SUMMARY_EVERY = 1000;
const HISTORY_EVERY = 5000;
const ROOMS_EVERY = 3000;
const LONGEST_PAUSE = 30000;
const PATIENCE = 8000;
const TYPING = 250;
const ROOMS_PER_PAGE = 20;
// As many as the gateway passes over.
const DEEPEST = 2000;
// A search keeps the gateway busy for at most this part of the time.
const ROOMS_SHARE = 1 / 20;
const MOST_NEWS = 3;
const RATE_OVER = 10;

const SVG = "http://www.w3.org/2000/svg";
const BASE = `${location.pathname.replace(/\/+$/, "")}/`;

const byId = (id) => document.getElementById(id);

/* Making and changing elements */

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  setAttributes(element, attributes);
  element.append(...children);
  return element;
}

function setAttributes(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
  }
}

// What is not seen, or turns the order of what is around it, is shown by its number.
function visible(text) {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (char) => `\\u{${char.codePointAt(0).toString(16)}}`);
}

function setText(element, given) {
  const text = visible(String(given));
  if (element.textContent !== text) element.textContent = text;
}

// The parts of a cell, made when it is first shown.
const made = new WeakMap();
function partsOf(element, build) {
  let parts = made.get(element);
  if (!parts) {
    parts = build(element);
    made.set(element, parts);
  }
  return parts;
}

/* Numbers for people */

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const count = (number) => whole.format(number);
const percent = (part) => `${part > 0 && part < 0.1 ? (part * 100).toFixed(1) : Math.round(part * 100)} %`;
const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

function rate(number) {
  if (number >= 100) return count(number);
  return number >= 10 || number === 0 ? String(Math.round(number * 10) / 10) : String(Math.round(number * 100) / 100);
}

function duration(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

const clockTime = (date) => date.toLocaleTimeString("en-GB");

/* What the gateway has said */

const state = {
  summary: null,
  history: null,
  received: 0, // performance.now() of the summary
  awaySince: null, // Date; null: the gateway answers
  why: "",
  failures: 0,
  nextTry: 0,
  earlier: [], // counts of requests in the last seconds, for rates
};

const elapsed = () => (performance.now() - state.received) / 1000;

class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function ask(name, query = {}, init = {}) {
  // From the origin, since a page may not fetch a URL that holds a password as its own may.
  const url = new URL(BASE + name, location.origin);
  for (const [key, value] of Object.entries(query)) url.searchParams.set(key, value);
  const response = await fetch(url, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE), ...init });
  const body = await response.json().catch(() => null);
  if (!response.ok || body === null) {
    throw new Refused(response.status, body?.error ? explain(body.error) : "it did not answer with JSON");
  }
  return body;
}

function explain({ message, data = {} }) {
  const after = data.retry_after ? `; try again in ${duration(Math.ceil(data.retry_after))}` : "";
  return `${message}${data.detail ? `: ${data.detail}` : ""}${after}`;
}

/* News, for those who hear the page rather than see it */

function tell(...lines) {
  if (!lines.length) return;
  const more = lines.length > MOST_NEWS ? [`and ${lines.length - MOST_NEWS} more changes`] : [];
  setText(byId("news"), [...lines.slice(0, MOST_NEWS), ...more].join(". "));
}

const allServers = (summary) =>
  Object.entries(summary.pools).flatMap(([pool, { servers }]) =>
    servers.map((server) => ({ ...server, pool, key: JSON.stringify([pool, server.address]) })),
  );

function newsBetween(before, after) {
  const old = new Map(allServers(before).map((server) => [server.key, server]));
  const lines = [];
  for (const server of allServers(after)) {
    const was = old.get(server.key);
    old.delete(server.key);
    if (!was) lines.push(`Server ${server.address} has joined`);
    else if (was.disabled !== server.disabled) {
      lines.push(`Server ${server.address} is ${server.disabled ? "disabled: it no longer reports" : "back"}`);
    } else if (was.drained !== server.drained) {
      lines.push(`Server ${server.address} ${server.drained ? "is drained" : "takes new rooms again"}`);
    }
  }
  for (const server of old.values()) lines.push(`Server ${server.address} is gone`);
  if (before.ready !== after.ready) lines.push(after.ready ? "The gateway is ready" : "The gateway is not ready");
  return lines;
}

/* Tables */

class Table {
  // columns: id, label, show(cell, row), and perhaps number, sort(row), wide, kind, ages (shown
  // anew each second). The first column names the row. With onSort, rows come in order.
  constructor(id, columns, { key, sort = null, descending = false, onSort = null }) {
    this.columns = columns;
    this.key = key;
    this.sortedBy = sort;
    this.descending = descending;
    this.onSort = onSort;
    this.rows = new Map();
    this.body = make("tbody", { role: "rowgroup" });
    this.headers = new Map();
    const line = make("tr", { role: "row" });
    for (const column of columns) line.append(this.header(column));
    const table = byId(id);
    table.setAttribute("role", "table");
    const title = byId(table.getAttribute("aria-labelledby"));
    table.append(make("caption", { class: "unseen" }, title.textContent), make("thead", { role: "rowgroup" }, line), this.body);
    this.showSort();
  }

  header(column) {
    const cell = make("th", { scope: "col", role: "columnheader" });
    if (column.number) cell.className = "number";
    cell.dataset.column = column.id;
    if (column.sort) {
      const button = make("button", { type: "button" }, column.label);
      button.addEventListener("click", () => this.sortBy(column));
      cell.append(button);
    } else if (column.hidden) {
      cell.append(make("span", { class: "unseen" }, column.label));
    } else {
      cell.append(column.label);
    }
    this.headers.set(column.id, cell);
    return cell;
  }

  sortBy(column) {
    if (this.sortedBy === column.id) this.descending = !this.descending;
    else {
      this.sortedBy = column.id;
      this.descending = Boolean(column.number);
    }
    this.showSort();
    if (this.onSort) this.onSort();
    else this.order([...this.rows.values()]);
  }

  showSort() {
    for (const [id, cell] of this.headers) {
      if (id !== this.sortedBy) cell.removeAttribute("aria-sort");
      else cell.setAttribute("aria-sort", this.descending ? "descending" : "ascending");
    }
  }

  update(rows) {
    const gone = new Set(this.rows.keys());
    const entries = rows.map((row) => {
      const key = this.key(row);
      gone.delete(key);
      let entry = this.rows.get(key);
      if (!entry) {
        entry = this.newRow();
        this.rows.set(key, entry);
      }
      entry.row = row;
      this.columns.forEach((column, index) => column.show(entry.cells[index], row));
      return entry;
    });
    for (const key of gone) {
      this.rows.get(key).line.remove();
      this.rows.delete(key);
    }
    this.order(entries);
    this.body.parentElement.hidden = !rows.length;
  }

  newRow() {
    const line = make("tr", { role: "row" });
    const cells = this.columns.map((column, index) => {
      const cell = index
        ? make("td", { role: "cell", "data-label": column.label })
        : make("th", { scope: "row", role: "rowheader" });
      cell.dataset.column = column.id;
      cell.className = [column.number && "number", column.wide && "wide", column.kind].filter(Boolean).join(" ");
      line.append(cell);
      return cell;
    });
    return { line, cells, row: null };
  }

  order(entries) {
    const column = this.columns.find(({ id }) => id === this.sortedBy);
    if (column && !this.onSort) {
      const sign = this.descending ? -1 : 1;
      const first = this.columns[0];
      entries.sort(
        (a, b) => sign * compare(column.sort(a.row), column.sort(b.row)) || compare(first.sort(a.row), first.sort(b.row)),
      );
    }
    const focused = document.activeElement;
    entries.forEach(({ line }, index) => {
      if (this.body.children[index] !== line) this.body.insertBefore(line, this.body.children[index] ?? null);
    });
    // A row that moves loses the focus.
    if (focused !== document.activeElement && this.body.contains(focused)) focused.focus({ preventScroll: true });
  }

  tick() {
    this.columns.forEach((column, index) => {
      if (column.ages) for (const { cells, row } of this.rows.values()) column.show(cells[index], row);
    });
  }
}

function compare(a, b) {
  return typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b;
}

function showText(cell, text, title) {
  setText(cell, text);
  if (title !== undefined) setAttributes(cell, { title });
}

function showName(cell, name, under = "") {
  const parts = partsOf(cell, () => {
    const found = { name: make("bdi", { class: "name" }), under: make("bdi", { class: "under" }) };
    cell.append(found.name, found.under);
    return found;
  });
  setText(parts.name, name);
  if (parts.name.title !== visible(name)) parts.name.title = visible(name);
  setText(parts.under, under);
  parts.under.hidden = !under;
}

function showBadge(cell, kind, text) {
  const badge = partsOf(cell, () => {
    const made = make("span");
    cell.append(made);
    return made;
  });
  setAttributes(badge, { class: `badge ${kind}` });
  setText(badge, text);
}

function newBar() {
  const fill = draw("rect", { y: 0, height: 6, width: 0 });
  const coming = draw("rect", { class: "coming", y: 0, height: 6, width: 0 });
  const bar = draw("svg", { class: "bar", viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" }, fill, coming);
  return { bar, fill, coming };
}

// used and coming are parts of the whole, 0 to 1.
function showGauge(cell, figure, detail, used, coming, kind) {
  const parts = partsOf(cell, () => {
    const found = { figure: make("span"), detail: make("span"), ...newBar() };
    cell.append(make("div", { class: "gauge" }, make("div", { class: "figures" }, found.figure, found.detail), found.bar));
    return found;
  });
  setText(parts.figure, figure);
  setText(parts.detail, detail);
  const filled = used === null ? 0 : Math.min(100, used * 100);
  parts.bar.toggleAttribute("hidden", used === null);
  setAttributes(parts.bar, { class: `bar ${kind}` });
  setAttributes(parts.fill, { width: filled });
  setAttributes(parts.coming, { x: filled, width: Math.max(0, Math.min(100 - filled, coming * 100)) });
}

/* Plots */

const WINDOW = 900;
// Pixels at the left of a plot, for the numbers of its axis.
const GUTTER = 42;

function path(points) {
  let pen = "M";
  const steps = [];
  for (const point of points) {
    if (point === null) pen = "M";
    else {
      steps.push(`${pen}${point[0].toFixed(1)} ${point[1].toFixed(1)}`);
      pen = "L";
    }
  }
  return steps.join("");
}

// Null where there is nothing to join.
function pointsOf(times, values, x, y, gap) {
  const points = [];
  values.forEach((value, index) => {
    if (index && times[index] - times[index - 1] > gap) points.push(null);
    points.push(value === null || value === undefined ? null : [x(times[index]), y(value)]);
  });
  return points;
}

function niceTop(highest, least) {
  if (highest <= least) return least;
  const unit = 10 ** Math.floor(Math.log10(highest));
  return [1, 2, 2.5, 5, 10].map((step) => step * unit).find((top) => top >= highest * 0.999);
}

class Chart {
  constructor(title, format, least, { top = Infinity, unit = "", area = false } = {}) {
    this.title = title;
    this.format = (number) => (number === null || number === undefined ? "–" : `${format(number)}${unit}`);
    this.label = format;
    this.least = least;
    this.top = top;
    this.area = area;
    this.at = null;
    this.data = null;
    this.legend = make("ul", { class: "legend" });
    this.when = make("span", { class: "at" }, "now");
    this.svg = draw("svg", { class: "plot", role: "img" });
    this.numbers = make("table");
    this.details = make(
      "details",
      {},
      make("summary", {}, "Numbers", make("span", { class: "unseen" }, ` of ${title}`)),
      make("div", { class: "numbers", tabindex: "0", role: "group", "aria-label": `Numbers of ${title}` }, this.numbers),
    );
    this.details.addEventListener("toggle", () => this.showNumbers());
    byId("charts").append(
      make("figure", { class: "card chart" }, make("div", { class: "heading" }, make("h3", {}, title), this.when), this.svg, this.legend, this.details),
    );
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => {
      this.at = null;
      this.show();
    });
    new ResizeObserver(() => this.show()).observe(this.svg);
  }

  update(times, now, interval, lines) {
    this.data = { times, now, interval, lines };
    this.show();
    this.showNumbers();
  }

  point(event) {
    if (!this.data?.times.length) return;
    const box = this.svg.getBoundingClientRect();
    const part = (event.clientX - box.left - GUTTER) / (box.width - GUTTER);
    const time = this.data.now - WINDOW * (1 - part);
    let best = 0;
    this.data.times.forEach((at, index) => {
      if (Math.abs(at - time) < Math.abs(this.data.times[best] - time)) best = index;
    });
    this.at = this.data.times[best];
    this.show();
  }

  show() {
    const width = this.svg.clientWidth;
    const height = this.svg.clientHeight;
    if (!this.data || !width) return;
    const { times, now, interval, lines } = this.data;
    const highest = Math.max(0, ...lines.flatMap(({ values }) => values.map((value) => value ?? 0)));
    const top = Math.min(this.top, niceTop(highest, this.least));
    const bottom = height - 18;
    const x = (time) => GUTTER + (width - GUTTER) * (1 - (now - time) / WINDOW);
    const y = (value) => bottom - (Math.min(value, top) / top) * (bottom - 8);
    const parts = [];
    for (const part of [0, 0.5, 1]) {
      const level = y(top * part);
      parts.push(draw("line", { class: "grid", x1: GUTTER, x2: width, y1: level, y2: level }));
      parts.push(draw("text", { x: GUTTER - 6, y: level + 4, "text-anchor": "end" }, this.label(top * part)));
    }
    for (const [minutes, anchor] of [[15, "start"], [10, "middle"], [5, "middle"], [0, "end"]]) {
      const text = minutes ? `−${minutes} min` : "now";
      parts.push(draw("text", { x: x(now - minutes * 60), y: height - 4, "text-anchor": anchor }, text));
    }
    const gap = interval * 3;
    lines.forEach(({ values }, index) => {
      const points = pointsOf(times, values, x, y, gap);
      if (this.area && !index) parts.push(draw("path", { class: "area s0", d: areaBelow(points, bottom) }));
      parts.push(draw("path", { class: `series s${index % 8}`, d: path(points) }));
    });
    const index = this.at === null ? times.length - 1 : times.indexOf(this.at);
    if (this.at !== null && index >= 0) {
      parts.push(draw("line", { class: "cursor", x1: x(this.at), x2: x(this.at), y1: 8, y2: bottom }));
    }
    this.svg.replaceChildren(...parts);
    setAttributes(this.svg, { viewBox: `0 0 ${width} ${height}` });
    const moment = this.at === null ? "now" : `${duration(now - this.at)} ago`;
    setText(this.when, moment);
    this.showLegend(lines, index);
    const current = lines.map(({ name, values }) => `${name} ${this.format(values.at(-1))}`);
    setAttributes(this.svg, { "aria-label": `${this.title}, last 15 minutes. Now: ${current.join(", ") || "nothing yet"}` });
  }

  showLegend(lines, index) {
    while (this.legend.children.length > lines.length) this.legend.lastElementChild.remove();
    lines.forEach(({ name, values }, position) => {
      const item = this.legend.children[position] ?? this.legend.appendChild(make("li"));
      const parts = partsOf(item, () => {
        const found = { name: make("bdi"), value: make("span", { class: "value" }) };
        const stroke = draw("path", { class: `series s${position % 8}`, d: "M1 4H23" });
        item.append(draw("svg", { viewBox: "0 0 24 8", "aria-hidden": "true" }, stroke), found.name, found.value);
        return found;
      });
      setText(parts.name, name);
      setText(parts.value, this.format(values[index]));
    });
  }

  showNumbers() {
    if (!this.details.open || !this.data) return;
    const { times, now, lines } = this.data;
    const head = make("tr", {}, make("th", { scope: "col" }, "Ago"));
    for (const { name } of lines) head.append(make("th", { scope: "col", class: "number" }, make("bdi", {}, name)));
    const rows = [];
    for (let minute = 0; minute <= 15; minute += 1) {
      const index = times.findLastIndex((time) => now - time >= minute * 60 - 2.5);
      if (index < 0 || now - times[index] > minute * 60 + 30) continue;
      const cells = lines.map(({ values }) => make("td", { class: "number" }, this.format(values[index])));
      rows.push(make("tr", {}, make("th", { scope: "row" }, minute ? `${minute} min` : "now"), ...cells));
    }
    this.numbers.replaceChildren(
      make("caption", { class: "unseen" }, this.title),
      make("thead", {}, head),
      make("tbody", {}, ...rows),
    );
  }
}

function areaBelow(points, bottom) {
  const parts = [];
  let run = [];
  for (const point of [...points, null]) {
    if (point) run.push(point);
    else {
      if (run.length > 1) parts.push(`${path(run)}L${run.at(-1)[0].toFixed(1)} ${bottom}L${run[0][0].toFixed(1)} ${bottom}Z`);
      run = [];
    }
  }
  return parts.join("");
}

const perSecond = { unit: " /s" };
const charts = {
  connects: new Chart("Connects", rate, 1, { ...perSecond, area: true }),
  load: new Chart("Load of servers", percent, 0.1, { top: 1 }),
  clients: new Chart("Clients and rooms", count, 10, { area: true }),
  outcomes: new Chart("All requests by outcome", rate, 1, { ...perSecond, area: true }),
  refusals: new Chart("Refused, by reason", rate, 1, perSecond),
  credentials: new Chart("TURN credentials", rate, 1, { ...perSecond, area: true }),
};

const words = (name) => name.replaceAll("_", " ");
const anything = (values) => values.some((value) => value);

function showHistory() {
  const { times, now, interval, rates, gauges, refusals, servers } = state.history;
  const show = (chart, lines) => chart.update(times, now, interval, lines);
  const line = (name, values = []) => ({ name, values });
  show(charts.connects, [line("granted", rates.connects), line("refused", rates.connects_refused)]);
  const pools = new Set(servers.map(({ pool }) => pool)).size;
  const single = servers.map(({ pool, server, load }) => line(pools > 1 ? `${pool} ${server}` : server, load));
  const all = [line("highest", gauges.highest_load), line("mean", gauges.mean_load)];
  show(charts.load, single.length && single.length <= 6 ? single : all);
  show(charts.clients, [line("clients", gauges.clients), line("rooms", gauges.rooms)]);
  show(charts.outcomes, [
    line("success", rates.success),
    line("rejected", rates.rejected),
    line("failed", rates.failure),
  ]);
  const reasons = Object.entries(refusals)
    .filter(([, values]) => anything(values))
    .map(([name, values]) => line(words(name), values));
  show(charts.refusals, [line("bad token", rates.tokens_rejected), ...reasons]);
  show(charts.credentials, [line("issued", rates.credentials)]);
}

function showSpark(cell, server) {
  const parts = partsOf(cell, () => {
    const line = draw("path");
    const svg = draw(
      "svg",
      { class: "spark", viewBox: "0 0 120 28", preserveAspectRatio: "none", role: "img" },
      draw("line", { x1: 0, x2: 120, y1: 27.5, y2: 27.5 }),
      line,
    );
    cell.append(svg);
    return { svg, line };
  });
  const { history } = state;
  const series = history?.servers.find((one) => one.pool === server.pool && one.server === server.address);
  const values = series?.load ?? [];
  const known = values.filter((value) => value !== null);
  const top = Math.max(0.05, ...known);
  const x = (time) => 120 * (1 - (history.now - time) / WINDOW);
  const y = (value) => 27 - (value / top) * 25;
  setAttributes(parts.line, { d: path(series ? pointsOf(history.times, values, x, y, history.interval * 3) : []) });
  const range = known.length ? `from ${percent(Math.min(...known))} to ${percent(Math.max(...known))}` : "not known";
  setAttributes(parts.svg, { "aria-label": `Load in the last 15 minutes: ${range}` });
}

/* Servers */

function stateOf(server) {
  if (server.disabled) return ["bad", server.drained ? "disabled, drained" : "disabled"];
  if (server.unheard) return ["warn", server.drained ? "unheard, drained" : "unheard"];
  return server.drained ? ["warn", "drained"] : ["good", "live"];
}

const loadKind = (load) => (load >= 0.95 ? "bad" : load >= 0.8 ? "warn" : "");
const manyPools = () => Object.keys(state.summary.pools).length > 1;

function showLoad(cell, server) {
  const { load, expected_load: expected } = server;
  const more = expected - load;
  const detail = more >= 0.005 ? `${percent(Math.min(1, expected))} expected` : "";
  showGauge(cell, percent(load), detail, load, more, loadKind(load));
}

function showRoomsOf(cell, server) {
  const button = partsOf(cell, () => {
    const found = make("button", { type: "button", class: "link" });
    found.addEventListener("click", () => showOnly(found.server));
    cell.append(found);
    return found;
  });
  button.server = server;
  setText(button, count(server.rooms));
  setAttributes(button, { "aria-label": `${plural(server.rooms, "room")} of ${server.address}: show` });
}

function showAction(cell, server) {
  const { can_drain: may } = state.summary;
  const button = partsOf(cell, () => {
    const found = make("button", { type: "button" });
    found.addEventListener("click", () => confirmDrain(found.server));
    cell.append(found);
    return found;
  });
  button.server = server;
  button.hidden = !may;
  setText(button, server.drained ? "Undrain" : "Drain");
  setAttributes(button, { "aria-label": `${server.drained ? "Undrain" : "Drain"} ${server.address}` });
}

function showAge(cell, server) {
  showText(cell, `${duration(server.age + elapsed())} ago`, `last report at ${new Date(server.last_seen * 1000).toLocaleString("en-GB")}`);
}

const servers = new Table(
  "servers-table",
  [
    { id: "server", label: "Server", sort: (row) => row.address, show: (cell, row) => showName(cell, row.address, manyPools() ? `pool ${row.pool || "(default)"}` : "") },
    { id: "state", label: "State", sort: (row) => stateOf(row)[1], show: (cell, row) => showBadge(cell, ...stateOf(row)), kind: "state" },
    { id: "load", label: "Load", sort: (row) => row.load, number: false, show: showLoad, wide: true },
    { id: "spark", label: "15 minutes", show: showSpark, wide: true },
    { id: "clients", label: "Clients", number: true, sort: (row) => row.clients, show: (cell, row) => showText(cell, count(row.clients)) },
    { id: "rooms", label: "Rooms", number: true, sort: (row) => row.rooms, show: showRoomsOf },
    { id: "reservations", label: "Expected", number: true, sort: (row) => row.reservations, show: (cell, row) => showText(cell, count(row.reservations), "clients that were sent there and have not arrived yet") },
    { id: "tasks", label: "Tasks", number: true, sort: (row) => row.tasks, show: (cell, row) => showText(cell, count(row.tasks), "tasks queued for the server") },
    { id: "version", label: "Version", sort: (row) => row.version, show: (cell, row) => showName(cell, row.version || "unknown") },
    { id: "age", label: "Last report", number: true, sort: (row) => row.age, show: showAge, ages: true, kind: "unwrapped" },
    { id: "action", label: "Action", hidden: true, show: showAction, kind: "action" },
  ],
  { key: (row) => row.key, sort: "server" },
);

/* Customers */

function showUse(cell, used, coming, limit, configured) {
  const total = used + coming;
  const extra = coming ? `${count(coming)} expected` : "";
  if (limit === null) {
    showGauge(cell, count(used), [extra, configured && "no limit"].filter(Boolean).join(", "), null, 0, "");
    return;
  }
  const part = limit ? total / limit : 1;
  const kind = part >= 1 ? "bad" : part >= 0.8 ? "warn" : "";
  const whole = limit || 1;
  showGauge(cell, `${count(used)} of ${count(limit)}`, extra || percent(part), used / whole, coming / whole, kind);
}

function fullness(row) {
  const parts = [[row.peers + row.reservations, row.max_peers], [row.rooms, row.max_rooms]];
  return Math.max(0, ...parts.filter(([, limit]) => limit !== null).map(([used, limit]) => used / Math.max(1, limit)));
}

function customerState(row) {
  if (!row.configured) return ["idle", "not configured"];
  const part = fullness(row);
  if (part >= 1) return ["bad", "at its limit"];
  if (part >= 0.8) return ["warn", "near its limit"];
  return row.peers + row.reservations + row.rooms ? ["good", "within limits"] : ["idle", "idle"];
}

const customers = new Table(
  "customers-table",
  [
    { id: "customer", label: "Customer", sort: (row) => row.id, show: (cell, row) => showName(cell, row.id) },
    { id: "state", label: "State", sort: fullness, show: (cell, row) => showBadge(cell, ...customerState(row)), kind: "state" },
    { id: "peers", label: "Peers", sort: (row) => row.peers, wide: true, show: (cell, row) => showUse(cell, row.peers, row.reservations, row.max_peers, row.configured) },
    { id: "rooms", label: "Rooms", sort: (row) => row.rooms, wide: true, show: (cell, row) => showUse(cell, row.rooms, 0, row.max_rooms, row.configured) },
  ],
  { key: (row) => row.id, sort: "state", descending: true },
);

/* Requests, TURN, health */

const API_NAMES = { client: "Clients", server: "Servers", turn: "TURN", admin: "This page" };

function requestRows(summary) {
  const now = summary.now;
  const current = new Map(summary.requests.map((row) => [`${row.api} ${row.method} ${row.outcome}`, row.count]));
  state.earlier = state.earlier.filter(({ at }) => at < now && now - at <= RATE_OVER);
  const base = state.earlier[0];
  state.earlier.push({ at: now, counts: current });
  const rows = new Map();
  for (const { api, method, outcome, count: times } of summary.requests) {
    const key = `${api} ${method}`;
    const row = rows.get(key) ?? { key, api, method, success: 0, rejected: 0, failure: 0, rate: base ? 0 : null };
    rows.set(key, row);
    row[outcome] += times;
    if (base) row.rate += (times - (base.counts.get(`${key} ${outcome}`) ?? 0)) / (now - base.at);
  }
  return [...rows.values()];
}

const counted = (id, label) => ({ id, label, number: true, sort: (row) => row[id], show: (cell, row) => showText(cell, count(row[id])) });
const requests = new Table(
  "requests-table",
  [
    { id: "method", label: "Method", sort: (row) => row.method, show: (cell, row) => showName(cell, row.method) },
    { id: "api", label: "Called by", sort: (row) => API_NAMES[row.api] ?? row.api, show: (cell, row) => showText(cell, API_NAMES[row.api] ?? row.api) },
    { id: "rate", label: "Per second", number: true, sort: (row) => row.rate ?? 0, show: (cell, row) => showText(cell, row.rate === null ? "–" : rate(row.rate)) },
    counted("success", "Success"),
    counted("rejected", "Rejected"),
    counted("failure", "Failed"),
  ],
  { key: (row) => row.key, sort: "method" },
);

const turnServers = new Table(
  "turn-table",
  [
    { id: "uri", label: "Server", sort: (row) => row.uri, show: (cell, row) => showName(cell, row.uri) },
    { id: "state", label: "State", sort: (row) => Number(row.up), show: (cell, row) => showBadge(cell, row.up ? "good" : "bad", row.up ? "up" : "down"), kind: "state" },
    { id: "rtt", label: "Answers in", number: true, sort: (row) => row.rtt ?? Infinity, show: (cell, row) => showText(cell, row.rtt === null ? "–" : `${(row.rtt * 1000).toFixed(1)} ms`), kind: "unwrapped" },
    { id: "age", label: "For", number: true, sort: (row) => row.age, show: (cell, row) => showText(cell, duration(row.age + elapsed())), ages: true, kind: "unwrapped" },
  ],
  { key: (row) => row.uri, sort: "uri" },
);

const checks = new Table(
  "checks-table",
  [
    { id: "check", label: "Check", sort: (row) => row.name, show: (cell, row) => showName(cell, words(row.name)) },
    { id: "state", label: "State", sort: (row) => Number(row.healthy), show: (cell, row) => showBadge(cell, row.healthy ? "good" : "bad", row.healthy ? "good" : "failed"), kind: "state" },
    { id: "message", label: "What it says", show: (cell, row) => showText(cell, row.message), wide: true },
  ],
  { key: (row) => row.name, sort: "check" },
);

/* Overview */

const tiles = new Map();
for (const [id, label] of [
  ["servers", "Live servers"],
  ["clients", "Clients"],
  ["rooms", "Rooms"],
  ["connects", "Connects / s"],
  ["refused", "Refused / s"],
  ["credentials", "TURN credentials / s"],
]) {
  const value = make("dd", { id: `tile-${id}` }, "–");
  const detail = make("dd", { class: "detail" });
  byId("tiles").append(make("div", {}, make("dt", {}, label), value, detail));
  tiles.set(id, { value, detail });
}

function showTile(id, value, detail = "", kind = "") {
  const tile = tiles.get(id);
  setText(tile.value, value);
  setText(tile.detail, detail);
  setAttributes(tile.detail, { class: `detail ${kind}` });
}

const sum = (rows, member) => rows.reduce((total, row) => total + row[member], 0);

function showTiles(all) {
  const { summary, history } = state;
  const live = all.filter((server) => !server.disabled);
  const disabled = all.length - live.length;
  const drained = all.filter((server) => server.drained && !server.disabled).length;
  const others = [drained && `${drained} drained`, disabled && `${disabled} disabled`].filter(Boolean);
  showTile("servers", count(live.length), others.join(", ") || (all.length ? "all take new rooms" : "none yet"), disabled ? "bad" : "");
  showTile("clients", count(sum(live, "clients")), `${count(sum(live, "reservations"))} more expected`);
  showTile("rooms", count(sum(live, "rooms")), live.length ? `${rate(sum(live, "rooms") / live.length)} per server` : "");
  const latest = (values) => values?.at(-1) ?? null;
  const rateOf = (value) => (value === null ? "–" : rate(value));
  const connects = summary.requests.filter(({ method }) => method === "Connect");
  const granted = sum(connects.filter(({ outcome }) => outcome === "success"), "count");
  showTile("connects", rateOf(latest(history?.rates.connects)), `${count(granted)} since the start`);
  showTile("refused", rateOf(latest(history?.rates.connects_refused)), `${count(sum(connects, "count") - granted)} since the start`);
  const { turn } = summary;
  const down = turn.servers.filter(({ up }) => !up).length;
  const about = down ? `${plural(down, "server")} down` : `${count(turn.credentials)} since the start`;
  if (turn.enabled) showTile("credentials", rateOf(latest(history?.rates.credentials)), about, down ? "bad" : "");
  else showTile("credentials", "off", "TURN is not configured");
}

/* Rooms */

const roomColumns = [
  { id: "room", label: "Room", sort: true, show: (cell, row) => showName(cell, row.id[1] || "(empty name)", row.id[0] === row.customer ? "" : `namespace ${row.id[0]}`) },
  { id: "customer", label: "Customer", sort: true, show: (cell, row) => showName(cell, row.customer) },
  { id: "server", label: "Server", sort: true, wide: true, show: (cell, row) => showName(cell, row.server, manyPools() ? `pool ${row.pool || "(default)"}` : "") },
  { id: "peers", label: "Peers", number: true, sort: true, show: (cell, row) => showText(cell, count(row.peers)) },
  { id: "reservations", label: "Expected", number: true, sort: true, show: (cell, row) => showText(cell, count(row.reservations)) },
];

const rooms = {
  table: new Table("rooms-table", roomColumns, { key: (row) => row.key, sort: "peers", descending: true, onSort: () => lookForRooms() }),
  offset: 0,
  due: 0,
  asked: 0,
  shown: 0,
  timer: 0,
};

function chosenServer() {
  const { value } = byId("rooms-server");
  return value ? JSON.parse(value) : null;
}

function roomsQuery() {
  const query = {
    search: byId("rooms-search").value,
    sort: rooms.table.sortedBy,
    order: rooms.table.descending ? "descending" : "ascending",
    limit: ROOMS_PER_PAGE,
    offset: rooms.offset,
  };
  const chosen = chosenServer();
  return chosen ? { ...query, pool: chosen[0], server: chosen[1] } : query;
}

async function getRooms() {
  rooms.asked += 1;
  const number = rooms.asked;
  const began = performance.now();
  const page = await ask("rooms", roomsQuery());
  const took = performance.now() - began;
  rooms.due = performance.now() + Math.max(ROOMS_EVERY, took / ROOMS_SHARE);
  // An answer that a later one has overtaken is of no interest.
  if (number < rooms.shown) return;
  rooms.shown = number;
  showRooms(page);
}

function showRooms(page) {
  const keys = new Map();
  const rows = page.rooms.map((row) => {
    const name = JSON.stringify([row.pool, ...row.id]);
    const times = keys.get(name) ?? 0;
    keys.set(name, times + 1);
    return { ...row, key: `${name} ${times}` };
  });
  if (!rows.length && rooms.offset && page.matches) {
    rooms.offset = 0;
    lookForRooms();
    return;
  }
  rooms.table.update(rows);
  const search = byId("rooms-search").value.trim();
  const filtered = Boolean(search || chosenServer());
  const all = chosenServer() && !search ? page.matches : page.total;
  const found = filtered && search ? `${count(page.matches)} of ${plural(all, "room")}` : plural(page.matches, "room");
  setText(byId("rooms-note"), page.complete ? found : `${found}, of the first ${count(page.total)}`);
  byId("rooms-empty").hidden = rows.length > 0;
  byId("rooms-clear").hidden = !filtered;
  setText(byId("rooms-empty-text"), filtered ? "No room matches." : "No room is open.");
  setText(
    byId("rooms-empty-hint"),
    filtered
      ? "The search looks for a part of a room's name, its namespace or its customer."
      : "A room opens with the first Connect for it, and ends when its server no longer reports it.",
  );
  byId("rooms-pages").hidden = page.matches <= ROOMS_PER_PAGE;
  byId("rooms-back").disabled = rooms.offset === 0;
  byId("rooms-next").disabled = rooms.offset + Math.max(1, rows.length) >= Math.min(page.matches, DEEPEST + ROOMS_PER_PAGE);
  setText(byId("rooms-range"), `${count(rooms.offset + 1)} to ${count(rooms.offset + rows.length)} of ${count(page.matches)}`);
}

function lookForRooms() {
  getRooms().catch(failed);
}

function fromFirst() {
  rooms.offset = 0;
  lookForRooms();
}

function showServerChoice(all) {
  const select = byId("rooms-server");
  const wanted = new Map(all.map((server) => [server.key, manyPools() ? `${server.address} (${server.pool || "default"})` : server.address]));
  for (const option of [...select.options].slice(1)) if (!wanted.delete(option.value)) option.remove();
  for (const [value, label] of wanted) select.append(make("option", { value }, label));
}

function showOnly(server) {
  byId("rooms-server").value = server.key;
  byId("rooms-search").value = "";
  fromFirst();
  byId("rooms").scrollIntoView();
  byId("rooms-search").focus({ preventScroll: true });
}

byId("rooms-search").addEventListener("input", () => {
  clearTimeout(rooms.timer);
  rooms.timer = setTimeout(fromFirst, TYPING);
});
byId("rooms-server").addEventListener("change", fromFirst);
byId("rooms-clear").addEventListener("click", () => {
  byId("rooms-search").value = "";
  byId("rooms-server").value = "";
  byId("rooms-search").focus();
  fromFirst();
});
byId("rooms-back").addEventListener("click", () => {
  rooms.offset = Math.max(0, rooms.offset - ROOMS_PER_PAGE);
  lookForRooms();
});
byId("rooms-next").addEventListener("click", () => {
  rooms.offset += ROOMS_PER_PAGE;
  lookForRooms();
});

/* Draining */

const confirm = { dialog: byId("confirm"), server: null };

function confirmDrain(server) {
  confirm.server = server;
  setText(byId("confirm-title"), `${server.drained ? "Undrain" : "Drain"} ${server.address}?`);
  setText(
    byId("confirm-text"),
    server.drained
      ? "It will take new rooms again."
      : `It keeps its ${plural(server.rooms, "room")} and ${plural(server.clients, "client")}, and gets no new rooms until it is undrained.`,
  );
  setText(byId("confirm-yes"), server.drained ? "Undrain" : "Drain");
  confirm.dialog.showModal();
}

byId("confirm-no").addEventListener("click", () => confirm.dialog.close());
byId("confirm-yes").addEventListener("click", async () => {
  const { server } = confirm;
  confirm.dialog.close();
  const result = byId("action-result");
  result.hidden = true;
  try {
    await ask(server.drained ? "undrain" : "drain", {}, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ pool: server.pool, server: server.address }),
    });
    poll();
  } catch (error) {
    const reason = error instanceof Refused ? error.message : "the gateway does not answer";
    setText(result, `${server.address} was not ${server.drained ? "undrained" : "drained"}: ${reason}.`);
    result.hidden = false;
  }
});

/* Asking again and again */

function showSummary() {
  const { summary } = state;
  const all = allServers(summary);
  setText(byId("version"), summary.version);
  const ready = byId("ready");
  setAttributes(ready, { class: `badge ${summary.ready ? "good" : "bad"}` });
  setText(ready, summary.ready ? "ready" : "not ready");
  showTiles(all);
  servers.update(all);
  byId("servers-empty").hidden = all.length > 0;
  const hint = summary.can_drain ? "" : "Draining from here needs admin.users";
  setText(byId("servers-note"), all.length ? hint : "");
  showServerChoice(all);
  customers.update(summary.customers);
  byId("customers-empty").hidden = summary.customers.length > 0;
  const hidden = summary.customer_count - summary.customers.length;
  setText(byId("customers-note"), hidden > 0 ? `the ${count(summary.customers.length)} nearest to their limits, of ${count(summary.customer_count)}` : plural(summary.customer_count, "customer"));
  requests.update(requestRows(summary));
  byId("requests-empty").hidden = summary.requests.length > 0;
  const { turn } = summary;
  turnServers.update(turn.servers);
  byId("turn-off").hidden = turn.enabled;
  byId("turn-unwatched").hidden = !turn.enabled || turn.watched;
  setText(byId("turn-note"), turn.enabled ? `${plural(turn.credentials, "credential")} since the start` : "");
  checks.update(Object.entries(summary.checks).map(([name, check]) => ({ name, ...check })));
  tick();
}

function tick() {
  const live = byId("live");
  if (!state.summary && !state.awaySince) setText(live, "connecting");
  else if (state.awaySince) setText(live, "no answer");
  else setText(live, "live");
  setAttributes(live, { class: `live${state.awaySince ? " away" : ""}` });
  const troubled = state.summary && (!state.summary.ready || allServers(state.summary).some(({ disabled }) => disabled));
  document.title = `${state.awaySince ? "No answer – " : troubled ? "(!) " : ""}odingw`;
  byId("banner").hidden = !state.awaySince;
  if (state.awaySince) {
    const since = (Date.now() - state.awaySince) / 1000;
    const wait = Math.max(0, Math.ceil((state.nextTry - performance.now()) / 1000));
    const what = state.why || `No answer since ${clockTime(state.awaySince)}`;
    setText(byId("banner-text"), `${what} (${duration(since)}). ${wait ? `Trying again in ${wait} s.` : "Trying now …"}`);
  }
  if (!state.summary) return;
  setText(byId("gateway-note"), `up for ${duration(state.summary.uptime + (state.awaySince ? 0 : elapsed()))}`);
  servers.tick();
  turnServers.tick();
}

let timer = 0;
let polling = false;
let historyDue = 0;

function schedule(pause) {
  clearTimeout(timer);
  state.nextTry = performance.now() + pause;
  if (!document.hidden) timer = setTimeout(poll, pause);
}

function came(summary) {
  const lines = state.summary ? newsBetween(state.summary, summary) : [];
  if (state.awaySince) lines.unshift("The gateway answers again");
  state.awaySince = null;
  state.failures = 0;
  state.summary = summary;
  state.received = performance.now();
  tell(...lines);
}

function failed(error) {
  if (!state.awaySince) {
    state.awaySince = new Date();
    tell("The gateway does not answer");
  }
  state.why = "";
  if (error instanceof Refused) {
    state.why = error.status === 401 ? "Signed out: reload this page" : `The gateway answers ${error.status}: ${error.message}`;
  } else if (!(error instanceof TypeError) && error.name !== "TimeoutError") {
    // A fault of this page, which must not look like one of the gateway.
    state.why = `This page has failed: ${error}`;
    console.error(error);
  }
  tick();
}

async function poll() {
  if (polling) return;
  polling = true;
  clearTimeout(timer);
  try {
    came(await ask("summary"));
    if (performance.now() >= historyDue) {
      state.history = await ask("history");
      historyDue = performance.now() + HISTORY_EVERY - SUMMARY_EVERY / 2;
      showHistory();
    }
    showSummary();
    if (performance.now() >= rooms.due) await getRooms();
    schedule(SUMMARY_EVERY);
  } catch (error) {
    state.failures += 1;
    schedule(Math.min(LONGEST_PAUSE, SUMMARY_EVERY * 2 ** Math.min(10, state.failures - 1)));
    failed(error);
  } finally {
    polling = false;
  }
}

byId("retry").addEventListener("click", poll);
document.addEventListener("visibilitychange", () => {
  // Nobody looks: nothing is asked, and all of it at once when they are back.
  if (document.hidden) clearTimeout(timer);
  else {
    historyDue = rooms.due = 0;
    poll();
  }
});
setInterval(() => {
  if (!document.hidden) tick();
}, 1000);
tick();
poll();
