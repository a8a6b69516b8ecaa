// A map of up to some 10^5 points on a canvas. plotly's own fast scatter needs WebGL and code made at run time, which the
// page's security policy forbids; its slow one takes seconds for so many.

import { h } from "./dom.js";
import { seen } from "./charts.js";

const CELLS = 160;
const ROUGH = 30000; // points drawn while the map moves
const PAD = 14;

// `draw({x, y, colors, groups, nodes})` shows points; `onpick(index)` is told what was clicked.
export function scatterMap({ onpick, onhover, label }) {
  const canvas = h("canvas", { class: "map", tabindex: 0, role: "application", "aria-label": label });
  const tip = h("div", { class: "tip", hidden: true });
  const element = h("div", { class: "mapbox" }, canvas, tip);
  let data = null, grid = null, home = null, view = null, chosen = -1, waiting = 0, moving = false, rest = 0;

  function show(next) {
    const same = data && data.x === next.x;
    data = next;
    if (!same) { grid = gridOf(next.x, next.y); home = grid.bounds; view = { ...home }; chosen = Math.min(chosen, next.x.length - 1); }
    again();
  }
  const again = () => { if (!waiting) waiting = requestAnimationFrame(paint); };

  function size() { return [canvas.clientWidth || 600, canvas.clientHeight || 480]; }
  function places() {
    const [wide, high] = size();
    const scale = Math.min((wide - 2 * PAD) / (view.right - view.left), (high - 2 * PAD) / (view.top - view.bottom));
    const [cx, cy] = [(view.left + view.right) / 2, (view.top + view.bottom) / 2];
    return { scale, px: (x) => wide / 2 + scale * (x - cx), py: (y) => high / 2 - scale * (y - cy), ux: (p) => cx + (p - wide / 2) / scale, uy: (p) => cy - (p - high / 2) / scale };
  }

  function paint() {
    waiting = 0;
    if (!data) return;
    const [wide, high] = size(), ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(wide * ratio)) canvas.width = Math.round(wide * ratio);
    if (canvas.height !== Math.round(high * ratio)) canvas.height = Math.round(high * ratio);
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, wide, high);
    const { scale, px, py } = places(), count = data.x.length;
    const stride = moving && count > ROUGH ? Math.ceil(count / ROUGH) : 1;
    const side = count > 20000 ? 2 : count > 2000 ? 4 : 7, round = count <= 4000;
    const [ox, oy] = [px(0), py(0)];
    pen.globalAlpha = count > 20000 ? 0.6 : 0.85;
    for (const [color, members] of data.groups) {
      pen.fillStyle = color;
      for (let m = 0; m < members.length; m += stride) {
        const i = members[m], x = ox + scale * data.x[i], y = oy - scale * data.y[i];
        if (!(x > -side && y > -side && x < wide + side && y < high + side)) continue;
        if (round) { pen.beginPath(); pen.arc(x, y, side / 2, 0, 6.2832); pen.fill(); } else pen.fillRect(x - side / 2, y - side / 2, side, side);
      }
    }
    pen.globalAlpha = 1;
    if (data.nodes) nodes(pen, px, py);
    if (chosen >= 0 && Number.isFinite(data.x[chosen])) {
      pen.beginPath(); pen.arc(px(data.x[chosen]), py(data.y[chosen]), side / 2 + 5, 0, 6.2832);
      pen.lineWidth = 4; pen.strokeStyle = seen("--panel"); pen.stroke();
      pen.lineWidth = 2; pen.strokeStyle = seen("--ink"); pen.stroke();
    }
    element.dataset.drawn = String(count);
  }

  function nodes(pen, px, py) {
    const { places: spots, edges, colors } = data.nodes;
    pen.strokeStyle = seen("--soft"); pen.lineWidth = 1;
    for (let e = 0; e + 1 < (edges?.length ?? 0); e += 2) {
      const [a, b] = [edges[e], edges[e + 1]];
      pen.beginPath(); pen.moveTo(px(spots[2 * a]), py(spots[2 * a + 1])); pen.lineTo(px(spots[2 * b]), py(spots[2 * b + 1])); pen.stroke();
    }
    for (let k = 0; 2 * k < spots.length; k += 1) {
      pen.beginPath(); pen.arc(px(spots[2 * k]), py(spots[2 * k + 1]), 5, 0, 6.2832);
      pen.fillStyle = seen("--panel"); pen.fill(); pen.lineWidth = 2; pen.strokeStyle = colors[k]; pen.stroke();
    }
  }

  function nearest(event) {
    if (!data) return -1;
    const box = canvas.getBoundingClientRect(), { scale, ux, uy } = places();
    return grid.nearest(ux(event.clientX - box.left), uy(event.clientY - box.top), 14 / scale);
  }
  function settle() { clearTimeout(rest); moving = true; again(); rest = setTimeout(() => { moving = false; again(); }, 160); }
  function zoomed(factor, x, y) {
    const keep = (low, high, at) => [at - (at - low) * factor, at + (high - at) * factor];
    const [left, right] = keep(view.left, view.right, x), [bottom, top] = keep(view.bottom, view.top, y);
    if (right - left > 8 * (home.right - home.left) || right - left < 1e-5 * (home.right - home.left)) return;
    view = { left, right, bottom, top }; settle();
  }
  function choose(index, tell = true) { chosen = index; again(); if (tell && index >= 0) onpick(index); }

  let held = null;
  canvas.addEventListener("pointerdown", (event) => { held = { x: event.clientX, y: event.clientY, view: { ...view }, far: false }; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", (event) => {
    if (held) {
      const [dx, dy] = [event.clientX - held.x, event.clientY - held.y];
      if (Math.hypot(dx, dy) > 4) held.far = true;
      if (!held.far) return;
      const { scale } = places();
      view = { left: held.view.left - dx / scale, right: held.view.right - dx / scale, bottom: held.view.bottom + dy / scale, top: held.view.top + dy / scale };
      settle();
      return;
    }
    const index = nearest(event);
    canvas.style.cursor = index >= 0 ? "pointer" : "grab";
    tip.hidden = index < 0;
    if (index >= 0) {
      tip.textContent = onhover(index);
      const box = canvas.getBoundingClientRect(), [wide] = size(), x = event.clientX - box.left;
      Object.assign(tip.style, { left: x > wide / 2 ? "auto" : `${x + 14}px`, right: x > wide / 2 ? `${wide - x + 14}px` : "auto", top: `${event.clientY - box.top + 10}px` });
    }
  });
  canvas.addEventListener("pointerup", (event) => { const far = held?.far; held = null; if (!far) { const index = nearest(event); if (index >= 0) choose(index); } });
  canvas.addEventListener("pointercancel", () => { held = null; });
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
  canvas.addEventListener("dblclick", () => { view = { ...home }; again(); });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = canvas.getBoundingClientRect(), { ux, uy } = places();
    zoomed(Math.exp(event.deltaY / 500), ux(event.clientX - box.left), uy(event.clientY - box.top));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    if (!data) return;
    const count = data.x.length, middle = [(view.left + view.right) / 2, (view.bottom + view.top) / 2];
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -10, ArrowDown: 10 }[event.key];
    if (step) {
      let next = chosen < 0 ? 0 : chosen + step;
      next = Math.min(Math.max(next, 0), count - 1);
      while (next > 0 && next < count - 1 && !Number.isFinite(data.x[next])) next += Math.sign(step);
      choose(next);
    } else if (event.key === "Home") choose(0);
    else if (event.key === "End") choose(count - 1);
    else if (event.key === "+" || event.key === "=") zoomed(1 / 1.3, ...middle);
    else if (event.key === "-") zoomed(1.3, ...middle);
    else if (event.key === "0") { view = { ...home }; again(); } else return;
    event.preventDefault();
  });
  new ResizeObserver(again).observe(canvas);
  return { element, canvas, show, choose, where: (index) => { const { px, py } = places(); return [px(data.x[index]), py(data.y[index])]; } };
}

// Points by cell, so that the nearest one is found without asking all of them.
function gridOf(x, y) {
  let [left, right, bottom, top] = [Infinity, -Infinity, Infinity, -Infinity];
  for (let i = 0; i < x.length; i += 1) {
    if (!Number.isFinite(x[i]) || !Number.isFinite(y[i])) continue;
    left = Math.min(left, x[i]); right = Math.max(right, x[i]); bottom = Math.min(bottom, y[i]); top = Math.max(top, y[i]);
  }
  if (!(right > left)) { left = (Number.isFinite(left) ? left : 0) - 1; right = left + 2; }
  if (!(top > bottom)) { bottom = (Number.isFinite(bottom) ? bottom : 0) - 1; top = bottom + 2; }
  const column = (value) => Math.min(CELLS - 1, Math.max(0, Math.floor(((value - left) / (right - left)) * CELLS)));
  const row = (value) => Math.min(CELLS - 1, Math.max(0, Math.floor(((value - bottom) / (top - bottom)) * CELLS)));
  const starts = new Int32Array(CELLS * CELLS + 1), cells = new Int32Array(x.length).fill(-1);
  for (let i = 0; i < x.length; i += 1) if (Number.isFinite(x[i]) && Number.isFinite(y[i])) { cells[i] = row(y[i]) * CELLS + column(x[i]); starts[cells[i] + 1] += 1; }
  for (let c = 0; c < CELLS * CELLS; c += 1) starts[c + 1] += starts[c];
  const fill = starts.slice(), members = new Int32Array(starts[CELLS * CELLS]);
  for (let i = 0; i < x.length; i += 1) if (cells[i] >= 0) { members[fill[cells[i]]] = i; fill[cells[i]] += 1; }
  function nearest(atX, atY, reach) {
    let best = -1, least = reach * reach;
    for (let r = row(atY - reach); r <= row(atY + reach); r += 1) for (let c = column(atX - reach); c <= column(atX + reach); c += 1) {
      for (let m = starts[r * CELLS + c]; m < starts[r * CELLS + c + 1]; m += 1) {
        const i = members[m], d = (x[i] - atX) ** 2 + (y[i] - atY) ** 2;
        if (d < least) { least = d; best = i; }
      }
    }
    return best;
  }
  return { bounds: { left, right, bottom, top }, nearest };
}
