// The page's script: takes over what the server rendered, and keeps it up to date.

import { createActions } from "./actions.js";
import { connect } from "./connection.js";
import { createStore } from "./store.js";
import { activityView } from "./views/activity.js";
import { alarmsView } from "./views/alarms.js";
import { announcer } from "./views/announcements.js";
import { hypervisorView } from "./views/hypervisor.js";
import { jobsView } from "./views/jobs.js";
import { recordsView } from "./views/records.js";
import { statsView } from "./views/stats.js";
import { vmsView } from "./views/vms.js";

const store = createStore(JSON.parse(document.getElementById("snapshot").textContent));
const announce = announcer(document.getElementById("announcements"));
const leave = () => window.location.assign("/login?next=/memory-dumps");
const actions = createActions(store, announce, leave);
const views = [alarmsView(), hypervisorView(), statsView(), vmsView(store, actions), jobsView(store, actions, announce), recordsView(announce), activityView()];

let drawing = false;

function draw() {
  drawing = false;
  for (const view of views) view(store.state);
}

store.subscribe(() => {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(draw);
});

draw();
document.documentElement.dataset.ready = "";
connect(store, leave);
