"""Conversions in a process of their own.

TensorFlow converts the networks of Keras whatever the backend of this process. Networks from files
are read there, since files that are damaged or made to harm can crash the libraries that read them.
"""

import json
import os
import signal
import subprocess
import sys
from typing import Any

from featurepipe.errors import (
    ExtractionError,
    FeaturepipeError,
    ModelFileError,
    UsageError,
    WeightsError,
)

_MODULE = "featurepipe.features.engines.conversion_tasks"
_RAISED = {kind.__name__: kind for kind in (ModelFileError, UsageError, WeightsError)}


def run_conversion(task: str, name: str, advice: str, **arguments: Any) -> Any:
    """Run a task of `featurepipe.features.engines.conversion_tasks` in another process.

    Parameters
    ----------
    task : str
        Name of the task.
    name : str
        What is converted, for messages.
    advice : str
        What to do if it fails, a sentence.
    **arguments
        Arguments of the task, as JSON values.

    Returns
    -------
    object
        What the task returns, a JSON value.

    Raises
    ------
    ModelFileError, UsageError, WeightsError
        As the task raises them.
    ExtractionError
        If it fails otherwise.
    """
    done = subprocess.run(
        # -P: the current folder may hold anything, such as another onnx.py.
        [sys.executable, "-P", "-m", _MODULE, task, json.dumps(arguments)],
        env=os.environ | {"KERAS_BACKEND": "tensorflow"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode != 0:
        raise _error_of(done, name, advice)
    # Libraries print, too.
    return json.loads(done.stdout.splitlines()[-1])


def _error_of(done: "subprocess.CompletedProcess[str]", name: str, advice: str) -> FeaturepipeError:
    """The error of the other process, if it was raised on purpose."""
    last_line = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    kind, _, text = last_line.partition(": ")
    if kind in _RAISED:
        return _RAISED[kind](text)
    if done.returncode < 0:
        last_line = f"the process ended by {signal.Signals(-done.returncode).name}"
    return ExtractionError(f"{name} could not be converted ({last_line[:200]}). {advice}")
