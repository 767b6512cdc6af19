// A manifest as a person reads it, and the command that checks its dump: the same texts, under the same names, as
// app/web/details.py gives. Touches no DOM.

import { bytes, duration, fixed } from "./format.js";

export const NONE = "–";
export const UNKNOWN = "not known";

const AS_THEY_ARE = ["dump_id", "dom", "vmid", "uuid", "hypervisor", "group", "uri", "sha256", "stored_sha256", "dump_path", "operator", "reason", "case", "audit_head", "domain_xml"];
const UNPACK = { gzip: "zcat", zstd: "zstdcat", lz4: "lz4 -dc" };
const PLAIN_WORD = /^[A-Za-z0-9_@%+=:,./-]+$/;
const UNSEEN = /[\x00-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
const LAST_SECOND = 253_402_300_799;

/** Every value of `record` as text, by name. */
export function textsOf(record) {
  const foreign = !record.uuid && !record.versions.memory_dumps;
  const missing = foreign ? UNKNOWN : NONE;
  const { memory_dumps, libvirt, qemu } = record.versions;
  const ratio = ratioText(record.gzip_size_bytes, record.raw_size_bytes);
  const texts = { memory_dumps, libvirt, qemu, ratio, check: checkCommand(record) };
  for (const name of AS_THEY_ARE) texts[name] = record[name];
  for (const name in texts) texts[name] ||= missing;
  const figure = (value, text) => (foreign && !value ? missing : text);
  const how = (text) => (foreign ? UNKNOWN : text);
  for (const name of ["ctime", "mtime", "atime"]) texts[name] = figure(record[name], epochText(record[name]));
  return {
    ...texts,
    duration: figure(record.duration_sec, duration(record.duration_sec)),
    raw_size: figure(record.raw_size_bytes, sizeText(record.raw_size_bytes)),
    stored_size: figure(record.gzip_size_bytes, sizeText(record.gzip_size_bytes)),
    captured_at: how(exactMoment(record.captured_at)),
    mode: how(record.mode),
    format: how(record.format === "elf" ? "ELF vmcore" : record.format),
    pause: how(pauseText(record.guest_pause_ms)),
    pauses: how(record.guest_pauses_ms.map(pauseText).join(", ") || "none"),
    timestamp: exactMoment(record.timestamp),
    compression: compressionText(record.compression, foreign),
  };
}

/** Whether a text of `textsOf` says nothing. */
export function isUnsaid(text) {
  return text === NONE || text === UNKNOWN;
}

/** One line for bash or zsh that unpacks the dump, hashes it and compares; null where hash or path are not known. */
export function checkCommand({ sha256, dump_path, compression }) {
  if (!/^[0-9a-f]{64}$/.test(sha256) || !dump_path) return null;
  const path = shellQuoted(dump_path);
  const compare = `sha256sum -c <(echo '${sha256}  -')`;
  const unpack = UNPACK[compression.algorithm];
  return unpack ? `${unpack} < ${path} | ${compare}` : `${compare} < ${path}`;
}

/** `text` as one word of bash or zsh, without anything in it that a terminal obeys or that one does not see. */
export function shellQuoted(text) {
  if (PLAIN_WORD.test(text)) return text;
  if (text.search(UNSEEN) === -1) return `'${text.replaceAll("'", "'\\''")}'`;
  const bytesOf = (character) => [...new TextEncoder().encode(character)].map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("");
  return `$'${text.replace(/[\\']/g, "\\$&").replace(UNSEEN, bytesOf)}'`;
}

/** `2026-11-23 10:30:00.000000 UTC`, to the last digit. */
function exactMoment(moment) {
  return moment.replace("T", " ").replace("Z", " UTC");
}

/** `14.2 ms`; from a second on a duration. */
function pauseText(milliseconds) {
  return milliseconds < 999.95 ? `${fixed(milliseconds, 1)} ms` : duration(milliseconds / 1000);
}

/** `1 GiB (1,074,008,443 bytes)`. */
function sizeText(count) {
  return count >= 1024 ? `${bytes(count)} (${count.toLocaleString("en-US")} bytes)` : `${count} bytes`;
}

function ratioText(stored, raw) {
  if (!stored || !raw) return null;
  const percent = Math.floor((100 * stored) / raw + 0.5);
  return `${percent || "under 1"} % of the original`;
}

/** Seconds since 1970 as a time. */
function epochText(seconds) {
  if (seconds > LAST_SECOND) return `${seconds} s after 1970`;
  const moment = new Date(seconds * 1000).toISOString();
  return `${moment.slice(0, 10)} ${moment.slice(11, 19)} UTC`;
}

function compressionText({ algorithm, level, block_bytes: block }, foreign) {
  if (foreign) return `${algorithm}, by the file’s name`;
  return `${algorithm}${level === null ? "" : ` level ${level}`}${block ? `, blocks of ${bytes(block)}` : ""}`;
}
