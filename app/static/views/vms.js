// The inventory, and the buttons that start dumps.

import { bytes, far, vmCount, when } from "../format.js";
import { activeJobs, dumpableVms, isPending } from "../store.js";
import { clone, field, keyed, setAttribute, setDisabled, setHidden, setMoment, setText } from "./dom.js";

export function vmsView(store, actions) {
  const table = document.getElementById("vms-table");
  const empty = document.getElementById("vms-empty");
  const unknown = document.getElementById("vms-unknown");
  const heading = document.getElementById("vms-heading");
  const all = document.getElementById("dump-all");
  const allError = document.getElementById("vms-error");
  const askAll = dumpAllDialog(store, actions);

  table.addEventListener("click", (event) => {
    const button = event.target.closest("[data-action]");
    const uuid = button?.closest("[data-vm-uuid]").dataset.vmUuid;
    if (button?.dataset.action === "dump") actions.dump(uuid);
    if (button?.dataset.action === "forget") store.forgetError(`dump:${uuid}`);
  });
  allError.addEventListener("click", (event) => {
    if (event.target.closest('[data-action="forget"]')) store.forgetError("dump-all");
  });
  all.addEventListener("click", askAll);

  return (state) => {
    const active = activeJobs(state);
    setHidden(table, state.vms.length === 0);
    setHidden(empty, state.vms.length > 0 || !state.hypervisor.name);
    setHidden(unknown, Boolean(state.hypervisor.name));
    setDisabled(all, isPending(state, "dump-all") || dumpableVms(state).length === 0, heading);
    setText(field(allError, "error"), state.errors.get("dump-all") ?? "");
    setHidden(allError, !state.errors.has("dump-all"));
    keyed(table, {
      items: state.vms,
      attribute: "data-vm-uuid",
      key: (vm) => vm.uuid,
      make: () => clone("vm-template"),
      fill: (rows, vm) => fill(rows, vm, active.get(vm.uuid), state),
      heir: heading,
    });
  };
}

function fill(rows, vm, job, state) {
  const key = `dump:${vm.uuid}`;
  const button = rows.querySelector('[data-action="dump"]');
  setAttribute(rows, "data-vm-state", vm.state);
  setText(field(rows, "name"), vm.name);
  setAttribute(field(rows, "name"), "title", vm.uuid);
  setText(field(rows, "vmid"), vm.vmid || "–");
  setText(field(rows, "state"), vm.state);
  setText(field(rows, "memory"), bytes(vm.memory_bytes));
  setText(field(rows, "vcpus"), vm.vcpus);
  fillJobLink(rows, job);
  setMoment(field(rows, "last-dump"), vm.last_dump, vm.last_dump ? when(vm.last_dump) : "never");
  setText(button, job ? "Dumping…" : "Dump");
  setAttribute(button, "aria-label", job ? `${vm.name} is being dumped` : `Dump ${vm.name}`);
  setAttribute(button, "title", vm.id === null ? "Not running: there is no memory to capture" : null);
  setDisabled(button, vm.id === null || Boolean(job) || isPending(state, key), field(rows, "name"));
  setText(field(rows, "error"), state.errors.get(key) ?? "");
  setAttribute(rows.querySelector('[data-action="forget"]'), "aria-label", `Dismiss the error about ${vm.name}`);
  setHidden(field(rows, "note"), !state.errors.has(key));
}

/** While a VM is being dumped, its phase stands in place of its last dump, and leads to the running dump. */
function fillJobLink(rows, job) {
  const link = field(rows, "job");
  setHidden(link, !job);
  setHidden(field(rows, "last-dump"), Boolean(job));
  if (!job) {
    setText(link, "");
    return;
  }
  setAttribute(link, "href", `#job-${job.job_id}`);
  setText(link, job.progress?.bytes_total ? `${job.phase} ${far(job.progress)}` : job.phase);
}

/** Asks first: how many VMs, and how much memory. Gives the function that opens the question. */
function dumpAllDialog(store, actions) {
  const dialog = document.getElementById("dump-all-dialog");
  const confirm = field(dialog, "confirm");

  dialog.addEventListener("click", (event) => {
    const action = event.target.closest("[data-action]")?.dataset.action;
    if (action) dialog.close();
    if (action === "dump-all") actions.dumpAll();
  });

  return () => {
    const vms = dumpableVms(store.state);
    const memory = bytes(vms.reduce((sum, vm) => sum + vm.memory_bytes, 0));
    const each = vms.length === 1 ? "The guest stands" : "Each guest stands";
    const still = {
      live: "still for a moment.",
      paused: "still while its memory is read.",
      auto: "still for a moment, or, where it cannot be captured live, while its memory is read.",
    }[dialog.dataset.mode];
    setText(field(dialog, "text"), `The memory of ${vmCount(vms.length)} will be captured, ${memory} in all. ${each} ${still}`);
    setText(confirm, `Dump ${vmCount(vms.length)}`);
    dialog.showModal();
  };
}
