// What waits in the queue, and which part of it an action is about.

import { APPLIES, applies } from "./actions.js";
import { h } from "./dom.js";
import { count, duration, many, size } from "./format.js";

// What waits, in all and by lane.
export function summary(fill, counts) {
  const lanes = new Map();
  for (const one of counts.filter(({ recipients }) => recipients > 0))
    lanes.set(one.lane, [...(lanes.get(one.lane) || []), one]);
  const { messages, bytes, max_messages, free_bytes } = fill;
  const limit = max_messages ? ` of at most ${count(max_messages)}` : "";
  return [
    h(
      "div",
      { class: "card count", "data-key": "all" },
      h("h2", {}, "In all"),
      h("p", { class: "big" }, count(messages), h("small", {}, ` ${messages === 1 ? "message" : "messages"}${limit}`)),
      h("p", { class: "faint" }, `${size(bytes)}, ${size(free_bytes)} of the disk free`),
    ),
    ...[...lanes].map(([lane, rows]) =>
      h(
        "div",
        { class: "card count", "data-key": `lane-${lane}` },
        h("h2", {}, lane),
        h(
          "ul",
          {},
          rows.map((one) =>
            h(
              "li",
              {},
              h("b", {}, count(one.recipients)),
              ` ${one.state}`,
              one.oldest_ms !== null && h("small", {}, `, oldest ${duration(one.oldest_ms)}`),
            ),
          ),
        ),
      ),
    ),
  ];
}

// What the chosen scope is about: the API's selection (`body`), its name (`what`), and the states of its recipients.
// `scope`: "" what is ticked, `lane:NAME`, or `all`.
export function chosenOf({ scope, ticked, messages, document }) {
  if (!scope) return chosenMessages((messages || []).filter((message) => ticked.has(message.id)));
  const lane = scope.startsWith("lane:") ? scope.slice(5) : null;
  const counts = document.lanes.filter((one) => (lane === null || one.lane === lane) && one.recipients > 0);
  const number = (action) =>
    counts.filter((one) => APPLIES[action].includes(one.state)).reduce((sum, one) => sum + one.recipients, 0);
  return {
    body: lane === null ? { all: true } : { lane },
    what: (action) => `${many(number(action), "recipient")} ${lane === null ? "of all lanes" : `of lane ${lane}`}`,
    states: counts.map((one) => one.state),
  };
}

function chosenMessages(messages) {
  const statesOf = (message) => message.recipients.map((one) => one.state);
  return {
    body: { ids: messages.map((message) => message.id) },
    what: (action) => many(messages.filter((message) => applies(action, statesOf(message))).length, "message"),
    states: messages.flatMap(statesOf),
  };
}
