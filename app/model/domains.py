"""Domains, and what names them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID
from xml.etree import ElementTree

from app.errors import AmbiguousVm, VmUnknown


class Subject(NamedTuple):
    """What somebody's scope looks at in whatever is about a VM: on which hypervisor it is, its name, and its OpenNebula group,
    None where it has none."""

    hypervisor: str
    dom: str
    group: str | None


class DomainState(StrEnum):
    """virDomainState, by libvirt's own words and in its order."""

    NOSTATE = "nostate"
    RUNNING = "running"
    BLOCKED = "blocked"
    PAUSED = "paused"
    SHUTDOWN = "shutdown"
    SHUTOFF = "shutoff"
    CRASHED = "crashed"
    PMSUSPENDED = "pmsuspended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """One libvirt domain as it was last seen. ``id`` is libvirt's number while it is active, else None."""

    uuid: str
    name: str
    id: int | None
    vmid: str
    state: DomainState
    memory_bytes: int
    vcpus: int
    hypervisor: str
    group: str | None = None

    @property
    def subject(self) -> Subject:
        return Subject(self.hypervisor, self.name, self.group)

    @property
    def active(self) -> bool:
        """Whether there is guest memory to read (running, or standing still, but not shut off)."""
        return self.id is not None


_ONE_NAME = re.compile(r"one-([0-9]{1,18})\Z")  # becomes a part of a file's name: no digits of other scripts, no hundreds of them
_ONE_VMID = re.compile(r"[0-9]{1,18}\Z")


def vmid_of(*, name: str, libvirt_id: int | None, opennebula_vmid: str | None = None) -> str:
    """The contract's vmid: OpenNebula's VM id (metadata, then a ``one-<id>`` name), else the libvirt ID, else ''.

    >>> vmid_of(name="one-42", libvirt_id=7)
    '42'
    """
    if opennebula_vmid is not None and _ONE_VMID.match(opennebula_vmid):
        return opennebula_vmid
    named = _ONE_NAME.match(name)
    if named:
        return named.group(1)
    return "" if libvirt_id is None else str(libvirt_id)


def opennebula_vmid(metadata_xml: str) -> str | None:
    """The OpenNebula VM id in a domain's ``http://opennebula.org/xmlns/libvirt/1.0`` metadata element, if there is one.

    OpenNebula writes ``<one:vm><one:vmid>42</one:vmid>…`` (its VMM driver, ``libvirt_driver_kvm.cc``).
    """
    found = re.search(r"<(?:\w+:)?vmid>\s*([0-9]+)\s*</", metadata_xml)
    return found.group(1) if found else None


def opennebula_group(metadata_xml: str) -> str | None:
    """The name of the OpenNebula group whose VM that is, in the same element: ``<one:vm>…<one:gname>blue</one:gname>…``.

    People choose what else stands there (the VM's name), so it is read as XML, and of the element's own children alone: what
    looks like a group within a text is none. Two of them, which OpenNebula never writes, are none either.
    """
    try:
        root = ElementTree.fromstring(metadata_xml)  # noqa: S314 - libvirt's own words
    except ElementTree.ParseError:
        return None
    named = [child.text or "" for child in root if child.tag.rpartition("}")[2] == "gname"]
    return named[0] or None if len(named) == 1 else None


OPENNEBULA_NAMESPACE = "http://opennebula.org/xmlns/libvirt/1.0"


def domain_state(number: int) -> DomainState:
    """A virDomainState."""
    return tuple(DomainState)[number]


def domain_of(
    *, uuid: str, name: str, number: int, state: int, memory_kib: int, vcpus: int, metadata_xml: str | None, hypervisor: str
) -> Domain:
    """A domain by what libvirt says of it: ``number`` is its libvirt ID, negative while it is not active; ``state`` a
    virDomainState; ``metadata_xml`` the element of OpenNebula's, if it has one."""
    libvirt_id = None if number < 0 else number
    opennebula = None if metadata_xml is None else opennebula_vmid(metadata_xml)
    return Domain(
        uuid=uuid,
        name=name,
        id=libvirt_id,
        vmid=vmid_of(name=name, libvirt_id=libvirt_id, opennebula_vmid=opennebula),
        state=domain_state(state),
        memory_bytes=memory_kib * 1024,
        vcpus=vcpus,
        hypervisor=hypervisor,
        group=None if metadata_xml is None else opennebula_group(metadata_xml),
    )


def find_domain(wanted: str, domains: Iterable[Domain]) -> Domain:
    """The one domain that ``wanted`` names: tried as uuid (however it is spelt), vmid, name, libvirt ID, in that order.

    Raises ``VmUnknown``, or ``AmbiguousVm`` if several fit at the first kind that fits any.
    """
    return Called(domains).find(wanted)


class Called:
    """Domains by all that names them: for who looks for many of them."""

    def __init__(self, domains: Iterable[Domain]) -> None:
        known = tuple(domains)
        self._uuids = _table((one.uuid, one) for one in known)
        self._vmids = _table((one.vmid, one) for one in known if one.vmid)
        self._names = _table((one.name, one) for one in known)
        self._numbers = _table((str(one.id), one) for one in known if one.id is not None)

    def find(self, wanted: str) -> Domain:
        """As ``find_domain``."""
        as_uuid = _uuid_of(wanted)
        for kind, called in ((self._uuids, as_uuid), (self._vmids, wanted), (self._names, wanted), (self._numbers, wanted)):
            fits = kind.get(called, ()) if called is not None else ()
            if len(fits) > 1:
                raise AmbiguousVm(wanted, [(one.uuid, one.name) for one in fits])
            if fits:
                return fits[0]
        raise VmUnknown(wanted)


def _table(named: Iterable[tuple[str, Domain]]) -> Mapping[str, Sequence[Domain]]:
    table: dict[str, list[Domain]] = {}
    for called, domain in named:
        table.setdefault(called, []).append(domain)
    return table


def _uuid_of(text: str) -> str | None:
    """``text`` as libvirt spells a uuid; None if it is none. With or without hyphens, braces or ``urn:uuid:``."""
    try:
        return str(UUID(text))
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Sighting:
    """One VM as the live feed shows it. ``last_dump`` is the timestamp of its newest record; ``alarm`` says that it stands
    still since a dump and could not be resumed."""

    domain: Domain
    last_dump: str | None
    alarm: str | None = None
