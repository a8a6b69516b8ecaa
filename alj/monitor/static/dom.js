// Elements, tables and numbers. Text from runs becomes text nodes only: nothing of it is ever parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

// An element with properties and children; strings and numbers become text.
export function h(tag, properties = {}, ...children) {
  const node = tag === "svg" || tag === "path" ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(node.style, value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(3)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

export function replace(node, ...children) {
  node.replaceChildren(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const known = (value) => typeof value === "number" && Number.isFinite(value);

// Three significant digits, whole numbers as they are, a dash for what is unknown.
export function number(value, digits = 3) {
  if (!known(value)) return "–";
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(digits - 1);
  return size >= 10 ** digits ? value.toFixed(0) : String(Number(value.toPrecision(digits)));
}

export function duration(seconds) {
  if (!known(seconds)) return "unknown";
  const whole = Math.round(seconds);
  if (whole >= 86400) return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
  if (whole >= 3600) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  if (whole >= 60) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return whole < 10 && whole !== seconds ? `${number(seconds, 2)} s` : `${whole} s`;
}

export function moment(seconds) {
  if (!known(seconds) || seconds === 0) return "–";
  const time = new Date(1000 * seconds);
  const two = (value) => String(value).padStart(2, "0");
  return `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())} ${two(time.getHours())}:${two(time.getMinutes())}`;
}

// Rows of cells under heads; the first column is text unless told otherwise.
export function table(heads, rows, { caption = "", texts = [0], id = null } = {}) {
  const kind = (place) => (texts.includes(place) ? "text" : "");
  const cell = (content) => (content instanceof Node ? content : known(content) ? number(content) : content ?? "–");
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption || "table" },
    h("table", { id },
      caption ? h("caption", {}, caption) : null,
      h("thead", {}, h("tr", {}, heads.map((head, i) => h("th", { class: kind(i), scope: "col" }, head)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((content, i) =>
        i === 0 ? h("th", { class: kind(i), scope: "row" }, cell(content)) : h("td", { class: kind(i) }, cell(content))))))));
}

export function facts(pairs) {
  return h("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value instanceof Node ? value : String(value)))));
}

export const words = (name) => String(name ?? "").replaceAll("_", " ");

export function empty(text) {
  return h("p", { class: "empty" }, text);
}
