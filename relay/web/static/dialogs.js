// Dialogs: Escape closes them, and the focus goes back to where it was.

import { h } from "./dom.js";

let number = 0;

// `content`: nodes. Resolves with the value of the button that closed it; "" after Escape.
export function open(title, content, buttons) {
  const titleId = `dialog-${(number += 1)}`;
  const before = document.activeElement;
  return new Promise((resolve) => {
    const dialog = h("dialog", { "aria-labelledby": titleId });
    const close = (value) => dialog.close(value);
    const row = buttons.map(({ label, value, tone, isFirst }) =>
      h("button", { type: "button", class: tone, autofocus: isFirst, onclick: () => close(value) }, label),
    );
    dialog.append(h("h2", { id: titleId }, title), ...content, h("div", { class: "buttons end" }, row));
    dialog.onclick = (event) => {
      if (event.target === dialog) close(""); // beside the dialog, on its backdrop
    };
    dialog.onclose = () => {
      dialog.remove();
      if (before && before.isConnected && !before.disabled) before.focus({ preventScroll: true });
      resolve(dialog.returnValue);
    };
    document.body.append(dialog);
    dialog.showModal();
  });
}

// Whether the reader agrees. `verb`: the button's label.
export async function confirmed(title, lines, verb, { isDangerous = false, extra = [] } = {}) {
  const answer = await open(
    title,
    [...lines.map((line) => h("p", {}, line)), ...extra],
    [
      { label: "Cancel", value: "", tone: "", isFirst: isDangerous },
      { label: verb, value: "yes", tone: isDangerous ? "danger" : "primary", isFirst: !isDangerous },
    ],
  );
  return answer === "yes";
}
