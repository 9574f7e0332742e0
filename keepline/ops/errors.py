"""The error that ends a program, from any part of it."""


class CannotRun(Exception):
    """The program cannot run in this environment. The message says why and what to do. Exit code 2."""
