// The report: by lane, upstream and mailbox provider, how fast mail went and what became of it.

import { get, wasAborted, withQuery } from "../api.js";
import { h, morph } from "../dom.js";
import { count, dateTime, duration, many, share } from "../format.js";
import { bandBar } from "../lanes.js";
import { cell, empty, failure, field, loading, options, pill, row, table } from "../parts.js";
import { setUrl, titled } from "../router.js";

const SINCE = [
  ["1h", "last hour"],
  ["24h", "last 24 hours"],
  ["7d", "last 7 days"],
  ["30d", "last 30 days"],
];
const COLUMNS = [
  ["Lane", ""],
  ["Upstream", ""],
  ["Provider", ""],
  ["Recipients", "number"],
  ["p50", "number"],
  ["p95", "number"],
  ["p99", "number"],
  ["Inbox p50", "number"],
  ["Inbox p95", "number"],
  ["Bounced", "number"],
  ["Expired", "number"],
];

export async function show(place) {
  titled("Report");
  const view = { place, since: place.query.get("since") || "24h", body: h("div", {}) };
  const known = SINCE.some(([value]) => value === view.since) ? SINCE : [...SINCE, [view.since, `since ${view.since}`]];
  const select = h(
    "select",
    {
      onchange: (event) => {
        view.since = event.target.value;
        setUrl(withQuery("/report", { since: view.since }), false);
        load(view);
      },
    },
    options(known, view.since),
  );
  place.root.append(
    h("h1", {}, "Report"),
    h(
      "p",
      { class: "lead" },
      "Times run from the app's final dot: to the upstream's 250, and to the inbox where the upstream reports it.",
    ),
    h(
      "form",
      { class: "filters filterline", "aria-label": "Filters", onsubmit: (event) => event.preventDefault() },
      field("Finished in the", select),
      h("button", { type: "button", onclick: () => load(view) }, "Refresh"),
    ),
    view.body,
  );
  await load(view);
  place.ready();
}

async function load(view) {
  if (view.request) view.request.abort();
  const request = (view.request = new AbortController());
  const { place, body } = view;
  place.signal.addEventListener("abort", () => request.abort());
  if (body.firstChild) body.classList.add("busy");
  else morph(body, [loading()]);
  try {
    const report = await get(withQuery("/api/report", { since: view.since }), {
      signal: request.signal,
      withinMs: 60_000,
    });
    morph(body, shown(report));
  } catch (error) {
    if (wasAborted(error)) return;
    morph(body, [failure(error, () => load(view))]);
  }
  body.classList.remove("busy");
}

function shown(report) {
  if (!report.lanes.length) return [empty("No mail finished in this time.")];
  return [
    h("div", { class: "lanes", "data-key": "lanes" }, report.lanes.map(laneCard)),
    h(
      "section",
      { class: "list", "data-key": "lines" },
      h("h2", {}, "By upstream and mailbox provider"),
      table("By upstream and mailbox provider", COLUMNS, report.lines.map(line), { class: "dense" }),
    ),
    h("p", { class: "faint", "data-key": "as-of" }, `As of ${dateTime(new Date())}, since ${dateTime(report.since)}.`),
  ];
}

function laneCard(lane) {
  const ended = { bounced: lane.states.bounced, expired: lane.states.expired };
  const figures = [
    ["p50", lane.p50_ms],
    ["p95", lane.p95_ms],
    ["p99", lane.p99_ms],
  ];
  const inbox = [
    ["p50", lane.inbox.p50_ms],
    ["p95", lane.inbox.p95_ms],
    ["p99", lane.inbox.p99_ms],
  ];
  return h(
    "article",
    { class: "card lanecard", "data-key": lane.lane },
    h("header", {}, h("h2", {}, lane.lane), h("p", {}, many(lane.recipients, "recipient"))),
    objective(lane.objective),
    h("h3", {}, "To the upstream"),
    h("dl", { class: "figures" }, figures.map(figure)),
    h("h3", {}, "To the inbox"),
    lane.inbox.delivered
      ? h("dl", { class: "figures" }, inbox.map(figure))
      : h("p", { class: "faint" }, "No upstream reported a delivery."),
    bandBar({ bands: lane.bands, ended }),
    h("p", { class: "faint" }, rates(lane)),
  );
}

const figure = ([label, ms]) => h("div", {}, h("dt", {}, label), h("dd", {}, duration(ms)));

function objective(one) {
  if (!one) return null;
  const wanted = `${share(one.wanted_share, 1)} within ${duration(one.within_ms).replace(".0", "")}`;
  if (!one.total) return h("p", { class: "objective" }, pill("no mail yet", "idle"), ` ${wanted}`);
  return h(
    "p",
    { class: "objective" },
    pill(one.met ? "objective met" : "objective missed", one.met ? "ok" : "bad"),
    ` ${share(one.good, one.total)}; objective: ${wanted}`,
  );
}

function rates({ rates: found, slow_receive }) {
  const known = ["superseded", "suppressed", "resent", "complained", "unsubscribed"].filter((name) => found[name] > 0);
  const parts = known.map((name) => `${share(found[name], 1)} ${name}`);
  if (slow_receive) parts.push(`${many(slow_receive, "recipient")} whose app handed over slowly`);
  return parts.join(", ");
}

function line(one) {
  const key = `${one.lane} ${one.upstream} ${one.provider}`;
  const number = (name, text) => cell(name, "number", text);
  return row(
    key,
    {},
    cell("Lane", "", one.lane),
    cell("Upstream", "", one.upstream || "none"),
    cell("Provider", "", one.provider || "–"),
    number("Recipients", count(one.recipients)),
    number("p50", duration(one.p50_ms)),
    number("p95", duration(one.p95_ms)),
    number("p99", duration(one.p99_ms)),
    number("Inbox p50", duration(one.inbox.p50_ms)),
    number("Inbox p95", duration(one.inbox.p95_ms)),
    number("Bounced", one.rates.bounced ? share(one.rates.bounced, 1) : "–"),
    number("Expired", one.rates.expired ? share(one.rates.expired, 1) : "–"),
  );
}
