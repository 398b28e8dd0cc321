"use strict";
// All content comes from the API as text: nodes are made here and filled through textContent, never as HTML.

const EVERY_MS = 1000;
const WITHIN_MS = 5000;
const SVG = "http://www.w3.org/2000/svg";
const BANDS = ["excellent", "good", "acceptable", "poor", "failed"];

function node(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function drawn(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.round(ms / 60000)} min`;
}

function figures(lane) {
  const list = node("dl", undefined, "figures");
  for (const [label, value] of [["p50", lane.p50_ms], ["p95", lane.p95_ms], ["slowest", lane.max_ms]]) {
    const pair = node("div");
    pair.append(node("dt", label), node("dd", duration(value)));
    list.append(pair);
  }
  return list;
}

function spark(times) {
  const box = drawn("svg", { class: "spark", viewBox: "0 0 100 40", preserveAspectRatio: "none", "aria-hidden": "true" });
  if (times.length > 1) {
    const top = Math.max(...times, 1);
    const points = times.map((ms, at) => `${(at * 100) / (times.length - 1)},${39 - (38 * ms) / top}`);
    box.append(drawn("polyline", { points: points.join(" ") }));
  }
  return box;
}

function bands(lane) {
  const box = drawn("svg", { class: "bands", viewBox: "0 0 100 1", preserveAspectRatio: "none", role: "img" });
  const title = drawn("title", {});
  title.textContent = BANDS.map((band) => `${band}: ${lane.bands[band]}`).join(", ");
  box.append(title);
  const all = BANDS.reduce((sum, band) => sum + lane.bands[band], 0);
  let x = 0;
  for (const band of BANDS) {
    const width = all ? (100 * lane.bands[band]) / all : 0;
    box.append(drawn("rect", { class: band, x, width, y: 0, height: 1 }));
    x += width;
  }
  return box;
}

function waiting(queue) {
  const parts = Object.entries(queue).filter(([, count]) => count > 0).map(([state, count]) => `${count} ${state}`);
  return parts.length ? `waiting: ${parts.join(", ")}` : "nothing waits";
}

function card(name, lane, windowMs) {
  const made = node("article");
  const head = node("h2", name);
  const failed = lane.failed ? `, ${lane.failed} never arrived` : "";
  head.append(node("span", `${lane.sent} sent${failed} in ${duration(windowMs)}`, lane.failed ? "bad" : ""));
  const upstreams = node("ul", undefined, "upstreams");
  for (const [upstream, health] of Object.entries(lane.upstreams)) {
    const item = node("li", `${upstream} ${health.state}`, health.state);
    if (health.warm) item.title = `${health.warm.sessions} warm: ${health.warm.reason}`;
    if (health.reason) item.title = health.words ? `${health.reason}: ${health.words}` : health.reason;
    upstreams.append(item);
  }
  const shares = BANDS.filter((band) => lane.bands[band]).map((band) => `${lane.bands[band]} ${band}`);
  made.append(head, figures(lane), spark(lane.latest_ms), bands(lane));
  made.append(node("p", shares.join(", ") || "no delivery yet"), node("p", waiting(lane.queue)), upstreams);
  return made;
}

// The reader's time with its zone; UTC as the title.
function moment(at) {
  const made = node("td", new Date(at).toLocaleTimeString([], { timeZoneName: "short" }));
  made.title = at;
  return made;
}

function row(message) {
  const made = node("tr");
  const first = message.recipients[0] || {};
  const more = message.recipients.length > 1 ? ` +${message.recipients.length - 1}` : "";
  const time = node("td", duration((message.timings_ms || {}).total), "number");
  if (message.hint) {
    const slow = node("span", `app ${duration(message.timings_ms.receive)}`, "hint");
    slow.title = message.hint;
    time.append(slow);
  }
  made.append(
    moment(message.accepted_at),
    node("td", [...new Set(message.recipients.map((one) => one.lane || message.lane))].join(", ")),
    node("td", `${first.address || ""}${more}`),
    node("td", message.subject, "subject"),
    node("td", first.state, first.state),
    node("td", first.upstream || "–"),
    time,
  );
  return made;
}

async function ask(path) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(WITHIN_MS), cache: "no-store" });
  if (answer.ok) return answer.json();
  const body = await answer.json().catch(() => ({}));
  throw new Error(`${path}: ${answer.status} ${body.error || ""}`.trim());
}

function lost(lanes) {
  const gone = (health) => health.state === "down" || health.state === "half-open";
  return Object.entries(lanes).filter(([, lane]) => Object.values(lane.upstreams).every(gone)).map(([name]) => name);
}

function showStatus(text, good) {
  const status = document.getElementById("status");
  status.textContent = text;
  status.className = good ? "ok" : "bad";
}

async function refresh() {
  try {
    const [live, messages] = await Promise.all([ask("/api/live"), ask("/api/messages?limit=20")]);
    const lanes = Object.entries(live.lanes).map(([name, lane]) => card(name, lane, live.window_ms));
    document.getElementById("lanes").replaceChildren(...lanes);
    document.getElementById("messages").replaceChildren(...messages.map(row));
    document.getElementById("empty").hidden = messages.length > 0;
    document.getElementById("hint").textContent = (messages.find((message) => message.hint) || {}).hint || "";
    if (live.reasons.length) showStatus(`accepts no mail: ${live.reasons.join(", ")}`, false);
    else if (lost(live.lanes).length) showStatus(`accepts mail, but no upstream of ${lost(live.lanes).join(", ")} is up`, false);
    else showStatus("accepts mail", true);
  } catch (error) {
    showStatus(`no answer from the relay (${error.message})`, false);
  }
  setTimeout(refresh, document.hidden ? 5 * EVERY_MS : EVERY_MS);
}

refresh();
