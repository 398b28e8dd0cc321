// Numbers, times and states as text. Pure.

export const FINISHED = ["sent", "bounced", "expired", "superseded", "suppressed"];
export const STATES = ["queued", "sending", "deferred", "held", "ambiguous", ...FINISHED];
export const WAITING = ["queued", "deferred", "held", "ambiguous", "sending"];

const moments = new Map();

function parts(at, withYear) {
  if (!moments.has(withYear)) {
    const year = withYear ? { year: "numeric" } : {};
    const time = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZoneName: "short" };
    moments.set(withYear, new Intl.DateTimeFormat("en-GB", { ...year, month: "short", day: "2-digit", ...time }));
  }
  return Object.fromEntries(
    moments
      .get(withYear)
      .formatToParts(at)
      .map((part) => [part.type, part.value]),
  );
}

// The reader's date and time with its zone: `29 Nov 19:06:46 UTC`, with the year where it isn't this one.
export function dateTime(text) {
  const at = new Date(text);
  if (Number.isNaN(at.getTime())) return "–";
  const found = parts(at, at.getFullYear() !== new Date().getFullYear());
  const day = [found.day, found.month, found.year].filter(Boolean).join(" ");
  return `${day} ${found.hour}:${found.minute}:${found.second} ${found.timeZoneName}`;
}

// The time of a day with its zone, for what was a moment ago.
export function clock(at) {
  const found = parts(at, false);
  return `${found.hour}:${found.minute}:${found.second} ${found.timeZoneName}`;
}

// Milliseconds: `0.4 ms`, `41 ms`, `2.1 s`, `1 min 5 s`, `2 h 5 min`, `3 d 4 h`.
export function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 9.95) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  const s = Math.round(ms / 1000);
  if (s < 3600) return two(s, 60, "min", "s");
  const min = Math.round(s / 60);
  return min < 2880 ? two(min, 60, "h", "min") : two(Math.round(min / 60), 24, "d", "h");
}

function two(count, size, large, small) {
  const rest = count % size;
  return `${Math.floor(count / size)} ${large}${rest ? ` ${rest} ${small}` : ""}`;
}

const whole = new Intl.NumberFormat("en-GB");
export const count = (number) => whole.format(number || 0);

// `1 message`, `12 messages`.
export const many = (number, one, more = `${one}s`) => `${count(number)} ${number === 1 ? one : more}`;

export function share(part, all) {
  if (!all) return "–";
  const percent = (100 * part) / all;
  if (percent === 100 || percent === 0) return `${percent} %`;
  // 99.97 % isn't 100 %: what is not whole must not look so.
  return `${percent > 99.9 ? (Math.floor(percent * 100) / 100).toFixed(2) : percent.toFixed(1).replace(/\.0$/, "")} %`;
}

export function size(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  if (bytes < 1000) return `${bytes} bytes`;
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(1)} kB`;
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}

// The lanes of a message, whose recipients may have taken different routes.
export const lanesOf = (message) => [...new Set(message.recipients.map((one) => one.lane || message.lane))];

// What one word says of all recipients: their state, or `3 sent, 1 bounced`.
export function stateOf(message) {
  const counts = new Map();
  for (const { state } of message.recipients) counts.set(state, (counts.get(state) || 0) + 1);
  if (counts.size === 1) return [...counts.keys()][0];
  return [...counts].map(([state, number]) => `${number} ${state}`).join(", ");
}

const BAD = ["bounced", "expired", "suppressed"];
const WARNING = ["deferred", "held", "ambiguous"];

// How a state is to look: `ok`, `warn`, `bad` or `idle`; of several the worst.
export function toneOf(states) {
  if (states.some((state) => BAD.includes(state))) return "bad";
  if (states.some((state) => WARNING.includes(state))) return "warn";
  return states.length && states.every((state) => state === "sent") ? "ok" : "idle";
}
