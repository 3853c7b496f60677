"""Kinds of images: what their labels depend on, without all of their ids."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, compress, islice

from featurepipe.image_types import suffix_of
from featurepipe.manifest.cells import Columns

N_FIRST = 4
"""How many first ids a message needs: it names three, and says if there are more."""


@dataclass(frozen=True)
class Kinds:
    """Images by kind: whatever gives the labels, the images of a kind have the same.

    Without a label table, images of one folder and type are of one kind. With a label table, each
    image is a kind of its own.

    Attributes
    ----------
    folders : sequence of str
        POSIX path of the folder that the images of each kind lie in; empty for the root.
    counts : sequence of int
        Number of images of each kind.
    ids : sequence of str, sorted
        Image ids: all of them, or at least the `N_FIRST` first ones of each kind.
    kind_of : sequence of int
        The kind of each of `ids`.
    """

    folders: Sequence[str]
    counts: Sequence[int]
    ids: Sequence[str]
    kind_of: Sequence[int]

    @classmethod
    def of(cls, ids: Sequence[str], columns: Columns) -> "Kinds":
        """The kinds of images that are all in memory.

        Parameters
        ----------
        ids : sequence of str
            Image ids, sorted.
        columns : dict of str to list of (tuple of str or None)
            Columns of a table, in the order of `ids`; may be empty.
        """
        if columns:
            # There are far fewer folders than images.
            known: dict[str, str] = {}
            folders = (image_id.rpartition("/")[0] for image_id in ids)
            shared = [known.setdefault(folder, folder) for folder in folders]
            return cls(shared, [1] * len(ids), ids, range(len(ids)))
        counter = KindCounter()
        kind_of = [counter.add(image_id) for image_id in ids]
        return counter.kinds(ids, kind_of)

    @property
    def n_images(self) -> int:
        """Number of all images."""
        return sum(self.counts)

    def first_ids(self, is_chosen: Sequence[bool]) -> list[str]:
        """The `N_FIRST` first ids of the images of some kinds.

        Parameters
        ----------
        is_chosen : sequence of bool
            Whether each kind is one of them.
        """
        images = zip(self.ids, self.kind_of, strict=True)
        return list(islice((image_id for image_id, kind in images if is_chosen[kind]), N_FIRST))

    def suffixes(self, chosen: Iterable[int]) -> Counter[str]:
        """How many images of some kinds have which suffix.

        Parameters
        ----------
        chosen : iterable of int
            The kinds; if they are sorted, suffixes come in the order of their first ids.
        """
        found: Counter[str] = Counter()
        for kind in chosen:
            found[suffix_of(self.firsts[kind])] += self.counts[kind]
        return found

    @cached_property
    def firsts(self) -> dict[int, str]:
        """The first id of each kind."""
        backwards = zip(reversed(self.kind_of), reversed(self.ids), strict=True)
        return dict(backwards)

    def only(self, is_chosen: Sequence[bool]) -> "Kinds":
        """Some of the kinds.

        Parameters
        ----------
        is_chosen : sequence of bool
            Whether each kind is one of them.
        """
        if all(is_chosen):
            return self
        number_of = [number - 1 for number in accumulate(map(int, is_chosen))]
        images = [
            (image_id, number_of[kind])
            for image_id, kind in zip(self.ids, self.kind_of, strict=True)
            if is_chosen[kind]
        ]
        return Kinds(
            list(compress(self.folders, is_chosen)),
            list(compress(self.counts, is_chosen)),
            [image_id for image_id, _ in images],
            [kind for _, kind in images],
        )


class KindCounter:
    """Counts images by folder and suffix, one after the other.

    Attributes
    ----------
    counts : list of int
        Number of images of each kind so far.
    """

    def __init__(self) -> None:
        self.counts: list[int] = []
        self._folders: list[str] = []
        # Of each suffix, by folder.
        self._kinds: dict[str, dict[str, int]] = {}

    def add(self, image_id: str) -> int:
        """Count an image.

        Parameters
        ----------
        image_id : str

        Returns
        -------
        int
            Its kind.
        """
        folder, _, file = image_id.rpartition("/")
        _, dot, suffix = file.rpartition(".")
        of_suffix = self._kinds.setdefault(suffix if dot else "", {})
        kind = of_suffix.get(folder)
        if kind is None:
            kind = of_suffix[folder] = len(self.counts)
            self.counts.append(0)
            self._folders.append(folder)
        self.counts[kind] += 1
        return kind

    def kinds(self, ids: Sequence[str], kind_of: Sequence[int]) -> Kinds:
        """The images counted so far.

        Parameters
        ----------
        ids, kind_of
            As in `Kinds`.
        """
        return Kinds(self._folders, self.counts, ids, kind_of)
