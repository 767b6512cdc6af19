// Before all VMs are dumped: how many, how much memory, what room there is, what it means for the guests. Kept true while it is open.

import { bytes, vmCount } from "../format.js";
import { dumpableVms } from "../store.js";
import { field, setDisabled, setNotice, setText } from "./dom.js";

const STILL = {
  live: "still for a moment.",
  paused: "still while its memory is read.",
  auto: "still for a moment, or, where it cannot be captured live, while its memory is read.",
};

export function createQuestion(confirmed) {
  const dialog = document.getElementById("dump-all-dialog");
  const dismiss = dialog.querySelector('[data-action="close"]');
  let asked = null; // what is sent if it is confirmed
  let mode = "auto";

  dialog.addEventListener("click", (event) => {
    const action = event.target.closest("[data-action]")?.dataset.action;
    if (action || isOutside(event, dialog)) dialog.close();
    if (action === "dump-all") confirmed(asked);
  });

  const freshen = (state) => {
    if (!dialog.open) return;
    const vms = dumpableVms(state);
    const memory = vms.reduce((sum, vm) => sum + vm.memory_bytes, 0);
    const each = vms.length === 1 ? "The guest stands" : "Each guest stands";
    const { dump_dir: folder, free_bytes: free } = state.room ?? { free_bytes: null };
    const room = free === null ? "How much room is left for dumps is not known." : `${bytes(free)} are left in ${folder}.`;
    setText(field(dialog, "text"), `The memory of ${vmCount(vms.length)} will be captured, ${bytes(memory)} in all. ${room} ${each} ${STILL[mode]}`);
    const short = free !== null && memory > free;
    setNotice(field(dialog, "warning"), short && "That may be more than there is room for. Compressed it may fit; a dump that finds no room fails, and its guest runs on. To be sure, make room first.");
    setText(field(dialog, "confirm"), `Dump ${vmCount(vms.length)}`);
    setDisabled(field(dialog, "confirm"), vms.length === 0, dismiss);
  };

  return {
    /** `what` is asked for, in `mode`. */
    open(state, what, chosenMode) {
      asked = what;
      mode = chosenMode;
      dialog.showModal();
      freshen(state);
    },
    freshen,
  };
}

function isOutside({ target, clientX, clientY }, dialog) {
  const box = dialog.getBoundingClientRect();
  return target === dialog && !(clientX >= box.left && clientX <= box.right && clientY >= box.top && clientY <= box.bottom);
}
