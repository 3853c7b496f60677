"""The ``featurepipe`` command, also as ``python -m featurepipe``."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Entry point of the command."""
    try:
        from featurepipe.cli import main as run_command
    except KeyboardInterrupt:
        # Nothing has begun yet, and there is nothing to say.
        sys.exit(130)
    run_command()


if __name__ == "__main__":
    main()
