// Dumps that run, those that wait for their turn, and how they end.

import { duration, isolated, pause } from "../format.js";
import { endedBadly, isActive } from "../store.js";
import { createTraces } from "../traces.js";
import { fillRunning, fillStood, fillWaiting } from "./cards.js";
import { clone, keyed, setHidden, setText } from "./dom.js";
import { fillResult, makeResult, showEnded } from "./endings.js";
import { createRests } from "./glide.js";

const KIND_OF_ENDING = { completed: "success", cancelled: "info", failed: "error", interrupted: "error" };
const MOST_RESULTS = 6;
const MOST_WAITING = 100;
const TICK_MS = 100;

/** `begun`: ids of jobs that ran before it was here, and whose end is news nevertheless. */
export function jobsView(store, actions, notify, begun = new Set()) {
  const part = (name) => document.getElementById(name);
  const [section, running, waiting, heading] = ["jobs", "jobs-list", "waiting-list", "jobs-heading"].map(part);
  const atOnce = Number(section.dataset.atOnce);
  const traces = createTraces();
  const results = new Set(); // ids of ended jobs whose result is shown, the newest last
  const tell = teller(notify, begun, (job) => {
    results.add(job.job_id);
    if (results.size > MOST_RESULTS) results.delete(results.values().next().value);
  });
  const rests = createRests(() => view(store.state));
  let heights = new Map(); // job id → how high its card is that goes
  let shown = "";
  let ticking = null;

  const leave = (jobId) => {
    results.delete(jobId);
    view(store.state);
  };
  const hear = (state) => {
    if (state.connection !== "live") traces.gap();
    traces.note(state.jobs.filter((job) => isActive(job) && job.phase !== "queued"), state.connection === "live");
  };

  section.addEventListener("click", (event) => {
    const button = event.target.closest("[data-action]");
    const jobId = button?.closest("[data-job-id]")?.dataset.jobId;
    if (button?.dataset.action === "cancel") actions.cancel(jobId);
    if (button?.dataset.action === "dismiss") store.dismiss([jobId]);
    if (button?.dataset.action === "dismiss-all") store.dismiss(endedBadly(store.state).map((job) => job.job_id));
  });
  store.subscribe(hear); // each message, for a hidden page draws none, and a guest may stand still in between
  hear(store.state);

  const tick = () => {
    const still = [...running.children].filter((card) => traces.stood(card.dataset.jobId)?.current > 0);
    for (const card of still) fillStood(card, traces);
    ticking = still.length > 0 ? setTimeout(tick, TICK_MS) : null;
  };

  const makeCard = (job) => {
    if (isActive(job)) return clone("job-template");
    const card = makeResult(() => leave(job.job_id));
    const before = heights.get(job.job_id);
    if (before) card.style.minBlockSize = `${before}px`; // what stands below stays until it leaves
    return card;
  };

  const draw = (cards, later, bad, state) => {
    const list = (items, attribute, make, fill) => ({ items, attribute, key: slot, make, fill, heir: heading });
    const fillCard = (card, job) => (isActive(job) ? fillRunning(card, job, state, traces) : fillResult(card, job, state.records));
    setHidden(part("jobs-empty"), cards.length > 0);
    keyed(running, list(cards, "data-slot", makeCard, fillCard));
    keyed(waiting, list(later.slice(0, MOST_WAITING), "data-job-id", () => clone("waiting-template"), (row, job) => fillWaiting(row, job, state)));
    setHidden(part("waiting"), later.length === 0);
    setText(part("waiting-heading"), later.length > MOST_WAITING ? `The first ${MOST_WAITING} of ${later.length} waiting` : `${later.length} waiting`);
    showEnded(bad, heading);
  };

  function view(state) {
    tell(state);
    const bad = endedBadly(state);
    const [cards, later] = arranged(state.jobs, atOnce, results);
    const arrangement = [cards.map(slot), bad.map(slot), ...cards.map((job) => job.warnings.length)].join(" ");
    if (arrangement === shown) draw(cards, later, bad, state);
    else if (!rests.now) return;
    else {
      heights = new Map([...running.children].map((card) => [card.dataset.jobId, card.getBoundingClientRect().height]));
      rests.glide(() => section.querySelectorAll(".job, .ended"), () => draw(cards, later, bad, state));
    }
    shown = arrangement;
    setText(part("jobs-count"), counted(running));
    if (!ticking) tick();
  }
  return view;
}

/** What has a card: in the order in which it was asked for, so that one which comes, comes last. And what waits behind. */
function arranged(jobs, atOnce, results) {
  const inOrder = jobs.toReversed();
  const queued = inOrder.filter((job) => job.phase === "queued");
  const begun = inOrder.filter((job) => isActive(job) && job.phase !== "queued").length;
  const later = queued.slice(Math.max(0, atOnce - begun));
  const behind = new Set(later);
  return [inOrder.filter((job) => (isActive(job) && !behind.has(job)) || results.has(job.job_id)), later];
}

/** What one has to know without seeing each card: how many dumps run, and how many guests stand still for them. */
function counted(cards) {
  const [all, still] = ["", '="paused"'].map((which) => cards.querySelectorAll(`[data-guest${which}]`).length);
  if (all < 2) return "";
  return still > 0 ? `standing still: ${still} of ${all}` : `${all} running`;
}

/** A card and the result that follows it are two elements. */
function slot(job) {
  return isActive(job) ? job.job_id : `${job.job_id} ${job.phase}`;
}

/** Says aloud how a job ended that was running before; what had ended before the page came is not news. */
function teller(notify, begun, ended) {
  let running = begun;
  return ({ jobs }) => {
    for (const job of jobs) {
      if (!running.has(job.job_id) || isActive(job)) continue;
      notify(KIND_OF_ENDING[job.phase], ending(job), { event: job.phase, name: job.dom });
      ended(job);
    }
    running = new Set(jobs.filter(isActive).map((job) => job.job_id));
  };
}

function ending(job) {
  const name = isolated(job.dom);
  if (job.phase !== "completed") return `The dump of ${name} ${job.phase === "failed" ? "failed" : `was ${job.phase}`}. ${job.error?.message ?? ""}`.trim();
  const took = job.started_at && job.finished_at ? ` in ${duration((Date.parse(job.finished_at) - Date.parse(job.started_at)) / 1000)}` : "";
  const stood = job.guest_pause_ms === null ? "" : ` The guest stood still for ${pause(job.guest_pause_ms)}.`;
  return `The dump of ${name} is complete${took}.${stood}`;
}
