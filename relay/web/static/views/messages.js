// The first page: the lanes now, and the messages, newest first, as they come.

import { ask, wasAborted, withQuery } from "../api.js";
import { h, morph, paced, update } from "../dom.js";
import * as filters from "../filters.js";
import { count, dateTime } from "../format.js";
import { cards } from "../lanes.js";
import { on } from "../live.js";
import { empty, failure, loading, table } from "../parts.js";
import { setUrl, titled } from "../router.js";
import { applyEvent, COLUMNS, isInUse, messageRow, MOST_ROWS } from "../rows.js";

const FIRST_ROWS = 100;
const NEW_EVERY_MS = 1_000;
const AGAIN_EVERY_MS = 3_000;

let kept = null; // the list that the reader left: back shows it at once

export function show(place) {
  titled("Messages");
  const view = new Messages(place);
  view.start();
}

class Messages {
  constructor(place) {
    this.place = place;
    this.filters = filters.fromQuery(place.query);
    this.rows = null;
    this.waiting = []; // newer messages that are not shown yet
    this.searchedSince = null;
    this.error = null;
    this.limit = FIRST_ROWS;
    this.request = null;
    this.typedUrl = null;
    this.opened = null;
  }

  start() {
    const { signal, root, isBack } = this.place;
    if (isBack && kept && kept.url === filters.toUrl(this.filters)) Object.assign(this, kept.state);
    this.lanes = h("div", { class: "lanes" });
    this.list = h("section", { class: "list", "aria-labelledby": "newest" });
    const form = filters.form(this.filters, {
      changed: (given, isTyping) => this.change(given, isTyping),
      entered: () => this.focusFirst(),
      signal,
    });
    const lanes = h("section", { "aria-label": "Lanes" }, this.lanes);
    root.append(
      h("h1", { class: "visually-hidden" }, "Messages"),
      h("div", { class: "first" }, lanes, form, this.list),
    );
    this.draw();
    on("live", (live) => update(this.lanes, cards(live)), signal);
    this.fetchNew = paced(() => this.loadNew(), NEW_EVERY_MS, signal);
    this.fetchAll = paced(() => this.load(true), AGAIN_EVERY_MS, signal);
    on("mail", (event) => this.happened(event), signal);
    on("back", () => this.rows && this.fetchAll(), signal);
    document.addEventListener("focusout", () => this.mayShow(), { signal });
    document.addEventListener("scroll", () => this.mayShow(), { signal, passive: true });
    signal.addEventListener("abort", () => this.leave());
    this.load(Boolean(this.rows)).then(() => this.ready());
    if (this.rows) this.ready();
  }

  leave() {
    if (this.request) this.request.abort();
    const { rows, searchedSince, limit } = this;
    const opened = location.pathname.startsWith("/m/") ? location.pathname.slice(3) : null;
    if (rows) kept = { url: filters.toUrl(this.filters), state: { rows, searchedSince, limit, opened } };
  }

  ready() {
    this.place.ready();
    if (!this.place.isBack || !this.opened) return;
    const link = this.list.querySelector(`tr[data-key="${CSS.escape(this.opened)}"] a.row`);
    this.opened = null;
    if (link && (document.activeElement === document.body || document.activeElement === this.place.root))
      link.focus({ preventScroll: true });
  }

  change(given, isTyping) {
    const url = filters.toUrl(given);
    if (url === filters.toUrl(this.filters)) return this.loaded;
    this.filters = given;
    // What is typed letter by letter is one step back, not one for each letter.
    setUrl(url, isTyping && this.typedUrl === location.pathname + location.search);
    this.typedUrl = isTyping ? url : null;
    this.limit = FIRST_ROWS;
    this.loaded = this.load(false);
    return this.loaded;
  }

  path(more) {
    return withQuery("/api/messages", { ...this.filters, ...more });
  }

  // `isQuiet`: the rows that are there stay until the new ones have come, and while the reader uses them.
  async load(isQuiet) {
    if (this.request) this.request.abort();
    const request = (this.request = new AbortController());
    if (!isQuiet) {
      this.list.classList.add("busy");
      this.waiting = [];
    }
    try {
      const { document: rows, headers } = await ask(this.path({ limit: this.limit }), {
        signal: request.signal,
        withinMs: 30_000,
      });
      this.searchedSince = headers.get("X-Searched-Since");
      this.error = null;
      if (isQuiet && this.rows) this.take(rows, rows.length < this.limit);
      else this.rows = rows;
    } catch (error) {
      if (wasAborted(error)) return;
      if (!isQuiet || !this.rows) Object.assign(this, { error, rows: isQuiet ? this.rows : null });
    }
    this.list.classList.remove("busy");
    this.draw();
  }

  async loadNew() {
    if (!this.rows || this.error || document.hidden) return;
    const newest = this.waiting[0] || this.rows[0];
    if (!newest) return this.load(true);
    try {
      const { document: rows } = await ask(this.path({ since: newest.accepted_at, limit: FIRST_ROWS }), {
        signal: this.place.signal,
      });
      this.take(rows, rows.length < FIRST_ROWS);
      this.draw();
    } catch (error) {
      if (!wasAborted(error)) this.fetchNew(); // the stream tells that the relay is away
    }
  }

  // New rows. Where they don't reach those that are there (`isJoined` false and none of them known) they replace them.
  take(rows, isJoined) {
    const known = new Map([...this.rows, ...this.waiting].map((message) => [message.id, message]));
    const fresh = [];
    for (const message of rows) {
      if (known.has(message.id)) Object.assign(known.get(message.id), message);
      else fresh.push(message);
    }
    const reaches = isJoined || fresh.length < rows.length;
    const newest = this.rows[0];
    const newer = newest ? fresh.filter((message) => message.accepted_at >= newest.accepted_at) : fresh;
    this.waiting = [...newer, ...(reaches ? this.waiting : [])].slice(0, MOST_ROWS);
    this.isGap = !reaches || this.isGap;
    if (this.isFree()) this.flush();
  }

  isFree() {
    return !this.filters.q && !isInUse(this.list.querySelector("table"));
  }

  flush() {
    const { waiting, rows, isGap } = this;
    this.rows = [...waiting, ...(isGap ? [] : rows)].slice(0, Math.max(this.limit, Math.min(MOST_ROWS, rows.length)));
    Object.assign(this, { waiting: [], isGap: false });
  }

  mayShow() {
    requestAnimationFrame(() => {
      if (!this.waiting.length || this.place.signal.aborted || !this.isFree()) return;
      this.flush();
      this.draw();
    });
  }

  happened(event) {
    if (!this.rows || this.filters.until) return;
    const message = [...this.waiting, ...this.rows].find((one) => one.id === event.message);
    if (message) {
      if (applyEvent(message, event)) this.redraw();
      return;
    }
    // A state may begin to match long after the message came.
    if (this.filters.state || this.filters.failed) this.fetchAll();
    else if (event.kind === "accepted" || event.source === "relay") this.fetchNew();
  }

  redraw() {
    this.drawSoon ||= paced(() => this.draw(), 400, this.place.signal);
    this.drawSoon();
  }

  focusFirst() {
    const link = this.list.querySelector("tbody a.row");
    if (link) link.focus();
  }

  draw() {
    this.list.parentNode.classList.toggle("searching", filters.isAny(this.filters));
    morph(this.list, [this.head(), ...this.body()]);
  }

  head() {
    const number = this.waiting.length;
    const button =
      number > 0 &&
      h(
        "button",
        { type: "button", class: "primary", onclick: () => this.showNew() },
        `${count(number)}${this.isGap ? " or more" : ""} new – show`,
      );
    return h(
      "header",
      { class: "listhead", "data-key": "head" },
      h("h2", { id: "newest", tabindex: "-1" }, filters.isAny(this.filters) ? "Messages found" : "Newest messages"),
      h("p", { class: "faint", role: "status" }, this.rows && filters.isAny(this.filters) ? this.found() : ""),
      button,
    );
  }

  found() {
    const number = this.rows.length;
    return number >= this.limit ? `the newest ${count(number)}` : `${count(number)} found`;
  }

  showNew() {
    this.flush();
    this.draw();
    this.list.scrollIntoView({ block: "start" });
    document.getElementById("newest").focus({ preventScroll: true });
  }

  body() {
    if (this.error) return [failure(this.error, () => this.load(false))];
    if (!this.rows) return [loading()];
    const notes = this.searchedSince
      ? [
          h(
            "p",
            { class: "note warn", "data-key": "until" },
            `The search took long: nothing older than ${dateTime(this.searchedSince)} was looked at. A narrower filter reaches further back.`,
          ),
        ]
      : [];
    if (!this.rows.length)
      return [
        ...notes,
        empty(
          filters.isAny(this.filters)
            ? "No message matches."
            : "No message yet. The first one shows up here by itself.",
        ),
      ];
    const shown = table("Messages", COLUMNS, this.rows.map(messageRow), { class: "messages", "data-key": "table" });
    const hints = [...new Set(this.rows.map((message) => message.hint).filter(Boolean))].slice(0, 1);
    return [
      ...notes,
      h("div", { "data-key": "table" }, shown),
      ...hints.map((hint) => h("p", { class: "note", "data-key": "hint" }, hint)),
      this.more(),
    ];
  }

  more() {
    if (this.rows.length < this.limit || this.limit >= MOST_ROWS) {
      const isCut = this.rows.length >= MOST_ROWS;
      return (
        isCut &&
        h(
          "p",
          { class: "faint", "data-key": "more" },
          `At most ${MOST_ROWS} messages are shown; filters lead to older ones.`,
        )
      );
    }
    return h("p", { "data-key": "more" }, h("button", { type: "button", onclick: () => this.loadMore() }, "Show more"));
  }

  loadMore() {
    this.limit = MOST_ROWS;
    this.flush();
    this.load(false);
  }
}
