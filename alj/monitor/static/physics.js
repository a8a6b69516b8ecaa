// Physics: what the network's matter does, beside the reference and the experiment.

import { empty, h, known, table } from "./dom.js";
import { COLORS, band, figure, line, ofRound, points, seen, whole } from "./charts.js";
import { few } from "./uncertainty.js";
import { plainText } from "./training.js";

export function physics(data, context) {
  if (!data.panels.length) return [empty("Nothing physical has been measured yet; the section properties of a configuration asks for it.")];
  return [h("h2", {}, "Physics"), h("div", { class: "pair" }, data.panels.map((panel, i) => drawn(panel, i, context)))];
}

function drawn(panel, place, context) {
  const rounds = [...new Set(panel.curves.map((curve) => curve.round).filter(known))].sort((a, b) => a - b), shown = new Set(few(rounds));
  const curves = panel.curves.filter((curve) => !known(curve.round) || shown.has(curve.round));
  const traces = [], told = new Set();
  let color = 0;
  for (const curve of curves) {
    const isReference = curve.of !== "network";
    const tint = isReference ? seen(curve.of === "reference" ? "--ink" : "--soft") : known(curve.round) ? ofRound(rounds.indexOf(curve.round), rounds.length) : COLORS[color % COLORS.length];
    if (!isReference && !known(curve.round)) color += 1;
    if (curve.error && curve.x.length > 1 && !curve.markers) traces.push(band(curve.x, curve.y, curve.error, tint));
    const group = plainText(known(curve.round) ? curve.name.split(",")[0] : curve.name).replaceAll("\n", "<br>");
    const more = { legendgroup: group, showlegend: !told.has(group), line: { dash: isReference ? "dash" : "solid", width: isReference ? 2 : 1.6 } };
    told.add(group);
    if (curve.markers) traces.push(points(group, curve.x, curve.y, tint, { marker: { size: curve.points ? 6 : 9, symbol: isReference ? "diamond-open" : "circle" }, error_y: curve.error ? { type: "data", array: curve.error, thickness: 1.2 } : null }));
    else traces.push(line(group, curve.x, curve.y, tint, more));
  }
  for (const mark of panel.marks) traces.push(points(plainText(mark.name), [mark.x], [mark.y], COLORS[4], { marker: { symbol: "star", size: 13, opacity: 1, line: { color: seen("--ink"), width: 0.7 } } }));
  return figure(context, `physics-${place}`, { title: panel.title, x: plainText(panel.x), y: plainText(panel.y), traces, xaxis: panel.x === "round" || panel.x === "training" ? whole : {}, caption: panel.caption,
    numbers: table(["curve", "points", "highest", "where"], curves.slice(0, 24).map((curve) => {
      const high = Math.max(...curve.y.filter(known));
      return [curve.name, curve.x.length, high, curve.x[curve.y.indexOf(high)]];
    })) });
}
