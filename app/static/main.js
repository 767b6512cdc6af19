// The page's script: takes over what the server rendered, and keeps it up to date.

import { connect } from "./connection.js";
import { createStore, endedBadly, isActive } from "./store.js";
import { activityView } from "./views/activity.js";
import { alarmsView } from "./views/alarms.js";
import { barView } from "./views/bar.js";
import { controlView } from "./views/control.js";
import { doorsView } from "./views/doors.js";
import { onFirstTouch } from "./views/load.js";
import { notify } from "./views/notify.js";
import { recordsView } from "./views/records.js";
import { statsView } from "./views/stats.js";

const FRESHEN_MS = 15_000; // "4 min ago" grows old by itself
const UNREACHABLE = "The service cannot be reached. Nothing was asked of it; try again when the page is live.";

const store = createStore(JSON.parse(document.getElementById("snapshot").textContent));
const leave = () => window.location.assign(`/login?next=${encodeURIComponent(window.location.pathname + window.location.search)}`);
const actions = lateActions();
const views = [barView(), statsView(), alarmsView(), controlView(store, actions, notify), lateJobsView(), recordsView(store, notify, leave), activityView(), doorsView(store, notify, leave)];

let drawing = false;

function draw() {
  drawing = false;
  for (const view of views) view(store.state);
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
  const load = async () => {
    loading = true;
    try {
      const { jobsView } = await import("./views/jobs.js");
      view ??= jobsView(store, actions, notify, begun);
      drawSoon();
    } catch (error) {
      console.warn(error); // tried again with the next change
    }
    loading = false;
  };
  onFirstTouch(load);
  return (state) => {
    if (view) return view(state);
    for (const job of state.jobs) if (isActive(job)) begun.add(job.job_id);
    if (!loading && (begun.size > 0 || endedBadly(state).length > 0)) load();
  };
}

store.subscribe(drawSoon);
setInterval(drawSoon, FRESHEN_MS);
draw();
document.documentElement.dataset.ready = "";
connect(store, leave);
