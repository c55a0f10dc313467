// Makes the page explorable: tables that sort and filter, charts with values on hover, the members of each study.
// Without scripts the page has the same tables and figures. Data are untrusted: they enter the page as text alone.
"use strict";
const element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};
const unpacked = async (script) => {
  const bytes = Uint8Array.from(atob(script.textContent), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
};
const shown = (value) => (value === null ? "–" : typeof value === "number" ? `${+value.toPrecision(6)}` : value);
const named = (value) => (value === null ? "none" : shown(value));
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const dark = matchMedia("(prefers-color-scheme: dark)");
const ink = () => getComputedStyle(document.body).color;
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#808080", "#8C6D31"];
const VIRIDIS = ["#440154", "#46327e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#a0da39", "#fde725"];
const scale = (mode) => (mode === "min" ? [...VIRIDIS].reverse() : VIRIDIS);

// Charts

const lines = (...texts) => element("div", {}, ...texts.map((text) => element("div", { textContent: text })));
const tooltip = (more) => ({ confine: true, transitionDuration: 0, backgroundColor: colour("--paper"), borderColor: ink(), textStyle: { color: ink(), fontSize: 12 }, ...more });
const axis = (name, type, more = {}) => ({
  name, type, nameLocation: "middle", nameGap: 28, nameTextStyle: { color: ink() }, axisLabel: { color: ink(), hideOverlap: true },
  axisLine: { show: true, lineStyle: { color: ink() } }, splitLine: { show: false }, ...more,
});

const band = (line, number) => ({
  type: "custom", silent: true, clip: true, name: line.name, z: 1, tooltip: { show: false },
  data: line.points.map((point) => [point.x, point.low, point.high]), encode: { x: 0, y: [1, 2] },
  renderItem: (parameters, api) => parameters.dataIndex > 0 ? null : {
    type: "polygon",
    shape: { points: [...line.points.map((point) => api.coord([point.x, point.low])), ...line.points.map((point) => api.coord([point.x, point.high])).reverse()] },
    style: { fill: COLOURS[number % COLOURS.length], opacity: 0.2 },
  },
});

const lineOptions = (chart) => ({
  animation: false, color: COLOURS,
  grid: { left: 70, right: 16, top: chart.lines.length > 1 ? 40 : 16, bottom: 48 },
  legend: { show: chart.lines.length > 1, type: "scroll", top: 4, textStyle: { color: ink() }, data: chart.lines.map((line) => line.name) },
  tooltip: tooltip({
    trigger: "axis",
    formatter: (hovered) => lines(
      `${chart.x_title} ${shown(hovered[0].axisValue)}`,
      ...hovered.filter((each) => each.seriesType === "line").map((each) => `${each.seriesName ? `${each.seriesName}: ` : ""}${each.data.text}`),
    ),
  }),
  xAxis: axis(chart.x_title, chart.x_scale, { min: "dataMin", max: "dataMax" }),
  yAxis: axis(chart.y_title, chart.y_scale, { nameGap: 52, scale: true, min: chart.limits?.[0], max: chart.limits?.[1], axisLabel: { color: ink(), formatter: shown, showMinLabel: !chart.limits, showMaxLabel: !chart.limits } }),
  series: chart.lines.flatMap((line, number) => [
    {
      type: "line", name: line.name, showSymbol: line.points.length < 20, symbolSize: 5, lineStyle: { width: 1.6 },
      data: line.points.map((point) => ({ value: [point.x, point.y], text: point.text })),
    },
    band(line, number),
  ]),
});

const heatmapOptions = (chart) => {
  const numbers = chart.fields.map((field) => field.colour);
  return {
    animation: false,
    grid: { left: 70, right: 90, top: 16, bottom: 48 },
    tooltip: tooltip({ formatter: (hovered) => lines(hovered.data.text) }),
    xAxis: axis(chart.x_title, "category", { data: chart.columns }),
    yAxis: axis(chart.y_title, "category", { data: chart.rows, nameGap: 44 }),
    visualMap: { type: "continuous", min: Math.min(...numbers), max: Math.max(...numbers), right: 0, top: "middle", inRange: { color: scale(chart.mode) }, textStyle: { color: ink() }, formatter: shown },
    series: [{
      type: "heatmap",
      label: { show: true, formatter: (field) => field.data.inside, fontSize: 11 },
      data: [...chart.fields].sort((a, b) => a.outlined - b.outlined).map((field) => ({
        value: [field.column, field.row, field.colour], inside: field.inside, text: field.text,
        label: { color: field.ink }, itemStyle: field.outlined ? { borderColor: "#D00040", borderWidth: 2 } : {},
      })),
    }],
  };
};

const drawn = new Map();
const draw = (box, options) => {
  const chart = drawn.get(box)?.chart ?? libraries.init(box);
  drawn.set(box, { chart, options });
  chart.setOption(options(), true);
  return chart;
};
const redraw = () => drawn.forEach(({ chart, options }) => chart.setOption(options(), true));
const resizer = new ResizeObserver((entries) => entries.forEach(({ target }) => drawn.get(target)?.chart.resize()));

const showChart = async (script) => {
  const data = JSON.parse(await unpacked(script));
  const image = script.parentNode.querySelector("img");
  const box = element("div", { className: `chart ${data.kind}`, role: "img", ariaLabel: image.alt });
  image.after(box);
  script.parentNode.classList.add("charted");
  draw(box, () => (data.kind === "heatmap" ? heatmapOptions(data) : lineOptions(data)));
  resizer.observe(box);
};

// Tables

const sortable = () => {
  const compare = (sign) => (a, b) => {
    if (a === "" || b === "" || a === null || b === null) return (a === "" || a === null) - (b === "" || b === null); // a missing value comes last either way
    return sign * (isNaN(a) || isNaN(b) ? `${a}`.localeCompare(`${b}`) : a - b);
  };
  libraries.DataTable.type("value", "order", { asc: compare(1), desc: compare(-1) });
};
// DataTables reads texts with an entity as HTML, to decode it.
const searched = (text) => `${text}`.replace(/[&<>]/g, " ");
const filterBox = (table, what, plain = (text) => text) => {
  const input = element("input", { type: "search" });
  input.addEventListener("input", () => table.search(plain(input.value)).draw());
  return element("label", { className: "filter" }, `Filter ${what} `, input);
};
const showTable = (table) => {
  const data = new libraries.DataTable(table, {
    autoWidth: false, paging: false, info: false, order: [], layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
    columnDefs: [{ targets: "_all", type: "value" }],
  });
  if (data.rows().count() > 5) table.closest(".wide").before(filterBox(data, "rows"));
};

// Members

const values = (column) => column.at.map((place) => column.values[place]);

class Members {
  constructor(data, place) {
    this.data = data;
    this.metric = data.metrics[0];
    this.columns = data.labels.map((column) => ({ title: column.title, path: column.path, values: values(column) }));
    this.brushed = new Map();
    this.compared = [];
    this.pair = element("div", { className: "pair" });
    this.heading = place.closest("section").querySelector("h2").textContent;
    place.append(...this.parallel(), ...this.table(), this.pair);
    if (this.box) this.drawParallel();
    this.compare();
  }

  get count() {
    return this.data.seeds.length;
  }

  // Parallel coordinates: an axis for each label that varies, and one for each metric.
  parallel() {
    const coordinates = [...this.columns, ...this.data.metrics];
    this.axes = coordinates.filter((each) => new Set(each.values).size > 1).slice(0, 12);
    this.axes = this.axes.map((each) => {
      const numbers = each.values.filter((value) => typeof value === "number");
      const numeric = each.values.every((value) => value === null || typeof value === "number") && numbers.length > 0;
      const words = [...new Set(each.values)].map(named);
      const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
      const numberless = !numeric || (each.values.includes(null) && !this.data.metrics.includes(each));
      return { ...each, words, type: numberless ? "category" : low > 0 && high / low > 30 ? "log" : "value" };
    });
    if (this.axes.length < 2 || !this.metric) return [];
    const most = 2000;
    const complete = [...Array(this.count).keys()].filter((i) => this.axes.every((each) => each.type === "category" || each.values[i] !== null));
    const step = Math.max(1, complete.length / most);
    this.lines = complete.filter((_, i) => Math.floor(i / step) !== Math.floor((i - 1) / step));
    this.box = element("div", { className: "chart parallel", role: "img", ariaLabel: `Parallel coordinates of ${this.lines.length} members over ${this.axes.map((each) => each.title).join(", ")}` });
    this.box.style.minWidth = `${7 * this.axes.length + 9}rem`;
    const left = this.count - this.lines.length;
    return [
      element("p", { className: "note", textContent: `Drag along an axis to pick rows of the table; click the axis to let them go. Lines are coloured by ${this.metric.title}.${left ? ` ${left} of ${this.count} members have no line: they lack a number, or there are too many to draw.` : ""}` }),
      element("div", { className: "wide" }, this.box),
    ];
  }

  drawParallel() {
    const coordinate = (each, i) => (each.type === "category" ? each.words.indexOf(named(each.values[i])) : each.values[i]);
    const numbers = this.lines.map((i) => this.metric.values[i]);
    const sorted = [...numbers].sort((a, b) => a - b);
    const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
    const options = () => ({
      animation: false,
      parallel: { left: 60, right: 90, top: 44, bottom: 24, parallelAxisDefault: { nameTextStyle: { color: ink() }, axisLabel: { color: ink() }, axisLine: { lineStyle: { color: ink() } }, nameTruncate: { maxWidth: 105 } } },
      parallelAxis: this.axes.map((each, dim) => ({
        dim, id: `${dim}`, name: each.title, type: each.type, scale: true, nameLocation: "end", ...(each.type === "category" ? { data: each.words } : {}),
        axisLabel: { color: ink(), formatter: each.type === "category" ? (word) => (word.length > 24 ? `${word.slice(0, 11)}…${word.slice(-11)}` : word) : shown },
        areaSelectStyle: { width: 24, color: colour("--link"), opacity: 0.25 },
      })),
      visualMap: { type: "continuous", min: at(0.05), max: at(0.95), dimension: this.axes.findIndex((each) => each.name === this.metric.name), inRange: { color: scale(this.data.mode) }, right: 0, top: "middle", textStyle: { color: ink() }, formatter: shown, hoverLink: false },
      tooltip: tooltip({ formatter: (hovered) => lines(...this.axes.map((each) => `${each.title}: ${named(each.values[this.lines[hovered.dataIndex]])}`)) }),
      series: [{ type: "parallel", smooth: false, lineStyle: { width: 1.2, opacity: this.lines.length > 300 ? 0.25 : 0.7 }, inactiveOpacity: 0.03, activeOpacity: 1, data: this.lines.map((i) => this.axes.map((each) => coordinate(each, i))) }],
    });
    const chart = draw(this.box, options);
    resizer.observe(this.box);
    dark.addEventListener("change", () => { this.brushed.clear(); this.rows.draw(); }); // the chart is drawn anew
    chart.on("axisareaselected", ({ parallelAxisId, intervals }) => {
      intervals.length ? this.brushed.set(+parallelAxisId, intervals) : this.brushed.delete(+parallelAxisId);
      this.rows.draw();
    });
    this.picked = (i) => [...this.brushed].every(([index, intervals]) => {
      const value = coordinate(this.axes[index], i);
      return value !== null && intervals.some(([from, to]) => Math.min(from, to) <= value && value <= Math.max(from, to));
    });
  }

  table() {
    const columns = [...this.columns, { title: "seed", values: this.data.seeds }, { title: this.data.status.title, values: values(this.data.status) }, ...this.data.metrics];
    const node = element("table", { className: "data members" });
    const region = element("div", { className: "members-table" }, node);
    const title = (column) => element("span", { textContent: column.title, title: column.path ?? column.title });
    const rows = [...Array(this.count).keys()].map((i) => [i, ...columns.map((column) => column.values[i])]);
    this.rows = new libraries.DataTable(node, {
      data: rows, autoWidth: false, order: [], pageLength: 10, lengthMenu: [10, 25, 100],
      layout: { topStart: null, topEnd: null, bottomStart: "info", bottomEnd: "paging" },
      language: { info: "_START_ to _END_ of _TOTAL_ members", infoFiltered: "(of _MAX_)", infoEmpty: "No member", zeroRecords: "No member is like this", emptyTable: "" },
      columns: [
        { title: "compare", orderable: false, searchable: false, render: () => "", createdCell: (cell, i) => cell.append(this.checkbox(i)) },
        ...columns.map((column) => ({
          title: "", type: "value", className: typeof column.values.find((value) => value !== null) === "number" ? "number" : "words",
          render: { _: (value) => value, display: () => "", filter: (value) => searched(named(value)) },
          createdCell: (cell, value) => (cell.textContent = this.data.metrics.includes(column) ? shown(value) : named(value)),
        })),
      ],
      headerCallback: (row) => [...row.cells].slice(1).forEach((cell, i) => {
        const place = cell.querySelector(".dt-column-title") ?? cell;
        if (!place.textContent) place.append(title(columns[i]));
      }),
    });
    Object.assign(region.querySelector(".dt-layout-table"), { className: "wide", tabIndex: 0, role: "region", ariaLabel: `Table: members, ${this.heading}` });
    region.querySelector("nav").ariaLabel = `Pages of the members, ${this.heading}`;
    this.rows.search.fixed("brush", (_, data, i) => this.picked?.(i) ?? true);
    return [filterBox(this.rows, "members", searched), region];
  }

  checkbox(i) {
    const box = element("input", { type: "checkbox", ariaLabel: `compare member ${i + 1}`, checked: this.compared.includes(i) });
    box.dataset.member = i;
    box.addEventListener("change", () => {
      this.compared = box.checked ? [...this.compared, i].slice(-2) : this.compared.filter((each) => each !== i);
      this.rows.rows().nodes().toArray().forEach((row) => {
        const other = row?.querySelector("input");
        if (other) other.checked = this.compared.includes(+other.dataset.member);
      });
      this.compare();
    });
    return box;
  }

  name(i) {
    const texts = this.columns.filter((column) => column.values[i] !== null).map((column) => (typeof column.values[i] === "number" ? `${column.title} ${shown(column.values[i])}` : column.values[i]));
    return [...texts, `seed ${this.data.seeds[i]}`].join(", ");
  }

  // Two members side by side: what differs in their configurations, their metrics, and their curves over each other.
  compare() {
    if (this.compared.length < 2) {
      this.pair.replaceChildren(element("p", { className: "note", textContent: "Tick two members to see them side by side." }));
      return;
    }
    const [a, b] = this.compared;
    const row = (title, path, ...texts) => element("tr", {}, element("th", { scope: "row", textContent: title, title: path }), ...texts.map((text) => element("td", { textContent: text })));
    const differing = this.data.differing.filter((column) => column.at[a] !== column.at[b]);
    const seeds = this.data.seeds[a] === this.data.seeds[b] ? [] : [row("seed", "seed", this.data.seeds[a], this.data.seeds[b])];
    const status = values(this.data.status);
    const body = element("tbody", {},
      ...differing.map((column) => row(column.title, column.path, named(column.values[column.at[a]]), named(column.values[column.at[b]]))), ...seeds,
      row("status", "status", status[a], status[b]),
      ...this.data.metrics.map((metric) => row(metric.title, metric.name, shown(metric.values[a]), shown(metric.values[b]))),
      row("key", "key", this.data.keys[a], this.data.keys[b]));
    const head = element("thead", {}, element("tr", {}, ...["", this.name(a), this.name(b)].map((text) => element(text ? "th" : "td", { scope: "col", textContent: text }))));
    const same = [...this.data.same, ...this.data.differing.filter((column) => column.at[a] === column.at[b]).map((column) => [column.title, column.path, named(column.values[column.at[a]])])];
    this.pair.replaceChildren(
      element("h3", { textContent: "Side by side" }),
      element("div", { className: "wide", tabIndex: 0, role: "region", ariaLabel: `Table: two members, ${this.heading}` }, element("table", { className: "compared" }, head, body)),
      element("details", {}, element("summary", { textContent: `${same.length} fields are equal` }),
        element("ul", {}, ...same.map(([title, path, text]) => element("li", { textContent: `${title}: ${text}`, title: path })))),
      ...this.curves(a, b),
    );
  }

  curves(a, b) {
    const both = this.data.curves.filter((set) => set.members.includes(a) && set.members.includes(b));
    if (!both.length) return [element("p", { className: "note", textContent: "Their learning curves are not in this page; history.parquet has those of all members." })];
    const select = element("select", {}, ...both.map((set, i) => element("option", { value: i, textContent: set.title })));
    const box = element("div", { className: "chart", role: "img" });
    const show = () => {
      const set = both[select.value];
      const points = (i) => set.values[set.members.indexOf(i)].flatMap((y, at) => (y === null ? [] : [{ x: set.epochs[at], y, low: y, high: y, text: shown(y) }]));
      const chart = { x_title: "epoch", y_title: set.title, x_scale: "value", y_scale: "value", lines: [["A", a], ["B", b]].map(([letter, i]) => ({ name: `${letter}: ${this.name(i)}`, points: points(i) })) };
      box.ariaLabel = `Learning curves of two members: ${set.title}`;
      draw(box, () => lineOptions(chart));
    };
    select.addEventListener("change", show);
    resizer.observe(box);
    queueMicrotask(show);
    return [element("label", { className: "filter" }, "Curves of ", select), box];
  }
}

const explore = (details) => {
  details.hidden = false;
  details.addEventListener("toggle", async () => {
    await started();
    const script = details.querySelector("script");
    if (!script) return;
    script.remove();
    new Members(JSON.parse(await unpacked(script)), details);
  });
};

// The libraries are evaluated once, after the first paint.

let starting;
const started = () => (starting ??= start());
const start = async () => {
  document.head.append(element("script", { textContent: await unpacked(document.getElementById("libraries")) }));
  sortable();
  document.querySelectorAll("table.data").forEach(showTable);
  const seen = new IntersectionObserver((entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
    seen.unobserve(entry.target);
    showChart(entry.target.querySelector("script.chart"));
  }), { rootMargin: "200px" });
  document.querySelectorAll("script.chart").forEach((script) => seen.observe(script.parentNode));
  dark.addEventListener("change", redraw);
  document.documentElement.dataset.ready = "";
};

document.querySelectorAll("details.explorer").forEach(explore);
requestAnimationFrame(() => setTimeout(started));
// What is folded is printed too.
addEventListener("beforeprint", () => document.querySelectorAll("details:not(.explorer)").forEach((each) => (each.open = true)));
