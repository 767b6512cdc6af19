// Days (UTC) as they are counted in plots. Touches no DOM.

const DAY_MS = 86_400_000;
const LONGEST_DAYS = 20_000;

/** The last `count` days up to that of `now` (milliseconds): both ends, the last one included. */
export function lastDays(count, now) {
  return { from: dayOf(now - (count - 1) * DAY_MS), to: dayOf(now) };
}

/** What is wrong with a range of days that somebody chose, or null. */
export function wrongWith({ from, to }) {
  if (!from || !to) return "Choose both days, the first and the last.";
  if (to < from) return "The last day is before the first one.";
  return daysBetween(from, to) > LONGEST_DAYS ? `Choose ${LONGEST_DAYS} days at most.` : null;
}

/** The query that asks for these days, whose end is excluded there. */
export function queryOf({ from, to }, by) {
  return new URLSearchParams({ by, from, to: dayOf(Date.parse(to) + DAY_MS) });
}

/** A row for each of the days, `rows` (with `day`) where there are any and zeros where not. */
export function everyDay({ from, to }, rows) {
  const known = new Map(rows.map((row) => [row.day, row]));
  return Array.from({ length: daysBetween(from, to) }, (_, number) => {
    const day = dayOf(Date.parse(from) + number * DAY_MS);
    return known.get(day) ?? { day, total_dumps: 0, total_size_bytes: 0 };
  });
}

function daysBetween(from, to) {
  return Math.round((Date.parse(to) - Date.parse(from)) / DAY_MS) + 1;
}

function dayOf(moment) {
  return new Date(moment).toISOString().slice(0, 10);
}
