"""Entry point of the command. Ctrl-C while it is still loading prints no traceback."""

import sys


def main() -> None:
    """Run `keepline`."""
    try:
        from keepline.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)
