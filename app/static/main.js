// The page's script: takes over what the server rendered, and keeps it up to date.

import { createActions } from "./actions.js";
import { connect } from "./connection.js";
import { createStore } from "./store.js";
import { activityView } from "./views/activity.js";
import { alarmsView } from "./views/alarms.js";
import { barView } from "./views/bar.js";
import { controlView } from "./views/control.js";
import { doorsView } from "./views/doors.js";
import { jobsView } from "./views/jobs.js";
import { notify } from "./views/notify.js";
import { recordsView } from "./views/records.js";
import { statsView } from "./views/stats.js";

const FRESHEN_MS = 15_000; // "4 min ago" grows old by itself

const store = createStore(JSON.parse(document.getElementById("snapshot").textContent));
const leave = () => window.location.assign(`/login?next=${encodeURIComponent(window.location.pathname + window.location.search)}`);
const actions = createActions(store, notify, leave);
const views = [barView(), statsView(), alarmsView(), controlView(store, actions, notify), jobsView(store, actions, notify), recordsView(store, notify, leave), activityView(), doorsView(store, notify, leave)];

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

store.subscribe(drawSoon);
setInterval(drawSoon, FRESHEN_MS);
draw();
document.documentElement.dataset.ready = "";
connect(store, leave);
