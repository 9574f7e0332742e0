"""The certificate of a server, read again when it has been renewed."""

from __future__ import annotations

import ssl
from pathlib import Path

import structlog

_log = structlog.get_logger(__name__)


class Certificate:
    """A certificate with its chain, and its key: two PEM files, or one that has both."""

    def __init__(self, chain: Path, key: Path | None) -> None:
        """Read the files. Raises OSError, of which `ssl.SSLError` is one, when they cannot be used."""
        self._chain, self._key = chain, key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self._read(self.context)

    def reload(self) -> bool:
        """Read the files again for whoever comes from now on. False when they cannot be used: the old ones stay."""
        try:
            self._read(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))  # half a renewal must not break what works
            self._read(self.context)
        except OSError as error:
            _log.error("certificate_unusable", file=str(self._chain), error=str(error))
            return False
        _log.info("certificate_read_again", file=str(self._chain))
        return True

    def _read(self, context: ssl.SSLContext) -> None:
        def no_password() -> str:
            raise ssl.SSLError("the key is encrypted; it has to be without a password")

        context.load_cert_chain(self._chain, self._key, no_password)
