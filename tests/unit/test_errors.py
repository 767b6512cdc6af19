"""What the longest messages say: what happened, why, and what would help, each once."""

from __future__ import annotations

import pytest

from app.capture.domainmemory import refuse_passthrough
from app.capture.machine import malformed
from app.errors import (
    CaptureError,
    HypervisorUnreachable,
    LiveNotConverging,
    LiveNotPossible,
    VmErrors,
    VmNotRunning,
    WouldPauseTooLong,
)

BUSY = LiveNotConverging("vm-busy-01", 300, "after 30 s and 12 passes its memory still changed")
STREAM = malformed(16, "a record that is not understood")
FALLBACK = "MEMDUMP_FALLBACK_PAUSE_MS"


def _passed_through() -> LiveNotPossible:
    with pytest.raises(LiveNotPossible) as caught:
        refuse_passthrough("vm-gpu-01", "<domain><devices><hostdev type='pci'/></devices></domain>")
    return caught.value


@pytest.mark.parametrize(
    ("name", "cause", "allowed_ms", "limit", "text"),
    [
        (
            "vm-busy-01",
            BUSY,
            10_000,
            FALLBACK,
            "vm-busy-01 was not captured and runs on. A live capture did not succeed. vm-busy-01 rewrites its memory faster than "
            "it can be read with a stop of at most 300 ms (after 30 s and 12 passes its memory still changed). The paused way "
            "would stop the guest for about 12.3 s, and MEMDUMP_FALLBACK_PAUSE_MS allows 10 s. What would help: a quieter time, "
            "a higher max_pause_ms, a higher MEMDUMP_FALLBACK_PAUSE_MS, or the mode 'paused', which accepts that stop.",
        ),
        (
            "vm-busy-01",
            BUSY,
            300,
            "max_pause_ms",
            "vm-busy-01 was not captured and runs on. A live capture did not succeed. vm-busy-01 rewrites its memory faster than "
            "it can be read with a stop of at most 300 ms (after 30 s and 12 passes its memory still changed). The paused way "
            "would stop the guest for about 12.3 s, and max_pause_ms allows 300 ms. What would help: a quieter time, a higher "
            "max_pause_ms, or the mode 'paused' without one, which accepts that stop.",
        ),
        (
            "vm-web-01",
            None,
            300,
            "max_pause_ms",
            "vm-web-01 was not captured and runs on. The paused way would stop the guest for about 12.3 s, and max_pause_ms allows "
            "300 ms. What would help: a higher max_pause_ms, or the mode 'paused' without one, which accepts that stop.",
        ),
        (
            "vm-gpu-01",
            _passed_through(),
            10_000,
            FALLBACK,
            "vm-gpu-01 was not captured and runs on. A live capture did not succeed. vm-gpu-01 has a device of the host (hostdev "
            "of the type pci), so it cannot be captured while it runs. The paused way would stop the guest for about 12.3 s, and "
            "MEMDUMP_FALLBACK_PAUSE_MS allows 10 s. What would help: a higher MEMDUMP_FALLBACK_PAUSE_MS, or the mode 'paused', "
            "which accepts that stop.",
        ),
        (
            "vm-web-01",
            STREAM,
            10_000,
            FALLBACK,
            "vm-web-01 was not captured and runs on. A live capture did not succeed. The migration stream has a record that is not "
            "understood, at offset 16 (0x10). The paused way would stop the guest for about 12.3 s, and MEMDUMP_FALLBACK_PAUSE_MS "
            "allows 10 s. What would help: a higher MEMDUMP_FALLBACK_PAUSE_MS, or the mode 'paused', which accepts that stop.",
        ),
    ],
    ids=["too busy", "too busy for what was asked", "no live capture was tried", "passed through", "stream"],
)
def test_a_fallback_that_is_not_allowed_says_what_why_and_what_would_help(
    name: str, cause: CaptureError | None, allowed_ms: int, limit: str, text: str
) -> None:
    assert str(WouldPauseTooLong(name, 12_345.6, allowed_ms, limit, cause)) == text


def test_alone_a_failed_live_capture_says_what_would_help() -> None:
    assert str(BUSY) == (
        "vm-busy-01 rewrites its memory faster than it can be read with a stop of at most 300 ms (after 30 s and 12 passes its "
        "memory still changed). Allow a longer stop with max_pause_ms, capture at a quieter time, or use the mode 'paused'. "
        "The guest runs on."
    )
    assert str(STREAM).endswith("(0x10). Use the mode 'paused'.")
    assert str(_passed_through()).endswith("while it runs. Use the mode 'paused'. The guest was not touched.")


@pytest.mark.parametrize(
    ("uri", "cause", "is_wrong"),
    [
        ("foo", "no connection driver available for URI 'foo' does not include a driver name", True),
        ("foo:///system", "Failed to connect socket to '/var/run/libvirt/libvirt-sock': No such file or directory", True),
        ("qemu+foo:///system", "invalid argument: remote_open: transport in URL not recognised", True),
        ("qemu:///system", "Failed to connect socket to '/var/run/libvirt/libvirt-sock': No such file or directory", False),
        ("qemu+ssh://kvm-07/system", "Cannot recv data: Connection reset by peer", False),
    ],
)
def test_a_uri_that_is_wrong_is_not_blamed_on_libvirtd(uri: str, cause: str, is_wrong: bool) -> None:
    text = str(HypervisorUnreachable(uri, cause))
    assert ("That URI looks wrong" in text) is is_wrong
    assert ("Check that libvirtd runs" in text) is not is_wrong


def test_a_vm_that_is_named_twice_is_told_once() -> None:
    errors = [VmNotRunning(vm, "shut off", "vm-off-01") for vm in ("vm-off-01", "104")]
    assert str(VmErrors(errors)) == str(errors[0])
