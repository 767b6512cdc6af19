// The address of the list of records: what it says, and the browser's history as far as the list goes. The server reads and
// writes the same addresses in app/web/listing.py.

export const HOME = "/memory-dumps";
export const LIMITS = ["25", "50", "100", "250"];
const NEWEST = 50; // records that the live feed's snapshot holds
const PLAIN = { from: "", to: "", q: "", date: "", vm: "", order: "desc", page: 1, limit: 50, sizes: "original" };
const NO_FILTERS = { from: "", to: "", q: "", date: "", vm: "", page: 1 };
const DAY = /^(?!0000)[0-9]{4}-[0-9]{2}-[0-9]{2}$/;
const TIME = /^([0-9-]{10})[T ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]{1,9})?(?:Z|[+-][0-9]{2}:[0-9]{2})$/;

const readers = {
  q: (text) => text,
  vm: (text) => text,
  date: (text, { from, to }) => (isDay(text) && !from && !to ? text : null),
  from: (text, { date, to }) => (isMoment(text) && !date && !(moment(text) > moment(to)) ? text : null),
  to: (text, { date, from }) => (isMoment(text) && !date && !(moment(text) < moment(from)) ? text : null),
  order: (text) => oneOf(text, ["desc", "asc"]),
  page: (text) => (/^[0-9]{1,15}$/.test(text) && Number(text) >= 1 && Number(text) <= 1e9 ? Number(text) : null),
  limit: (text) => oneOf(text, LIMITS) && Number(text),
  sizes: (text) => oneOf(text, ["original", "stored"]),
};

/** The view that a query string, or a form of the same names, asks for. What it cannot be is left out, as on the server, which says so in words. */
export function parse(search) {
  const view = { ...PLAIN };
  const seen = new Set();
  for (const [name, text] of new URLSearchParams(search)) {
    if (seen.has(name) || !Object.hasOwn(readers, name)) continue;
    seen.add(name);
    const value = text && readers[name](text, view);
    if (value) view[name] = value;
  }
  return view;
}

/** Where `view` is: what goes without saying is not said. */
export function format(view, path = HOME) {
  const query = new URLSearchParams(Object.entries(view).filter(([name, value]) => value !== PLAIN[name]));
  return query.size > 0 ? `${path}?${query}` : path;
}

/** What the API is asked for, but for the page. */
export function filtersOf({ q, date, from, to, vm, order }) {
  const given = Object.entries({ q, date, from, to, dom: vm }).filter(([, text]) => text);
  return new URLSearchParams(order === "asc" ? [...given, ["order", order]] : given);
}

export function isFiltered(view) {
  return Boolean(view.q || view.date || view.from || view.to || view.vm);
}

export function withoutFilters(view) {
  return { ...view, ...NO_FILTERS };
}

/** Whether new records belong at its beginning. */
export function isFirst(view) {
  return view.page === 1 && view.order === "desc";
}

/** Whether the live feed brings all of it, without asking. */
export function isNewest(view) {
  return isFirst(view) && !isFiltered(view) && view.limit <= NEWEST;
}

/** The address bar: `back` is called with the view that somebody goes back (or forward) to. */
export function createHistory(back) {
  let shown = parse(location.search);
  let kept = shown; // what going back leads to, while something is typed

  const put = (how, view) => history[how](how === "pushState" ? null : history.state, "", format(view, how === "pushState" ? HOME : location.pathname));

  addEventListener("popstate", () => {
    const view = parse(location.search);
    const same = format(view) === format(shown);
    kept = view;
    shown = view;
    if (!same) back(view);
  });

  return {
    view: () => shown,
    /** While it is not finished: the address tells it, but no step back leads to it. */
    replace(view) {
      shown = view;
      put("replaceState", view);
    },
    push(view) {
      const [before, after] = [format(kept), format(view)];
      if (before !== format(shown) || before === after) put("replaceState", kept);
      if (before !== after) put("pushState", view);
      kept = view;
      shown = view;
    },
    /** The page was not the one that was meant. */
    correct(view) {
      if (format(kept) === format(shown)) kept = view;
      this.replace(view);
    },
  };
}

function oneOf(text, words) {
  return words.includes(text) ? text : null;
}

function isDay(text) {
  return DAY.test(text) && !Number.isNaN(Date.parse(text)) && new Date(text).toISOString().startsWith(text);
}

function isMoment(text) {
  const found = TIME.exec(text.toUpperCase());
  if (!found) return isDay(text);
  const [, day, hours, minutes, seconds] = found;
  return isDay(day) && hours < 24 && minutes < 60 && seconds < 60 && !Number.isNaN(moment(text));
}

function moment(text) {
  return Date.parse(text.toUpperCase().replace(" ", "T"));
}
