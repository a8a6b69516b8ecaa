// One structure in three dimensions, painted from back to front on a canvas: needs no WebGL, which remote desktops lack.

import { h } from "./dom.js";
import { seen } from "./charts.js";

const SYMBOLS = ("X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe "
  + "Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm").split(" ");
// Covalent radii in Å (Cordero et al. 2008, doi 10.1039/b801115j); 1.4 where none is listed.
const RADII = { H: 0.31, Li: 1.28, Be: 0.96, B: 0.84, C: 0.76, N: 0.71, O: 0.66, F: 0.57, Na: 1.66, Mg: 1.41, Al: 1.21, Si: 1.11, P: 1.07, S: 1.05, Cl: 1.02, Ar: 1.06,
  K: 2.03, Ca: 1.76, Ti: 1.6, Cr: 1.39, Mn: 1.5, Fe: 1.42, Co: 1.38, Ni: 1.24, Cu: 1.32, Zn: 1.22, Ga: 1.22, Ge: 1.2, As: 1.19, Se: 1.2, Br: 1.2, Ag: 1.45, I: 1.39, Pt: 1.36, Au: 1.36 };
const TINTS = { H: "#e8e8e8", C: "#6f7680", N: "#3f6fd8", O: "#d8392b", F: "#77c65a", Na: "#9b6bd6", Mg: "#4f9d3a", Al: "#b8a6a6", Si: "#d9b483", P: "#e58b2a", S: "#d9c02c",
  Cl: "#3dbb4c", Ar: "#5fb8c9", K: "#7d4fc0", Ca: "#4fae55", Ti: "#a7abb0", Fe: "#c9703a", Cu: "#c07a3a", Zn: "#7d80b0", Br: "#9a3324", I: "#7f3a9a", Pt: "#b8bcc6", Au: "#e0b531" };
const MOST_BONDS = 1500;

export const symbol = (number) => SYMBOLS[number] ?? `#${number}`;

// "C6H14" in Hill's order.
export function formula(species) {
  const counts = new Map();
  for (const number of species) counts.set(symbol(number), (counts.get(symbol(number)) || 0) + 1);
  const names = [...counts.keys()].sort();
  const first = counts.has("C") ? ["C", "H"].filter((name) => counts.has(name)) : [];
  return [...first, ...names.filter((name) => !first.includes(name))].map((name) => name + (counts.get(name) > 1 ? counts.get(name) : "")).join("");
}

// A canvas that shows `{species, positions, cell}` (flat arrays) and turns with the mouse or the arrow keys.
export function molecule({ species, positions, cell }) {
  const text = `${formula(species)}, ${species.length} atoms`;
  const canvas = h("canvas", { class: "molecule", tabindex: 0, role: "img", "aria-label": `Structure of ${text}; arrow keys turn it, plus and minus zoom` });
  const count = species.length, center = [0, 0, 0];
  for (let i = 0; i < count; i += 1) for (let k = 0; k < 3; k += 1) center[k] += positions[3 * i + k] / count;
  const lattice = [0, 1, 2].map((row) => [...cell.slice(3 * row, 3 * row + 3)]);
  const corners = box(lattice);
  if (corners.length) for (let k = 0; k < 3; k += 1) center[k] = (lattice[0][k] + lattice[1][k] + lattice[2][k]) / 2;
  let reach = 1.5;
  for (let i = 0; i < count; i += 1) reach = Math.max(reach, Math.hypot(...[0, 1, 2].map((k) => positions[3 * i + k] - center[k])) + 0.8);
  for (const [from] of corners) reach = Math.max(reach, Math.hypot(...from.map((v, k) => v - center[k])));
  const pairs = bonds(species, positions, count);
  let turn = turned(turned([1, 0, 0, 0, 1, 0, 0, 0, 1], 0.5, 0), 0, -0.35), zoom = 1, waiting = false;

  function paint() {
    waiting = false;
    const ratio = window.devicePixelRatio || 1, wide = canvas.clientWidth || 320, high = canvas.clientHeight || 320;
    canvas.width = wide * ratio; canvas.height = high * ratio;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const scale = (zoom * 0.46 * Math.min(wide, high)) / reach;
    const project = (p) => {
      const [x, y, z] = p.map((value, k) => value - center[k]);
      return [wide / 2 + scale * (turn[0] * x + turn[1] * y + turn[2] * z), high / 2 - scale * (turn[3] * x + turn[4] * y + turn[5] * z), turn[6] * x + turn[7] * y + turn[8] * z];
    };
    pen.strokeStyle = seen("--soft"); pen.lineWidth = 1;
    for (const [from, to] of corners) {
      const [a, b] = [project(from), project(to)];
      pen.beginPath(); pen.moveTo(a[0], a[1]); pen.lineTo(b[0], b[1]); pen.stroke();
    }
    const atoms = Array.from({ length: count }, (_, i) => project([positions[3 * i], positions[3 * i + 1], positions[3 * i + 2]]));
    const parts = atoms.map((place, i) => [place[2], i, -1]);
    for (const [i, j] of pairs) parts.push([(atoms[i][2] + atoms[j][2]) / 2 - 0.01, i, j]);
    parts.sort((one, other) => one[0] - other[0]);
    for (const [depth, i, j] of parts) {
      if (j < 0) sphere(pen, atoms[i], scale * radius(species[i]), tint(species[i]), depth / reach);
      else stick(pen, atoms[i], atoms[j], Math.max(1.5, 0.13 * scale), tint(species[i]), tint(species[j]));
    }
  }
  const again = () => { if (!waiting) { waiting = true; requestAnimationFrame(paint); } };
  let held = null;
  canvas.addEventListener("pointerdown", (event) => { held = [event.clientX, event.clientY]; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", (event) => {
    if (!held) return;
    turn = turned(turn, (event.clientX - held[0]) / 120, (event.clientY - held[1]) / 120);
    held = [event.clientX, event.clientY]; again();
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { held = null; });
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom = Math.min(Math.max(zoom * Math.exp(-event.deltaY / 600), 0.3), 12); again(); }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-0.2, 0], ArrowRight: [0.2, 0], ArrowUp: [0, -0.2], ArrowDown: [0, 0.2] };
    if (steps[event.key]) turn = turned(turn, ...steps[event.key]);
    else if (event.key === "+" || event.key === "=") zoom = Math.min(zoom * 1.2, 12);
    else if (event.key === "-") zoom = Math.max(zoom / 1.2, 0.3);
    else return;
    event.preventDefault(); again();
  });
  new ResizeObserver(again).observe(canvas);
  again();
  return canvas;
}

const radius = (number) => 0.28 + 0.32 * Math.min(RADII[symbol(number)] ?? 1.4, 1.7);
const tint = (number) => TINTS[symbol(number)] ?? `hsl(${(number * 47) % 360} 45% 55%)`;

function sphere(pen, [x, y], size, color, depth) {
  pen.beginPath(); pen.arc(x, y, size, 0, 2 * Math.PI);
  pen.fillStyle = color; pen.fill();
  const light = pen.createRadialGradient(x - 0.35 * size, y - 0.4 * size, 0.05 * size, x, y, 1.05 * size);
  light.addColorStop(0, "rgba(255,255,255,.75)"); light.addColorStop(0.45, "rgba(255,255,255,0)"); light.addColorStop(1, "rgba(0,0,0,.38)");
  pen.fillStyle = light; pen.fill();
  if (depth < 0) { pen.fillStyle = seenFog(depth); pen.fill(); }
}

const seenFog = (depth) => `rgba(128,128,128,${(0.3 * Math.min(1, -depth)).toFixed(2)})`;

function stick(pen, a, b, width, one, other) {
  const middle = [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
  for (const [from, to, color] of [[a, middle, one], [b, middle, other]]) {
    pen.beginPath(); pen.moveTo(from[0], from[1]); pen.lineTo(to[0], to[1]);
    pen.lineWidth = width + 1.5; pen.strokeStyle = "rgba(0,0,0,.35)"; pen.stroke();
    pen.lineWidth = width; pen.strokeStyle = color; pen.stroke();
  }
}

function bonds(species, positions, count) {
  const found = [];
  if (count > MOST_BONDS) return found;
  for (let i = 0; i < count; i += 1) for (let j = i + 1; j < count; j += 1) {
    const limit = 1.25 * ((RADII[symbol(species[i])] ?? 1.4) + (RADII[symbol(species[j])] ?? 1.4));
    const d = [0, 1, 2].map((k) => positions[3 * i + k] - positions[3 * j + k]);
    if (d[0] * d[0] + d[1] * d[1] + d[2] * d[2] < limit * limit) found.push([i, j]);
  }
  return found;
}

// The twelve edges of the cell; none unless it is periodic in all directions.
function box(lattice) {
  if (lattice.some((row) => row.every((value) => value === 0))) return [];
  const corner = (i, j, k) => [0, 1, 2].map((c) => i * lattice[0][c] + j * lattice[1][c] + k * lattice[2][c]);
  const found = [];
  for (const i of [0, 1]) for (const j of [0, 1]) {
    found.push([corner(0, i, j), corner(1, i, j)], [corner(i, 0, j), corner(i, 1, j)], [corner(i, j, 0), corner(i, j, 1)]);
  }
  return found;
}

// A rotation followed by turns about the vertical and the horizontal axis of the screen.
function turned(m, about_y, about_x) {
  const [cy, sy, cx, sx] = [Math.cos(about_y), Math.sin(about_y), Math.cos(about_x), Math.sin(about_x)];
  const r = [cy, 0, sy, sx * sy, cx, -sx * cy, -cx * sy, sx, cx * cy];
  return Array.from({ length: 9 }, (_, p) => [0, 1, 2].reduce((sum, k) => sum + r[3 * Math.floor(p / 3) + k] * m[3 * k + (p % 3)], 0));
}
