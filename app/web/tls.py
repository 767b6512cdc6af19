"""TLS without a proxy: the certificate of ``MEMDUMP_TLS_CERT`` and ``MEMDUMP_TLS_KEY``, and the one that takes its place."""

from __future__ import annotations

import ssl
from pathlib import Path

import structlog

from app.config import Settings
from app.errors import ConfigError

log = structlog.get_logger()

_HALF_A_PAIR = (ssl.SSLError, OSError, ValueError)
Stamp = tuple[int, int, int, int]


class Certificate:
    """What the service proves to be itself by. Each handshake looks whether the files were renewed: a restart would end dumps."""

    def __init__(self, cert: Path, key: Path) -> None:
        """Raises ``ConfigError`` if the two files are not a certificate and its key."""
        self._cert = cert
        self._key = key
        self._seen = self._stamp()
        try:
            self._context = _context_of(cert, key)
        except _HALF_A_PAIR as error:
            raise ConfigError(
                f"MEMDUMP_TLS_CERT={cert}, MEMDUMP_TLS_KEY={key} are not a certificate and its key: {_reason(error)}."
            ) from None
        self._door = _context_of(cert, key)
        self._door.sni_callback = self._choose

    @classmethod
    def of(cls, settings: Settings) -> Certificate | None:
        """That of the settings; None without one."""
        if settings.tls_cert is None or settings.tls_key is None:
            return None
        return cls(settings.tls_cert, settings.tls_key)

    @property
    def context(self) -> ssl.SSLContext:
        """To listen with. TLS 1.2 or newer."""
        return self._door

    def _choose(self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """Called in every handshake, before the certificate is shown. Raises nothing: OpenSSL would end the handshake."""
        stamp = self._stamp()
        if stamp is not None and stamp != self._seen:
            self._seen = stamp
            try:
                self._context = _context_of(self._cert, self._key)
                log.info("certificate_renewed", file=str(self._cert))
            except _HALF_A_PAIR as error:  # one of the two is new by now: the other will be soon
                log.warning("certificate_not_renewed", file=str(self._cert), reason=_reason(error))
        connection.context = self._context

    def _stamp(self) -> Stamp | None:
        """By which a change of the files shows; None while one is missing."""
        try:
            cert, key = self._cert.stat(), self._key.stat()
        except OSError:
            return None
        return cert.st_mtime_ns, cert.st_ino, key.st_mtime_ns, key.st_ino


def _context_of(cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(cert, key, password=_no_password)
    return context


def _no_password() -> str:
    """Instead of OpenSSL's question on the terminal."""
    raise ValueError("the key has a password; take it off, and let the file be this user's alone")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "OpenSSL cannot read them").replace("_", " ").lower()
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
