// The lanes as they are now: what was sent how fast, what failed, what waits, and through whom it can go.

import { h, svg } from "./dom.js";
import { count, duration, many, share } from "./format.js";

const BANDS = [
  ["excellent", "under 10 s"],
  ["good", "under 30 s"],
  ["acceptable", "under 60 s"],
  ["poor", "under 2 min"],
  ["late", "2 min or more"],
  ["expired", "too old, never sent"],
  ["bounced", "refused for good"],
];
const LEAST_SHARE = 1.5; // percent of the bar: one failure in a thousand has to be seen
const GAP = 0.35;

// The recipients by band. Those that never arrived are told apart from those that arrived too late.
export function bandsOf({ bands, ended }) {
  const { bounced = 0, expired = 0 } = ended || {};
  const late = Math.max(0, (bands.failed || 0) - bounced - expired);
  return { ...bands, late, expired, bounced };
}

export function bandBar(lane) {
  const counts = bandsOf(lane);
  const there = BANDS.filter(([band]) => counts[band] > 0);
  const all = there.reduce((sum, [band]) => sum + counts[band], 0);
  const wide = there.map(([band]) => Math.max(LEAST_SHARE, (100 * counts[band]) / all));
  const scale = (100 - GAP * (there.length - 1)) / wide.reduce((sum, width) => sum + width, 0);
  const text = there.map(([band, means]) => `${count(counts[band])} ${band} (${means})`).join(", ") || "nothing yet";
  const bar = svg("svg", {
    class: "bands",
    viewBox: "0 0 100 1",
    preserveAspectRatio: "none",
    role: "img",
    "aria-label": text,
  });
  let x = 0;
  there.forEach(([band], at) => {
    bar.append(svg("rect", { class: `band ${band}`, x, y: 0, width: wide[at] * scale, height: 1 }));
    x += wide[at] * scale + GAP;
  });
  const legend = there.map(([band, means]) =>
    h(
      "li",
      { title: means },
      swatch(band),
      h("b", {}, count(counts[band])),
      ` ${band} `,
      h("small", {}, share(counts[band], all)),
    ),
  );
  return [bar, h("ul", { class: "legend" }, legend.length ? legend : h("li", {}, "No delivery yet"))];
}

const swatch = (band) =>
  svg(
    "svg",
    { class: "swatch", viewBox: "0 0 10 10", "aria-hidden": "true" },
    svg("rect", { class: `band ${band}`, width: 10, height: 10, rx: 2.5 }),
  );

function spark(times) {
  const text = times.length
    ? `the latest ${many(times.length, "delivery", "deliveries")}: ${duration(Math.min(...times))} to ${duration(Math.max(...times))}`
    : "no delivery yet";
  const box = svg("svg", {
    class: "spark",
    viewBox: "0 0 100 30",
    preserveAspectRatio: "none",
    role: "img",
    "aria-label": text,
  });
  if (times.length > 1) {
    const top = Math.max(...times) || 1;
    const points = times.map(
      (ms, at) => `${((at * 100) / (times.length - 1)).toFixed(2)},${(28 - (25 * ms) / top).toFixed(2)}`,
    );
    box.append(
      svg("polygon", { points: `0,30 ${points.join(" ")} 100,30` }),
      svg("polyline", { points: points.join(" ") }),
    );
  }
  return box;
}

const UPSTREAM_STATES = { up: "ok", untried: "idle", "half-open": "warn", down: "bad" };

export const upstreamTone = (state) => UPSTREAM_STATES[state] || "idle";

export function upstreamState(health) {
  return h(
    "span",
    { class: `pill ${upstreamTone(health.state)}` },
    health.state === "half-open" ? "half-open: being tried" : health.state,
  );
}

export const sessionsOf = ({ sessions = {} }) =>
  Object.entries(sessions)
    .filter(([, number]) => number)
    .map(([state, number]) => `${number} ${state}`)
    .join(", ");

// Why it isn't up: the phase, and what the upstream replied, whose code stands in both.
export function whyOf({ reason = "", words = "" }) {
  const code = reason.slice(reason.indexOf(": ") + 2);
  if (words.startsWith(code)) return reason.slice(0, reason.length - code.length) + words;
  return [reason, words].filter(Boolean).join(": ");
}

function upstream(name, health) {
  const sessions = sessionsOf(health);
  const why = whyOf(health);
  return h(
    "li",
    { "data-key": name },
    h("span", { class: "name" }, name),
    upstreamState(health),
    sessions && h("small", {}, sessions),
    why && h("p", { class: `why ${upstreamTone(health.state)}` }, why),
  );
}

// A lane can send while one of its upstreams may be tried.
export const canSend = (lane) =>
  lane.can_send ?? Object.values(lane.upstreams).some(({ state }) => state === "up" || state === "untried");

const QUEUE = ["sending", "queued", "deferred", "held", "ambiguous"];

function waiting(name, lane) {
  const there = QUEUE.filter((state) => lane.queue[state] > 0);
  if (!there.length) return h("p", { class: "waiting" }, "Nothing waits");
  const links = there.map((state, at) => [
    at ? ", " : "",
    h(
      "a",
      { "data-key": state, href: `/queue?lane=${encodeURIComponent(name)}&state=${state}` },
      `${count(lane.queue[state])} ${state}`,
    ),
  ]);
  const age = lane.oldest_ms ? `, oldest ${duration(lane.oldest_ms)}` : "";
  return h("p", { class: "waiting" }, "In the queue: ", links, age);
}

function card(name, lane, windowMs) {
  const isAble = canSend(lane);
  const figures = [
    ["p50", lane.p50_ms],
    ["p95", lane.p95_ms],
    ["slowest", lane.max_ms],
  ];
  return h(
    "article",
    { "data-key": name, class: isAble ? "card lanecard" : "card lanecard stuck" },
    h(
      "header",
      {},
      h("h2", {}, name, lane.express && h("small", { class: "tag" }, "express")),
      isAble
        ? h("p", {}, `${count(lane.sent)} sent in ${duration(windowMs)}`)
        : h("p", { class: "bad" }, "can't send now"),
    ),
    h("div", { class: "pace" }, h("dl", { class: "figures" }, figures.map(figure)), spark(lane.latest_ms)),
    bandBar(lane),
    waiting(name, lane),
    h(
      "ul",
      { class: "chips", "aria-label": `Upstreams of ${name}` },
      Object.entries(lane.upstreams).map((one) => upstream(...one)),
    ),
  );
}

const figure = ([label, ms]) => h("div", {}, h("dt", {}, label), h("dd", {}, duration(ms)));

// A card for each lane, those with codes first.
export function cards(live) {
  const lanes = Object.entries(live.lanes).sort(([, one], [, other]) => Boolean(other.express) - Boolean(one.express));
  return lanes.map(([name, lane]) => card(name, lane, live.window_ms));
}
