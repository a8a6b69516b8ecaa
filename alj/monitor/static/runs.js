// Several runs beside each other: states, errors against labels, what they cost.

import { duration, empty, h, known, number, table, words } from "./dom.js";
import { COLORS, figure, line, logarithmic, reference, transparent } from "./charts.js";
import { live } from "./source.js";
import { plainText } from "./training.js";

const QUANTITIES = [["test_mae_meV_per_atom", "test MAE"], ["candidate_mae_meV_per_atom", "candidates MAE"], ["validation_rmse_meV_per_atom", "validation RMSE"], ["train_rmse_meV_per_atom", "training RMSE"]];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x", "cross", "star", "hexagon"];

export function several(data, context, link) {
  if (!data.runs.length) return [h("h2", {}, "Runs"), empty("No run folder is here (any more).")];
  return [data.comparison ? compared(data.comparison, context) : null, h("h2", {}, "Runs"),
    table(["run", "state", "round", "labels", "kept", "failed", "test MAE (meV/atom)", "candidates MAE", "potential", "selector", "seed", "time"],
      data.runs.map((run) => [live ? h("a", { href: link(run.name) }, run.name) : run.name, h("span", { class: `state ${run.state}` }, run.state), `${run.round}${run.planned ? ` of ${run.planned}` : ""}`, run.labels, run.kept, run.failed,
        run.errors.test_mae_meV_per_atom, run.errors.candidate_mae_meV_per_atom, words(run.potential), words(run.selector), run.seed, duration(run.seconds)]), { id: "runs", texts: [0, 1, 8, 9] }),
    data.comparison ? null : curves(data, context), stages(data, context)];
}

// What alj compare has found: bands over seeds, labels to a target.
function compared(told, context) {
  const traces = [];
  told.curves.forEach((curve, i) => {
    const color = COLORS[i % COLORS.length];
    if (curve.seeds > 1) traces.push({ type: "scatter", mode: "lines", x: [...curve.labels, ...[...curve.labels].reverse()], y: [...curve.high, ...[...curve.low].reverse()], fill: "toself", fillcolor: transparent(color, 0.2), line: { width: 0 }, hoverinfo: "skip", showlegend: false, name: "band" });
    traces.push(line(`${plainText(curve.name)}${curve.seeds > 1 ? ` (${curve.seeds} seeds)` : ""}`, curve.labels, curve.mean, color, { mode: "lines+markers", marker: { size: 6, symbol: SYMBOLS[i % SYMBOLS.length], color } }));
  });
  const ends = told.curves.flatMap((curve) => curve.labels);
  traces.push(reference("target", [Math.min(...ends), Math.max(...ends)], [told.target, told.target]));
  const percent = (value) => (known(value) ? `${(100 * value).toFixed(0)} %` : "–");
  return h("section", {}, h("h2", {}, "Labels and errors"),
    figure(context, "comparison", { title: "Learning curves", x: "labels computed", y: told.quantity, traces, xaxis: logarithmic, yaxis: logarithmic, caption: "Bands: mean ± standard deviation of the logarithms over seeds." }),
    table(["strategy", "seeds", "labels", "from", "to", "saved", "verdict"], told.needed.map((row) => [row.strategy, row.seeds, known(row.labels) ? Math.round(row.labels) : "–", known(row.low) ? Math.round(row.low) : "–", known(row.high) ? Math.round(row.high) : "–", percent(row.saved), row.verdict]),
      { id: "needed", texts: [0, 6], caption: `labels to reach ${told.quantity} ${number(told.target)}` }));
}

function curves(data, context) {
  const [key, name] = QUANTITIES.find(([one]) => data.runs.filter((run) => run.curve.some((row) => known(row[one]))).length > data.runs.length / 2) ?? QUANTITIES[0];
  const traces = data.runs.map((run, i) => {
    const rows = run.curve.filter((row) => known(row[key]) && row[key] > 0 && known(row.labels));
    const color = COLORS[i % COLORS.length];
    return line(run.name, rows.map((row) => row.labels), rows.map((row) => row[key]), color, { mode: "lines+markers", marker: { size: 6, symbol: SYMBOLS[i % SYMBOLS.length], color } });
  }).filter((trace) => trace.x.length);
  if (!traces.length) return null;
  return h("section", {}, h("h2", {}, "Learning curves"), figure(context, "runs-curves", { title: `Energy error, ${name}`, x: "labels computed", y: `${name} (meV/atom)`, traces, xaxis: logarithmic, yaxis: logarithmic,
    caption: "alj compare puts runs that differ in their seed into one band, and counts labels to a target." }));
}

function stages(data, context) {
  const names = [...new Set(data.runs.flatMap((run) => Object.keys(run.stages)))];
  if (!names.length) return null;
  const x = data.runs.map((run) => run.name);
  const traces = names.map((stage, i) => ({ type: "bar", orientation: "h", name: stage, y: x, x: data.runs.map((run) => (run.stages[stage] ?? 0) / 60), marker: { color: COLORS[i % COLORS.length] } }));
  const engine = (run) => Object.entries(run.engine_seconds).map(([name, spent]) => `${words(name)} ${duration(spent)}`).join(", ");
  return h("section", {}, h("h2", {}, "Cost"),
    figure(context, "runs-cost", { title: "Time by stage", x: "time (minutes)", y: "", traces, more: { barmode: "stack", height: 160 + 34 * x.length }, yaxis: { autorange: "reversed", gridcolor: "rgba(0,0,0,0)" } }),
    table(["run", "labels", "engine", ...names.map((stage) => `${stage} (s)`)], data.runs.map((run) => [run.name, run.labels, engine(run), ...names.map((stage) => (known(run.stages[stage]) ? number(run.stages[stage]) : "–"))]), { id: "cost", texts: [0, 2] }));
}
