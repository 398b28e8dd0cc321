// Keys for the whole page. A key that the reader types into a field is none of them.

import { open } from "./dialogs.js";
import { h } from "./dom.js";
import { back, go } from "./router.js";

const KEYS = [
  ["/", "go to the search"],
  ["j or ↓", "next row"],
  ["k or ↑", "row before"],
  ["Enter", "open the row"],
  ["Escape", "back to the list; close a dialog"],
  ["?", "show these keys"],
];

export function start() {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open]")) return;
    if (act(event)) event.preventDefault();
  });
  document.getElementById("keys").onclick = showKeys;
}

function act(event) {
  const isTyping = event.target.closest("input:not([type=checkbox]), textarea, select") !== null;
  if (event.key === "Escape") return escape(event, isTyping);
  if (event.key === "ArrowDown" && event.target.type === "search") return step(1);
  if (isTyping) return false;
  switch (event.key) {
    case "/":
      return search();
    case "?":
      showKeys();
      return true;
    case "j":
      return step(1);
    case "k":
      return step(-1);
    case "ArrowDown":
      return event.target.closest("tbody") !== null && step(1);
    case "ArrowUp":
      return event.target.closest("tbody") !== null && step(-1);
    case "Enter":
      return openRow(event.target);
    default:
      return false;
  }
}

function showKeys() {
  const list = KEYS.map(([key, text]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, text)]);
  open("Keys", [h("dl", { class: "keys" }, list)], [{ label: "Close", value: "", tone: "primary", isFirst: true }]);
}

function escape(event, isTyping) {
  if (isTyping) {
    if (!event.target.value || event.target.type !== "search") event.target.blur();
    return false; // a search field empties itself
  }
  if (!location.pathname.startsWith("/m/")) return false;
  back("/");
  return true;
}

function search() {
  const field = document.querySelector("main input[type=search]");
  if (field) field.select();
  else go("/");
  const found = document.querySelector("main input[type=search]");
  if (found) found.focus();
  return true;
}

const linksOf = () => [...document.querySelectorAll("main tbody a.row")];

function step(by) {
  const links = linksOf();
  const here = document.activeElement.closest("tr");
  const at = here ? links.findIndex((link) => here.contains(link)) : by > 0 ? -1 : links.length;
  const next = links[Math.max(0, Math.min(links.length - 1, at + by))];
  if (next) next.focus();
  return Boolean(next);
}

// Enter on a row itself; on its link the browser does that.
function openRow(target) {
  if (target.nodeName !== "TR") return false;
  const link = target.querySelector("a.row");
  if (link) link.click();
  return Boolean(link);
}
