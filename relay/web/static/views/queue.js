// The queue: what waits by lane and state, the messages, and actions on those that are ticked, a lane, or all.

import { ACTIONS, act, applies, LABELS } from "../actions.js";
import * as access from "../access.js";
import { get, wasAborted, withQuery } from "../api.js";
import { h, morph, paced, update } from "../dom.js";
import { addLanes } from "../filters.js";
import { count, stateOf, toneOf, WAITING } from "../format.js";
import { on } from "../live.js";
import { cell, due, empty, failure, field, loading, options, pill, resultLine, row, table } from "../parts.js";
import { setUrl, titled } from "../router.js";
import { aboutCells, isInUse, opening } from "../rows.js";
import { chosenOf, summary } from "../waiting.js";

const EVERY_MS = 2_000;
const LIMIT = 500;
const COLUMNS = [
  ["Tick", "tick"],
  ["Accepted", "when"],
  ["To", "to"],
  ["Subject", "subject"],
  ["Lane", "lane"],
  ["State", "state"],
  ["Last reply", "reply"],
  ["Next try", "when"],
];

export async function show(place) {
  titled("Queue");
  const view = new Queue(place);
  view.start();
}

class Queue {
  constructor(place) {
    this.place = place;
    this.lane = place.query.get("lane") || "";
    this.state = place.query.get("state") || "";
    this.ticked = new Set();
    this.document = null; // the latest answer
    this.messages = null; // those that are shown
    this.error = null;
    this.scope = "";
  }

  start() {
    const { root, signal } = this.place;
    this.result = resultLine();
    this.counts = h("section", { class: "counts", "aria-label": "What waits" });
    this.list = h("section", { class: "list", "aria-labelledby": "waiting" });
    this.bar = h("div", { class: "actionbar", role: "group", "aria-label": "Actions" });
    root.append(h("h1", {}, "Queue"), this.counts, this.form(), this.bar, this.result, this.list);
    this.again = paced(() => this.load(update), EVERY_MS, signal);
    on("mail", () => !document.hidden && this.again(), signal);
    on("back", this.again, signal);
    this.draw();
    this.load().then(() => this.place.ready());
    access.known().then(() => signal.aborted || this.draw());
  }

  form() {
    const lane = h(
      "select",
      { onchange: (event) => this.filter({ lane: event.target.value }) },
      options([["", "all lanes"], ...(this.lane ? [this.lane] : [])], this.lane),
    );
    const state = h(
      "select",
      { onchange: (event) => this.filter({ state: event.target.value }) },
      options([["", "all states"], ...WAITING], this.state),
    );
    this.fields = { lane, state };
    on("live", (live) => addLanes(lane, Object.keys(live.lanes)), this.place.signal);
    return h(
      "form",
      { class: "filters", "data-keep": true, "aria-label": "Filters", onsubmit: (event) => event.preventDefault() },
      h("div", { class: "filterline" }, field("Lane", lane), field("State", state)),
    );
  }

  filter(given) {
    Object.assign(this, given);
    setUrl(withQuery("/queue", { lane: this.lane, state: this.state }), false);
    this.messages = null;
    this.ticked.clear();
    this.draw();
    this.load();
  }

  async load(write) {
    const path = withQuery("/api/queue", { lane: this.lane, state: this.state, limit: LIMIT });
    this.path = path;
    try {
      const found = await get(path, { signal: this.place.signal });
      if (path !== this.path) return; // another filter was chosen meanwhile
      this.document = found;
      this.error = null;
    } catch (error) {
      if (wasAborted(error)) return;
      this.error = this.messages ? null : error;
    }
    if (this.document) this.take();
    this.draw(write);
  }

  // Rows that the reader uses stay where they are: what has left the queue is marked, what came waits.
  take() {
    const latest = new Map(this.document.messages.map((message) => [message.id, message]));
    for (const id of this.ticked) if (!latest.has(id)) this.ticked.delete(id);
    if (!this.messages || !this.isBusy()) {
      this.messages = this.document.messages;
      return;
    }
    this.messages = this.messages.map((message) => latest.get(message.id) || { ...message, isGone: true });
  }

  isBusy() {
    return this.ticked.size > 0 || isInUse(this.list.querySelector("table"));
  }

  isStale() {
    const shown = new Set(this.messages.map((message) => message.id));
    return (
      this.messages.some((message) => message.isGone) ||
      this.document.messages.some((message) => !shown.has(message.id))
    );
  }

  showLatest() {
    this.messages = this.document.messages;
    this.draw();
    document.getElementById("waiting").focus({ preventScroll: true });
  }

  // `write`: how the page is changed, `update` where the reader did nothing.
  draw(write = morph) {
    morph(this.counts, this.document ? summary(this.document.fill, this.document.lanes) : []);
    write(this.bar, access.mayChange() ? this.actions() : []);
    write(this.list, [this.head(), ...this.body()]);
  }

  actions() {
    const { states } = chosenOf(this);
    const lanes = [...new Set((this.document ? this.document.lanes : []).map((one) => one.lane))];
    const scopes = [
      ["", "what is ticked"],
      ...lanes.map((lane) => [`lane:${lane}`, `all of lane ${lane}`]),
      ["all", "the whole queue"],
    ];
    const select = h(
      "select",
      {
        onchange: (event) => {
          this.scope = event.target.value;
          this.draw();
        },
      },
      options(scopes, this.scope),
    );
    const scope = field("Act on", select, "inline");
    [select.id, scope.firstChild.htmlFor] = ["scope", "scope"]; // the same each time it is drawn
    const hint = this.scope
      ? ""
      : this.ticked.size
        ? `${count(this.ticked.size)} ticked`
        : "Tick messages, or choose a lane";
    return [
      scope,
      ...ACTIONS.map((action) =>
        h(
          "button",
          {
            type: "button",
            "data-key": action,
            class: action === "drop" ? "danger" : "",
            disabled: !applies(action, states),
            onclick: () => this.change(action),
          },
          LABELS[action],
        ),
      ),
      h("span", { class: "faint", "data-key": "hint" }, hint),
    ];
  }

  async change(action) {
    const { body, what, states } = chosenOf(this);
    if (!applies(action, states)) return this.result.say("Nothing of it waits any more.", "idle");
    try {
      const said = await act(action, what(action), body, states);
      if (said === null) return;
      this.ticked.clear();
      this.result.say(said);
    } catch (error) {
      this.result.say(`Not done: ${error.message}`, "bad");
    }
    this.messages = null;
    await this.load();
    if (document.activeElement === document.body) document.getElementById("waiting").focus({ preventScroll: true });
  }

  head() {
    const isStale = this.messages && this.document && this.isStale();
    return h(
      "header",
      { class: "listhead", "data-key": "head" },
      h("h2", { id: "waiting", tabindex: "-1" }, "Waiting messages"),
      h("p", { class: "faint" }, "earliest due first"),
      isStale &&
        h(
          "button",
          { type: "button", class: "primary", "data-key": "stale", onclick: () => this.showLatest() },
          "The queue has changed – show",
        ),
    );
  }

  body() {
    if (this.error) return [failure(this.error, () => this.load())];
    if (!this.messages) return [loading()];
    if (!this.messages.length)
      return [empty(this.lane || this.state ? "Nothing in the queue matches." : "The queue is empty.")];
    const columns = access.mayChange() ? [[this.tickAll(), "tick"], ...COLUMNS.slice(1)] : COLUMNS.slice(1);
    const cut =
      this.messages.length >= LIMIT &&
      h(
        "p",
        { class: "faint", "data-key": "cut" },
        `Only the first ${LIMIT} are shown; an action on a lane is about all of them.`,
      );
    return [
      h(
        "div",
        { "data-key": "table" },
        table(
          "Waiting messages",
          columns,
          this.messages.map((message) => this.row(message)),
          { class: "waitlist" },
        ),
      ),
      cut,
    ];
  }

  tickAll() {
    const there = this.messages.filter((message) => !message.isGone);
    const box = h("input", {
      type: "checkbox",
      "aria-label": "Tick all",
      onchange: (event) => {
        this.ticked = new Set(event.target.checked ? there.map((message) => message.id) : []);
        for (const one of this.list.querySelectorAll("tbody input[type=checkbox]:not(:disabled)"))
          one.checked = event.target.checked;
        this.draw();
      },
    });
    return box;
  }

  row(message) {
    const [first = {}] = message.recipients;
    const waits = message.recipients.find((one) => WAITING.includes(one.state)) || first;
    const states = message.recipients.map((one) => one.state);
    const dues = message.recipients
      .map((one) => one.next_at)
      .filter(Boolean)
      .sort();
    const box = h("input", {
      type: "checkbox",
      "aria-label": `Tick the mail to ${first.address}`,
      disabled: message.isGone,
      onchange: (event) => {
        this.ticked[event.target.checked ? "add" : "delete"](message.id);
        this.draw();
      },
    });
    box.checked = this.ticked.has(message.id);
    const given = opening(message.id);
    return row(
      message.id,
      { ...given, class: message.isGone ? "opens gone" : "opens" },
      access.mayChange() && cell("Tick", "tick", h("label", {}, box)),
      ...aboutCells(message),
      cell("State", "state", message.isGone ? pill("left the queue", "idle") : pill(stateOf(message), toneOf(states))),
      cell("Last reply", "reply", waits.reply || "–"),
      cell("Next try", "when", dues.length ? due(dues[0]) : "–"),
    );
  }
}
