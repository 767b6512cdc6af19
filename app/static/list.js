// A page of the list of records: asked for, kept, and followed when there are more. Touches no DOM.

import { filtersOf, isFiltered, isFirst, isNewest } from "./address.js";

export const RECORDS = "/api/memory-dumps/records";
const SOON_MS = 300;
const AGAIN_MS = 5000;

/** How many pages there are; the first one is there even if it is empty. */
export function pagesOf(count, limit) {
  return Math.max(1, Math.ceil(count / limit));
}

/** What has to be the same for a page to be near another one. */
export function keyOf(view) {
  return `${filtersOf(view)} ${view.limit}`;
}

/**
 * The list at `view`. `told` is called when it changed by itself. `shown` is what is to be seen, `latest` what is known: with
 * `accept`, the one becomes the other. `written` is the page of `first` as the server wrote it, if it is not of the newest.
 */
export function createList(first, written, told, leave, ask = askLate) {
  let asking = new AbortController();
  let following = new AbortController();
  let timer = null;
  let seen = {}; // of the store
  let known = null;
  const list = { view: first, shown: null, latest: null, busy: false, error: null, show, load, follow, accept };

  /** Go to another view. */
  function show(view) {
    const same = keyOf(view) === keyOf(list.view) && view.page === list.view.page && !list.error;
    list.view = view;
    if (same) told();
    else load();
  }

  async function load() {
    stop();
    list.error = null;
    if (isNewest(list.view)) {
      take({ view: list.view, ...newest(), next: null });
      return told();
    }
    const { signal } = asking;
    const asked = seen;
    const { view } = list;
    list.busy = true;
    told();
    try {
      const { pageOf } = await pagesModule();
      const page = await pageOf(view, known, ask, signal);
      signal.throwIfAborted();
      take({ ...page, view: { ...list.view, page: page.view.page } });
      if (asked !== seen) catchUp();
    } catch (refusal) {
      if (signal.aborted) return;
      if (refusal.status === 401) return leave();
      console.warn(refusal);
      list.error = refusal.message;
    }
    list.busy = false;
    told();
  }

  function take({ view, records, count, next }) {
    known = { key: keyOf(view), page: view.page, count, next };
    list.view = view;
    list.latest = { records, count };
    list.shown = list.latest;
    list.busy = false;
  }

  function stop() {
    asking.abort();
    asking = new AbortController();
    following.abort();
    following = new AbortController();
    clearTimeout(timer);
    timer = null;
  }

  /** What the live feed says: it brings what is not filtered; of everything else it says that it is time to ask. */
  function follow({ records, stats }) {
    const total = stats.total_dumps;
    if (records === seen.records && total === seen.total) return;
    const begins = seen.records === undefined;
    seen = { records, total };
    if (begins && written && first === list.view) {
      take({ view: first, ...written });
      return told();
    }
    if (begins) return load();
    if (list.error) load();
    else if (!list.busy) catchUp();
  }

  function catchUp() {
    if (isNewest(list.view)) list.latest = newest();
    else if (isFiltered(list.view) || isFirst(list.view) || isLast()) askSoon(SOON_MS);
    else list.latest = { ...list.latest, count: seen.total };
  }

  /** Whether new records belong at its end. */
  function isLast() {
    return list.view.order === "asc" && list.view.page >= pagesOf(list.latest.count, list.view.limit);
  }

  function newest() {
    const records = seen.records.slice(0, list.view.limit);
    return { records, count: Math.max(seen.total, records.length) };
  }

  function askSoon(delay) {
    timer ??= setTimeout(askAgain, delay);
  }

  const lastPage = async (signal) => (await pagesModule()).pageOf(list.view, known, ask, signal);

  /** Never twice at once: what comes while it runs starts the next one. */
  async function askAgain() {
    const { signal } = following;
    const query = filtersOf(list.view);
    query.set("limit", isFirst(list.view) ? list.view.limit : 1);
    const whole = isFirst(list.view) || isLast(); // of another page only how many there are
    let delay = null;
    const asked = seen;
    try {
      const { records, count, next_cursor, next = next_cursor } = await (isLast() ? lastPage(signal) : ask(`${RECORDS}?${query}`, signal));
      signal.throwIfAborted();
      list.latest = { records: whole ? records : list.latest.records, count };
      known = { ...known, count, next: whole ? next : known.next };
      if (asked !== seen) delay = SOON_MS;
    } catch (refusal) {
      if (signal.aborted) return;
      if (refusal.status === 401) return leave();
      console.warn(refusal);
      delay = AGAIN_MS;
    }
    timer = null;
    if (delay) askSoon(delay);
    told();
  }

  function accept() {
    list.shown = list.latest;
  }

  return list;
}

/** How to ask for a page: loaded with the first one, for what the page begins with is there and what is new comes by itself. */
export async function pagesModule() {
  try {
    return await import("./pages.js");
  } catch (error) {
    console.warn(error);
    throw new Error("The service cannot be reached. Look whether it runs and whether the network is up, then try again.");
  }
}

async function askLate(path, signal) {
  const { askJson } = await pagesModule();
  return askJson(path, signal);
}

/** How many records `latest` has that `shown` has not: those on the page, or as many as there are more. */
export function news(shown, latest) {
  if (!shown || shown.records === latest.records) return 0;
  const ids = new Set(shown.records.map((record) => record.dump_id));
  const fresh = latest.records.filter((record) => !ids.has(record.dump_id)).length;
  return fresh && Math.max(fresh, latest.count - shown.count);
}
