// Parts that several views share.

import { h } from "./dom.js";
import { dateTime, toneOf } from "./format.js";

export const moment = (at) => (at ? h("time", { datetime: at, title: at }, dateTime(at)) : "–");

// A time to come; what is past waits for its turn.
export const due = (at) => (Date.parse(at) <= Date.now() ? h("time", { datetime: at, title: at }, "due") : moment(at));

export const pill = (text, tone) => h("span", { class: `pill ${tone}` }, text);

export const statePill = (state) => pill(state, toneOf([state]));

// A table that a phone shows as a list: each cell carries its column's name. `columns`: [name, class].
export function table(label, columns, rows, given = {}) {
  const heads = columns.map(([name, kind]) => h("th", { scope: "col", role: "columnheader", class: kind }, name));
  return h(
    "div",
    { class: "scroll" },
    h(
      "table",
      { role: "table", "aria-label": label, ...given },
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, heads)),
      h("tbody", { role: "rowgroup" }, rows),
    ),
  );
}

// `–` stands for nothing, which a phone leaves out.
export const cell = (name, kind, ...content) =>
  h(
    "td",
    { role: "cell", class: content[0] === "–" ? `${kind} none` : kind, "data-label": name },
    h("div", {}, content),
  );

export const row = (key, given, ...cells) => h("tr", { role: "row", "data-key": key, ...given }, cells);

export const empty = (text, ...more) => h("p", { class: "empty", "data-key": "empty" }, text, more);

export const failure = (error, again) =>
  h(
    "div",
    { class: "failure", role: "alert", "data-key": "failure" },
    h("p", {}, `Can't show this: ${error.message}`),
    again && h("button", { type: "button", onclick: again }, "Try again"),
  );

export const loading = () => h("p", { class: "empty loading", "data-key": "loading" }, "Loading …");

// Options of a select element. `known`: values or [value, label].
export const options = (known, chosen) =>
  known
    .map((one) => (Array.isArray(one) ? one : [one, one]))
    .map(([value, label]) => h("option", { value, selected: value === (chosen || "") }, label));

let fields = 0;

// A field with its label.
export function field(label, control, kind = "") {
  control.id = `field-${(fields += 1)}`;
  return h("div", { class: `field ${kind}` }, h("label", { for: control.id }, label), control);
}

// A line that a screen reader reads aloud when it changes: the result of what the reader did.
export function resultLine() {
  const line = h("p", { class: "result", role: "status", "data-keep": true, "data-key": "result" });
  line.say = (text, tone = "ok") => {
    line.className = `result ${tone}`;
    line.textContent = text;
  };
  return line;
}
