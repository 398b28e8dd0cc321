// Hold, release, retry and drop: to what they apply, what they do, and the question before.

import { post } from "./api.js";
import { confirmed } from "./dialogs.js";
import { h } from "./dom.js";
import { many } from "./format.js";

// As the relay has it: the states of recipients that an action changes.
export const APPLIES = {
  retry: ["queued", "deferred", "ambiguous"],
  hold: ["queued", "deferred"],
  release: ["held"],
  drop: ["queued", "deferred", "held", "ambiguous"],
};
export const ACTIONS = Object.keys(APPLIES);
export const LABELS = { retry: "Retry", hold: "Hold", release: "Release", drop: "Drop" };
const DONE = { retry: "due now", hold: "held", release: "released", drop: "dropped" };
const EFFECT = {
  retry: "The mail is due at once and begins with the first step of the retry ladder.",
  hold: "The mail is not sent until it is released.",
  release: "The mail is due at once.",
  drop: "The mail is never sent. Its recipients end as bounced, and the sender gets no bounce mail. This can't be undone.",
};
const TWICE = "A recipient that is ambiguous may have got the mail already, and may get it twice.";

export const applies = (action, states) => states.some((state) => APPLIES[action].includes(state));

// Ask, then act. `what`: what the question names, as "3 messages". `states`: of the recipients it is about. Resolves
// with the sentence that says what happened; null: the reader said no. Raises ApiError.
export async function act(action, what, body, states) {
  const isTwice = action === "retry" && states.includes("ambiguous");
  const isWide = !body.ids;
  const extra = [];
  const lines = [EFFECT[action]];
  if (isTwice && !isWide) lines.push(TWICE);
  const also = h("input", { type: "checkbox" });
  if (isTwice && isWide)
    extra.push(h("label", { class: "check" }, also, h("span", {}, `Also those that are ambiguous. ${TWICE}`)));
  const title = `${LABELS[action]} ${what}?`;
  if (!(await confirmed(title, lines, LABELS[action], { isDangerous: action === "drop", extra }))) return null;
  if (also.checked) body = { ...body, ambiguous: true };
  const { changed, unknown = [], left = 0 } = await post(`/api/queue/${action}`, body);
  const rest = [
    unknown.length && `${many(unknown.length, "message")} no longer there`,
    left && `${many(left, "ambiguous recipient")} left as before`,
  ].filter(Boolean);
  const done = changed.length
    ? `${many(changed.length, "message")} ${DONE[action]}`
    : "Nothing changed: the mail was sent or changed meanwhile";
  return [done, ...rest].join("; ") + ".";
}
