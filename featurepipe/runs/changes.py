"""What has changed since a run was fitted: its labels, its images and their features."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import FeaturepipeError
from featurepipe.features.cached import CachedFeatures, open_caches
from featurepipe.features.store import StoreKey
from featurepipe.manifest import Labels, Manifest
from featurepipe.provenance import checksum_digest
from featurepipe.runs.fitted_on import kept_checksums, kept_split, split_sha256
from featurepipe.runs.naming import network_digests
from featurepipe.runs.run_folder import Run
from featurepipe.runs.run_info import HeadRunInfo, NetworkRunInfo
from featurepipe.splits import Split, divisible_ids
from featurepipe.words import counted, examples
from featurepipe.workspace import Workspace


@dataclass(frozen=True)
class Present:
    """The labels and images of a workspace as they are now.

    They are those of its manifest and its stores: the images themselves need not be there. What
    a store that is gone would tell counts as unchanged.

    Attributes
    ----------
    workspace : Workspace
    manifest : Manifest
    """

    workspace: Workspace
    manifest: Manifest
    _splits: dict[str, Split | None] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, workspace: Workspace) -> "Present":
        """What a workspace holds now.

        Parameters
        ----------
        workspace : Workspace

        Raises
        ------
        ManifestError
            If its manifest is missing or damaged.
        """
        return cls(workspace, Manifest.load(workspace.manifest))

    @classmethod
    def if_known(cls, workspace: Workspace) -> "Present | None":
        """The same, or None without a manifest that can be read.

        Parameters
        ----------
        workspace : Workspace
        """
        with suppress(FeaturepipeError):
            return cls.of(workspace)
        return None

    def changes(self, run: Run) -> list[str]:
        """What differs from the labels and images that a run was fitted on, in words.

        Parameters
        ----------
        run : Run

        Returns
        -------
        list of str
            Empty if its images are all there, and they, their labels and the classes are the
            same. Images that were added to known classes change nothing of a run; see `added`.
        """
        images = self._images(run)
        row_of = {image: row for row, image in enumerate(self.manifest.ids)}
        gone = [image for image in images if image not in row_of]
        said = [f"{some(gone)}, no longer in the manifest"] if gone else []
        said += changed_labels(run, self._labels, row_of)
        # Of a million images, it takes 70 MB.
        del row_of
        if not said and self._has_other_training_labels(run):
            said.append("labels of training images changed")
        return [*said, *self._changed_images(run, images)]

    def added(self, run: Run) -> list[str]:
        """Labelled images with features that a run was fitted without.

        Parameters
        ----------
        run : Run

        Returns
        -------
        list of str
            Their ids, sorted; without those that its split leaves out.
        """
        split = self._split(run)
        if split is None and isinstance(run.info, NetworkRunInfo):
            return []
        left_out = () if split is None else split.left_out
        return sorted(self._usable.difference(self._images(run), left_out))

    @cached_property
    def _labels(self) -> dict[str, Labels]:
        return self.manifest.labels()

    @cached_property
    def _caches(self) -> list[CachedFeatures]:
        caches = []
        for path in (*self.workspace.stores(), *self.workspace.pixel_caches()):
            # Neither a damaged store nor one that is being written hinders a run.
            with suppress(FeaturepipeError, OSError):
                caches += open_caches([path], self.manifest.ids.tolist())
        return caches

    @cached_property
    def _usable(self) -> set[str]:
        ids = self.manifest.ids
        readable = [ids[cache.images.places(ids) >= 0] for cache in self._caches]
        return set(divisible_ids(self.manifest, set[str]().union(*readable)))

    def _split(self, run: Run) -> Split | None:
        """The split by which a run was fitted; None if it is gone or another one."""
        facts = run.info.split
        if facts.sha256 not in self._splits:
            self._splits[facts.sha256] = None
            with suppress(FeaturepipeError):
                split = Split.load(self.workspace.split(facts.name))
                if split_sha256(split) == facts.sha256:
                    self._splits[facts.sha256] = split
        return self._splits[facts.sha256]

    def _images(self, run: Run) -> list[str]:
        """Ids of the images that a run was fitted and tested on, sorted as in its split.

        Of the training images, a network keeps only those of its validation set.
        """
        if isinstance(run.info, NetworkRunInfo) and (split := self._split(run)) is not None:
            return split.ids.tolist()
        return sorted([*run.selection.ids.tolist(), *run.predictions.ids.tolist()])

    def _has_other_training_labels(self, run: Run) -> bool:
        """Whether a network was trained on other labels, as its digest tells."""
        info = run.info
        if not isinstance(info, NetworkRunInfo) or (split := self._split(run)) is None:
            return False
        manifest = replace(self.manifest, attribute_names=info.attributes)
        return network_digests(info, split, manifest).run != info.digest

    def _changed_images(self, run: Run, images: Sequence[str]) -> Iterator[str]:
        if isinstance(run.info, NetworkRunInfo) and self._split(run) is None:
            return
        ids = np.array(images, dtype=object)
        for recipe, digest in _inputs(run):
            cache = next((cache for cache in self._caches if cache.key == recipe), None)
            if cache is None:
                continue
            if missing := cache.missing(ids):
                yield f"no features any more: {some(missing)}"
                return
            if checksum_digest(cache.checksums(ids)) != digest:
                changed = _differing(run, recipe, cache)
                yield f"features changed: {some(changed) if changed else 'of some images'}"
                return


def changed_labels(
    run: Run, labels: Mapping[str, Labels], row_of: Mapping[str, int]
) -> Iterator[str]:
    """How labels differ from those that a run was fitted on, in words.

    Parameters
    ----------
    run : Run
    labels : mapping of str to Labels
        The present ones of all images, by attribute.
    row_of : mapping of str to int
        Rows in `labels` by image id; images that are gone play no role.

    Yields
    ------
    str
    """
    kept = run.info.attributes
    if set(labels) != set(kept):
        yield f"the attributes are now {', '.join(labels)} instead of {', '.join(kept)}"
        return
    for name in kept:
        now, changed = labels[name], list[str]()
        for predictions in (run.selection, run.predictions):
            then, ids = predictions.labels[name], predictions.ids
            rows = np.array([row_of.get(image, -1) for image in ids.tolist()], np.intp)
            differ = _differ(then.take(rows >= 0), now.take(rows[rows >= 0]))
            changed += ids[rows >= 0][differ].tolist()
        if now.classes != then.classes:
            yield f"the classes of {name!r} have changed ({_renamed(then.classes, now.classes)})"
        if now.exclusive != then.exclusive:
            kind = "only one label" if now.exclusive else "sets of labels"
            yield f"images now have {kind} of {name!r}"
        if changed:
            yield f"labels of {name!r} changed: {some(changed)}"


def _inputs(run: Run) -> list[tuple[StoreKey, str]]:
    """What a run read or tried: the key of each store, and the digest of its images' rows."""
    if isinstance(run.info, HeadRunInfo):
        return [(store.recipe, store.features_sha256) for store in run.info.stores]
    return [(run.info.pixels.recipe, run.info.pixels.sha256)]


def _differing(run: Run, recipe: StoreKey, cache: CachedFeatures) -> list[str]:
    """The images whose rows have changed; empty if the run does not tell which."""
    if not isinstance(run.info, HeadRunInfo):
        return []
    name = next(store.name for store in run.info.stores if store.recipe == recipe)
    with suppress(FeaturepipeError):
        split = kept_split(run)
        same = cache.checksums(split.ids) == kept_checksums(run, split)[name].to_numpy()
        return split.ids[~same].tolist()
    return []


def _differ(then: Labels, now: Labels) -> NDArray[np.bool_]:
    classes = sorted({*then.classes, *now.classes})
    differ = (_columns(then, classes) != _columns(now, classes)).any(axis=1)
    return differ | (then.labelled != now.labelled)


def _columns(labels: Labels, classes: Sequence[str]) -> NDArray[np.bool_]:
    """`indicator` with a column for each of these classes."""
    columns = np.zeros((len(labels), len(classes)), dtype=bool)
    columns[:, [classes.index(name) for name in labels.classes]] = labels.indicator
    return columns


def _renamed(then: Sequence[str], now: Sequence[str]) -> str:
    gone = [name for name in then if name not in now]
    new = [name for name in now if name not in then]
    parts = (
        f"{what}: {examples(names)}" for what, names in (("gone", gone), ("new", new)) if names
    )
    return "; ".join(parts)


def some(images: Sequence[str]) -> str:
    """How many images there are, and the first of them.

    Parameters
    ----------
    images : sequence of str
        At least one.
    """
    return f"{counted(images, 'image')}, such as {images[0]!r}"
