"""The error that ends a program, whatever part of it finds out."""


class CannotRun(Exception):
    """The program cannot run with what it was given; the text says why and what to do. It exits 2."""
