// The dialog with the whole manifest of one dump. Its address says which; `show` follows the address.

import { askJson } from "../ask.js";
import { ago, when } from "../format.js";
import { isUnsaid, textsOf } from "../manifest.js";
import { serviceNow } from "../store.js";
import { copyFrom } from "./copy.js";
import { clone, field, setAttribute, setHidden, setLines, setText } from "./dom.js";

const SKELETON_LINES = 9;

export function createDetails(store, notify, leave) {
  const dialog = document.getElementById("details-dialog");
  const body = document.getElementById("details-body");
  const heading = document.getElementById("details-heading");
  const link = document.getElementById("details-link");
  const title = document.title;
  let shown = null; // the id of the dump, as it stands in the address
  let record = null;
  let asking = new AbortController();

  const load = async (id) => {
    asking.abort();
    asking = new AbortController();
    const { signal } = asking;
    record = null;
    setText(heading, "Dump");
    body.ariaBusy = "true";
    body.replaceChildren(skeleton());
    try {
      record = await askJson(`/api/memory-dumps/records/${id}`, signal);
      body.replaceChildren(filled(record));
      freshen(store.state);
      heading.replaceChildren("Dump of ", isolated(textsOf(record).dom));
      document.title = `${heading.textContent} · ${title}`;
    } catch (refusal) {
      if (signal.aborted) return;
      if (refusal.status === 401) leave();
      body.replaceChildren(problem(refusal.message, () => again(id)));
      body.querySelector("button").focus();
    } finally {
      if (!signal.aborted) body.ariaBusy = "false";
    }
  };

  const again = (id) => {
    heading.focus(); // the button goes
    load(id);
  };

  const show = (id) => {
    if (id === shown) return;
    shown = id ?? null;
    if (!id) return dialog.close();
    link.href = location.href;
    load(id);
    if (!dialog.open) dialog.showModal();
    heading.focus();
  };

  const freshen = (state) => {
    if (record && shown) setText(field(body, "ago"), ago((serviceNow(state) - Date.parse(record.timestamp)) / 1000));
  };

  // Whoever closes it goes back to where the list was; who goes back there has closed it.
  dialog.addEventListener("close", () => {
    asking.abort();
    document.title = title;
    if (shown && location.pathname.endsWith(`/${shown}`)) history.back();
    shown = null;
    if (document.activeElement === document.body) document.getElementById("records-heading").focus({ preventScroll: true });
  });
  document.getElementById("details-close").addEventListener("click", () => dialog.close());
  // Its content covers it, so what meets the dialog itself meets the backdrop. A press that began inside is a selection that went far.
  let outside = false;
  dialog.addEventListener("pointerdown", ({ target }) => {
    outside = target === dialog;
  });
  dialog.addEventListener("click", ({ target }) => {
    if (outside && target === dialog) dialog.close();
  });
  body.addEventListener("click", ({ target }) => {
    const button = target.closest("[data-copy]");
    if (button) copyFrom(textPlace(body, button.dataset.copy), button, notify);
  });
  addEventListener("beforeprint", () => {
    if (record && shown) field(dialog, "printed").textContent = `${location.href} · ${when(new Date(serviceNow(store.state)).toISOString())}`;
  });

  return { show, freshen };
}

function filled(record) {
  const article = clone("details-template");
  const texts = textsOf(record);
  for (const place of article.querySelectorAll("[data-text]")) setText(place, texts[place.dataset.text]);
  for (const button of article.querySelectorAll("[data-copy]")) setHidden(button, isUnsaid(texts[button.dataset.copy]));
  setText(field(article, "time"), when(record.timestamp));
  setAttribute(field(article, "time"), "datetime", record.timestamp);
  setLines(field(article, "warnings"), record.warnings);
  field(article, "json").href = `/api/memory-dumps/records/${encodeURIComponent(record.dump_id)}`;
  return article;
}

function textPlace(root, name) {
  return root.querySelector(`[data-text="${name}"]`);
}

function isolated(name) {
  const element = document.createElement("bdi");
  element.textContent = name;
  return element;
}

function skeleton() {
  const place = document.createElement("div");
  place.className = "skeleton";
  const words = document.createElement("p");
  words.className = "muted";
  words.textContent = "Loading the manifest…";
  place.append(words, ...Array.from({ length: SKELETON_LINES }, () => document.createElement("i")));
  return place;
}

function problem(sentence, again) {
  const notice = document.createElement("div");
  notice.className = "notice";
  notice.dataset.kind = "error";
  notice.role = "alert";
  const words = document.createElement("p");
  words.textContent = sentence;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "button";
  button.textContent = "Try again";
  button.addEventListener("click", again);
  notice.append(words, button);
  return notice;
}
