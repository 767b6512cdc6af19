// What happened last, newest first.

import { when } from "../format.js";
import { clone, field, keyed, setAttribute, setHidden, setMoment, setText } from "./dom.js";

export function activityView() {
  const list = document.getElementById("activity-list");
  const empty = document.getElementById("activity-empty");
  const heading = document.getElementById("activity-heading");
  list.replaceChildren(); // the server's lines carry no key; drawn again before the browser paints

  return ({ activity }) => {
    setHidden(empty, activity.length > 0);
    keyed(list, { items: withKeys(activity), attribute: "data-line", key: ([key]) => key, make: () => clone("activity-template"), fill, heir: heading });
  };
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
