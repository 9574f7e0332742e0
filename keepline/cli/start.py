"""Where the command begins: Ctrl-C while it is still loading is no error of ours to print."""

import sys


def main() -> None:
    """Run `keepline`."""
    try:
        from keepline.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)
