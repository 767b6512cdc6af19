// The totals, and how the shared history is.

import { bytes, when } from "../format.js";
import { field, setAttribute, setHidden, setText } from "./dom.js";

export function statsView() {
  const line = document.getElementById("stats");
  const shared = document.getElementById("history");

  return ({ hypervisor, vms, stats, history }) => {
    setText(field(line, "vms"), hypervisor?.name ? vms.length : "–");
    setText(field(line, "dumps"), stats.total_dumps);
    setText(field(line, "size"), bytes(stats.total_size_bytes));
    setText(field(line, "last"), when(stats.last_dump));
    setAttribute(shared, "data-state", history.state);
    setText(field(shared, "summary"), history.summary);
    setText(field(shared, "message"), history.message ?? "");
    setHidden(shared, !history.summary);
  };
}
