"""Certificates for tests, made by the system's ``openssl``: self-signed, good for 127.0.0.1 and one name."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

NAME = "dumps.example.org"


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key."""

    cert: Path
    key: Path

    @property
    def trusting(self) -> ssl.SSLContext:
        """What a client that trusts this certificate, and no other, connects with."""
        return ssl.create_default_context(cafile=str(self.cert))

    @property
    def settings(self) -> dict[str, str]:
        return {"MEMDUMP_TLS_CERT": str(self.cert), "MEMDUMP_TLS_KEY": str(self.key)}


def make_pair(folder: Path, *, password: str | None = None) -> Pair:
    """A new certificate and key in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    pair = Pair(folder / "cert.pem", folder / "key.pem")
    how = ["-passout", f"pass:{password}"] if password else ["-nodes"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", *how, "-days", "2",
         "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=IP:127.0.0.1,DNS:{NAME}", "-out", pair.cert, "-keyout", pair.key],
        check=True,
        capture_output=True,
        timeout=60,
    )  # fmt: skip
    return pair
