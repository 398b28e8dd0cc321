// One message: what became of it in a sentence, the time line of each recipient, its attempts and events, the actions.

import { ACTIONS, act, applies, LABELS } from "../actions.js";
import * as access from "../access.js";
import { get, wasAborted } from "../api.js";
import { chart } from "../chart.js";
import { h, morph, paced, update } from "../dom.js";
import { count, dateTime, duration, lanesOf, many, size, stateOf, toneOf } from "../format.js";
import { on } from "../live.js";
import { failure, loading, moment, pill, resultLine, statePill } from "../parts.js";
import { back, titled } from "../router.js";

const OPEN_RECIPIENTS = 3;
const MOST_RECIPIENTS = 50;

export async function show(place) {
  const id = decodeURIComponent(place.match[1]);
  const body = h("div", { class: "message" });
  const result = resultLine();
  const view = { id, body, result, message: null, error: null, all: false, signal: place.signal };
  titled(id);
  place.root.append(
    h("p", { class: "crumbs" }, h("a", { href: "/", onclick: (event) => goBack(event) }, "← Messages")),
    result,
    body,
  );
  const again = paced(() => load(view, update), 300, place.signal);
  on("mail", (event) => event.message === (view.message ? view.message.id : id) && again(), place.signal);
  on("back", again, place.signal);
  draw(view);
  await Promise.all([load(view), access.known()]);
  if (!place.signal.aborted) draw(view);
  place.ready();
}

function goBack(event) {
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  back("/");
}

// `write`: how the page is changed, `update` where the reader did nothing.
async function load(view, write = morph) {
  try {
    view.message = await get(`/api/messages/${encodeURIComponent(view.id)}`, { signal: view.signal });
    view.error = null;
  } catch (error) {
    if (wasAborted(error)) return;
    view.error = view.message ? null : error;
  }
  draw(view, write);
}

function draw(view, write = morph) {
  const { message, error } = view;
  if (error) return write(view.body, [h("h1", {}, `Message ${view.id}`), failure(error, () => load(view))]);
  if (!message) return write(view.body, [h("h1", {}, `Message ${view.id}`), loading()]);
  const shown = view.all ? message.recipients : message.recipients.slice(0, MOST_RECIPIENTS);
  const hidden = message.recipients.length - shown.length;
  write(view.body, [
    head(view, message),
    facts(message),
    ...shown.map((recipient, at) => recipientPart(message, recipient, at)),
    hidden > 0 &&
      h(
        "p",
        { "data-key": "more" },
        h(
          "button",
          { type: "button", onclick: () => showAll(view) },
          `Show ${many(hidden, "more recipient", "more recipients")}`,
        ),
      ),
    notes(message),
  ]);
}

function showAll(view) {
  view.all = true;
  draw(view);
}

const statesOf = (message) => message.recipients.map((one) => one.state);

function head(view, message) {
  const states = statesOf(message);
  const there = access.mayChange() ? ACTIONS.filter((action) => applies(action, states)) : [];
  return h(
    "header",
    { class: "verdict", "data-key": "head" },
    h(
      "p",
      { class: "over" },
      pill(stateOf(message), toneOf(states)),
      " ",
      h("span", { class: "subject" }, message.subject || "no subject"),
    ),
    h("h1", {}, verdictOf(message)),
    h(
      "div",
      { class: "buttons" },
      there.map((action) =>
        h(
          "button",
          {
            type: "button",
            "data-key": action,
            class: action === "drop" ? "danger" : "",
            onclick: () => change(view, action),
          },
          LABELS[action],
        ),
      ),
      h("button", { type: "button", class: "quiet", "data-key": "copy", onclick: () => copyLink(view) }, "Copy link"),
    ),
  );
}

function verdictOf(message) {
  if (message.verdict) return message.verdict;
  const [first] = message.recipients;
  if (message.recipients.length === 1)
    return `${first.state[0].toUpperCase()}${first.state.slice(1)}${first.upstream ? ` by ${first.upstream}` : ""}`;
  return stateOf(message);
}

async function change(view, action) {
  const { message, result } = view;
  const states = statesOf(message);
  const number = states.filter((state) => applies(action, [state])).length;
  const what =
    message.recipients.length === 1 ? "this message" : `${number} of ${many(message.recipients.length, "recipient")}`;
  try {
    const said = await act(action, what, { ids: [message.id] }, states);
    if (said === null) return;
    result.say(said);
  } catch (error) {
    result.say(`Not done: ${error.message}`, "bad");
  }
  await load(view);
  // The button may be gone, and the focus with it.
  if (document.activeElement === document.body) (view.body.querySelector(".buttons button") || view.body).focus();
}

async function copyLink(view) {
  const link = `${location.origin}/m/${view.message.id}`;
  try {
    await navigator.clipboard.writeText(link);
    view.result.say("The link is copied.");
  } catch {
    view.result.say(link, "idle"); // without TLS a browser gives no clipboard
  }
}

function facts(message) {
  const known = [
    ["Id", h("code", {}, message.id)],
    ["Lane", `${lanesOf(message).join(", ")}${message.rule ? `, by rule ${message.rule}` : ", no rule matched"}`],
    ["Accepted", moment(message.accepted_at)],
    ["Expires", moment(message.expires_at)],
    ["From", message.sender || "<> (a bounce)"],
    ["Client", message.client],
    ["Message-ID", h("code", {}, message.message_id)],
    ["Size", size(message.size)],
    ["Signed", message.signed.length ? `with ${message.signed.join(", ")}` : "no"],
    ["Content", message.content && `the detector saw ${message.content}`],
    ["Priority", message.priority],
    ["Deliver by", message.deliver_by],
    ["Trace", message.trace && h("code", {}, message.trace)],
  ];
  const there = known.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h(
    "section",
    { class: "card facts", "aria-label": "Facts", "data-key": "facts" },
    h(
      "dl",
      {},
      there.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
    ),
    message.hint && h("p", { class: "note warn" }, message.hint),
  );
}

function recipientPart(message, recipient, at) {
  const isOne = message.recipients.length === 1;
  const place = recipient.lane && recipient.lane !== message.lane ? `lane ${recipient.lane}` : "";
  const summary = [
    h("span", { class: "address" }, recipient.address),
    statePill(recipient.state),
    recipient.delivered_at && pill("delivered", "ok"),
    place && h("small", {}, place),
  ];
  const content = [
    !isOne && recipient.verdict && h("p", { class: "lead" }, recipient.verdict),
    next(recipient),
    h("h3", {}, "Time line"),
    chart(recipient.timings_ms ? { ...message, timings_ms: recipient.timings_ms } : message, recipient),
    attempts(recipient),
    events(recipient),
  ];
  const key = `to-${at}`;
  if (isOne) return h("section", { class: "card recipient", "data-key": key }, h("h2", {}, summary), content);
  return h(
    "details",
    {
      class: "card recipient",
      "data-key": key,
      open: at < OPEN_RECIPIENTS && message.recipients.length <= OPEN_RECIPIENTS,
    },
    h("summary", {}, h("h2", {}, summary)),
    h("div", { class: "stack" }, content),
  );
}

function next(recipient) {
  if (!recipient.next_at) return null;
  return h("p", { class: "lead" }, "Next try: ", moment(recipient.next_at));
}

const OUTCOMES = { sent: "ok", deferred: "warn", refused: "bad", ambiguous: "warn", abandoned: "idle" };

function attempts(recipient) {
  const made = Array.isArray(recipient.attempts) ? recipient.attempts : [];
  const items = made.map((attempt) => {
    const took = Object.values(attempt.timings_ms).reduce((sum, ms) => sum + ms, 0);
    return h(
      "li",
      { "data-key": String(attempt.n) },
      h(
        "p",
        {},
        h("b", {}, `${attempt.n}. ${attempt.upstream}`),
        " ",
        pill(attempt.outcome, OUTCOMES[attempt.outcome] || "idle"),
        h("small", {}, ` ${attempt.session} session, ${duration(took)}, `, moment(attempt.started_at)),
      ),
      h("p", { class: "reply" }, h("code", {}, attempt.reply)),
    );
  });
  return [
    h("h3", {}, "Attempts"),
    items.length ? h("ol", { class: "log" }, items) : h("p", { class: "faint" }, recipient.reply || "None yet."),
  ];
}

const EVENT_TONES = {
  sent: "ok",
  delivered: "ok",
  deferred: "warn",
  held: "warn",
  ambiguous: "warn",
  limited: "warn",
  complained: "warn",
  bounced: "bad",
  rejected: "bad",
  failed: "bad",
  expired: "bad",
  suppressed: "bad",
};

function events(recipient) {
  const items = (recipient.events || []).map((event) =>
    h(
      "li",
      { "data-key": event.id },
      h(
        "p",
        {},
        pill(event.kind, EVENT_TONES[event.kind] || "idle"),
        h(
          "small",
          {},
          ` ${dateTime(event.at)}, `,
          `${duration(event.after_ms)} after acceptance, said by ${event.source === "esp" ? event.upstream || "the ESP" : "the relay"}`,
          event.permanent ? ", for good" : "",
        ),
      ),
      event.reason && h("p", { class: "reply" }, h("code", {}, event.reason)),
    ),
  );
  return [
    h("h3", {}, "Events"),
    items.length ? h("ol", { class: "log" }, items) : h("p", { class: "faint" }, "None yet."),
  ];
}

function notes(message) {
  if (!message.notes.length) return null;
  const items = message.notes.map((note, at) =>
    h("li", { "data-key": String(at) }, h("p", {}, h("small", {}, moment(note.at), " "), note.text)),
  );
  return h(
    "section",
    { class: "card", "data-key": "notes" },
    h("h2", {}, `Notes`, h("small", {}, ` ${count(items.length)}`)),
    h("ol", { class: "log" }, items),
  );
}
