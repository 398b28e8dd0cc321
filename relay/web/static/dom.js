// Makes elements, and changes a page in place. Content from the API becomes text nodes only, never markup.

const SVG = "http://www.w3.org/2000/svg";
const HANDLERS = ["onclick", "onkeydown", "onchange", "oninput", "onsubmit", "onpointermove", "oncopy"];
const READERS = ["open", "value", "checked", "selected"]; // the reader's, once an element is there

// An element: properties that begin with `on` are handlers, true and false are attributes without a value.
export function h(name, given, ...children) {
  return filled(document.createElement(name), given, children);
}

export function svg(name, given, ...children) {
  return filled(document.createElementNS(SVG, name), given, children);
}

function filled(made, given, children) {
  for (const [key, value] of Object.entries(given || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made[key] = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

// Make the children of `parent` like `wanted`, with as few changes as possible. Elements that stay keep focus, scroll
// position and selection; what a reader typed, ticked or opened stays as it is. `data-key` names an element among its
// siblings. Inside of `data-keep` nothing is changed.
export function morph(parent, wanted) {
  const fresh = wanted.filter((node) => node !== null && node !== undefined && node !== false);
  const keys = new Set(fresh.map(keyOf).filter(Boolean));
  const byKey = new Map();
  for (const node of [...parent.childNodes]) {
    const key = keyOf(node);
    if (key && keys.has(key)) byKey.set(key, node);
    else if (key) drop(node);
  }
  let place = parent.firstChild;
  for (const node of fresh) {
    const key = keyOf(node);
    const old = key ? byKey.get(key) : place && !keyOf(place) ? place : null;
    if (!old || !alike(old, node)) {
      parent.insertBefore(node, place);
      if (old && old === place) place = old.nextSibling;
      if (old) drop(old);
      continue;
    }
    if (old === place) place = place.nextSibling;
    else parent.insertBefore(old, place);
    become(old, node);
  }
  while (place) {
    const next = place.nextSibling;
    drop(place);
    place = next;
  }
}

let isLive = false;

// As `morph`, for what changes without the reader: an element that has the focus stays, though it is wanted no more.
export function update(parent, wanted) {
  isLive = true;
  try {
    morph(parent, wanted);
  } finally {
    isLive = false;
  }
}

const hasFocus = (node) => isLive && node.contains(document.activeElement);

function drop(node) {
  if (!hasFocus(node)) node.remove();
}

const keyOf = (node) => (node.dataset ? node.dataset.key : undefined);
const alike = (one, other) => one.nodeType === other.nodeType && one.nodeName === other.nodeName;

function become(old, fresh) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data && !isSelected(old)) old.data = fresh.data;
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE || "keep" in old.dataset) return;
  for (const handler of HANDLERS) if (old[handler] !== fresh[handler]) old[handler] = fresh[handler];
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) === value || READERS.includes(name)) continue;
    if (name !== "disabled" || !hasFocus(old)) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !READERS.includes(name)) old.removeAttribute(name);
  }
  morph(old, [...fresh.childNodes]);
}

// Whether the reader has selected something in that node: then its text must not change under the selection.
export function isSelected(node) {
  const selection = document.getSelection();
  return Boolean(
    selection && !selection.isCollapsed && selection.rangeCount && selection.getRangeAt(0).intersectsNode(node),
  );
}

// Call `work` now or after `everyMs` since the last call, once for all calls in between.
export function paced(work, everyMs, signal) {
  let timer = null;
  let last = -Infinity;
  const run = () => {
    timer = null;
    last = performance.now();
    if (!signal || !signal.aborted) work();
  };
  return () => {
    if (timer === null) timer = setTimeout(run, Math.max(0, last + everyMs - performance.now()));
  };
}

// Call `work` once nothing called for `quietMs`.
export function settled(work, quietMs) {
  let timer = null;
  const call = () => {
    clearTimeout(timer);
    timer = setTimeout(work, quietMs);
  };
  call.now = () => {
    clearTimeout(timer);
    return work();
  };
  return call;
}
