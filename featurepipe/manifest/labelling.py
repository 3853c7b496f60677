"""How labels are made of table columns or folder names, and what is asked of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from featurepipe.errors import UsageError
from featurepipe.manifest.parts import SPLIT_COLUMN


@dataclass(frozen=True)
class Labelling:
    """How to make labels from table columns or folder names.

    Attributes
    ----------
    attributes : tuple of str
        Names of the attributes; empty for all.
    group : str or None
        Column whose values name images that belong together, such as a patient.
    label_separator : str
        Separator between labels in one cell; empty for one label a cell.
    min_per_class : int
        Classes of fewer images are left out.
    """

    attributes: tuple[str, ...] = ()
    group: str | None = None
    label_separator: str = "|"
    min_per_class: int = 1

    def __post_init__(self) -> None:
        names = [*self.attributes, *([] if self.group is None else [self.group])]
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            group = "" if self.group is None else f" and --group {self.group}"
            raise UsageError(
                f"{repeated[0]!r} appears twice in --attributes {','.join(self.attributes)}{group}."
                " Name each column once."
            )
        if SPLIT_COLUMN in names:
            raise UsageError(
                f"{SPLIT_COLUMN!r} cannot be an attribute or a group: that column defines "
                "the train/test split. Rename the column."
            )
        if self.min_per_class < 1:
            raise UsageError(
                f"The least number of images of a class is {self.min_per_class}. Set at least 1."
            )


@dataclass(frozen=True)
class Relabelling:
    """What a person asks of the labels; None, or no attributes: what the manifest remembers.

    Attributes
    ----------
    attributes, labels, group, label_separator, min_per_class
        As in `featurepipe.manifest.Manifest.relabelled`.
    """

    attributes: Sequence[str]
    labels: Path | str | None
    group: str | None
    label_separator: str | None
    min_per_class: int | None
