// The frame of all pages: which run, which page, light or dark, and what is new every few seconds.

import { h, replace, words } from "./dom.js";
import { about, live, page, runs } from "./source.js";
import { overview } from "./overview.js";
import { dataMap } from "./map.js";
import { uncertainty } from "./uncertainty.js";
import { training } from "./training.js";
import { physics } from "./physics.js";
import { failures } from "./failures.js";
import { several } from "./runs.js";

const SECONDS = 2.5;
const PAGES = {
  overview: ["Overview", overview], map: ["Map", dataMap], uncertainty: ["Uncertainty", uncertainty], training: ["Training", training], physics: ["Physics", physics], failures: ["Failures", failures],
  configuration: ["Configuration", (data) => [h("h2", {}, "run.yaml, every default filled in"), h("pre", { tabindex: 0 }, data.text)]],
};

const main = document.getElementById("main"), bar = document.getElementById("bar"), foot = document.getElementById("foot");
let known = [], context = null, shown = "", turn = 0, problem = "", comparing = false;

function place() {
  const query = new URLSearchParams(location.hash.slice(1));
  const run = query.get("run") ?? (known.length === 1 && !comparing ? known[0].name : "");
  const wanted = query.get("page") ?? (run ? "overview" : "runs");
  return { run, page: wanted in PAGES && run ? wanted : "runs" };
}
const link = (run, name) => `#${new URLSearchParams({ run, page: name })}`;

function contextFor(run) {
  const waiting = [];
  return { run, figures: new Map(), kept: {}, later: (act) => { waiting.push(act); }, drawn: () => Promise.all(waiting.splice(0).map((act) => act())) };
}

function header({ run, page: name }) {
  const one = known.find((row) => row.name === run);
  const choice = comparing ? h("span", { class: "runname" }, "comparison") : known.length > 1 ? h("label", { class: "choice" }, h("span", { class: "hidden" }, "run"), h("select", { id: "run", onchange: (event) => { location.hash = event.target.value ? link(event.target.value, name === "runs" ? "overview" : name) : "#"; } },
    h("option", { value: "" }, "all runs"), known.map((row) => h("option", { value: row.name, selected: row.name === run }, row.name)))) : null;
  const tabs = Object.entries(PAGES).map(([key, [title]]) => h("a", { href: link(run, key), "aria-current": key === name ? "page" : null }, title));
  replace(bar, h("div", { class: "top" }, h("a", { class: "brand", href: known.length > 1 ? "#" : link(run, "overview") }, "alj"), choice ?? h("span", { class: "runname" }, run),
    one ? h("span", { class: `state ${one.state}` }, one.state) : null, h("span", { class: "grow" }),
    h("button", { type: "button", class: "quiet", id: "theme", onclick: other, "aria-label": "light or dark" }, dark() ? "light" : "dark")),
    run ? h("nav", { "aria-label": "pages" }, known.length > 1 ? h("a", { href: "#" }, "All runs") : null, tabs) : null);
}

async function show({ fresh = false } = {}) {
  const mine = (turn += 1), where = place(), name = `${where.run} ${where.page}`;
  let answer;
  try {
    // both at once; what cannot be is told once the runs are known
    const asked = where.page === "runs" ? null : page(where.run, where.page);
    asked?.catch(() => {});
    const list = await runs();
    if (mine !== turn) return;
    known = list.data.runs; comparing = Boolean(list.data.comparison);
    const again = place();
    if (again.page !== where.page || again.run !== where.run) { show({ fresh }); return; }
    answer = asked === null ? list : await asked;
  } catch (error) {
    if (mine === turn) { header(where); fail(error, name); }
    return;
  }
  if (mine !== turn) return;
  const moved = shown !== name;
  if (!moved && !answer.changed && !fresh && !problem) return;
  if (moved || context === null || problem) { context = contextFor(where.run); }
  problem = ""; shown = name;
  header(where);
  const open = new Set([...main.querySelectorAll("details[open]")].map(path)), [left, top] = [window.scrollX, window.scrollY], focus = document.activeElement?.id;
  const content = where.page === "runs" ? several(answer.data, context, (run) => link(run, "overview")) : PAGES[where.page][1](answer.data, context);
  replace(main, content);
  main.dataset.page = where.page;
  if (!moved) for (const details of main.querySelectorAll("details")) if (open.has(path(details))) details.open = true;
  const figures = context.drawn();
  if (moved) window.scrollTo(0, 0); else { window.scrollTo(left, top); if (focus && document.activeElement?.id !== focus) document.getElementById(focus)?.focus({ preventScroll: true }); }
  document.title = `${where.run || "runs"} – ${where.page === "runs" ? "alj" : words(where.page)}`;
  await figures;
  if (mine === turn || shown === name) main.dataset.ready = name;
}

const path = (details) => details.dataset.hash ?? `${details.closest("figure,section")?.id ?? ""} ${details.querySelector("summary")?.textContent ?? ""}`;

function fail(error, name) {
  problem = error.message;
  const gone = error.status === 404 ? " It may have been moved or deleted." : "";
  if (shown !== name || error.status) { shown = name; replace(main, h("p", { class: "problem", role: "alert" }, error.message + "." + gone)); } else replace(foot, h("p", { class: "problem", role: "alert" }, error.message));
  main.dataset.ready = name;
}

const dark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

function other() {
  document.documentElement.dataset.theme = dark() ? "light" : "dark";
  try { localStorage.setItem("theme", document.documentElement.dataset.theme); } catch { /* a file may not store anything */ }
  context = null; shown = ""; show({ fresh: true });
}

try { if (localStorage.getItem("theme")) document.documentElement.dataset.theme = localStorage.getItem("theme"); } catch { /* as above */ }
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { shown = ""; context = null; show({ fresh: true }); });
window.addEventListener("hashchange", () => show());
replace(foot, h("p", {}, live ? "alj monitor reads the run folder and writes nothing; this page is new every few seconds." : `Written by alj ${about.version ?? ""} on ${about.written ?? ""}.`));
await show();
if (live) setInterval(() => { if (!document.hidden) show(); }, 1000 * SECONDS);
