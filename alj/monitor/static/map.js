// The map of the data set: where structures lie, colored by what is known of them; a click tells the life of one.

import { duration, empty, facts, h, known, moment, number, replace, words } from "./dom.js";
import { structure, unpacked } from "./source.js";
import { COLORS, gradient, seen, shade } from "./charts.js";
import { formula, molecule } from "./molecule.js";
import { scatterMap } from "./scatter.js";

export function dataMap(data, context) {
  if (!data.count) return [empty("There is no map yet: a campaign draws one after a round, and alj report RUN at any time.")];
  const kept = context.kept.map ?? (context.kept.map = made(context));
  kept.take(data);
  return [kept.element];
}

function made(context) {
  let data = null, arrays = {}, mark = null, asked = 0;
  const projection = h("select", { id: "projection", onchange: draw }), color = h("select", { id: "color", onchange: draw });
  const legend = h("div", { class: "legend", id: "map-legend" }), axes = h("p", { class: "aside", id: "map-axes" });
  const side = h("aside", { class: "side", id: "structure", "aria-live": "polite" }, empty("Click a point, or press an arrow key on the map: its structure and its life in the ledger appear here."));
  const map = scatterMap({ onpick: pick, onhover: said, label: "Map of the data set. Arrow keys go from structure to structure, plus and minus zoom, 0 shows all." });
  const count = h("span", { id: "map-count" });
  const element = h("section", { class: "mappage" }, h("h2", {}, "Map of the data set"),
    h("div", { class: "controls" }, h("label", {}, "projection ", projection), h("label", {}, "color ", color), count),
    h("div", { class: "split" }, h("div", { class: "panel" }, map.element, legend, axes), side));

  function take(next) {
    if (data === next || (mark !== null && mark === next.about.mark && data?.count === next.count && next.about.landmarks === data.about.landmarks)) return;
    data = next; mark = next.about.mark; arrays = { columns: {}, projections: {}, nodes: {} };
    options(projection, Object.entries(next.about.projections).map(([name, one]) => [name, one.title]));
    options(color, Object.keys(next.columns).map((name) => [name, titled(next.about.columns[name] ?? { title: words(name) })]));
    const [projections, columns] = [Object.keys(next.projections).length, Object.keys(next.columns).length];
    count.textContent = `${next.count.toLocaleString("en")} structures`;
    element.dataset.projections = projections; element.dataset.columns = columns;
    draw();
  }
  const column = (name) => (arrays.columns[name] ??= unpacked(data.columns[name]));
  const isKind = (name) => Boolean(data.about.categories[name]) || name === "class";

  function placed(name) {
    if (!arrays.projections[name]) {
      const flat = unpacked(data.projections[name]), x = new Float32Array(data.count), y = new Float32Array(data.count);
      for (let i = 0; i < data.count; i += 1) { x[i] = flat[2 * i]; y[i] = flat[2 * i + 1]; }
      arrays.projections[name] = { x, y };
    }
    return arrays.projections[name];
  }

  function draw() {
    const where = projection.value, by = color.value, told = data.about.projections[where];
    axes.textContent = `→ ${told.x}   ↑ ${told.y}   (features: ${data.about.features ?? "unknown"})`;
    const groups = isKind(by) ? kinds(by) : scale(by);
    map.show({ ...placed(where), groups, nodes: nodesOf(where) });
  }

  function kinds(by) {
    const values = column(by), names = data.about.categories[by] ?? [...new Set(values)].sort((a, b) => a - b).map((v) => `class ${v}`);
    const numbers = data.about.categories[by] ? names.map((_, i) => i) : [...new Set(values)].sort((a, b) => a - b);
    const members = new Map(numbers.map((number) => [number, []]));
    for (let i = 0; i < values.length; i += 1) members.get(values[i])?.push(i);
    replace(legend, numbers.map((number, i) => h("span", { class: "key" }, h("i", { style: { background: COLORS[i % COLORS.length] } }), `${names[i] || "none"} (${members.get(number).length})`)),
      data.nodes && Object.keys(data.nodes).length ? h("span", { class: "key" }, h("i", { class: "ring" }), "nodes of the clustering") : null);
    return numbers.map((number, i) => [COLORS[i % COLORS.length], members.get(number)]);
  }

  function scale(by) {
    const given = by === "round" ? "given" : "unknown", values = by === "round" ? Float32Array.from(column(by), (v) => (v < 0 ? NaN : v)) : column(by), told = data.about.columns[by] ?? { title: words(by), unit: "", log: false };
    const sorted = Float32Array.from(values.filter((value) => Number.isFinite(value) && (!told.log || value > 0))).sort();
    if (!sorted.length) { replace(legend, `${told.title}: unknown`); return [[seen("--soft"), Array.from(values, (_, i) => i)]]; }
    const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
    const [low, high] = by === "round" || by === "atoms" ? [sorted[0], sorted[sorted.length - 1]] : [at(0.02), at(0.98)];
    const to = told.log ? (v) => Math.log(Math.max(v, low)) : (v) => v;
    const [from, span] = [to(low), to(high) - to(low) || 1];
    const bins = Array.from({ length: 24 }, () => []), unknown = [];
    for (let i = 0; i < values.length; i += 1) {
      if (!Number.isFinite(values[i])) unknown.push(i);
      else bins[Math.max(0, Math.min(23, Math.floor(((to(values[i]) - from) / span) * 24)))].push(i);
    }
    replace(legend, h("span", {}, titled(told)), h("span", {}, number(low)), h("span", { class: "ramp", style: { background: gradient() } }), h("span", {}, number(high)),
      unknown.length ? h("span", { class: "key" }, h("i", { style: { background: seen("--soft") } }), `${given} (${unknown.length})`) : null,
      told.log ? h("span", { class: "aside" }, "logarithmic") : null);
    return [[seen("--soft"), unknown], ...bins.map((members, i) => [shade((i + 0.5) / 24), members])];
  }

  function nodesOf(where) {
    if (!data.nodes?.[where]) return null;
    const places = (arrays.nodes[where] ??= unpacked(data.nodes[where])), classes = unpacked(data.node_class);
    return { places, edges: unpacked(data.edges), colors: Array.from({ length: places.length / 2 }, (_, k) => COLORS[Math.max(0, classes?.[k] ?? 0) % COLORS.length]) };
  }

  function value(name, i) {
    const told = data.about.columns[name] ?? { unit: "" }, v = column(name)[i];
    if (data.about.categories[name]) return data.about.categories[name][v] || "none";
    if (name === "round" && v < 0) return "given";
    return Number.isFinite(v) ? `${number(v)}${told.unit ? ` ${told.unit}` : ""}` : "unknown";
  }
  function said(i) {
    return `#${i} · round ${value("round", i)} · ${titled(data.about.columns[color.value] ?? { title: color.value }).replace(/ \(.*/, "")} ${value(color.value, i)}`;
  }

  async function pick(i) {
    const mine = (asked += 1);
    const numbers = facts(Object.keys(data.columns).map((name) => [data.about.columns[name]?.title ?? words(name), value(name, i)]));
    replace(side, h("h3", {}, `Structure ${i}`), h("p", { class: "aside" }, "…"), numbers);
    try {
      const found = await structure(context.run, i);
      if (mine !== asked) return;
      const [species, positions, cell] = [found.species, found.positions, found.cell].map(unpacked);
      replace(side, h("h3", {}, `${formula(species)} `, h("span", { class: "aside" }, `#${i}, ${species.length} atoms`)), molecule({ species, positions, cell }),
        h("p", { class: "aside" }, "drag or arrow keys turn, wheel or + − zooms"), numbers, h("h4", {}, "Life in the ledger"), life(found.life));
    } catch (error) {
      if (mine === asked) replace(side, h("h3", {}, `Structure ${i}`), h("p", { class: "problem" }, error.message), numbers);
    }
  }
  return { element, take };
}

// What became of a structure, in the order of time.
export function life(told) {
  if (!told.hash) return empty("Not in the ledger: it was given with its label.");
  const events = [
    ...told.proposed.map((row) => [row.time, row.round < 0 ? "drawn to anchor the zero of energy" : `proposed in round ${row.round}`,
      [row.origin ? `by ${words(row.origin)}` : "", known(row.score) ? `predicted ${number(1000 * row.score)} meV/atom off` : "", row.kept === 1 ? "kept" : row.kept === 0 ? `not kept: ${row.why ?? ""}` : ""]]),
    ...told.attempts.map((row) => [row.time, row.status === "ok" ? `labeled (attempt ${row.attempt})` : `failed: ${row.kind} (attempt ${row.attempt})`,
      [row.message, `${row.engine}${row.version ? ` ${row.version}` : ""}`, row.host ? `on ${row.host}` : "", known(row.seconds) ? duration(row.seconds) : "", row.convention,
        known(row.energy_eV) ? `energy ${row.energy_eV.toFixed(4)} eV` : "", known(row.largest_force_eV_per_A) ? `largest force ${number(row.largest_force_eV_per_A)} eV/Å` : "",
        Object.entries(row.about || {}).map(([k, v]) => `${words(k)} ${typeof v === "object" ? JSON.stringify(v) : v}`).join(", "), row.replaces ? `replaces ${row.replaces.slice(0, 12)}` : ""], row.log_tail]),
  ].sort((one, other) => one[0] - other[0]);
  return h("ol", { class: "life" }, events.map(([time, title, lines, log]) => h("li", {}, h("div", { class: "when" }, moment(time)), h("strong", {}, title),
    h("div", {}, lines.filter(Boolean).join(" · ")), log ? h("pre", { tabindex: 0 }, log) : null)), h("li", { class: "hash" }, h("div", { class: "when" }, "hash"), h("code", {}, told.hash.slice(0, 16))));
}

const titled = (told) => told.title + (told.unit ? ` (${told.unit})` : "");

function options(select, pairs) {
  const before = select.value;
  replace(select, pairs.map(([name, title]) => h("option", { value: name }, title)));
  if (pairs.some(([name]) => name === before)) select.value = before;
}
