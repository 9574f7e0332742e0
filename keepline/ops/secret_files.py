"""Secrets from files: `KEEPLINE_AUTH_SECRET_FILE=/run/secrets/auth` instead of the secret itself in the environment.

Orchestrators mount secrets as files, because `docker inspect` shows the environment, and every child process inherits
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

SECRETS = (
    "REDIS_URL",
    "DATABASE_URL",
    "KEEPLINE_AUTH_SECRET",
    "KEEPLINE_SERVICE_KEY",
    "KEEPLINE_TURN_SECRET",
)
"""Variables that can be read from a file: secrets, and URLs, which may contain a password."""

SUFFIX = "_FILE"
MAX_BYTES = 65_536


class SecretFileError(Exception):
    """Files of secrets are invalid. `problems` has the problem of each variable that a file should set."""

    def __init__(self, problems: Mapping[str, str], environ: Mapping[str, str]) -> None:
        self.problems = problems
        self.environ = environ
        super().__init__("; ".join(problems.values()))


def read_secret_files(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with the variables from files, and without the files' names.

    Raises `SecretFileError` with all problems, and with the environment as far as it could be read.
    """
    read = dict(environ)
    problems: dict[str, str] = {}
    for variable in SECRETS:
        name = variable + SUFFIX
        path = read.pop(name, "")
        if not path:
            continue
        try:
            if read.get(variable):
                raise ValueError(f"set this or {variable}, not both")
            read[variable] = _secret_in(Path(path))
        except ValueError as problem:
            problems[variable] = f"{name}: {problem}"
    if problems:
        raise SecretFileError(problems, read)
    return read


def _secret_in(path: Path) -> str:
    """The content of a file without the final newline that editors add. Raises ValueError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        secret = content.decode().rstrip("\r\n")
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text") from None
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path} is larger than {MAX_BYTES} bytes")
    if not secret:
        raise ValueError(f"{path} is empty")
    return secret
