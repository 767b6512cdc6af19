// The pages of accounts and tokens, written by the server. What their forms ask for goes to the API as JSON; what came of it is said, and
// the list is written anew by the server.

import { Refusal, unexplained } from "./ask.js";
import { isolated } from "./format.js";
import { send } from "./send.js";
import { copyOnPress } from "./views/copy.js";
import { field, setNotice, setText } from "./views/dom.js";

/** What is said of each deed that is done, given the answer. */
const DONE = {
  "make-account": ({ name }) => `The account ${isolated(name)} is made.`,
  "change-account": ({ name }) => `Role and limits of ${isolated(name)} are saved.`,
  "set-password": () => "The new password is set. Who was logged in by the old one has to log in again.",
  "remove-account": () => "The account is removed.",
  "end-sessions": ({ name, ended }) =>
    ended ? `${ended} session${ended === 1 ? "" : "s"} of ${isolated(name)} ended.` : `Nobody was logged in as ${isolated(name)}.`,
  "make-token": () => null, // what shows its secret says it
  "revoke-token": ({ number, label }) => `Token ${number}, ${isolated(label)}, is revoked.`,
};

/** What a field of a kind says in JSON. */
const VALUES = {
  text: (text) => text.trim(),
  textarea: (text) => text.split("\n").map((line) => line.trim()).filter(Boolean),
  date: (day) => `${day}T00:00:00Z`,
};

const LONGEST_MS = 10_000;
const said = document.getElementById("said");
const made = document.getElementById("made");
const written = new Map();

document.addEventListener("submit", (event) => {
  event.preventDefault();
  act(event.target);
});
copyOnPress((sentence) => setNotice(said, sentence));
remember(document.getElementById("kept"));
switchOn();
document.documentElement.dataset.ready = "";

async function act(form) {
  if (form.ariaBusy) return;
  form.ariaBusy = "true";
  setNotice(said, null);
  try {
    const answer = await asked(form);
    if (form.dataset.deed === "own-password") {
      location.assign("/login");
      return;
    }
    setNotice(said, DONE[form.dataset.deed](answer));
    form.reset();
    refused(form, null);
    showSecret(form.dataset.deed, answer);
    await readAnew(form);
  } catch (refusal) {
    if (!(refusal instanceof Refusal)) throw refusal;
    console.warn(form.action, refusal);
    if (refusal.status === 401) location.assign(`/login?next=${encodeURIComponent(location.pathname)}`);
    else refused(form, refusal);
  } finally {
    form.ariaBusy = null;
  }
}

/** The answer to what `form` asks for. Throws a `Refusal`. */
async function asked(form) {
  const path = form.getAttribute("action");
  const response = await send(path, JSON.stringify(bodyOf(form)), "load this page again to see");
  if (response.status === 204) return {};
  const answer = await response.json().catch(() => null);
  if (response.ok && answer !== null) return answer;
  throw new Refusal(response.status, answer?.detail ?? unexplained(response.status), answer ?? {});
}

/** What was filled in. An empty field asks for nothing. */
function bodyOf(form) {
  const named = [...form.elements].filter(({ name, value }) => name && value);
  return Object.fromEntries(named.map(({ name, type, value }) => [name, VALUES[type]?.(value) ?? value]));
}

/** Say beside `form` why it was refused, and mark the field that is at fault; with null, no more. */
function refused(form, refusal) {
  for (const input of form.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
  let notice = form.querySelector(":scope > .notice");
  if (!notice) {
    notice = Object.assign(document.createElement("p"), { className: "notice", role: "alert" });
    notice.dataset.kind = "error";
    form.querySelector(":scope > .button-row").before(notice);
  }
  setNotice(notice, refusal?.message.replace(/ \(at \$[^)]*\)/, "")); // that is for programs; here the field is marked
  const input = form.elements[refusal?.place?.slice(2)];
  input?.setAttribute("aria-invalid", "true");
  input?.focus();
}

/**
 * The list as the server writes it now, after `form` was sent. The keyboard stays with its entry, or goes to the heading; what is the
 * same as before stays, and so does what is being filled in elsewhere.
 */
async function readAnew(form) {
  const entry = form.closest("#kept li");
  const response = await fetch(location.pathname, { cache: "no-store", signal: AbortSignal.timeout(LONGEST_MS) }).catch(() => null);
  if (!made?.checkVisibility() && (response?.redirected || response?.status === 403)) {
    location.assign(response.url); // one's own session ended by it, or one's right to see this
    return;
  }
  if (!response?.ok || response.redirected) {
    setNotice(said, `${said.textContent} The list could not be read again: it may be out of date.`);
    return;
  }
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const list = page.getElementById("kept");
  const before = new Map(written);
  remember(list);
  for (const [id, html] of written) {
    const known = document.getElementById(id);
    if (!known) continue;
    if (before.get(id) === html) page.getElementById(id).replaceWith(known);
    else carryOver(known, page.getElementById(id), form);
  }
  document.getElementById("kept").replaceWith(list);
  switchOn();
  if (!entry) return;
  const again = document.getElementById(entry.id)?.querySelector(`[action="${form.getAttribute("action")}"]:not([popover]) [type=submit]`);
  (again ?? document.querySelector("h1")).focus();
}

/** What is open in an entry, and what is being filled in in its forms but `sent`. */
function carryOver(before, after, sent) {
  const [open, opens] = [before, after].map((entry) => entry.querySelector("details"));
  if (open) opens.open = open.open;
  for (const form of before.querySelectorAll("form")) {
    if (form === sent) continue;
    const then = after.querySelector(`[action="${form.getAttribute("action")}"]`);
    for (const { name, value } of form.elements) if (name) then.elements[name].value = value;
  }
}

/** Of each entry, how the server wrote it: only read, to see which have changed; nothing is ever made of this text. */
function remember(list) {
  written.clear();
  for (const entry of list.querySelectorAll("li[id]")) written.set(entry.id, entry.innerHTML);
}

/** The secret of a token that was just made, until that one is revoked. */
function showSecret(deed, answer) {
  if (deed === "make-token") {
    for (const name of ["number", "label"]) setText(field(made, name), answer.token[name]);
    setText(document.getElementById("secret"), answer.secret);
    made.hidden = false;
    made.querySelector("h2").focus();
  } else if (deed === "revoke-token" && field(made, "number").textContent === String(answer.number)) {
    made.hidden = true;
  }
}

/** Buttons that send are off until something listens to them. */
function switchOn() {
  for (const button of document.querySelectorAll("form [type=submit]")) button.disabled = false;
}
