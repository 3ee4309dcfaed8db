// @ts-check
// The chart of events over time: stacked bars; dragging over it selects a range.

import { allIn, isolated } from "./elements.js";
import { isLocal, shownTime, zoneName } from "./preferences.js";

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const COLOURS = 8;
const KNOWN = {
  Modified: 1, Updated: 1, Created: 2, Deleted: 3, Failed: 3, Pending: 4, Started: 5, Login: 6, Downloaded: 6,
  Exported: 6, Paused: 8, Resumed: 7,
};
/** @type {{ place: HTMLElement, plot: any, watcher: ResizeObserver }[]} */
let drawn = [];

/** @param {ParentNode} root */
export function drawCharts(root) {
  allIn(root, "[data-chart]:not([data-drawn])").forEach(draw);
}

/** Draws all charts anew, in other colours or another zone. */
export function redrawCharts() {
  const places = drawn.filter(({ place }) => place.isConnected).map(({ place }) => place);
  for (const { plot, watcher } of drawn) {
    watcher.disconnect();
    plot.destroy();
  }
  drawn = [];
  places.forEach(draw);
}

/** @param {HTMLElement} place */
function draw(place) {
  const data = JSON.parse(place.dataset.chart ?? "{}");
  place.dataset.drawn = "";
  place.replaceChildren();
  const names = Object.keys(data.series);
  if (!data.starts?.length || !names.length) return;
  const colours = coloursOf(place, names, data.by);
  const legend = place.appendChild(legendOf(names, colours));
  const stacked = stack(names.map((name) => data.series[name]));
  const tip = tipOf(place);
  const size = () => ({ width: legend.clientWidth, height: place.clientHeight - legend.offsetHeight });
  const options = {
    ...size(),
    legend: { show: false },
    padding: [6, 22, 0, 0],
    ...(isLocal() ? {} : { tzDate: (/** @type {number} */ at) => uPlot.tzDate(new Date(at * 1000), "Etc/UTC") }),
    cursor: { y: false, points: { show: false }, drag: { x: true, y: false, setScale: false } },
    scales: { x: { time: true, range: () => [data.starts[0], data.starts.at(-1) + data.width] }, y: { range: (_, __, max) => [0, max * 1.05 || 1] } },
    axes: [axis(place, { size: 24, space: 80, values: (_, ticks, __, ___, step) => ticks.map((at) => tick(at, step)) }), axis(place, { size: 46, space: 28, values: (_, ticks) => ticks.map(short) })],
    series: [{}, ...stacked.map((_, at) => bars(colours[names.length - 1 - at]))],
    hooks: {
      setCursor: [(plot) => tip.show(plot, data, names, colours)],
      setSelect: [(plot) => select(plot)],
    },
  };
  const plot = new uPlot(options, [data.starts, ...stacked], place);
  const watcher = new ResizeObserver(() => plot.setSize(size()));
  watcher.observe(place);
  place.addEventListener("mouseleave", tip.hide);
  drawn.push({ place, plot, watcher });
}

/** The series as sums of those below them, the uppermost first. @param {number[][]} counts */
function stack(counts) {
  const sums = counts.map((row, at) => row.map((_, bucket) => counts.slice(0, at + 1).reduce((sum, each) => sum + each[bucket], 0)));
  return sums.reverse();
}

/** @param {string} colour */
function bars(colour) {
  return {
    fill: colour, stroke: colour, width: 0, points: { show: false },
    paths: uPlot.paths.bars({ size: [0.86, 64], align: 1 }),
  };
}

/** @param {HTMLElement} place @param {object} more */
function axis(place, more) {
  const line = resolved(place, "--line");
  return {
    stroke: resolved(place, "--ink-3"), font: "11px system-ui, sans-serif",
    grid: { stroke: line, width: 1 }, ticks: { show: false }, ...more,
  };
}

/** What stands below a tick of the time. @param {number} at @param {number} step seconds */
function tick(at, step) {
  const text = shownTime(new Date(at * 1000));
  const [date, time] = text.split(" ");
  if (step < 60) return time;
  if (step < 86_400 && time !== "00:00:00") return time.slice(0, 5);
  const [year, month, day] = date.split("-");
  return step < 28 * 86_400 ? `${Number(day)} ${MONTHS[Number(month) - 1]}` : `${MONTHS[Number(month) - 1]} ${year}`;
}

/** @param {number} count */
function short(count) {
  if (count % 1) return "";
  return new Intl.NumberFormat("en", { notation: "compact" }).format(count);
}

/** Actions have colours of their own, all else those that are free. @param {HTMLElement} place @param {string[]} names @param {string} by */
function coloursOf(place, names, by) {
  const free = new Set(Array.from({ length: COLOURS }, (_, at) => at + 1));
  const take = (/** @type {number} */ number) => (free.delete(number) ? number : 0);
  const own = new Map(names.map((name) => [name, by === "action" ? take(KNOWN[name]) : 0]));
  return names.map((name) => {
    const number = name === "" ? 0 : own.get(name) || take([...free][0]);
    return resolved(place, `--series-${number}`);
  });
}

/** A colour of the style sheet as a canvas takes it. @param {HTMLElement} place @param {string} name */
function resolved(place, name) {
  const probe = document.createElement("i");
  probe.style.color = `var(${name})`;
  place.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}

/** @param {string[]} names @param {string[]} colours */
function legendOf(names, colours) {
  const list = document.createElement("ul");
  list.className = "legend";
  list.setAttribute("aria-hidden", "true");
  names.forEach((name, at) => list.append(entry(document.createElement("li"), colours[at], name || "others")));
  return list;
}

/** @param {HTMLElement} element @param {string} colour @param {string} name @param {string} more */
function entry(element, colour, name, more = "") {
  const swatch = document.createElement("span");
  swatch.className = "swatch";
  swatch.style.background = colour;
  element.append(swatch, isolated(name), more);
  return element;
}

/** @param {HTMLElement} place */
function tipOf(place) {
  const tip = document.createElement("div");
  tip.className = "chart-tip";
  tip.hidden = true;
  place.append(tip);
  const hide = () => {
    tip.hidden = true;
  };
  return {
    hide,
    show(plot, data, names, colours) {
      const { left } = plot.cursor;
      const at = left < 0 ? -1 : Math.floor((plot.posToVal(left, "x") - data.starts[0]) / data.width);
      const counts = names.map((name, number) => ({ name, colour: colours[number], count: data.series[name][at] }));
      const shown = counts.filter(({ count }) => count);
      if (at < 0 || !shown.length) return hide();
      const title = document.createElement("b");
      title.textContent = `${shownTime(new Date(data.starts[at] * 1000)).slice(0, 16)} ${zoneName()}`;
      const lines = shown.map(({ name, colour, count }) =>
        entry(document.createElement("div"), colour, name || "others", ` ${count.toLocaleString("en")}`));
      tip.replaceChildren(title, ...lines);
      tip.hidden = false;
      const x = plot.bbox.left / devicePixelRatio + left;
      const before = x > place.clientWidth / 2;
      tip.style.left = `${before ? x - tip.offsetWidth - 6 : x + 18}px`;
      tip.style.top = "26px";
    },
  };
}

/** Goes to the view between two moments. @param {any} plot */
function select(plot) {
  const { left, width } = plot.select;
  if (width < 4) return;
  const url = new URL(location.href);
  url.pathname = "/";
  url.searchParams.delete("cursor");
  url.searchParams.set("min-date", moment(plot.posToVal(left, "x")));
  url.searchParams.set("max-date", moment(plot.posToVal(left + width, "x")));
  location.assign(url);
}

/** @param {number} seconds */
function moment(seconds) {
  return new Date(Math.floor(seconds) * 1000).toISOString().replace(".000Z", "Z");
}
