// The relay's stream of events: one connection for the whole page, while somebody looks at it.

import { get } from "./api.js";
import { clock } from "./format.js";

const STALE_MS = 6_000;
const AGAIN_MS = 3_000;
const HIDDEN_MS = 20_000;

const listeners = { live: new Set(), mail: new Set(), state: new Set(), back: new Set() };
let source = null;
let heardAt = null;
let lostAt = null;
let hiddenAt = null;
let latest = null;
let isAsking = false;

// `live`: the state of the lanes, each second. `mail`: an event of a time line. `state`: the connection's state changed.
// `back`: the stream goes on after events were missed.
export function on(kind, listener, signal) {
  listeners[kind].add(listener);
  if (signal) signal.addEventListener("abort", () => listeners[kind].delete(listener));
  if (kind === "live" && latest) listener(latest);
}

// What is shown while the relay doesn't answer; null: it answers.
export function trouble() {
  if (lostAt === null) return null;
  return heardAt === null ? "no answer yet, trying again" : `no answer since ${clock(heardAt)}, trying again`;
}

export function start() {
  open();
  get("/api/live").then(
    (live) => latest || show(live),
    () => {},
  ); // the stream's first one may be a second away
  setInterval(watch, 1_000);
  document.addEventListener("visibilitychange", () => {
    hiddenAt = document.hidden ? Date.now() : null;
    if (!document.hidden && !source) open();
  });
}

function tell(kind, value) {
  for (const listener of [...listeners[kind]]) listener(value);
}

function heard() {
  heardAt = Date.now();
  if (lostAt === null) return;
  lostAt = null;
  tell("state");
}

function lost() {
  if (lostAt !== null) return;
  lostAt = Date.now();
  tell("state");
}

function open() {
  let wasOpen = false;
  source = new EventSource("/api/stream");
  source.onopen = () => {
    wasOpen = true;
    heard();
    tell("back"); // what happened before this moment wasn't heard
  };
  source.addEventListener("live", (event) => {
    heard();
    show(JSON.parse(event.data));
  });
  source.addEventListener("mail", (event) => tell("mail", JSON.parse(event.data)));
  source.onerror = () => {
    if (wasOpen) lost();
    // The browser connects again by itself after a lost connection, but not after a refusal.
    if (source && source.readyState === EventSource.CLOSED) close();
  };
}

function close() {
  if (source) source.close();
  source = null;
}

function show(live) {
  latest = live;
  tell("live", live);
}

// Each second: notice that nothing comes, and ask without the stream meanwhile.
async function watch() {
  const now = Date.now();
  if (hiddenAt !== null) {
    // A browser has six connections to a host. Consoles that nobody looks at must not use them up.
    if (source && now - hiddenAt > HIDDEN_MS) close();
    return;
  }
  if (heardAt !== null && now - heardAt < STALE_MS) return;
  if (isAsking || (lostAt !== null && now - lostAt < AGAIN_MS)) return;
  isAsking = true;
  try {
    show(await get("/api/live", { withinMs: STALE_MS }));
    heard();
  } catch {
    lost();
    lostAt = Date.now();
    tell("state");
  } finally {
    isAsking = false;
  }
  if (source && source.readyState === EventSource.OPEN && Date.now() - heardAt > STALE_MS) close();
  if (!source) open();
}
