// The totals.

import { bytes, when } from "../format.js";
import { field, setText } from "./dom.js";

export function statsView() {
  const line = document.getElementById("stats");

  return ({ hypervisor, vms, stats }) => {
    setText(field(line, "vms"), hypervisor.name ? vms.length : "–");
    setText(field(line, "dumps"), stats.total_dumps);
    setText(field(line, "size"), bytes(stats.total_size_bytes));
    setText(field(line, "last"), when(stats.last_dump));
  };
}
