// Sealed dumps: a page of their list. New ones slide in, but never under the eyes of somebody who reads.

import { createHistory, format, isFiltered, parse, withoutFilters } from "../address.js";
import { bytes, duration, isolated, pause, short, when } from "../format.js";
import { createList, news, pagesModule, pagesOf } from "../list.js";
import { clone, field, keyed, mark, setAttribute, setHidden, setMoment, setNotice, setText } from "./dom.js";
import { createAutoRefresh, createFilters, setLink } from "./filters.js";
import { onFirstTouch } from "./load.js";

const part = (name) => document.getElementById(`records-${name}`);

export function recordsView(store, written, notify, leave) {
  const section = document.getElementById("records");
  const [rows, heading, newsButton, said] = ["rows", "heading", "news", "said"].map(part);
  const redraw = () => view(store.state, true);
  const look = () => view(store.state);
  const history = createHistory((target) => go(target));
  const typed = parse(new FormData(document.getElementById("filters"))); // before this was here
  if (format({ ...typed, page: history.view().page }) !== format(history.view())) {
    history.push(typed);
    written = null;
  }
  const list = createList(history.view(), written, redraw, leave);
  const fillForm = createFilters(history.view, (target, finished) => go(target, finished ? "push" : "replace"), notify, leave);
  const follows = createAutoRefresh(look);
  const isRead = readingWatch(section, newsButton, look);
  let rests = null; // how new rows come, loaded with the first of them
  let drawn = null;
  let saying = false;

  const loadRests = async () => {
    rests = { now: false };
    try {
      const { createRests } = await import("./glide.js");
      rests = createRests(look);
    } catch (error) {
      console.warn(error);
      rests = { now: true, glide: (_rows, change) => change() };
    }
    look();
  };

  const go = (target, how = null) => {
    if (how) history[how](target);
    fillForm(target);
    setHidden(document.getElementById("address-problems"), true);
    saying = true;
    list.show(target);
  };

  section.addEventListener("click", (event) => {
    const link = event.target.closest('a:is([data-list], [data-field="dom"])');
    if (link?.hasAttribute("aria-disabled")) return;
    if (link && !(event.ctrlKey || event.metaKey || event.shiftKey || event.altKey)) {
      event.preventDefault();
      if (link.closest("#chips, #records-none")) heading.focus({ preventScroll: true }); // the link goes
      go(parse(new URL(link.href).search), "push");
    }
    const button = event.target.closest('[data-field="copy"]');
    if (button) copyHash(button, notify);
  });
  newsButton.addEventListener("click", () => {
    heading.focus();
    list.accept();
    redraw();
  });
  part("again").addEventListener("click", () => {
    heading.focus({ preventScroll: true });
    list.load();
  });
  fillForm(list.view);
  onFirstTouch(pagesModule);

  function view(state, forced = false) {
    list.follow(state);
    const waiting = list.shown ? news(list.shown, list.latest) : 0;
    const comes = waiting > 0 && follows() && !isRead();
    if (comes && !rests) loadRests();
    const slides = comes && rests.now;
    if (slides || !waiting) list.accept();
    setText(newsButton, `${Math.max(1, waiting).toLocaleString("en")} new`);
    setHidden(newsButton, !waiting || comes);
    if (!forced && !slides && drawn === list.latest) return;
    drawn = list.latest;
    if (!list.busy && format(list.view) !== format(history.view())) history.correct(list.view);
    drawState(list);
    if (!list.shown) return;
    const draw = () => drawRows(rows, list, heading, slides);
    if (slides) rests.glide(() => document.querySelectorAll("#records-rows > tr, #pager, #records ~ section, #records ~ details"), draw);
    else draw();
    const where = drawPages(list);
    if (saying && !list.busy && !list.error) {
      setText(said, where);
      saying = false;
    }
  }

  return (state) => view(state);
}

async function copyHash(button, notify) {
  const hash = field(button.closest("tr"), "sha256");
  try {
    const { copyFrom } = await import("./copy.js");
    await copyFrom(hash, button, notify, hash.title);
  } catch (error) {
    console.warn(error);
    setText(hash, hash.title);
    notify("warning", "Copying could not be loaded; the whole hash is shown instead. Select it and press Ctrl+C.");
  }
}

function drawState({ view, shown, busy, error }) {
  const table = part("table");
  const count = shown?.count;
  setAttribute(part("area"), "aria-busy", busy ? "true" : null);
  if (!shown && !error) return; // what the server wrote
  const problem = part("error");
  setNotice(field(problem, "error"), error);
  setHidden(problem, !error);
  setHidden(table, Boolean(error) || count === 0);
  setHidden(part("empty"), Boolean(error) || count > 0 || isFiltered(view));
  setHidden(part("none"), Boolean(error) || count > 0 || !isFiltered(view));
  setAttribute(part("all"), "href", format(withoutFilters(view)));
  setAttribute(table, "data-sizes", view.sizes);
  setText(part("size"), view.sizes === "stored" ? "Compressed size" : "Original size");
  const newestFirst = view.order === "desc";
  setAttribute(part("time"), "aria-sort", newestFirst ? "descending" : "ascending");
  const sort = part("sort");
  setAttribute(sort, "href", format({ ...view, order: newestFirst ? "asc" : "desc", page: 1 }));
  setAttribute(sort, "title", newestFirst ? "Oldest first" : "Newest first");
}

function drawPages({ view, latest: { count } }) {
  const pages = pagesOf(count, view.limit);
  const [page, last, all] = [view.page, pages, count].map((number) => number.toLocaleString("en"));
  const where = `Page ${page} of ${last} · ${all} ${count === 1 ? "dump" : "dumps"}`;
  setText(part("where"), where);
  const steps = { first: 1, previous: view.page - 1, next: view.page + 1, last: pages };
  for (const link of document.querySelectorAll("#pager [data-go]")) {
    const target = steps[link.dataset.go];
    const leads = target >= 1 && target <= pages && target !== view.page;
    setLink(link, leads ? format({ ...view, page: target }) : null);
  }
  return where;
}

/** The records of the rows that the server wrote, which become as the script's own. `rests`: what else is known of each. */
export function takeRows(rests) {
  const view = parse(location.search);
  const [model] = document.getElementById("record-template").content.children;
  return [...part("rows").rows].map((row, place) => {
    mark(row, model);
    const record = read(row, rests[place]);
    row.dataset.dumpId = record.dump_id;
    fill(row, record, view);
    return record;
  });
}

/** What `fill` has to be given, and the server was, to write this row. */
function read(row, [mode, duration_sec, guest_pause_ms, raw_size_bytes, gzip_size_bytes]) {
  const text = (name) => field(row, name).textContent.replace(/^–$/, "");
  return {
    dump_id: field(row, "view").pathname.split("/").at(-1),
    timestamp: field(row, "time").firstElementChild.dateTime,
    dom: field(row, "dom").textContent,
    vmid: text("vmid"),
    mode,
    sha256: field(row, "sha256").title,
    dump_path: text("path"),
    warnings: field(row, "warnings")?.title.split("\n") ?? [],
    versions: { memory_dumps: mode },
    duration_sec,
    guest_pause_ms,
    raw_size_bytes,
    gzip_size_bytes,
  };
}

function drawRows(rows, { view, shown }, heir, shine) {
  keyed(rows, {
    items: shown.records,
    attribute: "data-dump-id",
    key: (record) => record.dump_id,
    make() {
      const row = clone("record-template");
      if (shine) row.dataset.new = "";
      return row;
    },
    fill: (row, record) => fill(row, record, view),
    heir,
  });
}

function fill(row, record, view) {
  const own = record.uuid || record.versions?.memory_dumps; // another program's point says nothing of these
  const name = field(row, "dom");
  setText(name.firstChild, record.dom);
  setAttribute(name, "href", format({ ...view, vm: record.dom, page: 1 }));
  setText(field(row, "vmid"), record.vmid || "–");
  setMoment(field(row, "time"), record.timestamp, when(record.timestamp));
  setText(field(row, "duration"), duration(record.duration_sec));
  setText(field(row, "how"), `${own ? record.mode : "–"}, pause ${pause(own ? record.guest_pause_ms : null)}`);
  setText(field(row, "size"), bytes((view.sizes === "stored" ? record.gzip_size_bytes : record.raw_size_bytes) || null));
  const hash = field(row, "sha256");
  if (!record.sha256 || hash.textContent !== record.sha256) setText(hash, short(record.sha256) || "–"); // whole where copying was refused
  setAttribute(hash, "title", record.sha256);
  setText(field(row, "path"), record.dump_path || "–");
  setAttribute(field(row, "view"), "href", format(view, `/memory-dumps/${record.dump_id}`));
  setAttribute(field(row, "view"), "aria-label", `View dump of ${record.dom}`);
  const copy = field(row, "copy");
  setAttribute(copy, "aria-label", `Copy hash of the dump of ${isolated(record.dom)}`);
  setHidden(copy, !record.sha256);
  fillWarnings(field(row, "warnings"), record.warnings);
}

/** A record never changes, so a row that the server wrote has a sign if it needs one. */
function fillWarnings(sign, warnings) {
  if (!sign) return;
  setText(sign, `${warnings.length} warning${warnings.length === 1 ? "" : "s"}`);
  setAttribute(sign, "title", warnings.join("\n"));
  setHidden(sign, warnings.length === 0);
}

/**
 * Whether somebody reads the table: has scrolled into it, points at it, or has the focus in it, or on the button that says what is
 * new, which would go from under them. `over` is called when that ends.
 */
function readingWatch(section, newsButton, over) {
  const area = part("area");
  const points = matchMedia("(hover: hover)");
  let scrolled = false;
  new IntersectionObserver(
    ([{ isIntersecting, boundingClientRect, rootBounds }]) => {
      scrolled = !isIntersecting && boundingClientRect.top < (rootBounds?.top ?? 0);
      if (!scrolled) over();
    },
    { rootMargin: "-48px 0px 0px" },
  ).observe(section.querySelector("h2"));
  area.addEventListener("mouseleave", over);
  section.addEventListener("focusout", () => requestAnimationFrame(over));
  return () => scrolled || area.contains(document.activeElement) || newsButton.matches(":is(:focus, :active)") || (points.matches && area.matches(":hover"));
}
