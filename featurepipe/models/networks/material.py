"""Material: the images, labels and validation images that a network is trained on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import FitError
from featurepipe.features.extraction.pixel_cache import PixelCache
from featurepipe.features.headless import HeadlessNetwork
from featurepipe.manifest import Labels, Manifest
from featurepipe.models.answers.questions import Question, make_questions
from featurepipe.models.networks.network_settings import NetworkSettings
from featurepipe.models.networks.outputs import Output, Targets, make_outputs, make_targets
from featurepipe.models.networks.validation_split import draw_validation
from featurepipe.provenance import checksum_digest
from featurepipe.splits import Split

Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Dataset:
    """Images on which a network is trained or evaluated.

    Attributes
    ----------
    load : callable
        Maps positions of images to pixels of shape (n, height, width, 3), uint8.
    targets : Targets
    features : ndarray of shape (n_images, n_features), float32, or None
        Features of the frozen backbone, where they are known.
    """

    load: Callable[[Indices], NDArray[np.uint8]]
    targets: Targets
    features: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Material:
    """All that one training needs, by one split.

    Create it with `Material.of`.

    Attributes
    ----------
    manifest : Manifest
    pixels : PixelCache
    split : Split
    settings : NetworkSettings
    headless : HeadlessNetwork or None
        The pretrained backbone; None: training starts from random weights.
    labels : dict of str to Labels
        Labels of the training images, including the validation images.
    targets : Targets
        Targets of the same images.
    questions : list of Question
        Questions about the same images; their columns are not known before the network is built.
    validation : ndarray of shape (n_validation,), intp
        Positions of the validation images among the training images.
    outputs : list of Output
    """

    manifest: Manifest
    pixels: PixelCache
    split: Split
    settings: NetworkSettings
    headless: HeadlessNetwork | None
    labels: dict[str, Labels]
    targets: Targets
    questions: list[Question]
    validation: Indices
    outputs: list[Output]

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        pixels: PixelCache,
        split: Split,
        settings: NetworkSettings,
        headless: HeadlessNetwork | None,
    ) -> "Material":
        """Look up the labels of a split, and draw the validation images.

        Raises
        ------
        FitError
            If an image of the split has no pixels, an attribute cannot be learnt from these
            images, or no validation images can be drawn.
        """
        missing = [image_id for image_id in split.ids if image_id not in pixels.row_of]
        if missing:
            raise FitError(
                f"{len(missing)} of {len(split.ids)} images of the split {split.name} can no "
                f"longer be read, such as {missing[0]!r}. Restore them, or make another split with "
                "--seed."
            )
        train = split.rows("train")
        labels, groups = manifest.labels(split.ids[train]), split.groups[train]
        questions = make_questions(
            labels, settings.task, dict.fromkeys(labels, ()), groups
        ).questions
        targets = make_targets(labels, settings)
        return cls(
            manifest=manifest,
            pixels=pixels,
            split=split,
            settings=settings,
            headless=headless,
            labels=labels,
            targets=targets,
            questions=questions,
            validation=draw_validation(labels, targets, groups, settings.seed),
            outputs=make_outputs(labels, settings),
        )

    @cached_property
    def pixels_sha256(self) -> str:
        """SHA-256 over the checksums of the pixels of all images of the split."""
        return checksum_digest(self.pixels.checksums(self.split.ids))

    @property
    def train(self) -> Indices:
        """Positions of the training images in the split."""
        return self.split.rows("train")

    @property
    def train_ids(self) -> NDArray[np.object_]:
        """Ids of the training images."""
        return self.split.ids[self.train]

    @property
    def groups(self) -> Indices:
        """Groups of the training images."""
        return self.split.groups[self.train]

    @property
    def fitted(self) -> Indices:
        """Positions, among the training images, of those that weights are learnt from."""
        return np.setdiff1d(np.arange(len(self.train)), self.validation)

    def dataset(self, images: Indices, features: NDArray[np.float32] | None) -> Dataset:
        """Some of the training images, as the training loop takes them.

        Parameters
        ----------
        images : ndarray of shape (n_images,), intp
            Positions among the training images.
        features : ndarray of shape (n_train, n_features), float32, or None
            Features of all training images.
        """
        ids = self.train_ids[images]
        return Dataset(
            lambda positions: self.pixels.read(ids[positions]),
            self.targets.take(images),
            None if features is None else features[images],
        )
