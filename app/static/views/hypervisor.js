// How the page and the hypervisor are connected: both at the head of the page.

import { when } from "../format.js";
import { field, setAttribute, setHidden, setText } from "./dom.js";

const CONNECTION_WORDS = { connecting: "connecting…", live: "live", reconnecting: "reconnecting…", offline: "offline" };
const WELL = ["connected", "connecting"];

export function hypervisorView() {
  const connection = document.getElementById("connection");
  const stale = document.getElementById("stale-notice");
  const badge = document.getElementById("hypervisor");
  const notice = document.getElementById("hypervisor-notice");

  return ({ connection: now, hypervisor }) => {
    setAttribute(connection, "data-connection", now);
    setText(connection, CONNECTION_WORDS[now]);
    setHidden(stale, now !== "offline");

    const state = hypervisor.state.replaceAll("-", " ");
    setAttribute(badge, "data-state", hypervisor.state);
    setAttribute(badge, "title", hypervisor.uri);
    setText(field(badge, "name"), hypervisor.name);
    setText(field(badge, "state"), state);

    setHidden(notice, WELL.includes(hypervisor.state));
    setText(field(notice, "state"), state);
    setText(field(notice, "since"), when(hypervisor.since));
    setText(field(notice, "message"), hypervisor.message ?? "");
  };
}
