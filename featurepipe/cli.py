"""The command line: parse, call one command, turn errors into exit codes.

Nothing heavy is imported here: each command imports its workflow when it runs.
"""

import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import click
import cloup

import featurepipe
from featurepipe.commands.audit import audit
from featurepipe.commands.check import check
from featurepipe.commands.export import export
from featurepipe.commands.extract import extract
from featurepipe.commands.fit import fit
from featurepipe.commands.info import info
from featurepipe.commands.next_labels import next_labels
from featurepipe.commands.options import examples
from featurepipe.commands.predict import predict
from featurepipe.commands.repeat import repeat
from featurepipe.commands.report import report
from featurepipe.commands.same import same
from featurepipe.commands.serve import serve
from featurepipe.commands.similar import similar
from featurepipe.commands.terminal import LOGGER
from featurepipe.commands.train import train
from featurepipe.errors import FeaturepipeError
from featurepipe.words import visible

# A name or a cell that an error quotes may be of any length.
_MAX_ERROR = 2000
_STOPPED = "Finished work is saved; run the same command again to continue."


@cloup.group(
    context_settings=cloup.Context.settings(
        help_option_names=["-h", "--help"],
        max_content_width=100,
        show_default=True,
        # So that most defaults fit beside their options in 80 columns.
        formatter_settings=cloup.HelpFormatter.settings(col1_max_width=26),
    ),
    sections=[
        cloup.Section("Main commands", [extract, fit, train, report, predict, same, similar]),
        cloup.Section("Tools", [serve, next_labels, audit, export, check, repeat, info]),
    ],
    epilog=examples(
        "extract dataset/ --backbone xception", "fit", "report", "predict new/*.jpg --top 5"
    ),
)
@click.version_option(featurepipe.__version__, prog_name="featurepipe")
def cli() -> None:
    """Classify images with frozen features of pretrained backbones.

    extract computes and caches features of labelled images, fit trains classifiers on them, report
    compares all runs on the same test images, and predict classifies new images.
    """


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
    _silence_warnings()
    _Terminated.came = False
    try:
        cli.main(args=arguments, prog_name="featurepipe", standalone_mode=False)
    except click.ClickException as error:
        error = _with_owners(error)
        # As a file is named, so may an argument be.
        error.message = visible(error.message)  # type: ignore[misc]
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo(f"{'Terminated' if _Terminated.came else 'Interrupted'}. {_STOPPED}", err=True)
        return 143 if _Terminated.came else 130
    except FeaturepipeError as error:
        _write_error(str(error))
        return 1
    except BrokenPipeError:
        # The reader has seen enough; nothing may be flushed to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        _write_error(f"{error.strerror or error}{where}")
        return 1
    finally:
        LOGGER.handlers.clear()
        logging.captureWarnings(False)
    return 0


def _silence_warnings() -> None:
    """Send the warnings of libraries, which name files of packages, to a log that nobody sees."""
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").propagate = False


def _write_error(text: str) -> None:
    text = visible(text)
    shown = text if len(text) <= _MAX_ERROR else f"{text[:_MAX_ERROR]}…"
    click.echo(f"featurepipe: {shown}", err=True)


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


def _with_owners(error: click.ClickException) -> click.ClickException:
    """The error; a misplaced option names the commands that have it."""
    if not isinstance(error, click.NoSuchOption):
        return error
    name = error.option_name
    owners = [
        command
        for command, itself in cli.commands.items()
        if any(name in [*param.opts, *param.secondary_opts] for param in itself.params)
    ]
    if not owners:
        return error
    message = f"{name} only applies to {' and '.join(owners)}. Remove it."
    return click.NoSuchOption(name, message, ctx=error.ctx)


class _Terminated(KeyboardInterrupt):
    """The operating system or a scheduler asks the process to end."""

    # Ray raises a KeyboardInterrupt of its own in its place.
    came = False


def _terminate(*_: object) -> NoReturn:
    _Terminated.came = True
    raise _Terminated
