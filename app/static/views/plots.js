// The plots section, once it is open: asks for the figures of a range, draws them, and writes them as tables.

import { askJson } from "../ask.js";
import { everyDay, lastDays, queryOf, wrongWith } from "../days.js";
import { bytes, duration, pause } from "../format.js";
import { serviceNow } from "../store.js";
import { bars, columns, loadCharts } from "./charts.js";
import { setAttribute, setHidden, setNotice, setText } from "./dom.js";

const FRESHEN_MS = 4000;
const VM_BARS = 12;
const TABLE_ROWS = 500;
const STATS = "/api/memory-dumps/stats";
const written = new Map(); // name of a table → what it says

/** What is called with the state at each change while the section is open. */
export function createPlots(store, leave) {
  const range = document.getElementById("plots-range");
  const choice = document.getElementById("plots-days");
  const [from, to] = ["from", "to"].map((end) => document.getElementById(`plots-${end}`));
  const tables = document.getElementById("plots-tables");
  const said = document.getElementById("plots-said");
  const grid = document.getElementById("plots-grid");
  const error = document.getElementById("plots-error");
  let asking = new AbortController();
  let records = null; // those of the state that was drawn, or is being asked for
  let soon = null;

  const wanted = () => (choice.value ? lastDays(Number(choice.value), serviceNow(store.state)) : { from: from.value, to: to.value });

  const fail = (sentence) => {
    setText(said, "");
    setNotice(error.querySelector("p"), sentence);
    setHidden(error, !sentence);
  };

  const load = async ({ quietly = false } = {}) => {
    clearTimeout(soon);
    soon = null;
    asking.abort();
    asking = new AbortController();
    const { signal } = asking;
    const days = wanted();
    const wrong = wrongWith(days);
    if (wrong) return fail(wrong);
    records = store.state.records;
    if (!quietly) {
      fail(null);
      setText(said, "Loading the figures…");
    }
    try {
      const asked = ["day", "vm"].map((by) => askJson(`${STATS}?${queryOf(days, by)}`, signal));
      const [byDay, byVm] = await Promise.all([...asked, loadCharts()]);
      signal.throwIfAborted();
      setHidden(grid, false);
      setHidden(error, true);
      draw(everyDay(days, byDay.days), byVm.vms);
      setText(said, summary(days, byDay.days, byVm.vms));
    } catch (refusal) {
      if (signal.aborted) return;
      asking.abort();
      if (refusal.status === 401) leave();
      fail(refusal.message);
    }
  };

  const showTables = () => {
    grid.toggleAttribute("data-tables", tables.checked);
    for (const place of grid.querySelectorAll(".plots-table")) setAttribute(place, "tabindex", tables.checked ? 0 : null); // they scroll
  };
  range.addEventListener("submit", (event) => event.preventDefault());
  range.addEventListener("change", ({ target }) => {
    if (target === tables) return showTables();
    const own = choice.value === "";
    if (own && target === choice) [from.value, to.value] = Object.values(lastDays(30, serviceNow(store.state)));
    for (const part of range.querySelectorAll("[data-own]")) setHidden(part, !own);
    load();
  });
  document.getElementById("plots-again").addEventListener("click", () => {
    choice.focus(); // the button goes
    load();
  });
  showTables();

  return (state) => {
    if (records === null) load();
    else if (state.records !== records && soon === null) soon = setTimeout(load, FRESHEN_MS, { quietly: true });
  };
}

function summary({ from, to }, days, vms) {
  const dumps = days.reduce((sum, day) => sum + day.total_dumps, 0);
  return `${dumps} ${dumps === 1 ? "dump" : "dumps"} of ${vms.length} ${vms.length === 1 ? "VM" : "VMs"} from ${from} to ${to}, UTC.`;
}

function draw(days, vms) {
  columns(plot("dumps"), days, (day) => day.total_dumps, String);
  columns(plot("bytes"), days, (day) => day.total_size_bytes, bytes);
  bars(plot("duration"), most(vms, (vm) => vm.avg_duration_sec), [(vm) => vm.avg_duration_sec], duration, vms.length);
  bars(plot("pause"), most(vms, (vm) => vm.longest_pause_ms), [(vm) => vm.avg_pause_ms, (vm) => vm.longest_pause_ms], pause, vms.length);
  const heads = ["Dumps", "Stored"];
  table(
    "days",
    days.length > TABLE_ROWS ? `The last ${TABLE_ROWS} days, UTC; ${days.length - TABLE_ROWS} before them: choose a shorter range to see those` : "Each day, UTC",
    ["Day", ...heads],
    days.slice(-TABLE_ROWS).toReversed().map((day) => [day.day, day.total_dumps, bytes(day.total_size_bytes)]),
  );
  table(
    "vms",
    vms.length > TABLE_ROWS ? `The first ${TABLE_ROWS} VMs by name; ${vms.length - TABLE_ROWS} more` : "Each VM",
    ["VM", ...heads, "Duration, mean", "Pause, mean", "Pause, longest"],
    vms.slice(0, TABLE_ROWS).map((vm) => [vm.dom, vm.total_dumps, bytes(vm.total_size_bytes), duration(vm.avg_duration_sec), pause(vm.avg_pause_ms), pause(vm.longest_pause_ms)]),
  );
}

function most(vms, measure) {
  return vms.toSorted((one, other) => measure(other) - measure(one)).slice(0, VM_BARS);
}

function plot(name) {
  return document.querySelector(`[data-plot="${name}"]`);
}

/** A table whose first column is its rows' heads; the one that is there if it says the same. */
function table(name, caption, heads, rows) {
  const says = JSON.stringify([caption, rows]);
  if (written.get(name) === says) return;
  written.set(name, says);
  const made = document.createElement("table");
  made.createCaption().textContent = caption;
  const head = made.createTHead().insertRow();
  head.append(...heads.map((text) => cell("th", text, "col")));
  const body = made.createTBody();
  for (const [first, ...rest] of rows) body.insertRow().append(cell("th", first, "row"), ...rest.map((text) => cell("td", text)));
  document.getElementById(`plots-table-${name}`).replaceChildren(made);
}

function cell(kind, text, scope) {
  const made = document.createElement(kind);
  if (scope) made.scope = scope;
  const isolated = document.createElement("bdi");
  isolated.textContent = text;
  made.append(isolated);
  return made;
}
