// What a person must hear once: a toast over the page, and the same sentence in the polite live region.
//
//   notify("error", "The dump of web-01 failed. Make room in /var/dumps.", { event: "failed", name: "web-01" })
//
// With `event`, those that come within a second become one: "3 dumps failed" and their names. `kind` is success, error, warning
// or info. An error says what to do. How it looks comes with the first one, or with the first touch of a key or a button: what one
// does may fail because the service is away, and then nothing could be loaded any more.

import { load, onFirstTouch } from "./load.js";

const SHOWN_MS = 10_000;

let toasts = null;

export function notify(kind, sentence, more) {
  ready().then((show) => show(kind, sentence, more), () => showPlainly(kind, sentence));
}

function ready() {
  toasts ??= load("toasts", "toasts").then(({ createToasts }) => createToasts());
  toasts.catch((error) => {
    console.warn(error);
    toasts = null; // to be tried again with the next one
  });
  return toasts;
}

function showPlainly(kind, sentence) {
  const notice = document.createElement("p");
  notice.className = "notice";
  notice.dataset.kind = kind;
  notice.role = "alert";
  notice.textContent = sentence;
  document.getElementById("notices").append(notice);
  setTimeout(() => notice.remove(), SHOWN_MS);
}

onFirstTouch(ready);
