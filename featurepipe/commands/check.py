"""`featurepipe check`."""

from pathlib import Path
from typing import Any

import click
import cloup

import featurepipe
from featurepipe.commands.options import examples, output
from featurepipe.commands.terminal import write, write_json


@cloup.command(epilog=examples("check model.onnx", "check model.onnx --json"))
@cloup.argument(
    "model",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File that featurepipe export wrote, with MODEL.golden.npz beside it.",
)
@output(workspace=False)
def check(as_json: bool, **options: Any) -> None:
    """Check that an exported model answers as it did when it was exported.

    The model is run on its golden images by ONNX Runtime, on any machine and without a workspace. A
    probability that differs by more than 0.0001, or another answer, is an error.
    """
    checked = featurepipe.check(**options)
    if as_json:
        write_json(checked.as_dict())
    else:
        write(checked.in_words())
