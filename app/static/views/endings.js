// How dumps ended: shown for some seconds where the dump ran, and if it was badly, also below, until somebody puts it away.

import { bytes, duration, pause, when } from "../format.js";
import { clone, field, keyed, setAttribute, setHidden, setLines, setText } from "./dom.js";

const SHOWN_MS = 8000;
const AGAIN_MS = 2000;
const LEAVING_MS = 160;

/** The card of an ended dump, which asks to be taken away (`leave`) after a while, but never while somebody reads it. */
export function makeResult(leave) {
  const card = clone("result-template");
  const look = () => {
    if (card.matches(":hover, :focus-within")) {
      setTimeout(look, AGAIN_MS);
      return;
    }
    card.dataset.leaving = "";
    setTimeout(leave, LEAVING_MS);
  };
  setTimeout(look, SHOWN_MS);
  return card;
}

export function fillResult(card, job, records) {
  const record = records.find((one) => one.dump_id === job.dump_id);
  const link = field(card, "view");
  setText(field(card, "dom"), job.dom);
  setAttribute(card, "data-phase", job.phase);
  setText(field(card, "phase"), job.phase);
  setText(field(card, "result"), job.phase === "completed" ? outcome(job, record) : (job.error?.message ?? ""));
  setLines(field(card, "warnings"), job.warnings);
  setHidden(link, !job.dump_id);
  setAttribute(link, "href", `/memory-dumps/${job.dump_id}`);
  setAttribute(link, "aria-label", `Details of the dump of ${job.dom}`);
}

/** Those that ended `bad`ly, newest first. */
export function showEnded(bad, heir) {
  const all = document.getElementById("dismiss-all");
  if (bad.length < 2 && all === document.activeElement) heir.focus({ preventScroll: true }); // the button goes
  setHidden(document.getElementById("ended"), bad.length === 0);
  setHidden(all, bad.length < 2);
  keyed(document.getElementById("ended-list"), {
    items: bad,
    attribute: "data-job-id",
    key: (job) => job.job_id,
    make: () => clone("ended-template"),
    fill: fillEnded,
    heir,
  });
}

function fillEnded(card, job) {
  setAttribute(card, "data-job-uuid", job.uuid);
  setAttribute(card, "data-phase", job.phase);
  setText(field(card, "dom"), job.dom);
  setText(field(card, "phase"), job.phase);
  setText(field(card, "code"), job.error && job.error.code !== job.phase ? job.error.code : "");
  setText(field(card, "message"), job.error?.message ?? "");
  setText(field(card, "finished"), when(job.finished_at));
  setLines(field(card, "warnings"), job.warnings);
  setAttribute(card.querySelector('[data-action="dismiss"]'), "aria-label", `Dismiss the ${job.phase} dump of ${job.dom}`);
}

/** `Sealed in 5.2 s; the guest stood still for 14 ms; 331 MiB of 2 GiB.` */
function outcome(job, record) {
  const took = job.started_at && job.finished_at ? ` in ${duration((Date.parse(job.finished_at) - Date.parse(job.started_at)) / 1000)}` : "";
  const stood = job.guest_pause_ms === null ? [] : [`the guest stood still for ${pause(job.guest_pause_ms)}`];
  const size = record ? [`${bytes(record.gzip_size_bytes)} of ${bytes(record.raw_size_bytes)}`] : [];
  return `${[`Sealed${took}`, ...stood, ...size].join("; ")}.`;
}
