"""A FIFO on another host, read through SSH: for guests whose libvirtd is behind ``qemu+ssh://``.

libvirtd opens the path of a dump on its own host. So a small shell script is run there, by ``ssh``, which makes the FIFO,
says where it stands, and copies what comes out of it to us. Nothing has to be installed there: POSIX sh, coreutils or
busybox, and ``/proc``.

The far end tidies up by itself, for we may be dead or cut off. It drops the FIFO when the dump has ended, when it is told to
end, and when it hears nothing from us for ``_SILENCE_SEC``: a guest that is captured the paused way stands still until
somebody reads, and a connection that is cut without a word would keep it so for hours. As ``fifo.py`` says, the FIFO has a
reader until its folder is gone and libvirtd had time to notice (docs/decisions/0008).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import threading
import time
from typing import IO, Self

from app.capture.patience import Patience
from app.capture.sshhost import SshHost
from app.errors import HypervisorNotResponding, HypervisorRefused, HypervisorUnreachable
from app.fifo import FOLDER_PREFIX, PIPE_NAME

_BEAT_SEC = 3.0
_SILENCE_SEC = 15
_GREETING_SEC = 30.0
_ENDS_SEC = 3.0
_SOON_SEC = 0.5
_LONGEST_GREETING_BYTES = 64 << 10
_MARK = b"memdump-fifo:"
_NOT_CONNECTED = 255  # ssh(1): its own failure, not the command's

# $1: the capture's id. $2: the socket that the URI names, or nothing. It travels as one line in single quotes, which every
# login shell understands: so it has no single quote, no backslash, no "!".
#
# The FIFO stands in the temporary folder; where libvirtd runs as another user than we do, who then have to be root, beside
# its socket, and is given to it (as ``fifo.rendezvous`` does it here). libvirtd as root takes anybody's.
#
# Descriptor 4 is the reader that keeps libvirtd from waiting; ``cat`` opens the FIFO by way of it, because its path may be
# in another user's hands, and waits there until somebody opens it for writing: libvirtd, or ``drop``, so that not even a
# little that was written in a moment is lost. 5 is our standard input, which background processes lack.
_SCRIPT = """
umask 077; d=${TMPDIR:-/tmp}; me=$(id -u); owner=$me;
if [ "$2" ]; then
  set -- "$1" "$2" $(ls -ndL -- "$2");
  owner=${5:-$me};
fi;
if [ "$owner" = 0 ]; then owner=$me; fi;
if [ "$owner" != "$me" ]; then
  d=${2%/*};
  if [ "$me" != 0 ]; then
    echo "$2 belongs to uid $owner, and this is uid $me, whose FIFO that libvirtd does not take" >&2; exit 1;
  fi;
fi;
d=$d/@PREFIX@$1;
drop() { if [ -d "$d" ]; then rm -rf "$d"; : >/proc/self/fd/4; sleep 0.2; fi; kill -9 $cat; rm -rf "$d"; } 2>/dev/null;
end() { kill -9 $watch; drop; } 2>/dev/null;
mkdir "$d" || exit 1;
trap end EXIT;
trap "exit 1" HUP INT TERM PIPE;
mkfifo "$d/@PIPE@" || exit 1;
exec 3<>"$d/@PIPE@" 4<"$d/@PIPE@" 3>&- 5<&0;
if [ "$owner" != "$me" ]; then chown "$owner" "$d/@PIPE@" "$d" || exit 1; fi;
cat </proc/self/fd/4 & cat=$!;
{ while [ "$(timeout @SILENCE@ dd bs=1 count=1 <&5 4<&-)" ]; do :; done; drop; } >/dev/null 2>&1 & watch=$!;
echo "@MARK@$d";
exec >/dev/null 2>&1;
wait $cat; status=$?; cat=;
if [ $status = 0 ]; then rm -rf "$d"; fi;
exit $status;
"""


class RemoteFifo:
    """A FIFO on another host, and the ``ssh`` that brings what is written into it."""

    def __init__(self, uri: str, ssh: subprocess.Popen[bytes]) -> None:
        """Use ``make``."""
        self._uri = uri
        self._ssh = ssh
        self._folder = ""
        self._hung_up = threading.Event()
        self._hanging_up = threading.Lock()

    @classmethod
    def make(cls, uri: str, host: SshHost, capture_id: str, patience: Patience) -> Self:
        """Make it there, with a reader. Raises ``HypervisorUnreachable``, ``HypervisorRefused`` and what ``patience`` raises."""
        try:
            ssh = subprocess.Popen(
                host.command(_remote_command(capture_id, host.socket)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,  # a Ctrl-C is for us to hear; and without a terminal nobody can be asked
            )
        except OSError as error:
            raise HypervisorUnreachable(uri, f"{host.program} cannot be started: {error.strerror}") from error
        made = cls(uri, ssh)
        for pipe in (ssh.stdin, ssh.stdout, ssh.stderr):
            os.set_blocking(_pipe(pipe).fileno(), False)
        threading.Thread(target=made._beat, name="ssh-beat", daemon=True).start()
        try:
            made._folder = made._greeting(patience)
        except BaseException:
            made.drop(settled=True)
            raise
        return made

    @property
    def path(self) -> str:
        return f"{self._folder}/{PIPE_NAME}"

    @property
    def reader(self) -> int:
        return _pipe(self._ssh.stdout).fileno()

    def hang_up(self) -> None:
        """The end of the script's input makes it drop the FIFO, and that ends the stream."""
        with self._hanging_up:
            if not self._hung_up.is_set():
                self._hung_up.set()
                _pipe(self._ssh.stdin).close()

    def trouble(self) -> str | None:
        """ssh's last words, if it did not end well. That the script's ``cat`` was killed is no trouble if we told it to end: its
        status is then that of the signal. 1 says that somebody told the script itself to end."""
        hung_up = self._hung_up.is_set()
        try:
            code = self._ssh.wait(_ENDS_SEC if hung_up else _SOON_SEC)
        except subprocess.TimeoutExpired:
            return None
        if code == 0 or (hung_up and 1 < code < _NOT_CONNECTED):
            return None
        return self._complaint() or f"it ended with {code}"

    def drop(self, *, settled: bool) -> None:
        """Have the far end drop it, and wait for its end; with a connection that is dead the far end does it alone.

        The far end sees for itself whether it is settled.
        """
        self.hang_up()
        _pipe(self._ssh.stdout).close()
        try:
            self._ssh.wait(_ENDS_SEC)
        except subprocess.TimeoutExpired:
            self._ssh.kill()
            self._ssh.wait()
        _pipe(self._ssh.stderr).close()

    def _beat(self) -> None:
        """A byte now and then, so that the far end knows that we live. A full pipe means that ssh waits for its network."""
        while not self._hung_up.wait(_BEAT_SEC):
            with self._hanging_up, contextlib.suppress(BlockingIOError):
                if self._hung_up.is_set():
                    return
                try:
                    os.write(_pipe(self._ssh.stdin).fileno(), b".")
                except BrokenPipeError:
                    return

    def _greeting(self, patience: Patience) -> str:
        """The folder of the FIFO, which its reader has open by then. Not one byte more is read than that.

        What a login script says before is passed over.
        """
        line, total = bytearray(), 0
        until = time.monotonic() + _GREETING_SEC
        while total < _LONGEST_GREETING_BYTES:
            if time.monotonic() > until:
                raise HypervisorNotResponding(self._uri)
            try:
                byte = os.read(self.reader, 1)
            except BlockingIOError:
                patience.wait((self.reader,), 1.0)
                continue
            if not byte:
                break
            total += 1
            if byte != b"\n":
                line += byte
            elif _MARK in line:
                return os.fsdecode(bytes(line.partition(_MARK)[2]))
            else:
                line.clear()
        raise self._no_fifo()

    def _no_fifo(self) -> HypervisorUnreachable | HypervisorRefused:
        said = self.trouble() or "it said something else than was expected"
        if self._ssh.returncode == _NOT_CONNECTED:
            advice = "SSH has to work without a question: a key without a passphrase or in an agent, and a known host key"
            return HypervisorUnreachable(self._uri, f"ssh: {said}. {advice}")
        return HypervisorRefused(
            f"No FIFO can be made on the host of {self._uri}: {said}. Memory comes through a FIFO there. The guest was not touched."
        )

    def _complaint(self) -> str:
        text = b""
        with contextlib.suppress(BlockingIOError):
            text = os.read(_pipe(self._ssh.stderr).fileno(), 4096)
        return "; ".join(text.decode(errors="replace").split("\n")).strip("; \r").rstrip(".")


def _remote_command(capture_id: str, socket: str) -> str:
    """What the login shell over there is given, whichever shell that is."""
    script = " ".join(line.strip() for line in _SCRIPT.splitlines()).strip()
    for name, value in {"PREFIX": FOLDER_PREFIX, "PIPE": PIPE_NAME, "SILENCE": str(_SILENCE_SEC), "MARK": _MARK.decode()}.items():
        script = script.replace(f"@{name}@", value)
    return f"exec sh -c '{script}' memdump {shlex.quote(capture_id)} {shlex.quote(socket)}"


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # noqa: S101 - ssh is started with three pipes
    return pipe
