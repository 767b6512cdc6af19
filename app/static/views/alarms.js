// VMs that stand still since a dump and could not be resumed; and how high all notices are.

import { clone, field, keyed, setText } from "./dom.js";

export function alarmsView() {
  const list = document.getElementById("alarms");
  const notices = document.getElementById("notices");
  new ResizeObserver(() => document.documentElement.style.setProperty("--notices", `${notices.offsetHeight}px`)).observe(notices);

  return ({ vms }) =>
    keyed(list, {
      items: vms.filter((vm) => vm.alarm),
      attribute: "data-alarm-uuid",
      key: (vm) => vm.uuid,
      make: () => clone("alarm-template"),
      fill: (notice, vm) => {
        setText(field(notice, "name"), vm.name);
        setText(field(notice, "message"), vm.alarm);
      },
    });
}
