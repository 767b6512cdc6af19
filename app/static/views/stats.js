// The totals, and what room is left.

import { ago, bytes, when } from "../format.js";
import { serviceNow } from "../store.js";
import { field, setAttribute, setHidden, setText } from "./dom.js";

export function statsView() {
  const line = document.getElementById("stats");
  const last = field(line, "last").querySelector("time");

  return (state) => {
    const { hypervisor, vms, stats } = state;
    setText(field(line, "vms"), hypervisor.name ? vms.length : "–");
    setText(field(line, "dumps"), stats.total_dumps.toLocaleString("en"));
    setText(field(line, "size"), bytes(stats.total_size_bytes));
    setText(last, stats.last_dump ? ago((serviceNow(state) - Date.parse(stats.last_dump)) / 1000) : "never");
    setAttribute(last, "datetime", stats.last_dump);
    setAttribute(last, "title", stats.last_dump && when(stats.last_dump));
    showRoom(state.room);
  };
}

function showRoom(room) {
  const tile = document.getElementById("room");
  const notice = document.getElementById("room-notice");
  const known = room !== null && room.free_bytes !== null;
  const low = known && room.free_bytes * 10 < room.total_bytes;
  setAttribute(tile, "data-room", known ? (low ? "low" : "well") : "unknown");
  setAttribute(tile, "title", room && (room.message ?? room.dump_dir));
  setText(field(tile, "free"), known ? bytes(room.free_bytes) : "not known");
  setText(field(tile, "total"), known ? `of ${bytes(room.total_bytes)}` : "");
  setHidden(notice, !room || (known && !low));
  if (low) setText(notice, `Less than a tenth of the room in ${room.dump_dir} is left: ${bytes(room.free_bytes)}. Move dumps elsewhere, or give the folder more room.`);
  else if (room && !known) setText(notice, `What room is left for dumps is not known. ${room.message ?? ""}`);
}
