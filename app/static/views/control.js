// The control panel: which VMs, and the buttons that start dumps. What is rare is loaded when it is wanted: the options, the question.

import { bytes, far, when } from "../format.js";
import { activeJobs, dumpableVms, isPending } from "../store.js";
import { clone, field, keyed, mark, setAttribute, setDisabled, setHidden, setLines, setMoment, setText } from "./dom.js";
import { load } from "./load.js";

const WELL = ["connected", "connecting"];

export function controlView(store, actions, notify) {
  const section = document.getElementById("vms");
  const part = (name) => document.getElementById(name);
  const [heading, list, search, door, dump, all] = ["vms-heading", "vms-list", "vms-search", "dump-options", "dump-selected", "dump-all"].map(part);
  const looks = section.hasAttribute("data-looks"); // and may not dump
  const rows = new Map(); // uuid → its row, and what that says
  let seen = {};
  let busy = new Map(); // the jobs that rows speak of
  let options = null; // a promise, from when they are opened; null again if they did not come
  let question = null;

  const draw = () => view(store.state);
  const take = async (coming, then) => {
    try {
      return then(await coming);
    } catch (error) {
      console.warn(error);
      notify("error", "This part of the page could not be loaded. Look whether the service can be reached, then try again.");
    }
  };
  const come = async () => {
    const made = await take(import("./options.js"), ({ createOptions }) => createOptions(door));
    return made ?? (options = null); // to be tried again
  };
  const isFilled = () => [...door.querySelectorAll("input, :checked")].some((one) => one.value && !one.defaultSelected);
  const opened = () => (options ??= door.open || isFilled() ? come() : null);
  /** `then` is called with what is wanted and how, as the options say, once they have come; not if something is wrong with them. */
  const want = async (what, then) => {
    const coming = opened();
    const wish = coming ? (await coming)?.read() : {};
    if (wish) then({ ...what, ...wish });
  };
  const start = async (what) => {
    const place = await actions.trigger(what);
    if (place) (await options)?.refuse(...place);
  };
  const ask = (what) =>
    take(load("question", "dialog", document.body), ({ createQuestion }) => {
      question ??= createQuestion(start);
      question.open(store.state, what, door.querySelector("select").value);
    });
  const matches = (vm) => {
    const wanted = search.value.trim().toLowerCase();
    return !wanted || [vm.name, vm.vmid, vm.uuid, vm.state].some((text) => text.toLowerCase().includes(wanted));
  };
  const act = {
    choose: () => store.choose(dumpableVms(store.state).filter(matches).map((vm) => vm.uuid), true),
    clear: () => store.choose([...store.state.chosen], false),
    forget: () => store.forgetError("trigger"),
    "leave-out": () => {
      store.choose(store.state.errors.get("trigger").faults.map((fault) => fault.vm_id), false);
      store.forgetError("trigger");
    },
  };

  section.addEventListener("click", (event) => act[event.target.closest("[data-action]")?.dataset.action]?.());
  list.addEventListener("change", ({ target }) => store.choose([target.closest("[data-vm-uuid]").dataset.vmUuid], target.checked));
  search.addEventListener("input", draw);
  dump.addEventListener("click", () => want({ vm_ids: chosen(store.state).map((vm) => vm.uuid) }, start));
  all.addEventListener("click", () => want({ all: true }, ask));
  door.addEventListener("toggle", opened);
  opened();
  for (const row of list.children) rows.set(row.dataset.vmUuid, { row });

  const fill = (vm, job, state) => {
    const known = rows.get(vm.uuid);
    const on = state.chosen.has(vm.uuid) && vm.id !== null && !job;
    const said = [vm.name, vm.vmid, vm.id, vm.state, vm.memory_bytes, vm.last_dump, job && `${job.job_id} ${job.phase} ${far(job.progress)}`, on].join("\n");
    if (known.said !== said) fillRow(known.row, vm, job, on, heading, looks);
    known.said = said;
  };

  function arrange(state) {
    keyed(list, {
      items: state.vms,
      attribute: "data-vm-uuid",
      key: (vm) => vm.uuid,
      make: () => clone("vm-template"),
      fill: (row, vm) => {
        if (rows.get(vm.uuid)?.row !== row) rows.set(vm.uuid, { row });
        setHidden(row, !matches(vm));
        fill(vm, busy.get(vm.uuid), state);
      },
      heir: heading,
    });
    const known = new Set(state.vms.map((vm) => vm.uuid));
    for (const uuid of rows.keys()) if (!known.has(uuid)) rows.delete(uuid);
    const none = state.vms.length > 0 && !state.vms.some(matches);
    setHidden(part("vms-none"), !none);
    if (none) setText(part("vms-none"), `No VM matches “${search.value.trim()}”. Search for a part of its name, ID, UUID or state.`);
    setHidden(list, state.vms.length === 0 || none);
  }

  function view(state) {
    const now = { vms: state.vms, chosen: state.chosen, wanted: search.value };
    const before = busy;
    busy = activeJobs(state);
    if (Object.keys(now).some((name) => now[name] !== seen[name])) arrange(state);
    else for (const vm of state.vms) if (busy.has(vm.uuid) || before.has(vm.uuid)) fill(vm, busy.get(vm.uuid), state);
    seen = now;
    showLink(state);
    showButtons(state);
    showError(state.errors.get("trigger"));
    question?.freshen(state);
  }

  function showLink({ hypervisor, vms }) {
    setAttribute(section, "data-link", hypervisor.state);
    setHidden(part("vms-old"), WELL.includes(hypervisor.state) || !hypervisor.name);
    setHidden(part("vms-empty"), vms.length > 0 || !hypervisor.name);
    setHidden(part("vms-unknown"), Boolean(hypervisor.name));
  }

  function showButtons(state) {
    const picked = chosen(state);
    const hidden = picked.filter((vm) => !matches(vm)).length;
    const memory = bytes(picked.reduce((sum, vm) => sum + vm.memory_bytes, 0));
    const waits = isPending(state, "trigger");
    setText(part("vms-chosen"), picked.length === 0 ? "" : `${picked.length} selected${hidden ? ` (${hidden} not shown)` : ""}, ${memory}`);
    setText(dump, picked.length > 1 ? `Dump selected VM (${picked.length})` : "Dump selected VM");
    setDisabled(dump, waits || picked.length === 0, heading);
    setDisabled(all, waits || dumpableVms(state).length === 0, heading);
    setAttribute(section, "aria-busy", waits ? "true" : null);
  }

  function showError(error) {
    const notice = part("vms-error");
    const faults = error?.faults ?? [];
    if (!error && notice.contains(document.activeElement)) heading.focus({ preventScroll: true });
    setHidden(notice, !error);
    setText(field(notice, "error"), error?.sentence ?? "");
    setLines(field(notice, "faults"), faults.length > 1 ? faults.map((fault) => fault.detail) : []);
    setHidden(notice.querySelector('[data-action="leave-out"]'), !faults.some((fault) => store.state.chosen.has(fault.vm_id)));
  }

  return view;
}

/** The VMs of the rows that the server wrote, which become as the script's own. `rests`: what else is known of each. */
export function takeVms(rests) {
  const [model] = document.getElementById("vm-template").content.children;
  return [...document.getElementById("vms-list").children].map((row, place) => {
    mark(row, model);
    const { vmUuid: uuid, vmState: state } = row.dataset;
    const [name, vmid] = ["name", "vmid"].map((part) => field(row, part).textContent);
    const [id, memory_bytes, alarm] = rests[place];
    return { id, uuid, name, vmid, state, memory_bytes, alarm, last_dump: row.querySelector("time").dateTime || null };
  });
}

/** The VMs that *Dump selected VM* means: chosen, and not meanwhile shut off, gone or being dumped. */
function chosen(state) {
  return dumpableVms(state).filter((vm) => state.chosen.has(vm.uuid));
}

function fillRow(row, vm, job, on, heading, looks) {
  const box = row.querySelector("input");
  const link = field(row, "job");
  const off = vm.id === null;
  setAttribute(row, "data-vm-state", vm.state);
  setText(field(row, "name"), vm.name);
  setAttribute(field(row, "name"), "title", vm.uuid);
  setText(field(row, "vmid"), vm.vmid);
  setText(field(row, "state"), off ? `${vm.state}, nothing to dump` : vm.state);
  setText(field(row, "memory"), bytes(vm.memory_bytes));
  setAttribute(box, "title", off ? "It does not run: there is no memory to capture." : job ? "It is being dumped." : null);
  setDisabled(box, looks || off || Boolean(job), heading);
  if (box.checked !== on) box.checked = on;
  setHidden(link, !job);
  setHidden(field(row, "last-dump"), Boolean(job));
  setAttribute(link, "href", job ? `#job-${job.job_id}` : "#jobs");
  setText(link, !job ? "" : job.progress?.bytes_total ? `${job.phase} ${far(job.progress)}` : job.phase);
  setMoment(field(row, "last-dump"), vm.last_dump, vm.last_dump ? when(vm.last_dump) : "never dumped");
}
