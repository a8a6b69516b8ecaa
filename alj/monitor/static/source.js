// Where data come from: the server, or what the report holds.

const held = document.getElementById("data");
const stored = held === null ? null : JSON.parse(held.textContent);

export const live = stored === null;
export const about = stored?.about ?? {};

const marks = new Map();

// Data of an address, and whether they differ from the last answer.
async function ask(path, query) {
  const address = `${path}?${new URLSearchParams(query)}`;
  let answer;
  try {
    answer = await fetch(address, { cache: "no-cache", credentials: "same-origin" });
  } catch {
    throw new Error("the monitor does not answer; is it still running?");
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error(body.error || `status ${answer.status}`), { status: answer.status });
  const mark = answer.headers.get("etag");
  const changed = mark === null || marks.get(address) !== mark;
  marks.set(address, mark);
  return { data: body, changed };
}

export async function runs() {
  return live ? ask("/api/runs", {}) : { data: stored.runs, changed: false };
}

export async function page(run, name) {
  if (live) return ask("/api/page", { run, page: name });
  const data = stored.pages[name];
  if (data === undefined) throw new Error("this page is not in the report");
  if (data.error) throw new Error(data.error);
  return { data, changed: false };
}

export async function structure(run, index) {
  if (live) return (await ask("/api/structure", { run, index })).data;
  const found = stored.structures[index];
  if (!found) throw new Error("the report holds the geometries of some structures only; alj monitor shows all of them");
  return found;
}

// An array that was packed as base64.
export function unpacked(packed) {
  if (!packed) return null;
  const text = atob(packed.data);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  return packed.dtype === "int32" ? new Int32Array(bytes.buffer) : new Float32Array(bytes.buffer);
}
