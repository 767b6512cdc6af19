"""Everything that can go wrong, as a tree; each leaf has a stable code that scripts may rely on.

::

    MemoryDumpsError
    ├── ConfigError                      config-invalid
    ├── StateError
    │   ├── StateInUse                   state-in-use
    │   ├── StateMissing                 state-missing
    │   ├── StateDamaged                 state-damaged
    │   └── StateUnwritable              state-unwritable
    ├── RequestError                     request-invalid (and the code it is given)
    ├── AccessError                      accounts, tokens and logins
    │   ├── AccountUnknown               account-unknown
    │   ├── AccountExists                account-exists
    │   ├── TokenUnknown                 token-unknown
    │   ├── LastAdministrator            last-administrator
    │   ├── BeyondOwnRights              beyond-own-rights
    │   ├── OutlivesToken                beyond-own-rights (those of the token that asks, which expires)
    │   ├── TooManyTokens                too-many-tokens
    │   ├── PasswordWrong                password-wrong
    │   └── TooManyLogins                too-many-logins   (and when to try again)
    ├── VmError                          one VM of a request is at fault; several travel in VmErrors
    │   ├── VmUnknown                    vm-unknown
    │   ├── AmbiguousVm                  ambiguous-vm      (with the candidates)
    │   ├── VmNotRunning                 vm-not-running
    │   ├── AlreadyDumping               already-dumping
    │   ├── VmNotResponding              vm-not-responding (its QEMU hangs; a HypervisorError, too)
    │   └── DomainBusy                   domain-busy       (somebody else's job)
    ├── NothingToDump                    nothing-to-dump
    ├── IdempotencyKeyReused             idempotency-key-reused
    ├── TooManyWaiting                   too-many-waiting
    ├── TooManyFeeds                     too-many-feeds
    ├── HypervisorError
    │   ├── HypervisorUnreachable        hypervisor-unreachable
    │   ├── HypervisorAway               hypervisor-unreachable (to whom it is not told where it is, nor what is wrong)
    │   ├── HypervisorNotResponding      hypervisor-not-responding
    │   └── HypervisorRefused            hypervisor-refused
    ├── HistoryError                     InfluxDB cannot take or give what was asked; the index answers all the same
    │   ├── HistoryUnreachable           history-unreachable
    │   ├── HistoryWrongUrl              history-wrong-url
    │   ├── HistoryRefused               history-refused    (the token)
    │   ├── HistoryTypeConflict          history-type-conflict (some points, for ever)
    │   ├── HistoryTooWide               history-too-wide   (ask for a smaller window)
    │   └── HistoryFailed                history-failed
    └── CaptureError
        ├── LiveNotPossible              live-not-possible  (the guest cannot migrate, or its memory's layout is not certain)
        │   └── LayoutUnknown            layout-unknown
        ├── LiveNotConverging            live-not-converging (the guest writes faster than its memory can be read)
        ├── WouldPauseTooLong            would-pause-too-long
        ├── HostMemoryShort              host-memory-short  (reading shared memory would allocate it)
        ├── NoSpace                      no-space
        ├── DumpDirUnusable              dump-dir-unusable
        ├── GuestGone                    guest-gone
        ├── StreamTruncated              stream-truncated
        ├── StreamMalformed              stream-malformed
        ├── CaptureFailed                capture-failed
        ├── SealFailed                   seal-failed
        ├── CaptureTimedOut              timed-out
        ├── CaptureCancelled             cancelled
        ├── CaptureDied                  capture-died      (the capture process ended without a word)
        └── GuestLeftPaused              guest-left-paused

An error carries fields, the sentence is made in ``__str__``, and says what to do where that is known. No HTTP in here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar


class MemoryDumpsError(Exception):
    """The root. ``code`` is stable; ``str()`` is a sentence for a person."""

    code: ClassVar[str] = "internal-error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class ConfigError(MemoryDumpsError):
    """A setting is unknown or does not parse; the message names it and fits on one line."""

    code = "config-invalid"


class StateError(MemoryDumpsError):
    """The state directory or its SQLite file cannot be used."""


class StateInUse(StateError):
    """Another service runs on this state directory."""

    code = "state-in-use"


class StateMissing(StateError):
    """No service ever ran on this state directory."""

    code = "state-missing"

    def __init__(self, state_dir: str) -> None:
        super().__init__(
            f"MEMDUMP_STATE_DIR={state_dir}: there is no state file. Set it, and MEMDUMP_PORT or MEMDUMP_PUBLIC_URL, as they are "
            "set for the service; it makes the file at its first start."
        )
        self.state_dir = state_dir


class StateDamaged(StateError):
    """SQLite says that the state file is damaged, or a newer version of this program wrote it."""

    code = "state-damaged"


class StateUnwritable(StateError):
    """The state file cannot be written: disk full, read-only, or locked for too long."""

    code = "state-unwritable"


class RequestError(MemoryDumpsError):
    """A request's content is wrong. ``place`` names where, e.g. ``$.vm_ids[0]`` or ``limit``."""

    code = "request-invalid"

    def __init__(self, message: str, *, place: str | None = None) -> None:
        super().__init__(message)
        self.place = place


class AccessError(MemoryDumpsError):
    """What was asked of accounts, tokens or a login cannot be."""


class AccountUnknown(AccessError):
    """No account has this name."""

    code = "account-unknown"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no account {name!r}.")


class AccountExists(AccessError):
    """The name is taken."""

    code = "account-exists"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is an account {name!r} already. Change it, or choose another name.")


class TokenUnknown(AccessError):
    """No token that is valid has this number, or it is somebody else's."""

    code = "token-unknown"

    def __init__(self, number: int) -> None:
        super().__init__(f"There is no token {number}, or it was withdrawn already.")


class LastAdministrator(AccessError):
    """Without it nobody could give rights any more."""

    code = "last-administrator"

    def __init__(self) -> None:
        super().__init__("This is the last administrator; nobody could give rights any more. Make another one first.")


class BeyondOwnRights(AccessError):
    """A token was to have rights or a scope that its account has not."""

    code = "beyond-own-rights"

    def __init__(self, name: str) -> None:
        super().__init__(f"A token of {name} cannot have more rights than {name} has, nor a wider scope.")


class OutlivesToken(AccessError):
    """What was asked for with a token that expires would be there after it."""

    code = "beyond-own-rights"

    def __init__(self, expires_at: str) -> None:
        super().__init__(
            f"This token expires at {expires_at}, and gives nobody a password, more rights or a wider scope, which would be there "
            "after it. Log in, or show a token that never expires."
        )


class TooManyTokens(AccessError):
    """The account has as many as one may have."""

    code = "too-many-tokens"

    def __init__(self, name: str, most: int) -> None:
        super().__init__(f"{name} has {most} tokens, and no more are given out. Revoke those that nobody uses.")


class PasswordWrong(AccessError):
    """Who changes their own password shows the one before."""

    code = "password-wrong"

    def __init__(self) -> None:
        super().__init__("That is not the password of this account. An administrator can give it another one.")


class TooManyLogins(AccessError):
    """Too many logins failed, from this address or under this name; right or wrong, the next one has to wait."""

    code = "too-many-logins"

    def __init__(self, retry_after_sec: int) -> None:
        super().__init__(f"Too many logins were tried. Try again in {retry_after_sec} seconds.")
        self.retry_after_sec = retry_after_sec


class VmError(MemoryDumpsError):
    """One named VM is at fault. ``vm`` is the name as it was given; ``called``, of those that know it, what people call it."""

    def __init__(self, vm: str, message: str) -> None:
        super().__init__(message)
        self.vm = vm


class VmUnknown(VmError):
    """No VM has this uuid, vmid, name or libvirt ID."""

    code = "vm-unknown"

    def __init__(self, vm: str) -> None:
        super().__init__(vm, f"No VM is called {vm!r}: neither its uuid, vmid, name nor libvirt ID is that.")


class AmbiguousVm(VmError):
    """More than one VM fits. ``candidates`` are (uuid, name)."""

    code = "ambiguous-vm"

    def __init__(self, vm: str, candidates: Sequence[tuple[str, str]]) -> None:
        names = ", ".join(f"{name} ({uuid})" for uuid, name in candidates)
        super().__init__(vm, f"{vm!r} fits more than one VM: {names}. Name it by its uuid.")
        self.candidates = tuple(candidates)


class VmNotRunning(VmError):
    """The VM has no guest whose memory could be read."""

    code = "vm-not-running"

    def __init__(self, vm: str, state: str, called: str = "") -> None:
        super().__init__(
            vm, f"{called or vm} is not running (its state is {state}), so it has no memory to capture. Start it first."
        )
        self.state = state


class AlreadyDumping(VmError):
    """A job of ours for this VM has not ended. ``job_id`` names it."""

    code = "already-dumping"

    def __init__(self, vm: str, job_id: str, called: str = "") -> None:
        super().__init__(vm, f"{called or vm} is being dumped already (job {job_id}). Wait for that job, or cancel it.")
        self.job_id = job_id


class DomainBusy(VmError):
    """Somebody else runs a job (migration, save, backup, dump) on the domain."""

    code = "domain-busy"

    def __init__(self, vm: str, operation: str, called: str = "") -> None:
        super().__init__(vm, f"{called or vm} is busy: libvirt reports a running job ({operation}). Try again when it has ended.")
        self.operation = operation


class VmErrors(MemoryDumpsError):
    """Several VMs of one request are at fault; ``errors`` lists every one, in the order of the request."""

    code = "vms-invalid"

    def __init__(self, errors: Sequence[VmError]) -> None:
        super().__init__(" ".join(dict.fromkeys(str(error) for error in errors)))
        self.errors = tuple(errors)


class NothingToDump(MemoryDumpsError):
    """``all`` was asked for, and no running VM is left that is not being dumped already."""

    code = "nothing-to-dump"

    def __init__(self) -> None:
        super().__init__("There is nothing to dump: no VM is running, or every running one is being dumped already.")


class IdempotencyKeyReused(MemoryDumpsError):
    """The key was used within a day for a request that said something else."""

    code = "idempotency-key-reused"

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was used for another request already. Use a new key for a new request.")


class TooManyWaiting(MemoryDumpsError):
    """The queue is full."""

    code = "too-many-waiting"

    def __init__(self, waiting: int, asked: int, limit: int, *, counted: bool = True) -> None:
        """``counted``: whether it may be told how many wait, whoever asked for them."""
        many = f"{waiting} dumps wait already, at most {limit} may" if counted else f"At most {limit} dumps may wait"
        super().__init__(
            f"{many}, and {asked} more {'was' if asked == 1 else 'were'} asked for. Try again when some have ended."
            if asked <= limit
            else f"{asked} dumps were asked for at once, and at most {limit} may wait. Ask for fewer at once."
        )
        self.waiting = waiting
        self.asked = asked
        self.limit = limit


class TooManyFeeds(MemoryDumpsError):
    """So many scopes are followed live that no other is for now."""

    code = "too-many-feeds"

    def __init__(self, most: int) -> None:
        super().__init__(
            f"{most} different scopes are followed live, and no more can be. Try again later, or ask without the feed."
        )


class HypervisorError(MemoryDumpsError):
    """libvirt cannot serve us."""


_DRIVERS = frozenset(
    {"bhyve", "ch", "esx", "gsx", "hyperv", "lxc", "openvz", "qemu", "test", "vbox", "vmwareplayer", "vmwarews", "vpx", "vz", "xen"}
)
"""What a libvirt URI begins with; an alias of ``libvirt.conf`` may be called otherwise."""


class HypervisorUnreachable(HypervisorError):
    """No connection to libvirt."""

    code = "hypervisor-unreachable"

    def __init__(self, uri: str, cause: str) -> None:
        wrong = uri.partition(":")[0].partition("+")[0] not in _DRIVERS or "in URL" in cause or "parse URI" in cause
        super().__init__(
            f"libvirt at {uri} cannot be reached: {cause}. "
            + (
                "That URI looks wrong: set LIBVIRT_URI or --uri to one such as qemu:///system."
                if wrong
                else "Check that libvirtd runs and that this user may connect."
            )
        )
        self.uri = uri
        self.cause = cause


class HypervisorAway(HypervisorError):
    """libvirt does not serve us, and whoever asks may not know more."""

    code = "hypervisor-unreachable"

    def __init__(self) -> None:
        super().__init__("libvirt cannot serve this request now. Try again later, or ask an administrator.")


class HypervisorNotResponding(HypervisorError):
    """Connected, but libvirt does not answer in time."""

    code = "hypervisor-not-responding"

    def __init__(self, uri: str) -> None:
        super().__init__(f"libvirt at {uri} does not answer. Its daemon may hang: look after libvirtd, or start it anew.")
        self.uri = uri


class VmNotResponding(VmError, HypervisorError):
    """libvirt answers, but one VM's QEMU does not, and so no question about that VM is answered."""

    code = "vm-not-responding"

    def __init__(self, vm: str, called: str = "") -> None:
        super().__init__(
            vm,
            f"{called or vm} cannot be asked: libvirt answers, but its QEMU does not. Look after that QEMU process on the "
            "hypervisor, which hangs or is stopped; when it goes on, try again.",
        )


class HypervisorRefused(HypervisorError):
    """libvirt answered, and said no."""

    code = "hypervisor-refused"


class HistoryError(MemoryDumpsError):
    """The shared history cannot be used as asked. No record is lost by that: the index has them all."""


class HistoryUnreachable(HistoryError):
    """Nothing answers at ``INFLUX_URL``, or not in time. It may be back any moment."""

    code = "history-unreachable"

    def __init__(self, url: str, cause: str) -> None:
        super().__init__(
            f"InfluxDB at {url} cannot be reached: {cause}. Check that it runs, and the host and port in INFLUX_URL. "
            "Records wait here until then."
        )
        self.url = url
        self.cause = cause


class HistoryWrongUrl(HistoryError):
    """``INFLUX_URL`` is no URL of a server, or what answers there is not InfluxDB 3."""

    code = "history-wrong-url"

    def __init__(self, url: str, cause: str) -> None:
        super().__init__(
            f"INFLUX_URL={url} does not lead to InfluxDB 3: {cause}. It should be like http://influx.example.org:8181."
        )
        self.url = url
        self.cause = cause


class HistoryRefused(HistoryError):
    """InfluxDB does not accept the token; or, with ``known``, does, but the token may not use the database. ``given``: whether
    there is a token at all."""

    code = "history-refused"

    def __init__(self, url: str, database: str, cause: str, *, known: bool = False, given: bool = True) -> None:
        if not given:
            told = f"InfluxDB at {url} wants a token, and INFLUX_TOKEN is not set: {cause}. Set it to one"
        elif known:
            told = (
                f"InfluxDB at {url} knows the token, but does not let it use the database {database!r}: {cause}. "
                "Give it that right, or set INFLUX_TOKEN to one"
            )
        else:
            told = f"InfluxDB at {url} refuses the token: {cause}. Set INFLUX_TOKEN to one"
        super().__init__(f"{told} that may read and write the database {database!r}.")
        self.url = url
        self.database = database
        self.cause = cause


class HistoryTypeConflict(HistoryError):
    """InfluxDB will never take some of the points; the others are written.

    ``refused`` has InfluxDB's words by the place of each such point in what was given to ``write``.
    """

    code = "history-type-conflict"

    def __init__(self, refused: Mapping[int, str]) -> None:
        first = next(iter(refused.values()), "")
        super().__init__(
            f"InfluxDB will never take {len(refused)} of the records: {first}. The type of a column cannot be changed: "
            "set INFLUX_DB to another database, or remove the table mem_dumps there if it is another program's."
        )
        self.refused = dict(refused)


class HistoryTooWide(HistoryError):
    """The window touches more files than InfluxDB opens for one query."""

    code = "history-too-wide"

    def __init__(self, cause: str) -> None:
        super().__init__(f"The time asked for is too wide for InfluxDB: {cause}. Ask for a smaller window.")
        self.cause = cause


class HistoryFailed(HistoryError):
    """InfluxDB answered with an error of another kind; its words are in the message."""

    code = "history-failed"


RUNS_ON = "The guest runs on."


class CaptureError(MemoryDumpsError):
    """A capture or its seal did not succeed. The guest runs on and no partial file is left, unless said otherwise.

    ``advice``: what would help, apart from what happened, for where another error or a warning goes on from there. ``guest``:
    a sentence about the guest, told last. It holds as long as nothing else is known: see ``tell_of_guest``.
    """

    def __init__(self, message: str, advice: str = "", guest: str = "") -> None:
        super().__init__(message)
        self.advice = advice
        self.guest = guest

    def tell_of_guest(self, seen: str) -> None:
        """What was seen of the guest after its capture. That it runs on goes without saying where nothing else was said."""
        if self.guest or seen != RUNS_ON:
            self.guest = seen

    def __str__(self) -> str:
        return " ".join(filter(None, (self.message, self.advice, self.guest)))


class LiveNotPossible(CaptureError):
    """This guest cannot be captured live. Nothing of its memory was read; the guest was not touched, or runs on."""

    code = "live-not-possible"


class LayoutUnknown(LiveNotPossible):
    """Where the guest's memory blocks lie in its physical address space cannot be told without doubt."""

    code = "layout-unknown"


class LiveNotConverging(CaptureError):
    """The guest rewrites its memory faster than a live capture reads it."""

    code = "live-not-converging"

    def __init__(self, name: str, max_pause_ms: int, why: str) -> None:
        super().__init__(
            f"{name} rewrites its memory faster than it can be read with a stop of at most {max_pause_ms} ms ({why}).",
            "Allow a longer stop with max_pause_ms, capture at a quieter time, or use the mode 'paused'.",
            RUNS_ON,
        )


class WouldPauseTooLong(CaptureError):
    """The paused way would stop the guest for longer than ``limit``, a setting, allows; ``cause``: why a live capture, if one was
    tried, did not work."""

    code = "would-pause-too-long"

    def __init__(self, name: str, predicted_ms: float, allowed_ms: int, limit: str, cause: CaptureError | None) -> None:
        live = ("a quieter time", "a higher max_pause_ms") if isinstance(cause, LiveNotConverging) else ()
        helps = dict.fromkeys((*live, f"a higher {limit}"))
        why = f"A live capture did not succeed. {cause.message} " if cause is not None else ""
        without = " without one" if limit == "max_pause_ms" else ""
        super().__init__(
            f"{name} was not captured and runs on. {why}The paused way would stop the guest for about {_span(predicted_ms)}, and "
            f"{limit} allows {_span(allowed_ms)}.",
            f"What would help: {', '.join(helps)}, or the mode 'paused'{without}, which accepts that stop.",
        )


def _span(duration_ms: float) -> str:
    return f"{duration_ms / 1000:.1f}".removesuffix(".0") + " s" if duration_ms >= 1000 else f"{duration_ms:.0f} ms"


class HostMemoryShort(CaptureError):
    """Reading a guest's shared memory makes the host allocate all of it, and the host has not that much."""

    code = "host-memory-short"

    def __init__(self, name: str, needed_bytes: int, available_bytes: int) -> None:
        super().__init__(
            f"The memory of {name} is shared (memfd or file), so reading it may make the host allocate "
            f"{needed_bytes / 2**30:.2f} GiB; {available_bytes / 2**30:.2f} GiB are available. Free some memory on the host first. "
            "The guest was not touched."
        )


class NoSpace(CaptureError):
    """The dump's worst case does not fit. ``needed_bytes`` is what was to be reserved, ``taken_bytes`` what other dumps that
    are under way have reserved, and may give back."""

    code = "no-space"

    def __init__(self, directory: str, needed_bytes: int, free_bytes: int, taken_bytes: int = 0) -> None:
        taken = f", and {taken_bytes / 2**30:.2f} GiB are reserved by dumps under way" if taken_bytes else ""
        super().__init__(
            f"Not enough room in {directory}: a dump of this VM may need {needed_bytes / 2**30:.2f} GiB, "
            f"{free_bytes / 2**30:.2f} GiB are free and not reserved{taken}.",
            f"{'Try again when they have ended, free' if taken else 'Free'} some room, or use another DUMP_DIR.",
            RUNS_ON,
        )
        self.directory = directory
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes
        self.taken_bytes = taken_bytes


class DumpDirUnusable(CaptureError):
    """DUMP_DIR is missing, read-only, or not a directory."""

    code = "dump-dir-unusable"


class GuestGone(CaptureError):
    """The guest ended (power-off, crash of QEMU) while its memory was being read."""

    code = "guest-gone"


class StreamTruncated(CaptureError):
    """The stream ended before the image was whole."""

    code = "stream-truncated"


class StreamMalformed(CaptureError):
    """The stream is not what libvirt and QEMU document."""

    code = "stream-malformed"


class CaptureFailed(CaptureError):
    """libvirt reported that the dump failed."""

    code = "capture-failed"


class SealFailed(CaptureError):
    """The image was read, but could not be written, synced, named or described."""

    code = "seal-failed"


class CaptureTimedOut(CaptureError):
    """The memory was not captured within the time allowed."""

    code = "timed-out"

    def __init__(self, timeout_sec: float) -> None:
        super().__init__(
            f"The memory was not captured within {timeout_sec:g} s, so the capture was stopped.",
            "Allow more time with MEMDUMP_DUMP_TIMEOUT_SEC or --timeout-sec.",
            RUNS_ON,
        )
        self.timeout_sec = timeout_sec


class CaptureCancelled(CaptureError):
    """Somebody asked for the capture to stop."""

    code = "cancelled"

    def __init__(self) -> None:
        super().__init__("The capture was cancelled, and nothing was kept.", guest=RUNS_ON)


class CaptureDied(CaptureError):
    """The capture process ended without a result."""

    code = "capture-died"


class GuestLeftPaused(CaptureError):
    """The guest stands still after its capture and could not be resumed."""

    code = "guest-left-paused"
