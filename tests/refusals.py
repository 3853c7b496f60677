"""What it means that something is refused first: nothing is written, and no work starts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from featurepipe.errors import FeaturepipeError

WORK = (
    "featurepipe.sources.local.LocalFolder.read",
    "featurepipe.features.extraction.recipe.open_engine",
    "featurepipe.models.networks.saved.SavedNetwork.open_engine",
    "featurepipe.workflows.fit_task.fit_heads",
    "featurepipe.workflows.fit_task.stream_heads",
    "featurepipe.workflows.auto_choice.choose_features",
    "featurepipe.workflows.curves.learning_curve",
)
"""Functions that read an image, open an engine, or fit."""


def content(folder: Path) -> dict[str, bytes]:
    """The files below a folder, but for locks: their relative paths and bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock")
    }


@contextmanager
def no_work() -> Iterator[None]:
    """Within this, any function of `WORK` fails the test."""
    with pytest.MonkeyPatch.context() as patch:
        for name in WORK:
            patch.setattr(name, _fails(name))
        yield


def _fails(name: str) -> Callable[..., None]:
    def start(*_: object, **__: object) -> None:
        raise AssertionError(f"{name} was called before everything was checked")

    return start


def assert_refused_first(folder: Path, call: Callable[[], object], message: str) -> None:
    """A call is refused with a clear error, before anything in a folder changed or work started.

    Parameters
    ----------
    folder : Path
        Everything that the call could write to lies below it.
    call : callable
    message : str
        What the error says, in part.
    """
    before = content(folder)
    with no_work(), pytest.raises(FeaturepipeError) as caught:
        call()
    assert message in str(caught.value), str(caught.value)
    after = content(folder)
    assert sorted(after) == sorted(before)
    changed = [name for name in before if after[name] != before[name]]
    assert changed == []
