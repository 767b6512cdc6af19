"""What part of all VMs somebody may know of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache


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
            and (not self.vms or _fits(self.vms, dom))
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
            and (not other.vms or (bool(self.vms) and all(_narrower(one, other.vms) for one in self.vms)))
        )


WHOLE = Scope()
_PATTERN_BEGINS = re.compile(r"[*?\[]")


def _named_by(entries: tuple[str, ...], wider: tuple[str, ...]) -> bool:
    return not wider or (bool(entries) and set(entries) <= set(wider))


def _narrower(pattern: str, wider: tuple[str, ...]) -> bool:
    literal = _PATTERN_BEGINS.split(pattern, maxsplit=1)[0]
    return pattern in wider or (literal == pattern and _fits(wider, pattern)) or literal.startswith(_beginnings(wider))


# The same few names are asked for again and again, of every scope that somebody follows, on the event loop: each answer is kept.


@lru_cache(maxsize=65_536)
def _fits(patterns: tuple[str, ...], name: str) -> bool:
    return _joined(patterns).match(name) is not None


@lru_cache(maxsize=1024)
def _joined(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, patterns)))


@lru_cache(maxsize=1024)
def _beginnings(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """What stands before the only ``*``, of those that end with it."""
    begin = (pattern[:-1] for pattern in patterns if pattern.endswith("*"))
    return tuple(literal for literal in begin if not _PATTERN_BEGINS.search(literal))
