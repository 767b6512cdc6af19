// What a person must hear once: a toast over the page, and the same sentence in the polite live region.
//
//   notify("error", "The dump of web-01 failed. Make room in /var/dumps.", { event: "failed", name: "web-01" })
//
// With `event`, those that come within a second become one: "3 dumps failed" and their names. `kind` is success, error, warning
// or info. An error says what to do.

import { field, setText } from "./dom.js";

const SHOWN = 5;
const SHOWN_ON_PHONES = 2;
const SHOWN_MS = { success: 3000, info: 3000, warning: 5000, error: 8000 };
const NAMED = 8;
const TOGETHER_MS = 1000;
const LEAVING_MS = 160;
const SAID_MS = 10_000;

/** `notify`, which puts a sentence before the person's eyes and ears. */
export function createToasts() {
  const messages = document.getElementById("messages");
  const list = document.getElementById("toasts");
  const narrow = window.matchMedia("(max-width: 47.99rem)");
  const waiting = []; // beyond those that are shown
  const merging = new Map(); // event → the toast that takes up more of them
  const more = document.createElement("li");
  more.className = "toast-more";
  let held = false;

  /** Above a modal dialog nothing can be seen or heard but what is within it. */
  const bringToFront = () => {
    const host = [...document.querySelectorAll("dialog:modal")].at(-1) ?? document.body;
    if (messages.parentElement !== host) host.append(messages);
    if (list.matches(":popover-open")) list.hidePopover();
    if (list.children.length > 0) list.showPopover();
  };

  const say = (sentence) => {
    const said = document.createElement("p");
    requestAnimationFrame(() => {
      said.textContent = sentence;
      document.getElementById("announcements").append(said);
    });
    setTimeout(() => said.remove(), SAID_MS);
  };

  const countMore = () => {
    setText(more, waiting.length > 0 ? `and ${waiting.length} more` : "");
    if (waiting.length > 0) list.append(more);
    else more.remove();
  };

  const leave = (toast) => {
    clearTimeout(toast.timer);
    if (toast.left) return;
    toast.left = true;
    toast.element.dataset.leaving = "";
    setTimeout(() => {
      toast.element.remove();
      if (waiting.length > 0) show(waiting.shift());
      countMore();
      if (list.children.length === 0 && list.matches(":popover-open")) list.hidePopover();
    }, LEAVING_MS);
  };

  const wait = (toast) => {
    clearTimeout(toast.timer);
    if (!held && !toast.left) toast.timer = setTimeout(() => leave(toast), SHOWN_MS[toast.kind]);
  };

  const show = (toast) => {
    toast.element = draw(toast, () => leave(toast));
    toasts.set(toast.element, toast);
    list.prepend(toast.element);
    wait(toast);
  };

  const toasts = new WeakMap();
  const onAll = (act) => {
    for (const element of list.children) if (toasts.has(element)) act(toasts.get(element));
  };
  const hold = () => {
    held = true;
    onAll((toast) => clearTimeout(toast.timer));
  };
  const release = () => {
    held = list.matches(":hover") || list.contains(document.activeElement);
    onAll(wait);
  };
  list.addEventListener("mouseenter", hold);
  list.addEventListener("focusin", hold);
  list.addEventListener("mouseleave", release);
  list.addEventListener("focusout", () => requestAnimationFrame(release));
  document.addEventListener("close", bringToFront, true); // of a dialog: it would take the toasts with it

  const merged = (event, name, kind) => {
    const toast = merging.get(event);
    if (!toast || toast.left) return false;
    toast.names.push(name);
    toast.kind = kind;
    toast.sentence = together(toast.names, event, kind);
    if (toast.element) setText(field(toast.element, "sentence"), toast.sentence);
    if (toast.element) wait(toast);
    return true;
  };

  return function notify(kind, sentence, { event = null, name = "" } = {}) {
    say(sentence);
    if (event && merged(event, name, kind)) return;
    const toast = { kind, sentence, names: [name], element: null, timer: null, left: false };
    if (event) {
      merging.set(event, toast);
      setTimeout(() => merging.get(event) === toast && merging.delete(event), TOGETHER_MS);
    }
    held = list.children.length > 0 && held;
    const most = narrow.matches ? SHOWN_ON_PHONES : SHOWN;
    if (list.querySelectorAll(".toast").length < most) show(toast);
    else waiting.push(toast);
    countMore();
    bringToFront();
  };
}

/** A name within a sentence, whatever its letters do to the direction of those around it. */
export function isolated(name) {
  return `\u2068${name}\u2069`;
}

function together(names, event, kind) {
  const named = names.slice(0, NAMED).map(isolated).join(", ");
  const rest = names.length > NAMED ? ` and ${names.length - NAMED} more` : "";
  const why = kind === "error" ? " Why, and what to do, stands with each of them under Running dumps." : "";
  return `${names.length} dumps ${event}: ${named}${rest}.${why}`;
}

function draw({ kind, sentence }, close) {
  const item = document.createElement("li");
  item.className = "toast";
  item.dataset.kind = kind;
  const word = document.createElement("strong");
  word.className = "visually-hidden";
  word.textContent = `${kind}: `;
  const text = document.createElement("p");
  text.dataset.field = "sentence";
  text.textContent = sentence;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "toast-close";
  button.ariaLabel = "Close this message";
  button.textContent = "×";
  button.addEventListener("click", close);
  item.append(word, text, button);
  return item;
}
