// The page of one dump: everything on it was written by the server; here it learns to copy and to print.

import { when } from "./format.js";
import { copyOnPress } from "./views/copy.js";
import { field } from "./views/dom.js";

const said = document.getElementById("said");

copyOnPress((sentence) => {
  said.textContent = sentence;
});

document.getElementById("print").addEventListener("click", () => window.print());

// By the service's clock, not by this computer's: it stands on evidence.
const printed = field(document, "printed");
const servedAt = Date.parse(printed.dateTime);
addEventListener("beforeprint", () => {
  printed.textContent = when(new Date(servedAt + performance.now()).toISOString());
});

// Here after the list had opened it as a dialog, and was reloaded: then going back changes the address and nothing else.
addEventListener("popstate", () => {
  if (!location.hash) location.reload();
});
document.documentElement.dataset.ready = "";
