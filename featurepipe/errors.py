"""Every error that featurepipe raises on purpose.

::

    FeaturepipeError
    ├── UsageError             options that conflict or are invalid
    │   └── UnknownNameError   a backbone, head, view, run … that does not exist
    ├── ManifestError          unusable images or labels
    ├── SourceError            an unreachable source of images
    ├── SplitError             a split that cannot be made
    ├── ImageError             one image that cannot be read (its row is `refused`)
    ├── WeightsError           missing, unreachable or mismatched weights
    ├── ExtractionError        an extraction that cannot go on
    ├── StoreError             an unusable feature store
    │   ├── StoreDamagedError  a store whose file or rows are damaged
    │   └── StoreMismatchError a store made with other options
    ├── FitError               a head or network that cannot be fitted
    ├── NotLinearError         a score that is no linear function of what it is computed from
    ├── RunError               an unusable run
    ├── WorkspaceError         an unusable workspace
    ├── NotReadableError       a file that may not be read: permission denied
    └── WriteError             a file that cannot be written
        ├── LockedError        another process is writing
        ├── NotWritableError   permission denied
        └── DiskFullError      no space left, or a file too large for the disk

Each message says what failed (with the value), why, and what to do. The command line
prints it on one line and exits with code 1.
"""

import difflib
from collections.abc import Iterable
from pathlib import Path


class FeaturepipeError(Exception):
    """Base of every error that featurepipe raises on purpose."""


class UsageError(FeaturepipeError):
    """Options that conflict or are invalid."""


class UnknownNameError(UsageError):
    """A name that does not exist, with the nearest one that does.

    Parameters
    ----------
    kind : str
        What the name names, such as ``"backbone"``.
    name : str
        The name as given.
    known : iterable of str
        The names that exist.
    hint : str, optional
        What to do, a full sentence.

    Examples
    --------
    >>> str(UnknownNameError("backbone", "resnet5", ["resnet50", "xception"]))
    "Unknown backbone 'resnet5'. Did you mean 'resnet50'?"
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        known = sorted(known)
        nearest = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
        if nearest:
            advice = f"Did you mean {nearest[0]!r}?"
        elif known:
            advice = f"Expected one of: {', '.join(known[:12])}{', …' if len(known) > 12 else ''}."
        else:
            advice = "There is none yet."
        super().__init__(f"Unknown {kind} {name!r}. {advice} {hint}".rstrip())


class ManifestError(FeaturepipeError):
    """Unusable images or labels."""


class SourceError(FeaturepipeError):
    """A source of images that cannot be reached, or no longer answers."""


class SplitError(FeaturepipeError):
    """A split that cannot be made, or does not match the images."""


class ImageError(FeaturepipeError):
    """One image that cannot be read; the text is the reason kept in its row."""


class WeightsError(FeaturepipeError):
    """Weights that are missing, unreachable or do not fit the backbone."""


class ModelFileError(FeaturepipeError):
    """A network in a file that cannot be read, or cannot be a backbone."""


class ExtractionError(FeaturepipeError):
    """An extraction that cannot go on."""


class StoreError(FeaturepipeError):
    """A feature store that cannot be used."""


class StoreDamagedError(StoreError):
    """A feature store whose file is truncated, overwritten or damaged.

    Parameters
    ----------
    path : Path
        The store.
    damage : str
        What is wrong with it, a clause.
    """

    def __init__(self, path: Path, damage: str) -> None:
        self.damage = damage
        super().__init__(
            f"The feature store {path} is damaged: {damage}. Run featurepipe extract again (for a "
            "pixel cache, featurepipe train): it keeps the sound rows and computes the others."
        )


class StoreMismatchError(StoreError):
    """A feature store that was made with other options."""


class FitError(FeaturepipeError):
    """A head that cannot be fitted."""


class NotLinearError(FeaturepipeError):
    """A score that is no linear function of what it is computed from; the text is a clause."""


class RunError(FeaturepipeError):
    """A saved run that cannot be used."""


class ExportError(FeaturepipeError):
    """An exported model does not answer as it should."""


class WorkspaceError(FeaturepipeError):
    """A workspace that cannot be used."""


class ClusterError(FeaturepipeError):
    """A cluster cannot be used: not reachable, of other versions, or without access to files."""


class NotReadableError(FeaturepipeError):
    """A file that may not be read. It need not be damaged."""


class WriteError(FeaturepipeError):
    """A file that cannot be written."""


class LockedError(WriteError):
    """A file or folder that another process is writing to."""


class NotWritableError(WriteError):
    """A file or folder that may not be written to."""


class DiskFullError(WriteError):
    """No room left to write; what was complete before is kept."""
