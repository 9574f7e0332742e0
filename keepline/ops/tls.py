"""The certificate of a server, reloaded after a renewal."""

from __future__ import annotations

import ssl
from pathlib import Path

import structlog

_log = structlog.get_logger(__name__)


class Certificate:
    """A certificate with its chain, and its key: two PEM files, or one that has both."""

    def __init__(self, chain: Path, key: Path | None) -> None:
        """Read the files. Raises OSError, of which `ssl.SSLError` is a subclass, if they are invalid."""
        self._chain, self._key = chain, key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self._read(self.context)

    def reload(self) -> bool:
        """Reload the files for new connections. False if they are invalid: the old ones stay in use."""
        try:
            # half a renewal must not break the current certificate
            self._read(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            self._read(self.context)
        except OSError as error:
            _log.error("certificate_unusable", file=str(self._chain), error=str(error))
            return False
        _log.info("certificate_read_again", file=str(self._chain))
        return True

    def _read(self, context: ssl.SSLContext) -> None:
        def no_password() -> str:
            raise ssl.SSLError("the key is encrypted; store it without a password")

        context.load_cert_chain(self._chain, self._key, no_password)
