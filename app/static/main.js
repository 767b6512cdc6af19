// The page's script: takes over what the server rendered, and keeps it up to date.

import { connect } from "./connection.js";
import { createStore, endedBadly, isActive, isPending } from "./store.js";
import { activityView, readLines } from "./views/activity.js";
import { alarmsView } from "./views/alarms.js";
import { barView } from "./views/bar.js";
import { controlView, takeVms } from "./views/control.js";
import { doorsView } from "./views/doors.js";
import { load, onFirstTouch } from "./views/load.js";
import { notify } from "./views/notify.js";
import { recordsView, takeRows } from "./views/records.js";
import { statsView } from "./views/stats.js";

const FRESHEN_MS = 15_000; // "4 min ago" grows old by itself
const UNREACHABLE = "The service cannot be reached. Nothing was asked of it; try again when the page is live.";

const { vms, rows, list, ...seed } = JSON.parse(document.getElementById("seed").textContent);
const records = takeRows(rows);
const store = createStore({ ...seed, vms: takeVms(vms), records: [...records, ...seed.records], activity: readLines() });
const leave = () => window.location.assign(`/login?next=${encodeURIComponent(window.location.pathname + window.location.search)}`);
const actions = lateActions();
const views = [barView(), statsView(), alarmsView(), controlView(store, actions, notify), lateJobsView(), recordsView(store, list && { records, ...list }, notify, leave), activityView(), doorsView(store, notify, leave)];

let drawing = false;

function draw() {
  drawing = false;
  for (const view of views) {
    try {
      view(store.state);
    } catch (error) {
      console.error(error); // the others go on
    }
  }
}

function drawSoon() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(draw);
}

/** What a person can ask for, loaded with the first touch: who only reads needs none of it. */
function lateActions() {
  let actions = null;
  const load = async () => {
    actions ??= (await import("./actions.js")).createActions(store, notify, leave);
  };
  onFirstTouch(load);
  const act = async (name, given, key) => {
    if (isPending(store.state, key)) return null;
    store.requestStarted(key);
    try {
      await load();
    } catch (error) {
      console.warn(error);
      store.requestFailed(key, UNREACHABLE);
      notify("error", UNREACHABLE);
      return null;
    }
    return actions[name](given);
  };
  return { trigger: (body) => act("trigger", body, "trigger"), cancel: (jobId) => act("cancel", jobId, `cancel:${jobId}`) };
}

/** The dumps that run, and how they end: loaded when there are any, or with the first touch. */
function lateJobsView() {
  const begun = new Set(); // ids of jobs that ran while it was loaded, and whose end is news
  let view = null;
  let loading = false;
  const come = async () => {
    if (loading || view) return;
    loading = true;
    try {
      const place = document.getElementById("job-template") ? null : document.body; // with dumps that run, the page brings it
      const { jobsView } = await load("jobs", "cards", place);
      view = jobsView(store, actions, notify, begun);
      drawSoon();
    } catch (error) {
      console.warn(error); // tried again with the next change
    }
    loading = false;
  };
  onFirstTouch(come);
  return (state) => {
    if (view) return view(state);
    for (const job of state.jobs) if (isActive(job)) begun.add(job.job_id);
    if (begun.size > 0 || endedBadly(state).length > 0) come();
  };
}

store.subscribe(drawSoon);
setInterval(drawSoon, FRESHEN_MS);
draw();
document.documentElement.dataset.ready = "";
connect(store, leave);
