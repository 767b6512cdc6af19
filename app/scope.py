"""What part of all VMs somebody may know of."""

from __future__ import annotations

import re
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

    def __str__(self) -> str:
        """In words: ``VMs shop-*, groups blue``."""
        kinds = (("hypervisors", self.hypervisors), ("VMs", self.vms), ("groups", self.groups))
        return ", ".join(f"{kind} {' '.join(entries)}" for kind, entries in kinds if entries) or "all VMs"

    @property
    def whole(self) -> bool:
        """Whether nothing is out of it."""
        return not (self.hypervisors or self.vms or self.groups)

    def covers(self, hypervisor: str, dom: str, group: str | None) -> bool:
        """Whether a VM of this name and group (None: in none that is known) on this hypervisor is in it."""
        return (
            (not self.hypervisors or hypervisor in self.hypervisors)
            and (not self.vms or any(fnmatchcase(dom, pattern) for pattern in self.vms))
            and (not self.groups or (bool(group) and group in self.groups))
        )

    def within(self, other: Scope) -> bool:
        """Whether it certainly covers nothing that ``other`` does not. Of two patterns that is seen where they are alike, or
        where one is a name or begins with all that stands before the other's only ``*``.

        >>> Scope(vms=("shop-web-*",)).within(Scope(vms=("shop-*",))), Scope().within(Scope(vms=("shop-*",)))
        (True, False)
        """
        return (
            _named_by(self.hypervisors, other.hypervisors)
            and _named_by(self.groups, other.groups)
            and (not other.vms or (bool(self.vms) and all(any(_narrower(one, wide) for wide in other.vms) for one in self.vms)))
        )


WHOLE = Scope()
_PATTERN_BEGINS = re.compile(r"[*?\[]")


def _named_by(entries: tuple[str, ...], wider: tuple[str, ...]) -> bool:
    return not wider or (bool(entries) and set(entries) <= set(wider))


def _narrower(pattern: str, wide: str) -> bool:
    literal = _PATTERN_BEGINS.split(pattern, maxsplit=1)[0]
    begins = wide.removesuffix("*")
    return (
        pattern == wide
        or (literal == pattern and fnmatchcase(pattern, wide))
        or (wide.endswith("*") and not _PATTERN_BEGINS.search(begins) and literal.startswith(begins))
    )
