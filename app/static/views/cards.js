// A dump that runs, as a card; one that waits for its turn, as a line.

import { bytes, far, pause, percent, rate, remaining, when } from "../format.js";
import { ACTIVE_PHASES, guestStandsStill, isPending } from "../store.js";
import { curve } from "../traces.js";
import { field, setAttribute, setDisabled, setLines, setNotice, setText } from "./dom.js";

export function fillRunning(card, job, state, traces) {
  const paused = guestStandsStill(state, job);
  setAttribute(card, "id", `job-${job.job_id}`);
  setAttribute(card, "data-job-id", job.job_id);
  setAttribute(card, "data-job-uuid", job.uuid);
  setAttribute(card, "data-phase", job.phase);
  setAttribute(card, "data-guest", paused ? "paused" : "runs");
  setAttribute(card.querySelector(".job-name"), "title", job.dom);
  setText(field(card, "guest"), paused ? "guest stands still" : "guest runs");
  setLines(field(card, "warnings"), job.warnings);
  setNotice(field(card, "error"), state.errors.get(`cancel:${job.job_id}`)?.sentence);
  fillWho(card, job, state);
  fillSteps(card, job.phase);
  fillFigures(card, job);
  fillStood(card, traces);
  setAttribute(field(card, "curve"), "points", curve(traces.rates(job.job_id)));
}

export function fillWaiting(row, job, state) {
  setAttribute(row, "id", `job-${job.job_id}`);
  setAttribute(row, "data-job-uuid", job.uuid);
  const error = state.errors.get(`cancel:${job.job_id}`);
  fillWho(row, job, state);
  if (error) setText(field(row, "asked"), error.sentence);
}

/** How long the guest has stood still: this time, and in all. Also called between messages, for time goes on. */
export function fillStood(card, traces) {
  const stood = traces.stood(card.dataset.jobId);
  const over = stood && !stood.whole ? "over " : "";
  setText(field(card, "still"), stood?.current > 0 ? `${over}${pause(stood.current)}` : "");
  setText(field(card, "stood"), !stood || (over && stood.sum === 0) ? "–" : `${over}${pause(stood.sum)}`);
}

function fillWho(part, job, state) {
  const cancel = part.querySelector('[data-action="cancel"]');
  const asked = state.cancelling.has(job.job_id) || isPending(state, `cancel:${job.job_id}`);
  const notes = [`${job.operator ? `by ${job.operator}, ` : ""}${when(job.requested_at)}`, job.case, job.reason].filter(Boolean).join(" · ");
  setText(field(part, "dom"), job.dom);
  setText(field(part, "asked"), notes);
  setAttribute(field(part, "asked"), "title", notes);
  setText(cancel, asked ? "Cancelling…" : "Cancel");
  setAttribute(cancel, "aria-label", asked ? null : `Cancel the dump of ${job.dom}`);
  setDisabled(cancel, asked || job.phase === "recording", field(part, "dom"));
}

function fillSteps(card, phase) {
  const now = ACTIVE_PHASES.indexOf(phase);
  for (const step of card.querySelectorAll("[data-step]")) {
    const place = ACTIVE_PHASES.indexOf(step.dataset.step);
    setAttribute(step, "aria-current", place === now ? "step" : null);
    setAttribute(step, "data-done", place < now ? "" : null);
  }
}

function fillFigures(card, { dom, phase, mode, progress }) {
  const bar = card.querySelector("progress");
  const again = progress?.iteration > 1;
  const done = again ? null : percent(progress);
  setAttribute(bar, "aria-label", `Progress of ${dom}`);
  setAttribute(bar, "value", done ?? (phase === "queued" ? 0 : null)); // without a value the bar says "busy"
  setText(field(card, "far"), far(progress));
  const total = progress?.bytes_total ? ` of ${bytes(progress.bytes_total)}` : "";
  setText(field(card, "mode"), progress?.mode ?? mode);
  setText(field(card, "bytes"), progress ? bytes(progress.bytes_done) + total : "–");
  setText(field(card, "rate"), rate(progress?.rate_bytes_per_sec));
  setText(field(card, "left"), again ? "Left in pass" : "Remaining");
  setText(field(card, "remaining"), remaining(progress?.eta_sec));
}
