// How to dump: read from the options, once somebody has opened them. What cannot be is said at its field, and nothing is sent.

import { setAttribute, setHidden, setText } from "./dom.js";

const MOST_PAUSE_MS = 2_000_000;
const LONGEST_NOTE = 1000;
const UNSEEN = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]/;

export function createOptions(door) {
  const input = (name) => document.getElementById(`dump-${name}`);
  const [mode, compression, pause, reason, kase] = ["mode", "compression", "max_pause_ms", "reason", "case"].map(input);

  const say = (name, sentence) => {
    const error = document.getElementById(`dump-${name}-error`);
    setText(error, sentence ?? "");
    setHidden(error, !sentence);
    setAttribute(input(name), "aria-invalid", sentence ? "true" : null);
  };

  const wrong = {
    max_pause_ms: () =>
      !pause.disabled && pause.value.trim() && !(/^[0-9]{1,7}$/.test(pause.value.trim()) && Number(pause.value) >= 1 && Number(pause.value) <= MOST_PAUSE_MS)
        ? `Give a whole number of milliseconds from 1 to ${MOST_PAUSE_MS.toLocaleString("en")}, or nothing.`
        : null,
    reason: () => wrongNote(reason.value),
    case: () => wrongNote(kase.value),
  };

  const show = () => {
    pause.disabled = mode.value === "paused"; // which stops the guest for as long as the reading takes
    for (const hint of document.getElementById("dump-mode-hint").children) setHidden(hint, hint.dataset.for !== mode.value);
    for (const name in wrong) say(name, wrong[name]()); // at once: said when one leaves the field, it would move the button that one presses
    const notes = [reason.value && "reason", kase.value && "case"];
    const longest = !pause.disabled && pause.value.trim() && `${pause.value.trim()} ms`;
    setText(door.querySelector('[data-field="said"]'), [mode.value, compression.value, longest, ...notes].filter(Boolean).join(", "));
  };

  door.addEventListener("input", show);
  door.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  show();

  const point = (name) => {
    door.open = true;
    input(name).focus();
  };

  return {
    /** What the trigger's body says of them, or null if something is wrong with it. */
    read() {
      for (const name in wrong) say(name, wrong[name]());
      const first = Object.keys(wrong).find((name) => wrong[name]());
      if (first) {
        point(first);
        return null;
      }
      const wish = { mode: mode.value, compression: compression.value };
      if (!pause.disabled && pause.value.trim()) wish.max_pause_ms = Number(pause.value);
      if (reason.value.trim()) wish.reason = reason.value.trim();
      if (kase.value.trim()) wish.case = kase.value.trim();
      return wish;
    },
    /** The service does not take what stands in the field `name`. */
    refuse(name, sentence) {
      if (!wrong[name]) return;
      say(name, sentence);
      point(name);
    },
  };
}

function wrongNote(text) {
  if ([...text].length > LONGEST_NOTE) return `Give at most ${LONGEST_NOTE} characters; these are ${[...text].length}.`;
  return UNSEEN.test(text) ? "There are characters in this that one cannot see. Type it, or paste it as plain text." : null;
}
