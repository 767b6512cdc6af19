// What happened last, newest first; and how much of it came since the person looked.

import { when } from "../format.js";
import { clone, field, keyed, setAttribute, setHidden, setMoment, setText } from "./dom.js";

const KEY = "memory-dumps-activity-seen";

export function activityView() {
  const list = document.getElementById("activity-list");
  const empty = document.getElementById("activity-empty");
  const heading = document.getElementById("activity-heading");
  const badges = document.querySelectorAll("[data-activity-badge]"); // at the entry, and at the menu that hides it
  const seen = memory();
  let inSight = false;
  let first = true;
  let lines = [];

  const count = () => {
    if (inSight && document.visibilityState === "visible" && lines.length > 0) seen.set(lines[0].at);
    const unseen = lines.filter((line) => line.at > (seen.get() ?? lines[0].at)).length;
    for (const badge of badges) {
      setHidden(badge, unseen === 0);
      setText(badge, unseen === 0 ? "" : unseen);
    }
    const said = (name) => (unseen === 0 ? null : `${name}, ${unseen} new`);
    setAttribute(document.getElementById("activity-link"), "aria-label", said("Activity"));
    setAttribute(document.querySelector(".menu-button"), "aria-label", said("Menu"));
  };
  const see = (sight) => {
    inSight = sight;
    count();
  };
  new IntersectionObserver((entries) => see(entries.at(-1).isIntersecting)).observe(heading);
  list.addEventListener("focusin", () => see(true));
  document.addEventListener("visibilitychange", count);
  window.addEventListener("storage", count);
  list.replaceChildren(); // the server's lines carry no key; drawn again before the browser paints

  return ({ activity }) => {
    if (activity === lines) return;
    lines = activity;
    if (seen.get() === null && lines.length > 0) seen.set(lines[0].at); // to somebody who has never been here nothing is news
    setHidden(empty, activity.length > 0);
    keyed(list, { items: withKeys(activity), attribute: "data-line", key: ([key]) => key, make: () => make(first), fill, heir: heading });
    first = false;
    count();
  };
}

/** The lines that the server wrote. */
export function readLines() {
  return [...document.getElementById("activity-list").children].map((item) => ({
    ...item.dataset,
    at: item.querySelector("time").dateTime,
    message: item.lastElementChild.textContent,
  }));
}

/** The time of the newest line that was looked at, the same for all tabs. */
function memory() {
  let kept = null;
  return {
    get() {
      try {
        return localStorage.getItem(KEY);
      } catch {
        return kept;
      }
    },
    set(at) {
      kept = at;
      try {
        if (localStorage.getItem(KEY) !== at) localStorage.setItem(KEY, at);
      } catch {} // a browser that keeps nothing
    },
  };
}

function make(first) {
  const item = clone("activity-template");
  if (!first) item.dataset.new = "";
  return item;
}

/** Lines have no id. Time and words are one, and a number makes it unique if two are the same. */
function withKeys(lines) {
  const seen = new Map();
  return lines.toReversed().map((line) => {
    const words = `${line.at} ${line.code} ${line.message}`;
    const count = seen.get(words) ?? 0;
    seen.set(words, count + 1);
    return [`${words} ${count}`, line];
  }).toReversed();
}

function fill(item, [, line]) {
  setAttribute(item, "data-kind", line.kind);
  setAttribute(item, "data-code", line.code);
  setText(field(item, "kind"), line.kind);
  setMoment(field(item, "time"), line.at, when(line.at));
  setText(field(item, "message"), line.message);
}
