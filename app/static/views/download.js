// The records as a table for spreadsheets. Loaded with the press that asks for it.

import { askJson } from "../ask.js";
import { RECORDS } from "../list.js";

/** Asks first whether it can be had: a browser would save the refusal, or show it instead of the page. */
export async function download(href, query, notify, leave) {
  query.set("limit", 1);
  try {
    const { count } = await askJson(`${RECORDS}?${query}`, new AbortController().signal);
    const link = document.createElement("a");
    link.href = href;
    link.download = "";
    link.click();
    notify("info", `The download of ${count.toLocaleString("en")} ${count === 1 ? "record" : "records"} begins.`);
  } catch (refusal) {
    if (refusal.status === 401) leave();
    else notify("error", `Nothing is downloaded. ${refusal.message}`);
  }
}
