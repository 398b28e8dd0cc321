// The filters of messages: in the URL, in the form, and as the API takes them.

import { h, settled } from "./dom.js";
import { STATES } from "./format.js";
import { on } from "./live.js";
import { field, options } from "./parts.js";

const NAMES = ["q", "lane", "state", "failed", "since", "until"];
const SINCE = [
  ["", "any time"],
  ["15m", "last 15 minutes"],
  ["1h", "last hour"],
  ["24h", "last 24 hours"],
  ["7d", "last 7 days"],
  ["custom", "from … until …"],
];

export function fromQuery(query) {
  return Object.fromEntries(NAMES.map((name) => [name, query.get(name) || ""]));
}

export function toUrl(filters) {
  const query = new URLSearchParams(Object.entries(filters).filter(([, value]) => value));
  return query.size ? `/?${query}` : "/";
}

export const isAny = (filters) => NAMES.some((name) => filters[name]);

const isTime = (text) => text.includes("T");

// An API time as a field has it: the reader's time without zone.
function toField(text) {
  if (!isTime(text)) return "";
  const at = new Date(text);
  return new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

const fromField = (text) => (text ? new Date(text).toISOString() : "");

// The form. `changed(filters, isTyping)` is called some time after the reader typed, at once for all else. `entered`:
// the reader pressed Enter in the search box.
export function form(filters, { changed, entered, signal }) {
  const given = { ...filters };
  const tell = (isTyping = false) => changed({ ...given }, isTyping);
  const typed = settled(() => tell(true), 200);
  const set = (name) => (event) => {
    given[name] = event.target.type === "checkbox" ? (event.target.checked ? "1" : "") : event.target.value;
    tell();
  };
  const search = h("input", {
    type: "search",
    role: "searchbox",
    "aria-label": "Search messages",
    placeholder: "Address, id, subject or Message-ID",
    autocomplete: "off",
    spellcheck: "false",
    value: given.q,
    oninput: (event) => {
      given.q = event.target.value.trim();
      typed();
    },
  });
  const lane = h(
    "select",
    { onchange: set("lane") },
    options([["", "all lanes"], ...(given.lane ? [given.lane] : [])], given.lane),
  );
  on("live", (live) => addLanes(lane, Object.keys(live.lanes)), signal);
  const times = [time("From", "since"), time("Until", "until")];
  const isCustom = () => isTime(given.since) || Boolean(given.until);
  const custom = h("div", { class: "times", hidden: !isCustom() }, times);

  function time(label, name) {
    return field(
      label,
      h("input", {
        type: "datetime-local",
        value: toField(given[name]),
        onchange: (event) => {
          given[name] = fromField(event.target.value);
          tell();
        },
      }),
    );
  }

  const since = h(
    "select",
    {
      onchange: (event) => {
        custom.hidden = event.target.value !== "custom";
        if (!custom.hidden) return;
        Object.assign(given, { since: event.target.value, until: "" });
        tell();
      },
    },
    options(SINCE, isCustom() ? "custom" : given.since),
  );
  return h(
    "form",
    {
      class: "filters",
      role: "search",
      "data-keep": true,
      "data-key": "filters",
      onsubmit: (event) => {
        event.preventDefault();
        Promise.resolve(typed.now()).then(entered);
      },
    },
    h(
      "div",
      { class: "searchline" },
      search,
      h("button", { class: "visually-hidden", type: "submit", tabindex: "-1" }, "Search"),
    ),
    h(
      "div",
      { class: "filterline" },
      field("Lane", lane),
      field("State", h("select", { onchange: set("state") }, options([["", "all states"], ...STATES], given.state))),
      field("Accepted", since),
      h(
        "label",
        { class: "check" },
        h("input", { type: "checkbox", checked: Boolean(given.failed), onchange: set("failed") }),
        h("span", {}, "Failed only"),
      ),
    ),
    custom,
  );
}

// An open list of options stays as it is.
export function addLanes(select, lanes) {
  const known = [...select.options].map((option) => option.value);
  const missing = lanes.filter((lane) => !known.includes(lane));
  if (missing.length && document.activeElement !== select) select.append(...options(missing));
}
