// Sealed dumps, newest first.

import { bytes, duration, pause, short, when } from "../format.js";
import { clone, field, keyed, setAttribute, setHidden, setLines, setMoment, setText } from "./dom.js";

const COPIED_MS = 2000;

export function recordsView(notify) {
  const table = document.getElementById("records-table");
  const empty = document.getElementById("records-empty");
  const foot = document.getElementById("records-foot");
  const heading = document.getElementById("records-heading");
  let newcomersShine = false;

  table.addEventListener("click", (event) => {
    const button = event.target.closest('[data-action="copy"]');
    if (button) copyHash(button, notify);
  });

  return ({ records }) => {
    setHidden(table, records.length === 0);
    setHidden(empty, records.length > 0);
    setHidden(foot, records.length < 50);
    keyed(table, {
      items: records,
      attribute: "data-dump-id",
      key: (record) => record.dump_id,
      make: () => make(newcomersShine),
      fill,
      heir: heading,
    });
    newcomersShine = true;
  };
}

function make(shines) {
  const rows = clone("record-template");
  if (shines) rows.dataset.new = "";
  return rows;
}

function fill(rows, record) {
  setText(field(rows, "dom"), record.dom);
  setAttribute(field(rows, "dom"), "title", record.uuid);
  setText(field(rows, "vmid"), record.vmid || "–");
  setMoment(field(rows, "time"), record.timestamp, when(record.timestamp));
  setText(field(rows, "mode"), record.mode);
  setText(field(rows, "duration"), duration(record.duration_sec));
  setText(field(rows, "pause"), pause(record.guest_pause_ms));
  setText(field(rows, "raw-size"), bytes(record.raw_size_bytes));
  setText(field(rows, "stored-size"), bytes(record.gzip_size_bytes));
  setText(field(rows, "sha256"), short(record.sha256));
  setAttribute(field(rows, "sha256"), "title", record.sha256);
  setAttribute(rows.querySelector('[data-action="copy"]'), "aria-label", `Copy the SHA-256 of the dump of ${record.dom}`);
  setText(field(rows, "path"), record.dump_path);
  setLines(field(rows, "warnings"), record.warnings);
}

async function copyHash(button, notify) {
  const hash = field(button.parentElement, "sha256");
  const copied = await copy(hash.title);
  if (!copied) setText(hash, hash.title); // then it can at least be selected by hand
  setText(button, copied ? "Copied" : "Not possible");
  notify(copied ? "success" : "warning", copied ? "The SHA-256 is in the clipboard." : "This browser does not allow copying here; the whole SHA-256 is shown instead.");
  setTimeout(() => setText(button, "Copy"), COPIED_MS);
}

/** Whether it worked: browsers give the clipboard only to pages that came by https or from this machine. */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}
