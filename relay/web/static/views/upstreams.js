// The upstreams: whether each can be used and why not, its sessions, and what it replied.

import { get, wasAborted } from "../api.js";
import { h, morph } from "../dom.js";
import { count, duration } from "../format.js";
import { sessionsOf, upstreamState, upstreamTone, whyOf } from "../lanes.js";
import { on } from "../live.js";
import { empty, failure, loading, pill, table, cell, row } from "../parts.js";
import { titled } from "../router.js";

const EVERY_TICKS = 5; // the stream ticks once a second

export async function show(place) {
  titled("Upstreams");
  const list = h("div", { class: "upstreams" });
  place.root.append(
    h("h1", {}, "Upstreams"),
    h("p", { class: "lead" }, "Replies are counted since the relay started."),
    list,
  );
  const view = { list, upstreams: null, live: null, error: null, signal: place.signal };
  draw(view);
  let ticks = 0;
  on(
    "live",
    (live) => {
      view.live = live;
      ticks += 1;
      if (ticks % EVERY_TICKS === 0 && !document.hidden) load(view);
      else draw(view);
    },
    place.signal,
  );
  await load(view);
  place.ready();
}

async function load(view) {
  try {
    view.upstreams = await get("/api/upstreams", { signal: view.signal });
    view.error = null;
  } catch (error) {
    if (wasAborted(error)) return;
    view.error = view.upstreams ? null : error;
  }
  draw(view);
}

function draw(view) {
  if (view.error) return morph(view.list, [failure(view.error, () => load(view))]);
  if (!view.upstreams) return morph(view.list, [loading()]);
  morph(
    view.list,
    view.upstreams.length ? view.upstreams.map((one) => card(one, view.live)) : [empty("No upstream is configured.")],
  );
}

function card(upstream, live) {
  const lanes = Object.entries(upstream.lanes).map(([lane, health]) => [
    lane,
    latest(live, lane, upstream.name) || health,
  ]);
  const place = upstream.host ? `${upstream.host}${upstream.port ? `:${upstream.port}` : ""}` : "";
  const about = [
    upstream.preset && `preset ${upstream.preset}`,
    upstream.via && `by ${upstream.via.toUpperCase()}`,
    place,
    upstream.webhook ? "events by webhook" : "no webhook",
  ];
  return h(
    "article",
    { class: "card", "data-key": upstream.name },
    h("header", {}, h("h2", {}, upstream.name), pill(upstream.up ? "up" : "not up", upstream.up ? "ok" : "bad")),
    h("p", { class: "faint" }, about.filter(Boolean).join(" · ")),
    table(
      `Lanes of ${upstream.name}`,
      [
        ["Lane", ""],
        ["State", ""],
        ["Sessions", ""],
        ["Kept open", ""],
        ["Window", "number"],
      ],
      lanes.map(laneRow),
      { class: "plain" },
    ),
    ...lanes.flatMap(([lane, health]) => paces(lane, health)),
    h("h3", {}, "Replies by code"),
    replies(upstream.replies || {}),
  );
}

const latest = (live, lane, name) => live && live.lanes[lane] && live.lanes[lane].upstreams[name];

function laneRow([lane, health]) {
  const why = whyOf(health);
  return row(
    lane,
    {},
    cell("Lane", "", lane),
    cell("State", "wide", upstreamState(health), why && h("p", { class: `why ${upstreamTone(health.state)}` }, why)),
    cell("Sessions", "", sessionsOf(health) || "none open"),
    cell("Kept open", "", health.warm ? `${health.warm.sessions} – ${health.warm.reason}` : "–"),
    cell("Window", "number", health.window === undefined ? "no limit" : count(health.window)),
  );
}

function paces(lane, { p95 = [] }) {
  if (!p95.length) return [];
  const items = p95.map((one) =>
    h(
      "li",
      {},
      `${one.provider}: ${duration(one.p95_ms)} to the ${one.to}`,
      h("small", {}, ` of ${count(one.samples)}`),
    ),
  );
  return [h("h3", {}, `What ${lane} learnt: p95 by mailbox provider`), h("ul", { class: "chips small" }, items)];
}

const toneOfCode = (code) => ({ 2: "ok", 3: "idle", 4: "warn", 5: "bad" })[String(code)[0]] || "idle";

function replies(codes) {
  const known = Object.entries(codes)
    .filter(([, number]) => number > 0)
    .sort();
  if (!known.length) return h("p", { class: "faint" }, "None yet.");
  return h(
    "ul",
    { class: "codes" },
    known.map(([code, number]) => h("li", {}, pill(code, toneOfCode(code)), " ", count(number))),
  );
}
