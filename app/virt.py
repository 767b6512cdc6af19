"""What the service and a capture process both need of libvirt: its event loop, a domain as it describes it, and its words for why
a guest stands still or a call was refused."""

from __future__ import annotations

import contextlib
import functools
import threading

import libvirt

from app.errors import HypervisorRefused
from app.model import OPENNEBULA_NAMESPACE, Domain, domain_of

LEFT_BY_A_DUMP = frozenset(
    {
        libvirt.VIR_DOMAIN_PAUSED_UNKNOWN,
        libvirt.VIR_DOMAIN_PAUSED_DUMP,
        libvirt.VIR_DOMAIN_PAUSED_MIGRATION,  # a libvirtd that was started anew takes a live dump's end for a migration's
        getattr(libvirt, "VIR_DOMAIN_PAUSED_API_ERROR", 14),  # libvirt 9.2
    }
)
"""Why a guest that ran before a dump may stand still after it: not known, the dump itself, an API that failed to resume."""

_REFUSALS = {
    libvirt.VIR_ERR_AUTH_FAILED,
    libvirt.VIR_ERR_AUTH_CANCELLED,
    libvirt.VIR_ERR_AUTH_UNAVAILABLE,
    libvirt.VIR_ERR_ACCESS_DENIED,
    libvirt.VIR_ERR_OPERATION_DENIED,
}


@functools.cache
def start_events() -> None:
    """Once a process: libvirt's own event loop on a thread, which events and keepalive need. Its words reach us as exceptions, and
    not on standard error. The thread is a daemon: a call that hangs in libvirt must not keep the process."""
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=_turn, name="libvirt-events", daemon=True).start()


def _turn() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


def described(raw: libvirt.virDomain, hypervisor: str) -> Domain:
    """The domain as it is now. Raises ``libvirt.libvirtError``."""
    state, memory_kib, _, vcpus, _ = raw.info()
    metadata_xml = None
    with contextlib.suppress(libvirt.libvirtError):  # most domains have no such element
        metadata_xml = raw.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, OPENNEBULA_NAMESPACE)
    return domain_of(
        uuid=raw.UUIDString(),
        name=raw.name(),
        number=raw.ID(),
        state=state,
        memory_kib=memory_kib,
        vcpus=vcpus,
        metadata_xml=metadata_xml,
        hypervisor=hypervisor,
    )


def text_of(error: libvirt.libvirtError) -> str:
    """What libvirt says."""
    return str(error.get_error_message() or error)


def refusal(uri: str, error: libvirt.libvirtError) -> HypervisorRefused | None:
    """What to raise if libvirt lets this user not do that; None if that is not what it says."""
    if error.get_error_code() not in _REFUSALS:
        return None
    return HypervisorRefused(f"libvirt at {uri} refused: {text_of(error)}. Check this user's rights in libvirt.")
