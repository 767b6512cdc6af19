// Which records are shown, and how: what is typed and chosen becomes a view, and a view is shown in the form.

import { filtersOf, format, isFiltered, withoutFilters } from "../address.js";
import { RECORDS } from "../list.js";
import { field, setAttribute, setHidden, setText } from "./dom.js";

const TYPED_MS = 200;
const DATED_MS = 500; // a year is typed digit by digit, and each makes another date
const KEY = "memory-dumps-auto-refresh";

/** `go(view, finished)` is called with what the person wants to see. Gives what shows a view. */
export function createFilters(current, go, notify, leave) {
  const form = document.getElementById("filters");
  const [text, date, limit, sizes] = ["q", "date", "limit", "sizes"].map((name) => document.getElementById(`filter-${name}`));
  const reset = document.getElementById("filters-reset");
  const csv = document.getElementById("records-csv");
  const chips = document.getElementById("chips");
  let timer = null;

  const later = (delay, act) => {
    clearTimeout(timer);
    timer = setTimeout(act, delay);
  };
  const search = (finished) => {
    clearTimeout(timer);
    go({ ...current(), q: text.value, page: 1 }, finished);
  };
  const pick = () => {
    clearTimeout(timer);
    if (!date.validity.badInput) go({ ...current(), date: date.value, from: "", to: "", page: 1 }, true);
  };

  text.addEventListener("input", () => later(TYPED_MS, () => search(false)));
  text.addEventListener("change", () => search(true));
  date.addEventListener("input", () => later(DATED_MS, pick));
  date.addEventListener("change", () => later(DATED_MS, pick));
  date.addEventListener("blur", () => date.value !== current().date && pick());
  limit.addEventListener("change", () => go({ ...current(), limit: Number(limit.value), page: 1 }, true));
  sizes.addEventListener("change", () => go({ ...current(), sizes: sizes.checked ? sizes.value : "original" }, true));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    search(true);
  });
  csv.addEventListener("click", async (event) => {
    event.preventDefault();
    try {
      const { download } = await import("./download.js");
      download(csv.href, filtersOf(current()), notify, leave);
    } catch (error) {
      console.warn(error);
      notify("error", "Nothing is downloaded. Look whether the service can be reached, then try again.");
    }
  });

  return (view) => {
    clearTimeout(timer);
    for (const [input, value] of [[text, view.q], [date, view.date], [limit, String(view.limit)]]) if (input.value !== value) input.value = value;
    sizes.checked = view.sizes === sizes.value;
    const filtered = isFiltered(view);
    setLink(reset, filtered ? format(withoutFilters(view)) : null);
    const query = filtersOf(view);
    setAttribute(csv, "href", query.size > 0 ? `${RECORDS}.csv?${query}` : `${RECORDS}.csv`);
    for (const chip of chips.children) fillChip(chip, view);
    setHidden(chips, !(view.vm || view.from || view.to));
  };
}

function fillChip(chip, view) {
  const name = chip.dataset.chip;
  const label = chip.firstChild.data.trim();
  setText(field(chip, "text"), view[name]);
  setHidden(chip, !view[name]);
  setAttribute(chip.querySelector("a"), "href", format({ ...view, [name]: "", page: 1 }));
  setAttribute(chip.querySelector("a"), "aria-label", `Remove: ${label} ${view[name]}`);
}

/** A link, or with null one that leads nowhere now. It keeps its focus. */
export function setLink(link, href) {
  setAttribute(link, "href", href);
  setAttribute(link, "role", href === null ? "link" : null);
  setAttribute(link, "aria-disabled", href === null ? "true" : null);
  setAttribute(link, "tabindex", href === null ? "-1" : null);
}

/** The switch that lets the table follow; it is this tab's. `changed` is called when it is moved. Gives how it stands. */
export function createAutoRefresh(changed) {
  const input = document.getElementById("auto-refresh");
  const keep = () => {
    try {
      sessionStorage.setItem(KEY, input.checked ? "on" : "off");
    } catch {} // a browser that keeps nothing: it is on
  };
  if (!input.checked) keep(); // before this was here
  try {
    input.checked = sessionStorage.getItem(KEY) !== "off";
  } catch {}
  input.addEventListener("change", () => {
    keep();
    changed();
  });
  return () => input.checked;
}
