// The line in the head, and the foot: whether mail is taken and every lane can send, version and uptime.

import { morph, h } from "./dom.js";
import { duration } from "./format.js";
import { canSend } from "./lanes.js";
import { on, trouble } from "./live.js";
import * as access from "./access.js";

const VIEWS = [
  ["/", "Messages"],
  ["/queue", "Queue"],
  ["/upstreams", "Upstreams"],
  ["/suppressions", "Suppressions"],
  ["/limits", "Limits"],
  ["/report", "Report"],
  ["/configuration", "Configuration"],
];
let latest = null;

export function start() {
  const links = VIEWS.map(([path, name]) => h("a", { href: path }, name));
  document.getElementById("nav").append(...links);
  on("live", (live) => {
    latest = live;
    show();
  });
  on("state", show);
}

// What is wrong, the worst first: [tone, sentence].
export function judged(live) {
  if (live.reasons.length) return ["bad", `Takes no mail: ${live.reasons.join(", ")}`];
  const lanes = Object.entries(live.lanes);
  const stuck = lanes.filter(([, lane]) => !canSend(lane));
  if (stuck.length)
    return ["bad", `Takes mail, but ${stuck.map(([name, lane]) => `${name} can't send (${whyNot(lane)})`).join("; ")}`];
  const down = new Set(
    lanes.flatMap(([, lane]) =>
      Object.entries(lane.upstreams)
        .filter(isGone)
        .map(([name]) => name),
    ),
  );
  if (down.size) return ["warn", `Takes mail; every lane can send, but without ${[...down].join(", ")}`];
  return ["ok", "Takes mail; every lane can send"];
}

const isGone = ([, health]) => health.state === "down" || health.state === "half-open";

function whyNot(lane) {
  const upstreams = Object.entries(lane.upstreams);
  if (!upstreams.length) return "no upstream";
  return upstreams.map(([name, { state, reason }]) => `${name} ${state}${reason ? `: ${reason}` : ""}`).join(", ");
}

function show() {
  const lost = trouble();
  const [tone, text] = lost ? ["bad", lost] : latest ? judged(latest) : ["idle", "connecting"];
  const status = document.getElementById("status");
  status.className = `status ${tone}`;
  // Only what changed is written: a screen reader reads the line aloud each time.
  morph(status, [document.createTextNode(text)]);
  document.body.classList.toggle("lost", Boolean(lost));
  if (!latest) return;
  const about = [
    `otp-relay ${latest.version || ""}`.trim(),
    latest.node && `node ${latest.node}`,
    latest.uptime_ms !== undefined &&
      `up for ${duration(Math.floor(latest.uptime_ms / 60_000) * 60_000 || latest.uptime_ms)}`,
    !access.mayChange() && "this token may read, and change nothing",
  ];
  morph(document.getElementById("about"), [document.createTextNode(about.filter(Boolean).join(" · "))]);
}
