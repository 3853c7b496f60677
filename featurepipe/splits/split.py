"""A named division of images into training, test and unseen rows, and its file."""

import itertools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurepipe.splits.divisible import Images
from featurepipe.splits.split_file import PARTS, SplitFile, read_split_file
from featurepipe.splits.split_settings import GIVEN, MAX_NAME, SplitSettings, split_name


@dataclass(frozen=True, eq=False)
class Split:
    """A named division of images.

    Attributes
    ----------
    name : str
        Safe as a file's name.
    settings : SplitSettings
        What it was made by.
    repeat : int
        Which of the settings' repeats it is, from 0.
    ids : ndarray of shape (n_images,), str objects, sorted
    parts : ndarray of shape (n_images,), str objects
        ``"train"``, ``"test"`` or ``"unseen"``.
    groups : ndarray of shape (n_images,), int64
        Images of one number belong together.
    left_out : tuple of str
        Ids of images that could be on no side without a leak; `findings` says why.
    findings : tuple of str
        What a person must know.
    number : int
        Order of creation in a workspace, from 0.
    """

    name: str
    settings: SplitSettings
    repeat: int
    ids: NDArray[np.object_]
    parts: NDArray[np.object_]
    groups: NDArray[np.int64]
    left_out: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    number: int = 0

    @property
    def series(self) -> str:
        """Name of the splits that belong together: those of one `series_settings`."""
        settings = self.series_settings
        return self.name if settings is None else split_name(settings, repeat=0)

    @property
    def series_settings(self) -> SplitSettings | None:
        """The settings that the splits of a series have in common.

        All repeats of one split share them, however many were requested, and all splits
        that hold out one combination each and are made alike otherwise. None for a split
        that came with the images, which belongs to no series.
        """
        if self.name.startswith(GIVEN):
            return None
        if len(self.settings.hold_out) == 1 and self.settings.repeats == 1:
            return replace(self.settings, hold_out=("each",))
        return replace(self.settings, repeats=1)

    def rows(self, part: str) -> NDArray[np.intp]:
        """Positions in `ids` of one part's images.

        Parameters
        ----------
        part : {"train", "test", "unseen"}

        Returns
        -------
        ndarray of shape (n_images_of_part,), intp
        """
        return np.flatnonzero(self.parts == part)

    @property
    def ids_divided(self) -> set[str]:
        """Ids of all images that it was made for, those left out included."""
        return {*self.ids, *self.left_out}

    def counts(self) -> dict[str, int]:
        """Number of images of each part."""
        return {part: len(self.rows(part)) for part in PARTS}

    def covers(self, ids: Iterable[str]) -> bool:
        """Whether it was made for exactly these images.

        Parameters
        ----------
        ids : iterable of str
            Ids of labelled and readable images, as `divisible_ids` gives them.
        """
        return set(ids) == self.ids_divided

    def divides_like(self, other: "Split") -> bool:
        """Whether both divide the same images in the same way, whatever their names."""
        return (
            np.array_equal(self.ids, other.ids)
            and np.array_equal(self.parts, other.parts)
            and np.array_equal(self.groups, other.groups)
        )

    def registered(self, number: int, taken: Collection[str]) -> "Split":
        """The same split with its place in a workspace.

        Parameters
        ----------
        number : int
            Order of creation.
        taken : collection of str
            Names that other splits have; if its own is among them, it is numbered.
        """
        # Some file systems do not tell upper from lower case.
        known = {name.lower() for name in taken}
        ends = itertools.chain([""], (f"-{count}" for count in itertools.count(2)))
        names = (f"{self.name[: MAX_NAME - len(end)]}{end}" for end in ends)
        return replace(
            self, number=number, name=next(name for name in names if name.lower() not in known)
        )

    def save(self, path: Path | str) -> None:
        """Write the split as one JSON file, whole or not at all."""
        SplitFile(
            name=self.name,
            number=self.number,
            settings=self.settings,
            repeat=self.repeat,
            findings=self.findings,
            left_out=self.left_out,
            group_of_image={
                part: {self.ids[row]: int(self.groups[row]) for row in self.rows(part)}
                for part in PARTS
            },
        ).save(Path(path))

    @classmethod
    def load(cls, path: Path | str) -> "Split":
        """Read a saved split.

        Raises
        ------
        SplitError
            If the file is missing, damaged or something else, or was edited.
        """
        kept = read_split_file(Path(path))
        rows = [
            (image_id, part, group)
            for part, images in kept.group_of_image.items()
            for image_id, group in images.items()
        ]
        ids, parts, groups = zip(*sorted(rows), strict=True)
        return cls(
            name=kept.name,
            settings=kept.settings,
            repeat=kept.repeat,
            ids=np.array(ids, dtype=object),
            parts=np.array(parts, dtype=object),
            groups=np.array(groups, dtype=np.int64),
            left_out=kept.left_out,
            findings=kept.findings,
            number=kept.number,
        )


def new_split(
    images: Images,
    parts: NDArray[np.object_],
    left_out: NDArray[np.bool_],
    name: str,
    settings: SplitSettings,
    repeat: int,
    findings: Sequence[str],
) -> Split:
    """A split of images, those that are left out named beside it.

    Parameters
    ----------
    images : Images
    parts : ndarray of shape (n_images,), str objects
        Of all images; those of images that are left out mean nothing.
    left_out : ndarray of shape (n_images,), bool
    name : str
    settings : SplitSettings
    repeat : int
    findings : sequence of str
    """
    kept = images.take(np.flatnonzero(~left_out))
    return Split(
        name=name,
        settings=settings,
        repeat=repeat,
        ids=kept.ids,
        parts=parts[~left_out],
        groups=kept.groups,
        left_out=tuple(images.ids[left_out]),
        findings=tuple(findings),
    )
