// Limits that were hit: how often since the relay started, and by whom lately.

import { get, wasAborted } from "../api.js";
import { h, morph, paced } from "../dom.js";
import { count } from "../format.js";
import { on } from "../live.js";
import { cell, empty, failure, loading, moment, row, table } from "../parts.js";
import { titled } from "../router.js";
import { opening } from "../rows.js";

const EVERY_MS = 5_000;
const LATEST = 200;

export async function show(place) {
  titled("Limits");
  const body = h("div", {});
  const view = { body, counts: null, events: null, error: null, signal: place.signal };
  place.root.append(
    h("h1", {}, "Limits"),
    h(
      "p",
      { class: "lead" },
      "A limit keeps codes from being used against their recipients: more than it allows is refused, delayed, demoted to the default lane, or only noted.",
    ),
    body,
  );
  const again = paced(() => load(view), EVERY_MS, place.signal);
  // A refusal leaves no event of a message, so this also asks again from time to time.
  on("live", () => !document.hidden && again(), place.signal);
  draw(view);
  await load(view);
  place.ready();
}

async function load(view) {
  try {
    const { signal } = view;
    [view.counts, view.events] = await Promise.all([
      get("/api/limits", { signal }),
      get(`/api/events?kind=limited&since=24h&limit=${LATEST}`, { signal }),
    ]);
    view.error = null;
  } catch (error) {
    if (wasAborted(error)) return;
    view.error = view.counts ? null : error;
  }
  draw(view);
}

function draw({ body, counts, events, error }) {
  if (error) return morph(body, [failure(error, null)]);
  if (!counts) return morph(body, [loading()]);
  morph(body, [
    h(
      "section",
      { class: "list", "data-key": "counts" },
      h("h2", {}, "Hit since the relay started"),
      counts.length
        ? table(
            "Limits hit",
            [
              ["Lane", ""],
              ["Limit", ""],
              ["Action", ""],
              ["Times", "number"],
            ],
            counts.map(countRow),
          )
        : empty("No limit was hit."),
    ),
    h(
      "section",
      { class: "list", "data-key": "events" },
      h("h2", {}, "Latest, within 24 hours"),
      events.length
        ? table(
            "Latest",
            [
              ["When", "when"],
              ["To", "to"],
              ["Lane", "lane"],
              ["Why", "subject"],
            ],
            [...events].reverse().map(eventRow),
          )
        : empty("No accepted message was limited. What a limit refused is counted above, and has no message."),
    ),
  ]);
}

const countRow = ({ lane, limit, action, count: times }) =>
  row(
    `${lane} ${limit} ${action}`,
    {},
    cell("Lane", "", lane),
    cell("Limit", "", limit),
    cell("Action", "", action),
    cell("Times", "number", count(times)),
  );

const eventRow = (event) =>
  row(
    event.id,
    opening(event.message),
    cell("When", "when", moment(event.at)),
    cell("To", "to", h("a", { class: "row", href: `/m/${event.message}` }, event.recipient)),
    cell("Lane", "lane", event.lane),
    cell("Why", "subject", event.reason || "–"),
  );
