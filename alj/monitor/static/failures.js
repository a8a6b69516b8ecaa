// Labels that failed: why, the end of the engine's log, and the structure that it failed on.

import { duration, empty, h, moment, words } from "./dom.js";
import { about, unpacked } from "./source.js";
import { formula, molecule } from "./molecule.js";

export function failures(data, context) {
  if (!data.failures.length) return [h("h2", {}, "Failed labels"), empty("No label has failed.")];
  const folder = about.folder || context.run;
  return [h("h2", {}, "Failed labels"),
    h("p", { id: "failure-counts" }, `${data.total} in all: ${Object.entries(data.kinds).map(([kind, count]) => `${count} ${words(kind)}`).join(", ")}.`,
      data.failures.length < data.total ? ` The newest ${data.failures.length} are shown.` : ""),
    h("p", { class: "aside" }, "Second chances: ", h("code", {}, `alj relabel ${folder}`), "; all as text: ", h("code", {}, `alj status ${folder} --failures`)),
    data.failures.map((row) => one(row))];
}

function one(row) {
  const shape = row.structure && { species: unpacked(row.structure.species), positions: unpacked(row.structure.positions), cell: unpacked(row.structure.cell) };
  const place = h("div", { class: "viewer" });
  const detail = h("details", { class: "failure", "data-hash": row.hash },
    h("summary", {}, h("span", { class: "kind" }, words(row.kind)), h("span", { class: "message" }, row.message || "no message"), h("span", { class: "aside" }, `${shape ? formula(shape.species) : ""} · ${moment(row.time)}`)),
    h("div", { class: "split" }, h("div", {},
      h("p", { class: "aside" }, `${row.engine} on ${row.host ?? "?"}, ${duration(row.seconds)}, ${row.attempts} attempt${row.attempts > 1 ? "s" : ""}, hash ${row.hash.slice(0, 12)}`),
      row.log_tail ? h("pre", { class: "log", tabindex: 0 }, row.log_tail) : empty("The engine left no log.")), place));
  detail.addEventListener("toggle", () => { if (detail.open && shape && !place.firstChild) place.append(molecule(shape)); });
  return detail;
}
