// Which view a URL shows. Links and the browser's back and forward work without loading the page again.

import { morph } from "./dom.js";

const views = [];
let shown = null;
let depth = 0;

// `show(place)` fills `place.root`; `place` also has `match`, `query`, `signal` (aborted when the reader leaves) and
// `isBack`.
export function add(pattern, show) {
  views.push({ pattern, show });
}

export function start(root) {
  history.scrollRestoration = "manual";
  depth = (history.state && history.state.depth) || 0;
  addEventListener("popstate", (event) => {
    depth = (event.state && event.state.depth) || 0;
    render(root, { isBack: true, scroll: (event.state && event.state.scroll) || 0 });
  });
  addEventListener("pagehide", keepScroll);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href]");
    if (
      !link ||
      event.defaultPrevented ||
      event.button ||
      event.metaKey ||
      event.ctrlKey ||
      event.shiftKey ||
      event.altKey
    )
      return;
    if (
      link.origin !== location.origin ||
      link.target ||
      !viewOf(link.pathname) ||
      link.getAttribute("href").startsWith("#")
    )
      return;
    event.preventDefault();
    go(link.pathname + link.search);
  });
  root.dataset.root = "";
  render(root, { isFirst: true, scroll: (history.state && history.state.scroll) || 0 });
}

export function go(url) {
  keepScroll();
  depth += 1;
  history.pushState({ depth }, "", url);
  render(document.querySelector("[data-root]"), { scroll: 0 });
}

// The view changed its own URL. `replaces`: the entry that is there, as while a reader types.
export function setUrl(url, replaces) {
  if (url === location.pathname + location.search) return;
  if (!replaces) depth += 1;
  history[replaces ? "replaceState" : "pushState"]({ depth }, "", url);
  markLinks();
}

// Back to where the reader came from; a page that was opened by its link goes to `otherwise`.
export function back(otherwise) {
  if (depth > 0) history.back();
  else go(otherwise);
}

function keepScroll() {
  history.replaceState({ ...history.state, depth, scroll: scrollY }, "");
}

const viewOf = (path) => views.find(({ pattern }) => pattern.test(path));

function render(root, { isFirst = false, isBack = false, scroll = 0 }) {
  if (shown) shown.abort();
  shown = new AbortController();
  markLinks();
  const view = viewOf(location.pathname) || viewOf("/");
  morph(root, []);
  const place = {
    root,
    match: view.pattern.exec(location.pathname),
    query: new URLSearchParams(location.search),
    signal: shown.signal,
    isBack,
    isFirst,
    // The view has drawn what it had to load.
    ready: () => {
      if (!place.signal.aborted && scroll) scrollTo(0, scroll);
      scroll = 0;
    },
  };
  view.show(place);
  if (!scroll) scrollTo(0, 0);
  // After a link was followed, a screen reader is to begin with the new view.
  if (!isFirst && !root.contains(document.activeElement)) root.focus({ preventScroll: true });
}

export function titled(text) {
  document.title = text ? `${text} – otp-relay` : "otp-relay";
}

function markLinks() {
  for (const link of document.querySelectorAll("#nav a")) {
    const isHere =
      link.pathname === location.pathname || (link.pathname === "/" && location.pathname.startsWith("/m/"));
    if (isHere) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}
