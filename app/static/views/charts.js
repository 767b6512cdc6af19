// Figures as pictures: columns over days by uPlot, which is loaded with this, and bars by name as plain elements.

import { field, setText } from "./dom.js";

const HEIGHT = 190;
const DAY_SEC = 86_400;
const VENDOR = new URL("../vendor/uplot/", import.meta.url);
const WHOLE = Array.from({ length: 12 }, (_, power) => [1, 2, 5].map((digit) => digit * 10 ** power)).flat();
const DAYS = [1, 2, 7, 14, 28, 56, 91, 182, 364, 1820, 7280].map((days) => days * DAY_SEC);
const BINARY = Array.from({ length: 60 }, (_, power) => 2 ** power);

const drawn = new Map(); // figure → how it was drawn last, and what draws it

let loading = null;

/** uPlot and its sheet. Rejects with a sentence, and can be asked again then. */
export function loadCharts() {
  loading ??= Promise.all([
    loaded(Object.assign(document.createElement("script"), { src: new URL("uPlot.iife.min.js", VENDOR) })),
    loaded(Object.assign(document.createElement("link"), { rel: "stylesheet", href: new URL("uPlot.min.css", VENDOR) })),
  ]).catch((error) => {
    loading = null;
    throw error;
  });
  return loading;
}

function loaded(element) {
  return new Promise((resolve, reject) => {
    element.addEventListener("load", resolve);
    element.addEventListener("error", () => {
      element.remove();
      reject(new Error("The charts could not be loaded. Look whether the service can be reached, then try again."));
    });
    document.head.append(element);
  });
}

/** A column for each day of `days` (rows with `day`), as high as `measure` says; `write` makes a figure of a value. */
export function columns(figure, days, measure, write) {
  const known = drawn.get(figure);
  if (!known) watch(figure);
  const { left = -1, top = -1 } = known?.chart.cursor ?? {};
  known?.chart.destroy();
  const figures = [days.map(({ day }) => Date.parse(day) / 1000), days.map(measure)];
  const chart = new window.uPlot(options(figure, days, measure, write), figures, area(figure));
  drawn.set(figure, { chart, again: () => columns(figure, days, measure, write) });
  setText(field(figure, "says"), "");
  chart.setCursor({ left, top }); // where the pointer still is, and says what it said
}

function options(figure, days, measure, write) {
  const colour = (name) => resolved(figure, name);
  const year = days.length > 364 ? 0 : 5; // where in 2026-11-23 the label begins
  const axis = { stroke: colour("ink-quiet"), font: "12px system-ui, sans-serif", ticks: { show: false } };
  return {
    width: area(figure).clientWidth,
    height: HEIGHT,
    padding: [12, 12, 0, 0],
    tzDate: (seconds) => window.uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    legend: { show: false },
    cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
    scales: {
      x: { range: (_chart, least, most) => [least - DAY_SEC / 2, most + DAY_SEC / 2] },
      y: { range: (_chart, _least, most) => [0, (most || 1) * 1.05] },
    },
    axes: [
      {
        ...axis,
        size: 28,
        grid: { show: false },
        incrs: DAYS,
        space: year ? 50 : 80,
        values: (_chart, values) => values.map((seconds) => new Date(seconds * 1000).toISOString().slice(year, 10)),
      },
      {
        ...axis,
        size: 68,
        incrs: write === String ? WHOLE : BINARY,
        grid: { stroke: colour("rule"), width: 1 },
        values: (_chart, values) => values.map(write),
      },
    ],
    series: [{}, { fill: colour("accent"), width: 0, points: { show: false }, paths: window.uPlot.paths.bars({ size: [0.72, 48], align: 0 }) }],
    hooks: {
      setCursor: [({ cursor: { idx } }) => setText(field(figure, "says"), idx == null ? "" : `${days[idx].day}: ${write(measure(days[idx]))}`)],
    },
  };
}

/** A bar for each of `rows` (with `dom`), and in it one for each of `measures`, of which the last is the longest. */
export function bars(figure, rows, measures, write, total) {
  const longest = Math.max(...rows.map(measures.at(-1)), 0) || 1;
  area(figure).replaceChildren(
    ...rows.map((row) => {
      const line = document.createElement("div");
      line.className = "bar-line";
      const name = document.createElement("bdi");
      name.textContent = row.dom;
      const track = document.createElement("span");
      track.className = "bar-track";
      for (const measure of measures.toReversed()) {
        const bar = document.createElement("i");
        bar.style.setProperty("inline-size", `${(100 * measure(row)) / longest}%`);
        track.append(bar);
      }
      const figures = document.createElement("span");
      figures.textContent = measures.map((measure) => write(measure(row))).join(" · ");
      line.append(name, track, figures);
      return line;
    }),
  );
  const none = rows.length === 0 ? "no dumps in this range" : "";
  setText(field(figure, "says"), total > rows.length ? `the ${rows.length} longest of ${total} VMs` : none);
}

function area(figure) {
  return figure.querySelector(".plot-area");
}

/** A token as a colour that a canvas understands: in the scheme of the moment. */
function resolved(element, token) {
  const probe = document.createElement("i");
  probe.style.setProperty("color", `var(--${token})`);
  element.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}

function watch(figure) {
  new ResizeObserver(() => {
    const { chart } = drawn.get(figure) ?? {};
    const width = area(figure).clientWidth;
    if (chart && width > 0 && width !== chart.width) chart.setSize({ width, height: HEIGHT });
  }).observe(area(figure));
}

function drawAgain() {
  for (const { again } of drawn.values()) again();
}

new MutationObserver(drawAgain).observe(document.documentElement, { attributeFilter: ["data-theme"] });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAgain);
