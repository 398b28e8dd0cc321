// The time line of one recipient: what took when how long, and an axis for it. Pure. Milliseconds since the final dot.

export const PHASES = {
  receive: "the app hands over the message, up to its final dot",
  classify: "reading, rules, limits; part of accept",
  accept: "until the lane has the message",
  sign: "DKIM signature; beside other phases",
  store: "commit to disk; beside other phases",
  wait: "waits in the lane",
  rate: "waits for the upstream's rate",
  session: "waits for a session",
  connect: "opens the connection",
  tls: "TLS handshake",
  auth: "logs in",
  encode: "re-encodes for the upstream",
  envelope: "MAIL and RCPT, until the upstream is ready for the content",
  gate: "the content waits until it is stored and signed",
  data: "sends the content, and waits for the reply",
};
const IN_ATTEMPT = ["rate", "session", "connect", "tls", "auth", "encode", "envelope", "gate", "data"];
const QUIET_MS = 50;
const GAP_SHARE = 0.3;
const GAP_WIDTH = 7; // percent of the axis

// Bars in order: {label, kind, start, length, note, group}. `kind` idle: nothing was done meanwhile.
export function barsOf(message, recipient) {
  const bars = [...acceptance(message.timings_ms)];
  const accepted = Date.parse(message.accepted_at);
  let end = null;
  for (const attempt of Array.isArray(recipient.attempts) ? recipient.attempts : []) {
    const start = startOf(attempt, accepted, message.timings_ms, bars.length && end === null);
    if (end !== null && start - end > QUIET_MS) {
      bars.push({ label: "pause", kind: "idle", start: end, length: start - end, note: "until the next try" });
    }
    const made = attemptBars(attempt, start);
    bars.push(...made);
    const last = made[made.length - 1];
    end = Math.max(end ?? 0, last ? last.start + last.length : start);
  }
  if (recipient.delivered_at && recipient.sent_at) {
    const start = end ?? Date.parse(recipient.sent_at) - accepted;
    const length = Math.max(0, Date.parse(recipient.delivered_at) - accepted - start);
    bars.push({
      label: "delivered",
      kind: "delivered",
      start,
      length,
      note: `${recipient.upstream} brought it to the mailbox`,
      group: "Delivery",
    });
  }
  return bars;
}

function acceptance(timings) {
  const bars = [];
  const add = (label, start, kind = "relay") => {
    if (timings[label] === undefined) return;
    bars.push({ label, kind, start, length: timings[label], note: PHASES[label], group: "Acceptance" });
  };
  const accept = timings.accept ?? timings.classify ?? 0;
  add("receive", -(timings.receive || 0), "app");
  add("classify", 0);
  add("accept", 0);
  add("sign", timings.classify || 0, "beside");
  add("store", timings.classify || 0, "beside");
  add("wait", accept);
  return bars;
}

// The first attempt begins where the waiting ends; the clock of `started_at` has whole milliseconds only.
function startOf(attempt, accepted, timings, isFirst) {
  const start = Date.parse(attempt.started_at) - accepted;
  const reckoned = (timings.accept ?? timings.classify ?? 0) + (timings.wait || 0);
  return isFirst && Math.abs(start - reckoned) < 2 ? reckoned : start;
}

function attemptBars(attempt, start) {
  const group = `Attempt ${attempt.n}: ${attempt.upstream}`;
  const bars = [];
  let at = start;
  for (const label of IN_ATTEMPT) {
    const length = attempt.timings_ms[label];
    if (length === undefined || (length === 0 && label !== "envelope" && label !== "data")) continue;
    const kind = label === "envelope" || label === "data" ? "upstream" : "session";
    bars.push({ label, kind, start: at, length, note: PHASES[label], group, attempt });
    at += length;
  }
  if (!bars.length)
    bars.push({ label: "attempt", kind: "session", start, length: 0, note: "ended before it began", group, attempt });
  return bars;
}

// A map from milliseconds to percent of the width. Long stretches in which nothing happens are drawn short: `gaps` has
// them as {at, length}, `ticks` the marks as {at, ms}.
export function axisOf(bars) {
  const busy = bars
    .filter((bar) => bar.kind !== "idle" && bar.kind !== "delivered")
    .map((bar) => [bar.start, bar.start + bar.length]);
  const ends = bars.map((bar) => bar.start + bar.length);
  const [from, to] = [Math.min(0, ...bars.map((bar) => bar.start)), Math.max(1, ...ends)];
  const spans = merged(busy);
  const work = spans.reduce((sum, [start, end]) => sum + end - start, 0) || 1;
  const pieces = [];
  let at = from;
  for (const [start, end] of [...spans, [to, to]]) {
    if (start > at)
      pieces.push({ start: at, end: start, isGap: start - at > GAP_SHARE * work && start - at > QUIET_MS });
    if (end > start) pieces.push({ start, end, isGap: false });
    at = Math.max(at, end);
  }
  return laidOut(pieces);
}

function merged(spans) {
  const found = [];
  for (const [start, end] of [...spans].sort(([one], [other]) => one - other)) {
    const last = found[found.length - 1];
    if (last && start <= last[1]) last[1] = Math.max(last[1], end);
    else found.push([start, end]);
  }
  return found;
}

function laidOut(pieces) {
  const gaps = pieces.filter((piece) => piece.isGap);
  const width = gaps.length ? Math.min(GAP_WIDTH, 40 / gaps.length) : 0;
  const drawn = pieces.reduce((sum, piece) => sum + (piece.isGap ? 0 : piece.end - piece.start), 0) || 1;
  const scale = (100 - width * gaps.length) / drawn;
  let x = 0;
  for (const piece of pieces) {
    piece.x = x;
    piece.width = piece.isGap ? width : (piece.end - piece.start) * scale;
    x += piece.width;
  }
  const position = (ms) => {
    const piece = pieces.find((one) => ms <= one.end) || pieces[pieces.length - 1];
    if (!piece || piece.end === piece.start) return 0;
    return piece.x + (piece.width * (Math.max(ms, piece.start) - piece.start)) / (piece.end - piece.start);
  };
  return {
    x: position,
    gaps: gaps.map((gap) => ({ at: gap.x, width: gap.width, length: gap.end - gap.start })),
    ticks: ticksOf(pieces, scale),
  };
}

// Round times about 18 percent apart, in what is drawn to scale.
function ticksOf(pieces, scale) {
  const step = rounded(18 / scale);
  const ticks = [];
  for (const piece of pieces.filter((one) => !one.isGap)) {
    for (let ms = Math.ceil(piece.start / step) * step; ms <= piece.end; ms += step) {
      const at = piece.x + (ms - piece.start) * scale;
      if (at < 94 && (!ticks.length || at - ticks[ticks.length - 1].at > 10)) ticks.push({ at, ms });
    }
  }
  return ticks;
}

function rounded(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((factor) => factor * power >= value) * power;
}
