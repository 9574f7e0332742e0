"""The first steps of every program: settings, logs, warnings."""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import Iterable, Mapping, Sequence

import structlog

from keepline.ops import logs
from keepline.ops.errors import CannotRun
from keepline.ops.settings import AnySettings, CommonSettings, SettingsError, load, unknown_names
from keepline.ops.settings_reference import help_text
from keepline.room import keys

_log = structlog.get_logger(__name__)

USAGE_ERROR = 2
FAILURE = 1
MAX_DESCRIPTORS = 1_048_576


def answer_arguments(
    program: str, purpose: str, settings: type[CommonSettings], arguments: Sequence[str]
) -> None:
    """Print help and exit for `--help`. Exit with 2 for any other argument: programs take none."""
    if not arguments:
        return
    if arguments[0] in ("-h", "--help"):
        print(help_text(program, purpose, settings))  # noqa: T201 - the answer to --help
        raise SystemExit(0)
    text = f"{program}: unexpected argument {arguments[0]}; settings are environment variables, see --help"
    print(text, file=sys.stderr)  # noqa: T201 - logging is not configured yet
    raise SystemExit(USAGE_ERROR)


def begin(settings: type[AnySettings], environ: Mapping[str, str]) -> AnySettings:
    """Return the settings with logging configured. Prints all problems and exits with 2 if there are any."""
    try:
        loaded = load(settings, environ)
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201 - logging is not configured before settings are known
        raise SystemExit(USAGE_ERROR) from None
    keys.use_prefix(loaded.redis_prefix)
    logs.configure(loaded.log_format, loaded.log_level)
    for message in unknown_names(environ):
        _log.warning("unknown_setting", problem=message)
    return loaded


def exit_code(failures: Iterable[BaseException]) -> int:
    """The exit code of a program that ended with these errors: 0 for none."""
    errors = list(failures)
    if any(isinstance(error, CannotRun) for error in errors):
        return USAGE_ERROR
    return FAILURE if errors else 0


def descriptors() -> int:
    """Raise the limit of open file descriptors as far as possible, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a uvloop if there is one for the platform, otherwise asyncio's own loop."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
