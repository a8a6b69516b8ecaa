// Training: a curve for every member, live, and predicted against reference values.

import { empty, h, known, number, table } from "./dom.js";
import { COLORS, figure, line, logarithmic, points, reference } from "./charts.js";

export function training(data, context) {
  const parts = [curves(data, context), ...Object.entries(data.parity).map(([name, one]) => parity(name, one, context))].filter(Boolean);
  return parts.length ? parts : [empty("No training has told its curves yet.")];
}

const titled = (one) => (one.round === null ? "training" : one.stage === "refit" ? `refit after round ${one.round}` : `round ${one.round}`);

function curves(data, context) {
  if (!data.trainings.length) return null;
  const last = data.trainings.length - 1;
  const select = h("select", { id: "training-round", onchange: () => { context.kept.training = select.value; draw(); } }, data.trainings.map((one, i) => h("option", { value: i }, titled(one))));
  select.value = context.kept.training && Number(context.kept.training) < last ? context.kept.training : String(last);
  const place = h("div", {});
  function draw() {
    const one = data.trainings[Number(select.value)], members = one.train[0]?.length ?? 0, traces = [];
    for (let m = 0; m < members; m += 1) {
      const color = COLORS[m % COLORS.length], of = (rows) => rows.map((row) => (known(row?.[m]) && row[m] > 0 ? row[m] : null));
      traces.push(line(`member ${m + 1}`, one.steps, of(one.train), color, { mode: one.steps.length < 60 ? "lines+markers" : "lines", marker: { size: 4 } }));
      const validation = of(one.validation);
      if (validation.some(known)) traces.push(line(`member ${m + 1}, validation`, one.steps, validation, color, { line: { dash: "dot" } }));
    }
    place.replaceChildren(figure(context, "training-curves", { title: `Curves of the members, ${titled(one)}`, x: "step", y: one.quantity, traces, yaxis: logarithmic,
      caption: "Solid: what a member learns from; dotted: what it does not see.",
      numbers: table(["step", ...Array.from({ length: members }, (_, m) => `member ${m + 1}`)], one.steps.map((step, i) => [step, ...one.train[i]]), { id: "training-numbers" }) }));
    if (drawnOnce) context.drawn();
    drawnOnce = true;
  }
  let drawnOnce = false;
  draw();
  return h("section", {}, h("h2", {}, "Training curves"), data.trainings.length > 1 ? h("div", { class: "controls" }, h("label", {}, "training ", select)) : null, place);
}

function parity(name, one, context) {
  const panels = Object.entries(one).map(([quantity, part]) => {
    const small = quantity === "energy" ? "meV/atom" : "meV/Å", known_ = [...part.reference, ...part.predicted].filter(known);
    const ends = [Math.min(...known_), Math.max(...known_)], kinds = [...new Set(part.kinds)].sort();
    const traces = kinds.length > 1 ? kinds.map((kind, i) => {
      const mine = part.kinds.map((k, j) => (k === kind ? j : -1)).filter((j) => j >= 0);
      return points(plainText(kind) || "unnamed", mine.map((j) => part.reference[j]), mine.map((j) => part.predicted[j]), COLORS[i % COLORS.length]);
    }) : [points(`${name} set`, part.reference, part.predicted, COLORS[0])];
    traces.push(reference("equal", ends, ends));
    const title = quantity === "energy" ? "Energies" : "Force components";
    return figure(context, `parity-${name}-${quantity}`, { title: `${title}, ${name} set`, x: `reference (${part.unit})`, y: `predicted (${part.unit})`, traces,
      caption: `MAE ${number(part.mae)} ${small}, RMSE ${number(part.rmse)} ${small}, of ${part.count}${part.reference.length < part.count ? `; ${part.reference.length} are drawn` : ""}.` });
  });
  return h("section", {}, h("h2", {}, `Parity, ${name} set`), h("div", { class: "pair" }, panels));
}

// plotly reads a few tags in names: text from structures must not become one.
export const plainText = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
