// The configuration in force, with secrets masked.

import { get, wasAborted } from "../api.js";
import { h, morph } from "../dom.js";
import { failure, loading, moment, resultLine } from "../parts.js";
import { titled } from "../router.js";

export async function show(place) {
  titled("Configuration");
  const body = h("div", {});
  const result = resultLine();
  place.root.append(
    h("h1", {}, "Configuration"),
    h("p", { class: "lead" }, "What is in force now. Secrets are masked."),
    result,
    body,
  );
  morph(body, [loading()]);
  await load(body, result, place.signal);
  place.ready();
}

async function load(body, result, signal) {
  try {
    morph(body, shown(await get("/api/config", { signal }), result));
  } catch (error) {
    if (!wasAborted(error)) morph(body, [failure(error, () => load(body, result, signal))]);
  }
}

function shown(config, result) {
  const reload = config.last_reload;
  const facts = [
    ["File", h("code", {}, config.path || "–")],
    ["In force since", moment(config.loaded_at)],
    [
      "Last reload",
      reload
        ? [moment(reload.at), reload.ok ? ", in force" : h("strong", { class: "bad" }, `, refused: ${reload.reason}`)]
        : "none since the start",
    ],
  ];
  const lines = config.yaml.split("\n").map((line) => [...coloured(line), "\n"]);
  return [
    h(
      "section",
      { class: "card facts", "aria-label": "Facts" },
      h(
        "dl",
        {},
        facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
      ),
    ),
    h(
      "header",
      { class: "listhead still" },
      h("h2", {}, "YAML"),
      h("button", { type: "button", class: "quiet", onclick: () => copy(config.yaml, result) }, "Copy"),
    ),
    h(
      "pre",
      { class: "yaml", tabindex: "0", role: "region", "aria-label": "The configuration as YAML" },
      h("code", {}, lines),
    ),
  ];
}

// A line of YAML: its key and its comment apart from the rest. Nothing is lost, whatever the line is.
function coloured(line) {
  const [, indent, key, rest] = /^(\s*(?:- )*)([^\s#'"{[][^:#]*:)?(.*)$/.exec(line);
  const at = rest.search(/(^|\s)#/);
  const [value, comment] = at < 0 ? [rest, ""] : [rest.slice(0, at), rest.slice(at)];
  return [indent, key && h("span", { class: "key" }, key), value, comment && h("span", { class: "comment" }, comment)];
}

async function copy(text, result) {
  try {
    await navigator.clipboard.writeText(text);
    result.say("The configuration is copied.");
  } catch {
    result.say("This browser gives no clipboard here: mark the text instead.", "bad");
  }
}
