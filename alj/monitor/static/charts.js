// Figures: one look for all of them. Units on the axes, references dashed, legends beside the data.

import { h, number } from "./dom.js";

// Okabe and Ito's colors, which color-blind readers tell apart; the last two are for a crowd.
export const COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D", "#8C8C8C"];
const VIRIDIS = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];

// A color of the scale at a share between 0 and 1.
export function shade(share) {
  const place = Math.min(Math.max(share, 0), 1) * (VIRIDIS.length - 1);
  const low = Math.min(Math.floor(place), VIRIDIS.length - 2), part = place - low;
  const [one, other] = [VIRIDIS[low], VIRIDIS[low + 1]].map((color) => [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16)));
  return `rgb(${one.map((value, i) => Math.round(value + part * (other[i] - value))).join(",")})`;
}

export const gradient = () => `linear-gradient(to right, ${VIRIDIS.join(",")})`;

// The color of a round among several: early dark, late bright, never too pale for the page.
export const ofRound = (place, count) => shade(count < 2 ? 0.3 : 0.05 + (0.75 * place) / (count - 1));

export function seen(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

const axis = (title, more = {}) => ({
  title: { text: title, standoff: 8, font: { size: 13 } }, gridcolor: seen("--line"), linecolor: seen("--soft"), zeroline: false, ticks: "outside",
  tickcolor: seen("--soft"), ticklen: 4, automargin: true, exponentformat: "power", ...more,
});

// A logarithmic axis; its ticks read 1, 2, 5, 10 and not powers.
export const logarithmic = { type: "log" };
// An axis of whole numbers, such as rounds.
export const whole = { whole: true };

function scaled(given, values) {
  const known = values.filter((value) => Number.isFinite(value) && (given.type !== "log" || value > 0));
  const [low, high] = known.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
  if (given.whole) {
    const { whole: _, ...rest } = given;
    return { ...rest, dtick: Math.max(1, Math.ceil((high - low) / 12)), tick0: 0, tickformat: "d" };
  }
  if (given.type !== "log" || !(high > 0)) return given;
  const [from, to] = [Math.log10(low), Math.log10(high)], parts = to - from > 2.6 ? [1] : to - from > 0.8 ? [1, 2, 5] : [1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9], step = Math.max(1, Math.ceil((to - from) / 8));
  const ticks = [];
  for (let decade = Math.floor(from) - 1; decade <= Math.ceil(to) + 1; decade += 1) if (decade % step === 0) for (const part of parts) ticks.push(part * 10 ** decade);
  const room = Math.max(0.04 * (to - from), 0.03);
  return { ...given, range: given.range ?? [from - room, to + room], tickmode: "array", tickvals: ticks, ticktext: ticks.map((v) => (v < 1e-4 || v >= 1e6 ? v.toExponential(0) : String(Number(v.toPrecision(2))))) };
}

function layout(x, y, xmore, ymore, more, width) {
  const narrow = width < 640;
  return {
    font: { family: "system-ui, sans-serif", size: 13, color: seen("--ink") }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 56, r: 16, t: 12, b: 44 }, xaxis: axis(x, xmore), yaxis: axis(y, ymore), hovermode: "closest",
    hoverlabel: { bgcolor: seen("--panel"), bordercolor: seen("--soft"), font: { color: seen("--ink") } },
    legend: narrow ? { orientation: "h", x: 0, y: -0.2, yanchor: "top" } : { x: 1.02, y: 1, xanchor: "left" },
    showlegend: true, height: narrow ? 380 : 360, ...more,
  };
}

// plotly.js, once it is there: a page without figures does not wait for its megabytes.
function plotly() {
  const script = document.getElementById("plotly");
  return window.Plotly ? Promise.resolve(window.Plotly) : new Promise((done) => script.addEventListener("load", () => done(window.Plotly)));
}

// A figure with its title and caption, drawn into an element that is kept for `key`.
export function figure(context, key, { title, caption = "", x, y, traces, xaxis = {}, yaxis = {}, more = {}, numbers = null }) {
  let kept = context.figures.get(key);
  if (!kept) {
    const plot = h("div", { class: "plot" });
    const save = h("button", { class: "quiet", type: "button", title: "Save this figure as PNG", "aria-label": `Save ${title} as PNG`,
      onclick: () => window.Plotly?.downloadImage(plot, { format: "png", width: 1000, height: 600, scale: 2, filename: key }) }, "PNG");
    const heading = h("h3", {}, title), note = h("figcaption", {});
    const below = h("div", {});
    kept = { plot, heading, note, below, element: h("figure", { id: `figure-${key}` }, h("div", { class: "head" }, heading, save), plot, note, below) };
    context.figures.set(key, kept);
  }
  kept.heading.textContent = title;
  kept.note.textContent = caption;
  kept.below.replaceChildren(...(numbers ? [h("details", {}, h("summary", {}, "Numbers"), numbers)] : []));
  const named = new Set(traces.filter((trace) => trace.showlegend !== false).map((trace) => trace.name)).size;
  const all = (name) => traces.flatMap((trace) => Array.from(trace[name] ?? []));
  context.later(async () => {
    const Plotly = await plotly();
    const wide = kept.plot.clientWidth, tall = wide < 640 && named > 1 ? { height: 320 + 21 * named } : {};
    const shape = layout(x, y, scaled(xaxis, all("x")), scaled(yaxis, all("y")), { showlegend: named > 1, ...tall, ...more }, wide);
    await Plotly.react(kept.plot, traces, shape, { displayModeBar: false, responsive: true });
  });
  return kept.element;
}

export function line(name, x, y, color, more = {}) {
  return { type: "scatter", mode: "lines", name, x, y, line: { color, width: 1.8, ...(more.line || {}) }, hovertemplate: "%{x:.4~g}, %{y:.4~g}", ...omit(more, "line") };
}

export function points(name, x, y, color, more = {}) {
  return { type: "scatter", mode: "markers", name, x, y, marker: { color, size: 5, opacity: 0.65, ...(more.marker || {}) }, hovertemplate: "%{x:.4~g}, %{y:.4~g}", ...omit(more, "marker") };
}

// A dashed line: what is aimed at, the ideal, a threshold.
export function reference(name, x, y, more = {}) {
  return line(name, x, y, more.color || seen("--ink"), { line: { dash: "dash", width: 1.2 }, hoverinfo: "skip", hovertemplate: null, ...omit(more, "color") });
}

// Two standard errors around a curve.
export function band(x, y, error, color) {
  const high = y.map((value, i) => value + (error[i] ?? 0)), low = y.map((value, i) => value - (error[i] ?? 0));
  return { type: "scatter", mode: "lines", x: [...x, ...[...x].reverse()], y: [...high, ...low.reverse()], fill: "toself", fillcolor: transparent(color, 0.2),
    line: { width: 0 }, hoverinfo: "skip", showlegend: false, name: "band" };
}

// Bars of a histogram from edges and counts.
export function bars(name, edges, counts, color) {
  const x = [edges[0]], y = [0];
  counts.forEach((count, i) => { x.push(edges[i], edges[i + 1]); y.push(count, count); });
  x.push(edges[edges.length - 1]); y.push(0);
  return { type: "scatter", mode: "lines", name, x, y, line: { color, width: 1.6 }, hovertemplate: "%{x:.3~g}: %{y}" };
}

export function transparent(color, opacity) {
  const parts = color.startsWith("rgb") ? color.match(/\d+/g).slice(0, 3) : [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16));
  return `rgba(${parts.join(",")},${opacity})`;
}

export const rounded = (value) => number(value, 3);

function omit(record, name) {
  const { [name]: _, ...rest } = record;
  return rest;
}
