// The time line as a table with a bar in each row: what is drawn stands there as numbers, too.

import { h, svg } from "./dom.js";
import { duration } from "./format.js";
import { axisOf, barsOf } from "./timeline.js";

const LEAST = 0.5; // percent: what is short has to be seen

export function chart(message, recipient) {
  const bars = barsOf(message, recipient);
  if (!bars.length) return h("p", { class: "empty" }, "No phase is over yet.");
  const axis = axisOf(bars);
  const rows = [];
  let group;
  for (const bar of bars) {
    if (bar.group && bar.group !== group) rows.push(heading((group = bar.group), bar.attempt));
    rows.push(line(bar, axis));
  }
  return h(
    "table",
    { class: "chart" },
    h("caption", { class: "visually-hidden" }, `Phases of the mail to ${recipient.address}, from the app's final dot`),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        h("th", { scope: "col" }, "Phase"),
        h("th", { scope: "col", class: "axis" }, scale(axis)),
        h("th", { scope: "col", class: "number" }, "Starts"),
        h("th", { scope: "col", class: "number" }, "Takes"),
      ),
    ),
    h("tbody", {}, rows),
    axis.gaps.length > 0 && h("tfoot", {}, h("tr", {}, h("td", { colspan: 4 }, gapNote(axis.gaps)))),
  );
}

const gapNote = (gaps) =>
  `Grey: ${gaps.length > 1 ? "waits" : "a wait"} of ${gaps.map((gap) => duration(gap.length)).join(", ")}, not drawn to scale.`;

function heading(text, attempt) {
  const about = attempt
    ? ` · ${attempt.via || "smtp"}, ${attempt.session === "none" ? "no session" : `${attempt.session} session`}`
    : "";
  return h("tr", { class: "group" }, h("th", { colspan: 4, scope: "rowgroup" }, text, h("small", {}, about)));
}

function line(bar, axis) {
  const x = axis.x(bar.start);
  const end = axis.x(bar.start + bar.length);
  const width = Math.max(LEAST, end - x);
  const left = Math.min(x, 100 - width);
  return h(
    "tr",
    { class: bar.kind },
    h("th", { scope: "row", title: bar.note }, bar.label),
    h(
      "td",
      { class: "axis" },
      drawing(axis, svg("rect", { class: `bar ${bar.kind}`, x: left, y: 0.25, width, height: 0.5 })),
    ),
    h("td", { class: "number" }, bar.start <= -0.05 ? `−${duration(-bar.start)}` : duration(Math.max(0, bar.start))),
    h("td", { class: "number strong" }, duration(bar.length)),
  );
}

function drawing(axis, ...bars) {
  const lines = axis.ticks.map(({ at }) => svg("line", { class: "tick", x1: at, x2: at, y1: 0, y2: 1 }));
  const gaps = axis.gaps.map(({ at, width }) => svg("rect", { class: "gap", x: at, y: 0, width, height: 1 }));
  return svg(
    "svg",
    { class: "bars", viewBox: "0 0 100 1", preserveAspectRatio: "none", "aria-hidden": "true" },
    gaps,
    lines,
    bars,
  );
}

// The marks' times. Text would be stretched with the drawing, so it has one that isn't.
function scale(axis) {
  const marks = axis.ticks.map(({ at, ms }) =>
    svg(
      "text",
      { x: `${at}%`, y: "12", "text-anchor": at < 4 ? "start" : "middle" },
      ms === 0 ? "final dot" : duration(ms),
    ),
  );
  return [h("span", { class: "visually-hidden" }, "Bar"), svg("svg", { class: "scale", "aria-hidden": "true" }, marks)];
}
