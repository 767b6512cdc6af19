// How figures and times read. The same text as the server's template filters give, to the digit: a row that the server
// wrote must not change when the script takes it over.

const UNITS = ["KiB", "MiB", "GiB", "TiB"];
const NONE = "–";

/** `1.5 GiB`: binary units, three digits. */
export function bytes(count) {
  if (count === null || count === undefined) return NONE;
  let size = count;
  let unit = "B";
  for (const larger of UNITS) {
    if (size < (unit === "B" ? 1024 : 999.5)) break;
    size /= 1024;
    unit = larger;
  }
  if (unit === "B" || size >= 99.5) return `${fixed(size, 0)} ${unit}`;
  return `${threeDigits(size)} ${unit}`;
}

/** `0.42 s`, `12.3 s`, `4 min 05 s`, `2 h 03 min`. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  if (seconds < 59.95) return `${fixed(seconds, seconds < 9.995 ? 2 : 1)} s`;
  const whole = Number(fixed(seconds, 0));
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${twoDigits(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${twoDigits(Math.floor((whole % 3600) / 60))} min`;
}

/** `2026-11-23 10:30:00 UTC` from RFC 3339. */
export function when(moment) {
  if (!moment) return NONE;
  const utc = moment.endsWith("Z") ? moment : new Date(moment).toISOString();
  return `${utc.slice(0, 10)} ${utc.slice(11, 19)} UTC`;
}

/** `just now`, `4 min ago`, `3 h ago`, `12 days ago`; a moment that is still to come is now. */
export function ago(seconds) {
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  return seconds < 172_800 ? `${Math.floor(seconds / 3600)} h ago` : `${Math.floor(seconds / 86_400)} days ago`;
}

/** A name within a sentence, whatever its letters do to the direction of those around it. */
export function isolated(name) {
  return `\u2068${name}\u2069`;
}

/** The first twelve characters of a hash. */
export function short(text) {
  return (text ?? "").slice(0, 12);
}

/** `14 ms`, or a duration from a second on. */
export function pause(milliseconds) {
  if (milliseconds === null || milliseconds === undefined) return NONE;
  if (milliseconds === 0) return "0 ms";
  if (milliseconds < 9.95) return `${fixed(milliseconds, 1)} ms`;
  if (milliseconds < 999.5) return `${fixed(milliseconds, 0)} ms`;
  return duration(milliseconds / 1000);
}

/** What is left, in whole seconds below a minute: it changes ten times a second and must not flicker. */
export function remaining(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  if (seconds < 1) return "under 1 s";
  return seconds <= 59 ? `${Math.ceil(seconds)} s` : duration(seconds);
}

/** `812 MiB/s`. */
export function rate(bytesPerSecond) {
  return bytesPerSecond ? `${bytes(bytesPerSecond)}/s` : NONE;
}

/** The whole per cent that are done, or null while the total is not known. */
export function percent(progress) {
  if (!progress || !progress.bytes_total) return null;
  return Math.min(100, Math.floor((100 * progress.bytes_done) / progress.bytes_total));
}

/** How far it is: `45 %`, or which pass of a live capture, whose later ones leap over what was not written meanwhile. */
export function far(progress) {
  const done = percent(progress);
  if (progress?.iteration > 1) return `pass ${progress.iteration}`;
  return done === null ? NONE : `${done} %`;
}

/** `1 VM`, `3 VMs`. */
export function vmCount(count) {
  return count === 1 ? "1 VM" : `${count} VMs`;
}

function threeDigits(size) {
  const places = size < 1 ? 3 : size < 9.995 ? 2 : 1;
  return String(Number(fixed(size, places)));
}

function twoDigits(number) {
  return String(number).padStart(2, "0");
}

/** `toFixed`, but an exact tie goes to the even digit as in Python. A tie is an odd multiple of a power of two, which floats hold exactly. */
export function fixed(value, places) {
  const tie = Math.abs((value * 2 ** (places + 1)) % 2) === 1;
  if (!tie) return value.toFixed(places);
  const below = Math.floor(value * 10 ** places);
  return ((below % 2 === 0 ? below : below + 1) / 10 ** places).toFixed(places);
}
