// How a page of the list of records is asked for. Touches no DOM.

import { filtersOf } from "./address.js";
import { keyOf, pagesOf, RECORDS } from "./list.js";

export { askJson } from "./ask.js";

const TRIES = 3;

/**
 * How to ask for the page of `view`. `known` is the page before: from there it is a step for the service, and from the other end
 * of the list it is not far to a late page, where to skip half a million records would be.
 */
export function planOf(view, known) {
  const query = filtersOf(view);
  const near = known?.key === keyOf(view) ? known : null;
  const begin = (view.page - 1) * view.limit;
  if (near?.next && view.page === near.page + 1) {
    query.set("cursor", near.next);
  } else if (near && begin < near.count && begin * 2 > near.count) {
    const end = Math.min(begin + view.limit, near.count);
    query.set("order", view.order === "asc" ? "desc" : "asc");
    query.set("offset", near.count - end);
    query.set("limit", end - begin);
    return { query, reversed: true, count: near.count };
  } else if (begin > 0) {
    query.set("offset", begin);
  }
  query.set("limit", view.limit);
  return { query, reversed: false, count: null };
}

/** The page of `view`, or the last one if there are not so many. Throws what `ask` throws. */
export async function pageOf(view, known, ask, signal) {
  for (let left = TRIES; ; left -= 1) {
    const { query, reversed, count: supposed } = planOf(view, left > 0 ? known : null);
    const { records, count, next_cursor: next } = await ask(`${RECORDS}?${query}`, signal);
    const pages = pagesOf(count, view.limit);
    if (left > 0 && (view.page > pages || (reversed && count !== supposed))) {
      view = { ...view, page: Math.min(view.page, pages) };
      known = { key: keyOf(view), page: 0, count, next: null };
    } else {
      return { view, records: reversed ? records.toReversed() : records, count, next: reversed ? null : next };
    }
  }
}
