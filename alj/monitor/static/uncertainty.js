// Uncertainty: how unsure the committee was in each round, along walks, and whether it was right to be.

import { empty, h, known, number, table, words } from "./dom.js";
import { COLORS, bars, figure, line, logarithmic, ofRound, points, reference, seen, whole } from "./charts.js";

const ROUNDS = 8;

export function uncertainty(data, context) {
  const parts = [histograms(data, context), along(data, context), shares(data, context), calibrated(data, context), before(data, context)].filter(Boolean);
  return parts.length ? parts : [empty("Nothing is known about uncertainties yet.")];
}

// A few rounds among many: the first, the last, and evenly spaced ones between.
export function few(rounds, most = ROUNDS) {
  if (rounds.length <= most) return rounds;
  return Array.from({ length: most }, (_, i) => rounds[Math.round((i * (rounds.length - 1)) / (most - 1))]);
}

function histograms(data, context) {
  const rounds = few(data.rounds.filter((row) => row.seen?.edges));
  if (!rounds.length) return null;
  const last = rounds[rounds.length - 1].seen, high = Math.max(...rounds.flatMap((row) => row.seen.counts));
  const traces = rounds.map((row, i) => bars(`round ${row.round}`, row.seen.edges, row.seen.counts, ofRound(i, rounds.length)));
  Object.entries(last.thresholds || {}).forEach(([name, value], i) => traces.push(reference(`${words(name)} (last round)`, [value, value], [0, high], { color: i ? COLORS[1] : seen("--ink") })));
  return h("section", {}, h("h2", {}, "Uncertainty of the candidates"),
    figure(context, "uncertainty", { title: `Histogram of the ${last.name} by round`, x: `${last.name} (${last.unit})`, y: "candidates per bin", traces, xaxis: logarithmic,
      caption: "All candidates that the selector judged; dashed: its thresholds.",
      numbers: table(["round", "candidates", ...Object.keys(last.thresholds || {}).map((name) => `${words(name)} (${last.unit})`)],
        rounds.map((row) => [row.round, row.seen.counts.reduce((a, b) => a + b, 0), ...Object.keys(last.thresholds || {}).map((name) => row.seen.thresholds?.[name])])) }));
}

function along(data, context) {
  const row = [...data.rounds].reverse().find((one) => one.seen?.walks?.length);
  if (!row) return null;
  const told = row.seen;
  const traces = told.walks.map((walk, i) => line(`walk ${walk.walk}`, walk.place, walk.values, COLORS[i % COLORS.length], { line: { width: 1.3 } }));
  const ends = told.walks.flatMap((walk) => walk.place), span = [Math.min(...ends), Math.max(...ends)];
  Object.entries(told.thresholds || {}).forEach(([name, value]) => traces.push(reference(words(name), span, [value, value])));
  return h("section", {}, h("h2", {}, "Along the walks"),
    figure(context, "indicator", { title: `The ${told.name} along the walks of round ${row.round}`, x: "place along the walk (frames, or energy in eV for nested walks)", y: `${told.name} (${told.unit})`, traces, yaxis: logarithmic }));
}

function shares(data, context) {
  const rounds = data.rounds.filter((row) => known(row.selection?.accurate));
  if (rounds.length < 1) return null;
  const x = rounds.map((row) => row.round);
  const traces = ["accurate", "candidate", "failed"].map((name, i) => ({ type: "bar", name, x, y: rounds.map((row) => 100 * row.selection[name]), marker: { color: [COLORS[2], COLORS[4], COLORS[1]][i] } }));
  return figure(context, "trust", { title: "What the committee agreed on, doubted, or made nothing of", x: "round", y: "share of the candidates (%)", traces, more: { barmode: "stack" }, xaxis: whole });
}

function calibrated(data, context) {
  const sets = Object.entries(data.calibration);
  if (!sets.length) return null;
  const curves = sets.map(([name, one], i) => line(`${name} set, ${one.count} atoms`, one.levels.map((v) => 100 * v), one.observed.map((v) => 100 * v), COLORS[i]));
  const [name, one] = sets[0], ends = [Math.min(...one.spread), Math.max(...one.spread)];
  const cloud = [points(`${one.spread.length} of ${one.count} atoms`, one.spread, one.error, COLORS[0], { marker: { size: 4, opacity: 0.35 } })];
  if (one.groups.length) cloud.push(points("root mean squares of groups", one.groups.map((g) => g[0]), one.groups.map((g) => g[1]), COLORS[1], { marker: { size: 9, symbol: "square", opacity: 1, line: { color: seen("--panel"), width: 1 } } }));
  cloud.push(reference("error = spread", ends, ends));
  return h("section", {}, h("h2", {}, "Calibration of the force spread"),
    h("div", { class: "pair" },
      figure(context, "calibration", { title: "How often errors stay within what was said", x: "expected share of errors (%)", y: "observed share of errors (%)", traces: [...curves, reference("calibrated", [0, 100], [0, 100])], xaxis: { range: [0, 100] }, yaxis: { range: [0, 100] },
        caption: "Below the dashed line the spread of the committee is too small." }),
      figure(context, "spread-error", { title: `Error against spread, ${name} set`, x: "spread of the force (eV/Å)", y: "error of the force (eV/Å)", traces: cloud, xaxis: logarithmic, yaxis: logarithmic,
        caption: `Pearson ${number(one.pearson, 2)}, Spearman ${number(one.spearman, 2)} over atoms.` })),
    table(["set", "atoms", "Pearson", "Spearman", "errors within the 90 % interval (%)"], sets.map(([set, c]) => [set, c.count, c.pearson, c.spearman, 100 * c.observed[c.levels.findIndex((level) => level >= 0.899)]]), { id: "calibration-numbers" }));
}

function before(data, context) {
  const told = data.before_learning;
  if (!told) return null;
  const rounds = few(Object.keys(told.counts).map(Number).sort((a, b) => a - b));
  const traces = rounds.map((round, i) => bars(`round ${round}`, told.edges, told.counts[round], ofRound(i, rounds.length)));
  return h("section", {}, h("h2", {}, "Errors of what was chosen"),
    figure(context, "before-learning", { title: "Energy error of the chosen structures before they were learned", x: "|energy error| (meV/atom)", y: "structures per bin", traces, xaxis: logarithmic,
      caption: "Predicted by the network that chose them. Rounds that move to the left learn; rounds that do not look where it is still hard." }));
}
