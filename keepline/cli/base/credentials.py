"""The secrets of a cluster on this machine: generated once and kept in its data folder, or set by the user."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from keepline.cli.base.errors import UsageError
from keepline.cli.base.private_files import create_private

FILE = "secrets.json"
_RANDOM_BYTES = 32


@dataclass(frozen=True, slots=True)
class Credentials:
    """The secret that signs tokens, and the key of the HTTP API."""

    auth_secret: str = field(repr=False)
    service_key: str = field(repr=False)


def credentials_of(data: Path, environ: Mapping[str, str]) -> Credentials:
    """Return the secrets of the cluster in `data`, generating them if there are none.

    Those in the environment take precedence. Raises UsageError if the file in `data` is damaged.
    """
    path = data / FILE
    if not path.exists():
        fresh = {name: secrets.token_urlsafe(_RANDOM_BYTES) for name in ("auth_secret", "service_key")}
        create_private(path, json.dumps(fresh))
    kept = read_credentials(data)
    return Credentials(
        auth_secret=environ.get("KEEPLINE_AUTH_SECRET") or kept.auth_secret,
        service_key=environ.get("KEEPLINE_SERVICE_KEY") or kept.service_key,
    )


def read_credentials(data: Path) -> Credentials:
    """Return the secrets stored in `data`. Raises FileNotFoundError, or UsageError if they are damaged."""
    path = data / FILE
    try:
        kept = json.loads(path.read_text())
        return Credentials(auth_secret=str(kept["auth_secret"]), service_key=str(kept["service_key"]))
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{path} is damaged: remove it; the next start makes new secrets") from None


def auth_secret(environ: Mapping[str, str], data: Path) -> str:
    """The secret that signs tokens, from the environment or from the cluster in `data`. Raises UsageError if there is
    none.
    """
    try:
        return environ.get("KEEPLINE_AUTH_SECRET") or read_credentials(data).auth_secret
    except FileNotFoundError:
        raise UsageError(
            f"set KEEPLINE_AUTH_SECRET to the secret of the nodes (there is no {data / FILE} either)"
        ) from None
