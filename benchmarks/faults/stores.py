"""What a store holds at one moment, and what it should hold."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featurepipe.errors import ImageError
from featurepipe.features.extraction.decoding import decode_image
from featurepipe.features.extraction.recipe import make_recipe
from featurepipe.features.extraction.views import find_view
from featurepipe.features.store import FeatureStore

VIEWS = ("rgb", "grey")

DoneRows = dict[str, tuple[bytes, bytes]]
"""Digest and features of some rows, by image id."""


@dataclass(frozen=True)
class Snapshot:
    """What a store holds at one moment: sound rows, refused images and damaged rows."""

    done: DoneRows
    refused: dict[str, str]
    n_images: int
    damaged: list[str]

    @classmethod
    def of(cls, path: Path) -> "Snapshot":
        """Read a store and check every checksum."""
        with FeatureStore.open(path) as store:
            # In this order: a row that is done by now already had its digest before.
            ids, damaged, rows = store.ids, store.damaged_rows(), store.rows("done")
            rows = np.setdiff1d(rows, damaged)
            before, features, digests = store.digests, store.features(rows), store.digests
            done = {
                ids[row]: (digests[row].tobytes(), values.tobytes())
                for row, values in zip(rows, features, strict=True)
                # Leave out a row that was replaced in between: its parts may not match.
                if (digests[row] == before[row]).all()
            }
            return cls(done, store.refused(), len(ids), ids[damaged].tolist())


class Truth:
    """The right features of an image's bytes, by view and digest.

    They come from an undisturbed run (`take`), or are computed on their own (`learn`).
    """

    def __init__(self) -> None:
        self._features: dict[tuple[str, bytes], bytes] = {}
        self._recipes = {view: make_recipe("hsv_histogram", view=view) for view in VIEWS}

    def take(self, snapshots: Mapping[str, Snapshot]) -> None:
        """Trust the stores of an undisturbed run."""
        for view, snapshot in snapshots.items():
            self._features |= {(view, digest): row for digest, row in snapshot.done.values()}

    def learn(self, data: bytes) -> None:
        """Compute the features of these bytes, if they can be decoded."""
        digest = hashlib.sha256(data).digest()
        for view, recipe in self._recipes.items():
            if (view, digest) in self._features:
                continue
            try:
                pixels = decode_image(data, recipe.framing.size)
            except ImageError:
                continue
            shown = find_view(view)
            features = shown.merge(recipe.open_engine().embed(shown.apply(pixels[None])))
            self._features[view, digest] = features[0].tobytes()

    def holds(self, view: str, digest: bytes, features: bytes) -> bool:
        """Whether these are the features of the bytes with that digest."""
        return self._features.get((view, digest)) == features


def digest_of(image: Path) -> bytes:
    """SHA-256 of an image's bytes; empty if the image cannot be read."""
    try:
        return hashlib.sha256(image.read_bytes()).digest()
    except OSError:
        return b""
