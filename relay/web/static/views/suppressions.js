// Addresses that must not be mailed: find, add, remove.

import * as access from "../access.js";
import { ask, post, remove, wasAborted, withQuery } from "../api.js";
import { confirmed } from "../dialogs.js";
import { h, morph, settled } from "../dom.js";
import { count } from "../format.js";
import { cell, empty, failure, field, loading, moment, options, resultLine, row, table } from "../parts.js";
import { setUrl, titled } from "../router.js";

const LIMIT = 200;
const FOR = [
  ["", "for good"],
  ["1d", "1 day"],
  ["7d", "7 days"],
  ["30d", "30 days"],
  ["365d", "1 year"],
];
const COLUMNS = [
  ["Address", "to"],
  ["Cause", ""],
  ["Reason", "subject"],
  ["Since", "when"],
  ["Until", "when"],
];

export async function show(place) {
  titled("Suppressions");
  const view = new Suppressions(place);
  await view.start();
}

class Suppressions {
  constructor(place) {
    this.place = place;
    this.wanted = place.query.get("address") || "";
    this.rows = null;
    this.next = null;
    this.error = null;
  }

  async start() {
    const { root, signal } = this.place;
    this.result = resultLine();
    this.adding = h("div", {});
    this.list = h("section", { class: "list", "aria-labelledby": "suppressed" });
    root.append(
      h("h1", {}, "Suppressions"),
      h(
        "p",
        { class: "lead" },
        "Mail to these addresses is not sent: it ends as suppressed, in the lanes whose suppress setting is about the cause.",
      ),
      this.search(),
      this.adding,
      this.result,
      this.list,
    );
    this.draw();
    await Promise.all([this.load(), access.known()]);
    if (signal.aborted) return;
    if (access.mayChange()) this.adding.replaceChildren(this.addForm());
    this.draw();
    this.place.ready();
  }

  search() {
    const typed = settled(() => this.load(), 250);
    const box = h("input", {
      type: "search",
      role: "searchbox",
      "aria-label": "Search suppressions",
      placeholder: "Address, or a part of what is shown",
      value: this.wanted,
      autocomplete: "off",
      spellcheck: "false",
      oninput: (event) => {
        const wasTyped = Boolean(this.wanted);
        this.wanted = event.target.value.trim();
        setUrl(withQuery("/suppressions", { address: this.wanted }), wasTyped);
        this.draw();
        typed();
      },
    });
    return h(
      "form",
      {
        class: "filters",
        role: "search",
        onsubmit: (event) => {
          event.preventDefault();
          typed.now();
        },
      },
      h("div", { class: "searchline" }, box),
    );
  }

  addForm() {
    const address = h("input", { type: "email", required: true, autocomplete: "off", placeholder: "user@example.net" });
    const reason = h("input", { type: "text", maxlength: "200", autocomplete: "off" });
    const life = h("select", {}, options(FOR, ""));
    const add = async (event) => {
      event.preventDefault();
      if (await this.add(address.value.trim(), reason.value.trim(), life.value)) event.target.reset();
    };
    return h(
      "details",
      { class: "card" },
      h("summary", {}, h("h2", {}, "Add an address")),
      h(
        "form",
        { class: "filterline", onsubmit: add },
        field("Address", address, "grow"),
        field("Reason", reason, "grow"),
        field("How long", life),
        h("button", { type: "submit", class: "primary" }, "Add"),
      ),
    );
  }

  async add(address, reason, life) {
    try {
      const { changed } = await post("/api/suppressions", {
        address,
        reason: reason || undefined,
        for: life || undefined,
      });
      this.result.say(changed.length ? `${address} is suppressed.` : `${address} was suppressed before.`);
    } catch (error) {
      this.result.say(`Not done: ${error.message}`, "bad");
      return false;
    }
    await this.load();
    return true;
  }

  async remove(one) {
    const what = one.address;
    const lines = ["It may be mailed again at once. A new hard bounce or complaint suppresses it again."];
    if (!(await confirmed(`Remove ${what}?`, lines, "Remove", { isDangerous: true }))) return;
    try {
      await remove(withQuery("/api/suppressions", { address: what }));
      this.result.say(`${what} may be mailed again.`);
    } catch (error) {
      this.result.say(`Not done: ${error.message}`, "bad");
    }
    await this.load();
    if (document.activeElement === document.body) document.getElementById("suppressed").focus({ preventScroll: true });
  }

  // A whole address is asked for; a part of one is looked for among the rows that are there.
  async load(path) {
    if (this.request) this.request.abort();
    const request = (this.request = new AbortController());
    this.place.signal.addEventListener("abort", () => request.abort());
    const isWhole = /^\S+@[^\s@]+\.[^\s@.]{2,}$|^h:[0-9a-f]{16}$/.test(this.wanted);
    try {
      const { document: rows, headers } = await ask(
        path || withQuery("/api/suppressions", { address: isWhole ? this.wanted : "", limit: LIMIT }),
        { signal: request.signal },
      );
      const link = /<([^>]+)>; rel="next"/.exec(headers.get("Link") || "");
      this.rows = path ? [...this.rows, ...rows] : rows;
      this.next = link ? link[1] : null;
      this.error = null;
    } catch (error) {
      if (wasAborted(error)) return;
      this.error = error;
    }
    this.draw();
  }

  found() {
    const part = this.wanted.toLowerCase();
    return this.rows.filter((one) =>
      [one.address, one.reason, one.cause].some((text) => (text || "").toLowerCase().includes(part)),
    );
  }

  draw() {
    morph(this.list, [
      h(
        "header",
        { class: "listhead", "data-key": "head" },
        h("h2", { id: "suppressed", tabindex: "-1" }, "Suppressed addresses"),
        h("p", { class: "faint", role: "status" }, this.rows && !this.error ? this.number() : ""),
      ),
      ...this.body(),
    ]);
  }

  number() {
    return this.next ? `the newest ${count(this.rows.length)} were looked at` : `${count(this.found().length)} found`;
  }

  body() {
    if (this.error) return [failure(this.error, () => this.load())];
    if (!this.rows) return [loading()];
    const rows = this.found();
    const more =
      this.next &&
      h(
        "p",
        { "data-key": "more" },
        h("button", { type: "button", onclick: () => this.load(this.next) }, "Look at more"),
      );
    if (!rows.length) return [empty(this.wanted ? "No entry matches." : "No address is suppressed."), more];
    const columns = access.mayChange() ? [...COLUMNS, ["Action", "end"]] : COLUMNS;
    return [
      h(
        "div",
        { "data-key": "table" },
        table(
          "Suppressed addresses",
          columns,
          rows.map((one) => this.row(one)),
        ),
      ),
      more,
    ];
  }

  row(one) {
    const what = one.address;
    return row(
      `${what} ${one.cause}`,
      {},
      cell("Address", "to", what),
      cell("Cause", "", one.cause),
      cell("Reason", "subject", one.reason || "–"),
      cell("Since", "when", moment(one.at)),
      cell("Until", "when", one.until ? moment(one.until) : "for good"),
      access.mayChange() &&
        cell(
          "Action",
          "end",
          h(
            "button",
            { type: "button", class: "small", "aria-label": `Remove ${what}`, onclick: () => this.remove(one) },
            "Remove",
          ),
        ),
    );
  }
}
