"""What the command tells its user instead of a traceback: one line that says what to do, and an exit code."""

FAILED = 1
WRONG_USE = 2


class CommandError(Exception):
    """The command cannot do what was asked for; the text says why and what to do. Exit code 1."""

    exit_code = FAILED


class UsageError(CommandError):
    """The command was called, or its environment set, in a way that cannot work. Exit code 2."""

    exit_code = WRONG_USE
