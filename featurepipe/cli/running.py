"""The one place that turns errors into exit codes."""

import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from featurepipe.cli.commands import cli
from featurepipe.cli.options import LOGGER
from featurepipe.errors import FeaturepipeError

_STOPPED = "{}. What was done stays done; run the same command again to go on from there."


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    arguments : sequence of str, optional
        Default: those of the process.

    Returns
    -------
    int
        0 success, 1 a `FeaturepipeError` in one line on stderr, 2 usage, 130 Ctrl-C,
        143 SIGTERM.
    """
    try:
        cli.main(args=arguments, prog_name="featurepipe", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        was_terminated = isinstance(error.__cause__ or error, _Terminated)
        click.echo(f"\n{_STOPPED.format('Ended' if was_terminated else 'Interrupted')}", err=True)
        return 143 if was_terminated else 130
    except FeaturepipeError as error:
        click.echo(f"featurepipe: {error}", err=True)
        return 1
    except BrokenPipeError:
        # Whoever read the results has seen enough; nothing may be flushed to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        click.echo(f"featurepipe: {error.strerror or error}{where}", err=True)
        return 1
    finally:
        LOGGER.handlers.clear()
    return 0


def main() -> NoReturn:
    """Entry point of the ``featurepipe`` command."""
    signal.signal(signal.SIGTERM, _terminate)
    code = run()
    if code:
        # Threads that wait for a source without an answer would hold the process for minutes.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(0)


class _Terminated(KeyboardInterrupt):
    """The operating system or a scheduler asks the process to end."""


def _terminate(*_: object) -> NoReturn:
    raise _Terminated
