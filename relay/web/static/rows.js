// Messages as the rows of a table, and what an event changes in them.

import { h } from "./dom.js";
import { count, duration, lanesOf, stateOf, toneOf } from "./format.js";
import { cell, moment, pill, row } from "./parts.js";
import { go } from "./router.js";

export const MOST_ROWS = 500;
export const COLUMNS = [
  ["Accepted", "when"],
  ["To", "to"],
  ["Subject", "subject"],
  ["Lane", "lane"],
  ["State", "state"],
  ["Upstream", "upstream"],
  ["Took", "number"],
];

// The cells of the first four COLUMNS.
export function aboutCells(message) {
  const [first = {}] = message.recipients;
  const others = message.recipients.length - 1;
  return [
    cell("Accepted", "when", moment(message.accepted_at)),
    cell(
      "To",
      "to",
      h("a", { class: "row", href: `/m/${message.id}` }, first.address || message.id),
      others > 0 && h("small", {}, ` +${count(others)}`),
    ),
    cell("Subject", "subject", message.subject || h("span", { class: "faint" }, "no subject")),
    cell("Lane", "lane", lanesOf(message).join(", ")),
  ];
}

export function messageRow(message) {
  const receive = message.timings_ms.receive;
  const upstreams = [...new Set(message.recipients.map((one) => one.upstream).filter(Boolean))];
  return row(
    message.id,
    opening(message.id),
    ...aboutCells(message),
    cell(
      "State",
      "state",
      pill(stateOf(message), toneOf(message.recipients.map((one) => one.state))),
      message.recipients.some(isDelivered) && h("small", {}, " delivered"),
    ),
    cell("Upstream", "upstream", upstreams.join(", ") || "–"),
    cell(
      "Took",
      "number",
      duration(message.timings_ms.total),
      message.hint && h("small", { class: "warn", title: message.hint }, `app ${duration(receive)}`),
    ),
  );
}

const isDelivered = (recipient) => recipient.state === "sent" && recipient.delivered_at;

// What makes a whole row open its message. A click that ends a selection of text is none.
export function opening(id) {
  return {
    tabindex: "-1",
    class: "opens",
    onclick: (event) => {
      if (event.target.closest("a, button, input, label") || !document.getSelection().isCollapsed) return;
      go(`/m/${id}`);
    },
  };
}

const STATE_AFTER = {
  sent: "sent",
  deferred: "deferred",
  bounced: "bounced",
  expired: "expired",
  superseded: "superseded",
  suppressed: "suppressed",
  held: "held",
  ambiguous: "ambiguous",
};

// Whether the event changed the message. What an ESP reports of mail that was sent leaves it sent, but for a bounce.
export function applyEvent(message, event) {
  const recipient = message.recipients.find((one) => one.address === event.recipient);
  if (!recipient) return false;
  const isFinal = event.permanent && ["bounced", "rejected", "failed"].includes(event.kind);
  if (event.source === "esp") {
    if (event.kind === "delivered") recipient.delivered_at = event.at;
    else if (isFinal) recipient.state = "bounced";
    else return false;
    return true;
  }
  const state = STATE_AFTER[event.kind];
  if (!state) return false;
  recipient.state = state;
  if (event.upstream) recipient.upstream = event.upstream;
  if (state === "sent") message.timings_ms = { ...message.timings_ms, total: event.after_ms };
  return true;
}

const RESTS_MS = 4_000;
let movedAt = -Infinity;
document.addEventListener("pointermove", () => (movedAt = performance.now()), { passive: true });

// Whether the reader is at work in the table, so that new rows must wait: scrolled into it, focus or selection in it,
// or the pointer moves on it.
export function isInUse(table) {
  if (!table) return false;
  const body = table.tBodies[0];
  const selection = document.getSelection();
  const hasSelection =
    selection && !selection.isCollapsed && selection.rangeCount && selection.getRangeAt(0).intersectsNode(body);
  const isPointed = body.matches(":hover") && performance.now() - movedAt < RESTS_MS;
  return hasSelection || isPointed || body.contains(document.activeElement) || body.getBoundingClientRect().top < 0;
}
