// The toasts that `notify` shows: a stack over the page, and the same sentences in the polite live region.

import { isolated } from "../format.js";
import { field, setText } from "./dom.js";
import { createRests, glide } from "./glide.js";

const SHOWN = 5;
const SHOWN_ON_PHONES = 2;
const MOST_WAITING = 50;
const SHOWN_MS = { success: 3000, info: 3000, warning: 3000, error: 8000 };
const NAMED = 8;
const TOGETHER_MS = 1000;
const SAID_MS = 10_000;

/** What `notify` calls. */
export function createToasts() {
  const toasts = new Toasts();
  const merging = new Map(); // event → the toast that takes up more of them

  return function notify(kind, sentence, { event = null, name = "" } = {}) {
    const other = merging.get(event);
    if (other && !other.left) {
      other.names.push(name);
      toasts.change(other, kind, together(other.names, event, kind));
      return;
    }
    const toast = { kind, sentence, names: [name], element: null, timer: null, left: false, gone: false };
    say(sentence);
    toasts.add(toast);
    if (!event) return;
    merging.set(event, toast);
    setTimeout(() => {
      merging.delete(event);
      if (toast.names.length > 1) say(toast.sentence);
    }, TOGETHER_MS);
  };
}

/** The stack of them. Those that are more than one can take in at once wait until others have gone. */
class Toasts {
  #messages = document.getElementById("messages");
  #list = document.getElementById("toasts");
  #narrow = window.matchMedia("(max-width: 47.99rem)");
  #shown = new Map(); // element → toast
  #waiting = [];
  #rests = createRests(() => this.#settle());
  #more = Object.assign(document.createElement("li"), { className: "toast-more" });
  #held = false; // while one reads, none leaves
  #cameFrom = null; // where the keyboard was before it came here

  constructor() {
    const list = this.#list;
    list.addEventListener("mouseenter", () => this.#hold());
    list.addEventListener("mouseleave", () => this.#release());
    list.addEventListener("focusin", ({ relatedTarget }) => {
      if (!list.contains(relatedTarget)) this.#cameFrom = relatedTarget;
      this.#hold();
    });
    list.addEventListener("focusout", () => requestAnimationFrame(() => this.#release()));
    addEventListener("keydown", ({ key }) => {
      if (key === "F8") list.querySelector("button")?.focus();
    });
    // A dialog that opens would cover them, and one that closes takes with it what is in it.
    new MutationObserver(() => this.#bringToFront()).observe(document.body, { subtree: true, attributeFilter: ["open"] });
  }

  add(toast) {
    if (this.#shown.size === 0) this.#held = false;
    this.#waiting.push(toast);
    this.#settle();
    if (this.#waiting.length > MOST_WAITING) this.#waiting.shift(); // it stands in the activity, too
    this.#countMore();
  }

  change(toast, kind, sentence) {
    Object.assign(toast, { kind, sentence });
    if (!toast.element) return;
    this.#settle();
    this.#leaveInTime(toast);
  }

  /** First slides out what is to leave; then comes, in one glide, what says something else now and what there is room for. */
  #settle() {
    if (!this.#rests.now) return;
    const leaving = [...this.#shown.values()].filter((toast) => toast.left && !toast.gone);
    for (const toast of leaving) {
      toast.gone = true;
      toast.element.dataset.leaving = "";
    }
    const slides = motionsOf(leaving);
    if (slides.length > 0) {
      this.#rests.wait(slides);
      return;
    }
    const most = this.#narrow.matches ? SHOWN_ON_PHONES : SHOWN;
    const gone = [...this.#shown.values()].filter((toast) => toast.gone);
    const coming = this.#waiting.splice(0, most - this.#shown.size + gone.length);
    for (const toast of coming) toast.element = draw(toast, () => this.#leave(toast));
    const focused = gone.some(({ element }) => element.contains(document.activeElement));
    const aside = glide(() => this.#shown.keys(), () => {
      for (const { element, sentence } of this.#shown.values()) setText(field(element, "sentence"), sentence);
      for (const { element } of gone) element.remove();
      for (const { element } of coming) this.#list.prepend(element);
    });
    for (const { element } of gone) this.#shown.delete(element);
    for (const toast of coming) this.#shown.set(toast.element, toast);
    this.#bringToFront();
    this.#rests.wait([...aside, ...motionsOf(coming)]);
    for (const toast of coming) this.#leaveInTime(toast);
    if (focused) (this.#list.querySelector("button") ?? this.#cameFrom)?.focus({ preventScroll: true });
    this.#countMore();
    if (this.#shown.size === 0 && this.#list.matches(":popover-open")) this.#list.hidePopover();
  }

  #leaveInTime(toast) {
    clearTimeout(toast.timer);
    if (!this.#held && !toast.left) toast.timer = setTimeout(() => this.#leave(toast), SHOWN_MS[toast.kind]);
  }

  #leave(toast) {
    clearTimeout(toast.timer);
    if (toast.left) return;
    toast.left = true;
    this.#settle();
  }

  #hold() {
    this.#held = true;
    for (const toast of this.#shown.values()) clearTimeout(toast.timer);
  }

  #release() {
    this.#held = this.#list.matches(":hover") || this.#list.contains(document.activeElement);
    for (const toast of this.#shown.values()) this.#leaveInTime(toast);
  }

  #countMore() {
    setText(this.#more, `and ${this.#waiting.length} more`);
    if (this.#waiting.length > 0) this.#list.append(this.#more);
    else this.#more.remove();
  }

  /** Above a modal dialog nothing can be seen, heard or closed but what is within it. */
  #bringToFront() {
    const host = [...document.querySelectorAll("dialog:modal")].at(-1) ?? document.body;
    if (this.#messages.parentElement !== host) host.append(this.#messages);
    if (this.#shown.size > 0 && !this.#list.matches(":popover-open")) this.#list.showPopover();
  }
}

/** How they slide in or out. */
function motionsOf(toasts) {
  return toasts.flatMap(({ element }) => element.getAnimations());
}

function together(names, event, kind) {
  const named = names.slice(0, NAMED).map(isolated).join(", ");
  const rest = names.length > NAMED ? ` and ${names.length - NAMED} more` : "";
  const why = kind === "error" ? " Running dumps says why, and what to do." : "";
  return `${names.length} dumps ${event}: ${named}${rest}.${why}`;
}

function say(sentence) {
  const said = document.createElement("p");
  requestAnimationFrame(() => {
    said.textContent = sentence;
    document.getElementById("announcements").append(said);
    setTimeout(() => said.remove(), SAID_MS); // from here on: a hidden tab draws nothing until somebody looks
  });
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
