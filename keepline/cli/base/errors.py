"""Errors that the command prints as one line, with an exit code, instead of a traceback."""

FAILED = 1
WRONG_USE = 2


class CommandError(Exception):
    """The command failed. The message says why and what to do. Exit code 1."""

    exit_code = FAILED


class UsageError(CommandError):
    """The command line or the environment is invalid. Exit code 2."""

    exit_code = WRONG_USE
