// Into the clipboard, where the browser allows it: only for pages that came by https or from this machine, and not always then.

import { setText } from "./dom.js";

const COPIED_MS = 2000;

/**
 * Copy the text of `element`, or `text` where it shows that in short, and let `button`, whose label is "Copy …", say so.
 * Refused, the text is selected, so that it can be copied by hand.
 */
export async function copyFrom(element, button, notify, text = element.textContent) {
  const what = button.ariaLabel.replace(/^Copy (.)/, (_, first) => first.toUpperCase());
  const copied = await copy(text);
  if (copied) {
    notify("success", `${what} is in the clipboard.`);
  } else {
    setText(element, text);
    getSelection().selectAllChildren(element);
    notify("warning", `This browser does not allow copying here. ${what} is selected: copy it with Ctrl+C.`);
  }
  button.dataset.copyWord ??= button.textContent;
  button.textContent = copied ? "Copied" : "Selected";
  setTimeout(() => {
    button.textContent = button.dataset.copyWord;
  }, COPIED_MS);
}

/** Every button with `data-copy` copies the text that has its name in `data-text`; `say` is given the sentence. */
export function copyOnPress(say) {
  document.addEventListener("click", ({ target }) => {
    const button = target.closest("[data-copy]");
    if (button) copyFrom(document.querySelector(`[data-text="${button.dataset.copy}"]`), button, (_kind, sentence) => say(sentence));
  });
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch (error) {
    console.warn(error);
    return false;
  }
}
