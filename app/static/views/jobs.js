// Dumps that run, and those that ended without one.

import { bytes, duration, far, pause, percent, rate, remaining, when } from "../format.js";
import { ACTIVE_PHASES, endedBadly, guestStandsStill, isActive, isPending } from "../store.js";
import { clone, field, keyed, setAttribute, setDisabled, setHidden, setLines, setNotice, setText } from "./dom.js";

const KIND_OF_ENDING = { completed: "success", cancelled: "info", failed: "error", interrupted: "error" };

export function jobsView(store, actions, notify) {
  const section = document.getElementById("jobs");
  const running = document.getElementById("jobs-list");
  const empty = document.getElementById("jobs-empty");
  const ended = document.getElementById("ended");
  const endedList = document.getElementById("ended-list");
  const dismissAll = document.getElementById("dismiss-all");
  const heading = document.getElementById("jobs-heading");
  const tell = teller(notify);

  section.addEventListener("click", (event) => {
    const button = event.target.closest("[data-action]");
    const jobId = button?.closest("[data-job-id]")?.dataset.jobId;
    if (button?.dataset.action === "cancel") actions.cancel(jobId);
    if (button?.dataset.action === "dismiss") store.dismiss([jobId]);
    if (button?.dataset.action === "dismiss-all") store.dismiss(endedBadly(store.state).map((job) => job.job_id));
  });

  return (state) => {
    const active = state.jobs.filter(isActive);
    const bad = endedBadly(state);
    setHidden(empty, active.length > 0);
    setHidden(dismissAll, bad.length < 2);
    const list = (items, template, fill) => ({
      items,
      attribute: "data-job-id",
      key: (job) => job.job_id,
      make: () => clone(template),
      fill,
      heir: heading,
    });
    keyed(running, list(active, "job-template", (card, job) => fillRunning(card, job, state)));
    keyed(endedList, list(bad, "ended-template", fillEnded));
    setHidden(ended, bad.length === 0);
    tell(state);
  };
}

function fillRunning(card, job, state) {
  const cancel = card.querySelector('[data-action="cancel"]');
  const asked = state.cancelling.has(job.job_id) || isPending(state, `cancel:${job.job_id}`);
  const paused = guestStandsStill(state, job);
  setAttribute(card, "id", `job-${job.job_id}`);
  setAttribute(card, "data-job-uuid", job.uuid);
  setAttribute(card, "data-phase", job.phase);
  setAttribute(card, "data-guest", paused ? "paused" : "runs");
  setText(field(card, "dom"), job.dom);
  setText(field(card, "guest"), paused ? "guest stands still" : "guest runs");
  setText(field(card, "asked"), `${job.operator ? `by ${job.operator}, ` : ""}${when(job.requested_at)}`);
  setText(cancel, asked ? "Cancelling…" : "Cancel");
  setAttribute(cancel, "aria-label", asked ? null : `Cancel the dump of ${job.dom}`);
  setDisabled(cancel, asked || job.phase === "recording", field(card, "dom"));
  setLines(field(card, "warnings"), job.warnings);
  setNotice(field(card, "error"), state.errors.get(`cancel:${job.job_id}`));
  fillSteps(card, job.phase);
  fillFigures(card, job);
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

/** Says aloud how a job ended that was running before; what had ended before the page came is not news. */
function teller(notify) {
  let running = new Set();
  return ({ jobs }) => {
    for (const job of jobs) {
      if (running.has(job.job_id) && !isActive(job)) notify(KIND_OF_ENDING[job.phase], ending(job), { event: job.phase, name: job.dom });
    }
    running = new Set(jobs.filter(isActive).map((job) => job.job_id));
  };
}

function ending(job) {
  if (job.phase !== "completed") return `The dump of ${job.dom} ${job.phase === "failed" ? "failed" : `was ${job.phase}`}. ${job.error?.message ?? ""}`.trim();
  const took = job.started_at && job.finished_at ? ` in ${duration((Date.parse(job.finished_at) - Date.parse(job.started_at)) / 1000)}` : "";
  const stood = job.guest_pause_ms === null ? "" : ` The guest stood still for ${pause(job.guest_pause_ms)}.`;
  return `The dump of ${job.dom} is complete${took}.${stood}`;
}
