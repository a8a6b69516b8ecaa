// Overview: how far the run is, what it has cost, how good it is, when it stops.

import { duration, empty, facts, h, known, moment, number, table, words } from "./dom.js";
import { about } from "./source.js";
import { COLORS, figure, line, logarithmic, reference, seen, whole } from "./charts.js";

const ERRORS = [
  ["test_mae_meV_per_atom", "MAE, independent test set", 0, "solid", "circle", false],
  ["candidate_mae_meV_per_atom", "MAE, candidates", 1, "solid", "square", true],
  ["candidate_scatter_meV_per_atom", "scatter, candidates", 1, "dot", "square-open", true],
  ["validation_rmse_meV_per_atom", "RMSE, validation", 2, "solid", "diamond", false],
  ["train_rmse_meV_per_atom", "RMSE, training", 3, "solid", "triangle-up", false],
];

export function overview(data, context) {
  return [lead(data), state(data), cards(data), learning(data, context), sets(data), cost(data, context), rounds(data), stops(data), usage(data, context), where(data)];
}

function lead(data) {
  const learned = `${words(data.potential || "a potential")} learned from ${data.labeler ? words(data.labeler) : "data"}`;
  return h("p", { class: "lead" }, learned + (data.atoms ? `, systems of ${data.atoms} atoms` : ""));
}

function state(data) {
  const resume = "Running the same command again resumes it; labels are never paid for twice.";
  const sentences = {
    running: `Round ${data.round}, stage: ${data.stage || "starting"}.`,
    interrupted: `This run was interrupted in round ${data.round} (${data.stage || "between stages"}). ${resume}`,
    paused: `This run is paused: ${data.reason}. ${resume}`, new: "Nothing has run here yet.",
    finished: data.reason ? `Why it stopped: ${data.reason}.` : "",
  };
  const progress = data.state === "running" ? data.progress : null;
  const share = progress && progress.total ? Math.min(1, progress.done / progress.total) : null;
  return h("section", { class: `note ${data.state}`, "aria-live": "polite" },
    h("p", { id: "state" }, h("span", { class: `state ${data.state}` }, data.state), " ", sentences[data.state] ?? ""),
    progress ? h("div", { class: "progress" },
      h("progress", { max: 1, value: share, "aria-label": `${progress.stage}` }),
      h("span", {}, `${words(progress.stage)}: ${progress.done ?? "?"}${progress.total ? ` of ${progress.total}` : ""}${progress.note ? ` · ${progress.note}` : ""}`)) : null);
}

function cards(data) {
  const card = (id, name, value, small) => h("div", { class: "card" }, h("div", { class: "name" }, name), h("div", { class: "value", id }, value), small ? h("div", { class: "small" }, small) : null);
  const spent = data.state === "running" && data.last ? data.seconds + Math.max(0, data.now - data.last) : data.seconds;
  const best = known(data.errors.test_mae_meV_per_atom) ? ["test_mae_meV_per_atom", "test set, last round"]
    : known(data.errors.validation_rmse_meV_per_atom) ? ["validation_rmse_meV_per_atom", "RMSE on validation"] : ["candidate_mae_meV_per_atom", "candidates, before learning"];
  const left = known(data.remaining) ? `about ${duration(Math.max(0, data.remaining - Math.max(0, data.now - data.last)))}` : data.state === "running" ? "not known yet" : "–";
  return h("div", { class: "cards" },
    card("rounds-done", "rounds", `${data.rounds.length}${data.planned ? ` of ${data.planned}` : ""}`, data.planned ? "at most" : ""),
    card("labels-done", "labels done", number(data.labels), `${number(data.kept)} kept for training`),
    card("labels-failed", "labels failed", number(data.failed), Object.entries(data.failures).map(([kind, count]) => `${count} ${kind}`).join(", ")),
    card("labels-queued", "labels queued", number(data.queued), data.queued ? "being computed" : ""),
    card("error", "energy error", known(data.errors[best[0]]) ? [number(data.errors[best[0]]), h("small", {}, " meV/atom")] : "–", best[1]),
    card("time-spent", "time spent", duration(spent), data.state === "running" ? `left: ${left}` : moment(data.last)));
}

function learning(data, context) {
  const rows = data.rounds, traces = [];
  for (const [key, name, color, dash, shape, before] of ERRORS) {
    const x = [], y = [];
    rows.forEach((row, i) => { const at = before ? rows[i - 1]?.labels : row.labels; if (known(row[key]) && row[key] > 0 && known(at)) { x.push(at); y.push(row[key]); } });
    if (x.length) traces.push(line(name, x, y, COLORS[color], { mode: "lines+markers", line: { dash }, marker: { size: 7, symbol: shape, color: COLORS[color] } }));
  }
  if (!traces.length) return h("section", {}, h("h2", {}, "Error against labels"), empty("No round has told an error yet."));
  if (data.published) traces.push(reference(data.published.label.replace("\n", "<br>"), data.published.computed, data.published.error, { color: seen("--soft"), mode: "lines+markers", marker: { symbol: "x", size: 7 }, hoverinfo: "all" }));
  const ends = [Math.min(...traces.flatMap((t) => t.x)), Math.max(...traces.flatMap((t) => t.x))];
  if (known(data.target_meV_per_atom)) traces.push(reference("target", ends[0] === ends[1] ? [ends[0] * 0.9, ends[1] * 1.1] : ends, [data.target_meV_per_atom, data.target_meV_per_atom]));
  const wide = ends[1] > 8 * ends[0];
  return h("section", {}, h("h2", {}, "Error against labels"),
    figure(context, "learning-curve", { title: "Learning curve", x: "labels computed", y: "energy error (meV/atom)", traces, xaxis: wide ? logarithmic : {}, yaxis: logarithmic,
      caption: "Candidates are structures that the network chose itself, judged before it learned them: where walks look for its mistakes they are harder than the test set.",
      numbers: table(["round", "labels", ...ERRORS.map((e) => e[1])], rows.map((row) => [row.round, row.labels, ...ERRORS.map((e) => row[e[0]])]), { caption: "meV/atom" }) }));
}

function sets(data) {
  const heads = ["config type", "structures", "energy MAE (meV/atom)", "RMSE", "bias", "scatter", "force MAE (meV/Å)", "RMSE", "largest"];
  const keys = ["energy_mae", "energy_rmse", "energy_bias", "energy_scatter", "force_mae", "force_rmse", "force_max"];
  const found = Object.entries(data.sets).filter(([, rows]) => rows.length);
  if (!found.length) return null;
  return h("section", {}, h("h2", {}, "Errors of the model"),
    found.map(([name, rows]) => table(heads, rows.map((row) => [row.name, row.structures, ...keys.map((key) => row[key])]), { caption: `${name} set`, id: `errors-${name}` })),
    h("p", { class: "aside" }, "Bias is the mean error and scatter the standard deviation about it: a constant shift of the energy moves no atom. Force errors are per Cartesian component."));
}

function cost(data, context) {
  const stages = [...new Set(data.rounds.flatMap((row) => Object.keys(row.seconds || {})))];
  if (!stages.length) return null;
  const x = data.rounds.map((row) => row.round);
  const traces = stages.map((stage, i) => ({ type: "bar", name: stage, x, y: data.rounds.map((row) => row.seconds?.[stage] ?? 0), marker: { color: COLORS[i % COLORS.length] }, hovertemplate: "%{y:.3~g} s" }));
  return h("section", {}, h("h2", {}, "Where the time went"),
    figure(context, "seconds", { title: "Seconds by stage", x: "round", y: "time (s)", traces, more: { barmode: "stack" }, xaxis: whole }));
}

function rounds(data) {
  if (!data.rounds.length) return null;
  const total = (row) => Object.values(row.seconds || {}).reduce((sum, value) => sum + (value || 0), 0);
  return h("section", {}, h("h2", {}, "Rounds"),
    table(["round", "labels", "kept", "failed", "candidates MAE", "bias", "scatter", "training RMSE", "validation RMSE", "test MAE", "time"],
      data.rounds.map((row) => [row.round, row.labels, row.kept, row.failed, row.candidate_mae_meV_per_atom, row.candidate_bias_meV_per_atom, row.candidate_scatter_meV_per_atom,
        row.train_rmse_meV_per_atom, row.validation_rmse_meV_per_atom, row.test_mae_meV_per_atom, duration(total(row))]), { caption: "energy errors in meV/atom", id: "rounds" }));
}

function stops(data) {
  const named = { labels: "labels computed", kept: "structures kept", rounds_without_news: "rounds without news", scatter_meV_per_atom: "scatter of new labels below (meV/atom)",
    failed_labels: "failed labels that pause it", least_kept: "structures kept before any other rule counts" };
  const pairs = Object.entries(data.stop).map(([key, value]) => [named[key] ?? words(key), String(value)]);
  if (data.planned) pairs.unshift(["rounds", `at most ${data.planned}`]);
  return pairs.length ? h("section", { id: "stop" }, h("h2", {}, "When it stops"), facts(pairs)) : null;
}

function usage(data, context) {
  if (!data.has_model) return null;
  const model = about.folder || `path/to/${context.run}`;
  return h("section", {}, h("h2", {}, "How to use the model"),
    h("p", {}, "Errors on labeled structures of your own:"), h("pre", { tabindex: 0 }, `alj evaluate ${model} DATA.extxyz --json errors.json`),
    h("p", {}, "Energies, forces and uncertainties in ASE:"),
    h("pre", { tabindex: 0 }, `import ase.io\nfrom alj.calculator import load\n\natoms = ase.io.read("structure.extxyz")\natoms.calc = load("${model}")\nprint(atoms.get_potential_energy())              # eV\nprint(atoms.get_forces())                        # eV/Å\nprint(atoms.calc.results["forces_uncertainty"])  # eV/Å, std over the committee`));
}

function where(data) {
  const machine = data.machine || {};
  return h("section", {}, h("h2", {}, "Where it ran"), h("div", { class: "wide" }, facts([
    ["started", moment(data.started)], ["seed", known(data.seed) ? `${data.seed}, ${data.precision ?? ""}` : null],
    ["machine", machine.host ? `${machine.host}, ${machine.processors ?? "?"} processors, ${machine.system ?? ""}` : null],
    ["command", machine.command], ["versions", Object.entries(data.versions || {}).map(([k, v]) => `${k} ${v}`).join(", ")]])),
    data.notes.length ? h("details", {}, h("summary", {}, "Notes of the run"), h("ul", {}, data.notes.map((note) => h("li", {}, note)))) : null);
}
