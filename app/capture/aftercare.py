"""What becomes of a guest after its capture: it is looked at and resumed, and what was seen of it is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from app.capture.guest import Guest, StillBusy
from app.capture.patience import Patience
from app.capture.report import Report
from app.errors import RUNS_ON, CaptureCancelled, CaptureError, CaptureFailed, GuestLeftPaused, MemoryDumpsError


def see_it_run_on(guest: Guest, report: Report) -> None:
    """After every capture the guest's state is looked at, also when libvirt said success. A whole image is kept whatever is seen.

    What is seen stands in ``report.guest``. Raises ``CaptureCancelled``.
    """
    name = guest.domain.name

    def stuck(error: CaptureFailed) -> None:
        if report.guest == RUNS_ON and not guest.gone():  # told once, and at once: the guest stands still all that time
            report.guest = f"{name} stands still after the dump, and could not be resumed yet: {error}"
            report.warn(GuestLeftPaused.code, f"{report.guest} It is tried again and again.")

    try:
        if guest.run_on(stuck):
            report.warn("guest-resumed", f"{name} stood still after the dump and was resumed.")
        report.guest = RUNS_ON
    except CaptureCancelled:
        raise
    except StillBusy:
        report.guest = f"{name} stands still while libvirt works on it, on the end of the dump or for somebody else. Look at it."
        report.warn("guest-state-unknown", report.guest)
    except CaptureFailed as error:
        if guest.gone():
            report.guest = ""  # nothing more to say of it
        else:
            report.guest = f"{name} stands still after the dump and could not be resumed: {error} Resume it by hand."
            report.warn(GuestLeftPaused.code, report.guest)
    except MemoryDumpsError:
        report.guest = f"Whether {name} runs on could not be seen, for libvirt does not answer. Look at it."
        report.warn("guest-state-unknown", report.guest)


@contextmanager
def looked_after(guest: Guest, report: Report) -> Iterator[None]:
    """If the capture fails in here, see that the guest runs on, with a patience of its own: the capture's may be over."""
    try:
        yield
    except BaseException:
        patience, guest.connection.patience = guest.connection.patience, Patience()
        try:
            see_it_run_on(guest, report)
            if report.guest == RUNS_ON and guest.gone():
                report.guest = ""
        finally:
            guest.connection.patience = patience
        raise


@contextmanager
def told_of(guest: Guest, report: Report) -> Iterator[None]:
    """What fails in here says of the guest what was seen. Of one that did not run before that it runs on is not said."""
    try:
        yield
    except CaptureError as error:
        error.tell_of_guest(report.guest if guest.ran else "")
        raise
