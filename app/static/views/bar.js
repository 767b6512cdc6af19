// The bar: how the page, libvirt and the shared history are, in a word each; the whole story is in what they open.

import { when } from "../format.js";
import { field, setAttribute, setHidden, setText } from "./dom.js";

const WELL = ["connected", "connecting"];
const LONG_MS = 1000; // a shorter wait is over before one has read how long it is
export const TOLD = {
  connecting: "Not connected yet. What it shows is the state of the moment when it was loaded.",
  live: "Live: every change appears by itself, within a moment.",
  requests: "Live, by requests: something between this browser and the service blocks websockets. Changes appear all the same.",
  reconnecting: "The connection broke off. It is being made again; nothing that happens meanwhile is missed.",
  offline: "The service cannot be reached. The page keeps trying; look whether the service and the network are up.",
};

/** `told`: what a page says otherwise of how it is connected. */
export function barView(told = TOLD) {
  const connection = document.getElementById("connection");
  const health = document.getElementById("health");
  const menu = document.getElementById("menu");
  let countdown = null;

  menu.addEventListener("click", (event) => {
    if (event.target.closest("a") && menu.matches(":popover-open")) menu.hidePopover();
  });
  window.matchMedia("(min-width: 78rem)").addEventListener("change", () => {
    if (menu.matches(":popover-open")) menu.hidePopover(); // there it is part of the bar
  });

  const showConnection = (state) => {
    clearTimeout(countdown);
    const left = state.retryAt === null ? 0 : state.retryAt - performance.now();
    const again = left > LONG_MS ? ` · again in ${Math.ceil(left / 1000)} s` : "";
    const by = state.connection === "live" && state.transport === "requests" ? " by requests" : "";
    setAttribute(connection, "data-connection", state.connection);
    setAttribute(connection, "data-transport", state.transport === "requests" ? "requests" : null);
    setText(connection, `${state.connection}${by || again || (state.connection.endsWith("ing") ? "…" : "")}`);
    setText(field(health, "page"), told[by ? "requests" : state.connection]);
    if (again) countdown = setTimeout(showConnection, left % 1000 || 1000, state);
  };

  return (state) => {
    showConnection(state);
    const stale = state.connection === "offline";
    setAttribute(document.documentElement, "data-stale", stale ? "" : null);
    for (const [name, hidden] of [["stale", !stale], ["updated", !state.updated]]) {
      const notice = document.getElementById(`${name}-notice`);
      if (notice) setHidden(notice, hidden);
    }
    if (state.hypervisor) showHypervisor(health, state.hypervisor);
    if (state.history) showHistory(health, state.history);
  };
}

function showHypervisor(health, hypervisor) {
  const sign = document.getElementById("hypervisor");
  const notice = document.getElementById("hypervisor-notice"); // only where its VMs are shown
  const state = hypervisor.state.replaceAll("-", " ");
  const words = { state, since: when(hypervisor.since), uri: hypervisor.uri, message: hypervisor.message ?? "" };
  setAttribute(sign, "data-state", hypervisor.state);
  setText(field(sign, "name"), hypervisor.name);
  setText(field(sign, "state"), state);
  for (const name in words) setText(field(health, `hypervisor-${name}`), words[name]);
  if (!notice) return;
  for (const name of ["state", "since", "message"]) setText(field(notice, name), words[name]);
  setHidden(notice, WELL.includes(hypervisor.state));
}

function showHistory(health, history) {
  const sign = document.getElementById("history");
  const { pending, state, summary, message } = history;
  setAttribute(sign, "data-state", state);
  setAttribute(sign, "data-pending", pending ? "" : null);
  setText(field(sign, "state"), pending ? `${pending} wait${pending === 1 ? "s" : ""}` : state.replaceAll("-", " "));
  if (summary) setText(field(health, "history-summary"), summary);
  setText(field(health, "history-message"), message ?? "");
}
