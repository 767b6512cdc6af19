"""What part of all VMs somebody may know of."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Limits to projects. Each kind that names anything has to fit; of its entries one does.

    ``hypervisors``: their names, as records show them. ``vms``: patterns of VM names with ``*``, ``?`` and ``[…]``, case-sensitive.
    ``groups``: OpenNebula groups.

    >>> Scope(vms=("shop-*",)).covers("kvm-07", "shop-web", None), Scope(groups=("blue",)).covers("kvm-07", "shop-web", None)
    (True, False)
    """

    hypervisors: tuple[str, ...] = ()
    vms: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether nothing is out of it."""
        return not (self.hypervisors or self.vms or self.groups)

    def covers(self, hypervisor: str, dom: str, group: str | None) -> bool:
        """Whether a VM of this name and group (None: in none that is known) on this hypervisor is in it."""
        return (
            (not self.hypervisors or hypervisor in self.hypervisors)
            and (not self.vms or any(fnmatchcase(dom, pattern) for pattern in self.vms))
            and (not self.groups or group in self.groups)
        )


WHOLE = Scope()
